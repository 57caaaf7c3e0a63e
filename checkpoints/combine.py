"""Checkpoints joined into a late fusion, and what such a model knows of its parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from checkpoints.checkpoint import Checkpoint
from media.configuration import ENTRIES, ClipConfig
from models import build_model
from models.late_fusion import EVIDENCE

PROVENANCE = ("corpora", "licence", "training_speakers")


def combine_checkpoints(parts: Mapping[str, Checkpoint], late_method: str) -> Checkpoint:
    """A late fusion whose members see and hear as each of `parts` was trained, by modality.

    With the rule `evidence` each member keeps its own temperature.

    Raises:
        ValueError: different classes, or windows of different length.
    """
    first = next(iter(parts.values()))
    for modality, part in parts.items():
        name = part.source.get("name", "the checkpoint")
        if part.class_names != first.class_names:
            raise ValueError(
                f"the {modality} classifier knows {', '.join(part.class_names)} and another "
                f"{', '.join(first.class_names)}: they cannot be combined"
            )
        if part.model.inputs != (modality,):
            raise ValueError(f"{name} is a {part.model.name}, not a classifier of {modality} alone")
    model = build_model(
        "late_fusion",
        **{modality: part.architecture for modality, part in parts.items()},
        num_classes=len(first.class_names),
        late_method=late_method,
    )
    for modality, part in parts.items():
        model.parts()[modality].load_state_dict(part.model.state_dict())
    if late_method == EVIDENCE:
        scales = [part.calibration.scale[0] if part.calibration else 1.0 for part in parts.values()]
        model.get_buffer("scale").copy_(torch.tensor(scales))
    config = merge_clip_configs({name: part.clip_config for name, part in parts.items()})
    info = merge_provenance([part.info for part in parts.values()])
    priors = {name: prior for part in parts.values() for name, prior in part.priors.items()}
    return Checkpoint(model.eval(), first.class_names, config, info=info, priors=priors)


def merge_provenance(infos: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What several parts were trained on, together."""
    found = list(infos)
    return {
        name: sorted({value for info in found for value in info.get(name, ())})
        for name in PROVENANCE
    }


def reorder_classes(checkpoint: Checkpoint, class_names: tuple[str, ...]) -> Checkpoint:
    """The same classifier with its classes in another order.

    Raises:
        ValueError: other classes than the checkpoint's, or a model without a linear head.
    """
    if set(checkpoint.class_names) != set(class_names):
        raise ValueError(
            f"{checkpoint.source.get('name', 'the checkpoint')} knows "
            f"{', '.join(checkpoint.class_names)}, not {', '.join(class_names)}"
        )
    order = [checkpoint.class_names.index(name) for name in class_names]
    last = checkpoint.model.last_layer()
    if last is None:
        raise ValueError(f"{checkpoint.model.name} has no linear head to reorder")
    with torch.no_grad():
        last.weight.copy_(last.weight[order])
        last.bias.copy_(last.bias[order])
    return replace(checkpoint, class_names=class_names, calibration=None, conformal=())


def merge_clip_configs(configs: Mapping[str, ClipConfig]) -> ClipConfig:
    """The constants of a model whose parts were trained with `configs`, by modality.

    Raises:
        ValueError: windows of different length.
    """
    lengths = {name: config.window_seconds for name, config in configs.items()}
    if len(set(lengths.values())) > 1:
        told = " and ".join(f"{name} on windows of {value:g} s" for name, value in lengths.items())
        raise ValueError(f"parts were trained otherwise, {told}: train all on the same")
    values: dict[str, Any] = {"window_seconds": next(iter(lengths.values()))}
    for name, config in configs.items():
        entries = (*ENTRIES[name], *(("pictures", "picture_choice") if name == "face" else ()))
        values |= {entry: getattr(config, entry) for entry in entries}
    return replace(ClipConfig(), **values)
