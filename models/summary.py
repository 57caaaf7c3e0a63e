"""One row for each architecture: what it takes, how large it is, and what a clip costs."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from models.registry import (
    EmotionModel,
    accepted_arguments,
    build_model,
    list_models,
    set_trainable,
)
from models.whisper_encoder import MELS

DEFAULT_CLIP = {"pictures": 15, "face_size": 96}  # as `ClipConfig` has them
SPEECH_FRAMES, LANDMARK_STEPS, LANDMARKS = 100, 30, 70  # a second; 68 points, 2 of the head
MESH_STEPS, MESH_VALUES = 10, 55  # a second; 52 blendshapes, 3 angles of the head
MEMBERS = {"face": "face_cnn", "landmarks": "landmark_tcn", "speech": "speech_cnn"}
MEMBERS |= {"blendshapes": "blendshape_tcn"}


def summarise_models() -> list[dict[str, Any]]:
    """A row for each architecture, by name.

    Nothing is computed: the models are built without memory behind their tensors.

    Returns:
        `name`, `inputs` and their `shapes`, `parameters`, `trainable` (with `default_trainable`),
        `flops` (of one clip at its default input, a multiply-accumulate counted as 2), `source`.
    """
    return [_summarise(name) for name in list_models()]


def format_table(rows: list[dict[str, Any]]) -> str:
    """Rows of `summarise_models` as plain text, columns aligned."""
    header = ("name", "input", "parameters", "trainable", "GFLOP", "source")
    cells = [
        (
            row["name"],
            row["shapes"],
            _millions(row["parameters"]),
            _millions(row["trainable"]),
            f"{row['flops'] / 1e9:.2f}",
            row["source"],
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    right = (False, False, True, True, True, False)
    lines = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in (header, *cells)
    ]
    note = "GFLOP: one clip of that input, a multiply-accumulate counted as 2."
    return "\n".join([*lines, note])


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"


def _summarise(name: str) -> dict[str, Any]:
    with torch.device("meta"):
        model = build_model(name, **example_arguments(name)).eval()
        inputs = example_input(model)
        flops = _count_flops(model, inputs)
    set_trainable(model, model.default_trainable)
    parameters = list(model.parameters())
    return {
        "name": name,
        "inputs": model.inputs,
        "shapes": "; ".join(f"{n} {_shape(value)}" for n, value in inputs.items()),
        "parameters": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "flops": flops,
        "source": model.source,
    }


def example_arguments(name: str) -> dict[str, Any]:
    """What `build_model` needs for that architecture: members, for one that combines others."""
    accepted = accepted_arguments(name)
    members = {modality: member for modality, member in MEMBERS.items() if modality in accepted}
    return {modality: {"name": member, "arguments": {}} for modality, member in members.items()}


def example_input(model: EmotionModel) -> dict[str, Tensor]:
    """One clip of zeros, without masks, of the sizes that the architecture takes by default."""
    clip = {**DEFAULT_CLIP, **model.clip_defaults}
    side = clip["face_size"]
    parameters = inspect.signature(type(model)).parameters
    n_mels = parameters["n_mels"].default if "n_mels" in parameters else 64
    by_blocks = clip.get("speech_feature") == "whisper_mel"
    shapes = {
        "face": (1, clip["pictures"], 3, side, side),
        "speech": (1, 1, MELS, SPEECH_FRAMES) if by_blocks else (1, n_mels, SPEECH_FRAMES),
        "landmarks": (1, LANDMARK_STEPS, LANDMARKS, 2),
        "blendshapes": (1, MESH_STEPS, MESH_VALUES),
    }
    return {name: torch.zeros(shapes[name]) for name in model.inputs}


def _count_flops(model: EmotionModel, inputs: dict[str, Tensor]) -> int:
    """Gradients stay on and attention is spelled out: the fused kernels would not be counted."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**inputs)
    return counter.get_total_flops()


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape[1:]))
