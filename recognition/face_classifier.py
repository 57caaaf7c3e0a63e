"""The face classifier of a late fusion: taken out of it, or replaced in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from checkpoints.checkpoint import Checkpoint, combine_checkpoints, load_checkpoint, reorder_classes


def face_classifier(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint itself, or the face classifier of a late fusion."""
    members: Any = getattr(checkpoint.model, "members", {})
    if "face" not in members:
        return checkpoint
    name = f"face classifier of {checkpoint.source.get('name', 'a late fusion')}"
    return replace(checkpoint.part("face"), source={**checkpoint.source, "name": name})


def replace_face_classifier(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """A late fusion with the face classifier of a file, its classes in the fusion's order.

    Raises:
        ValueError: the checkpoint is no late fusion, or the file no classifier of its classes.
    """
    if checkpoint.model.name != "late_fusion":
        raise ValueError(
            f"--efficientface_path replaces the face classifier of a late fusion, and "
            f"{checkpoint.source['name']} is a {checkpoint.model.name}"
        )
    method = checkpoint.model.arguments["late_method"]
    face = reorder_classes(load_checkpoint(path), checkpoint.class_names)
    others = {name: checkpoint.part(name) for name in checkpoint.model.inputs if name != "face"}
    combined = combine_checkpoints({"face": face, **others}, method)
    name = f"{checkpoint.source['name']} with {path.name}"
    return replace(combined, source={**checkpoint.source, "name": name})
