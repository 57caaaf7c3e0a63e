"""The face classifier of a late fusion: taken out of it, or replaced in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from checkpoints.checkpoint import Checkpoint, load_checkpoint
from checkpoints.combine import combine_checkpoints, reorder_classes
from system.errors import OptionError


def face_classifier(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint itself, or the face classifier of a late fusion."""
    model = checkpoint.model
    if not model.combines_classifiers or "face" not in model.parts():
        return checkpoint
    name = f"face classifier of {checkpoint.source.get('name', 'a late fusion')}"
    return replace(checkpoint.part("face"), source={**checkpoint.source, "name": name})


def replace_face_classifier(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """A late fusion with the face classifier of a file, its classes in the fusion's order.

    Raises:
        ValueError: the checkpoint is no late fusion, or the file no classifier of its classes.
    """
    if checkpoint.model.name != "late_fusion":
        raise OptionError(
            f"only a late fusion's face classifier can be replaced, and "
            f"{checkpoint.source['name']} is a {checkpoint.model.name}",
            "efficientface_path",
        )
    method = checkpoint.model.arguments["late_method"]
    face = reorder_classes(load_checkpoint(path), checkpoint.class_names)
    others = {name: checkpoint.part(name) for name in checkpoint.model.inputs if name != "face"}
    combined = combine_checkpoints({"face": face, **others}, method)
    name = f"{checkpoint.source['name']} with {path.name}"
    return replace(combined, source={**checkpoint.source, "name": name})
