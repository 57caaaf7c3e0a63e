"""What each modality contributes to the winning class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from checkpoints.checkpoint import Checkpoint

Inputs = Mapping[str, Tensor]


def leave_one_out(
    predict: Callable[[Inputs], np.ndarray], inputs: Inputs, modalities: Sequence[str]
) -> dict[str, np.ndarray]:
    """How much of the winning class's probability goes where one modality is masked.

    Args:
        predict: inputs to (B, C) probabilities.
        inputs: of each modality its tensor and its mask, as a model takes them.

    Returns:
        (B,) for each modality: above 0 where it speaks for the winner, NaN where it was missing.
    """
    whole = predict(inputs)
    winners = whole.argmax(axis=1)[:, None]
    changes = {}
    for name in modalities:
        masked = {part: torch.zeros_like(inputs[part]) for part in (name, f"{name}_mask")}
        change = np.take_along_axis(whole - predict({**inputs, **masked}), winners, axis=1)[:, 0]
        there = inputs[f"{name}_mask"].flatten(1).any(dim=1).cpu().numpy()
        changes[name] = np.where(there, change, np.nan)
    return changes


def fused_modalities(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The modalities whose contributions to the winning class can be compared.

    Raises:
        ValueError: the checkpoint takes one modality, or gives values in place of classes.
    """
    inputs, name = checkpoint.model.inputs, checkpoint.source.get("name", "the checkpoint")
    if len(inputs) < 2:
        raise ValueError(f"--contributions compares modalities, and {name} takes {inputs[0]} alone")
    if checkpoint.task == "regression":
        raise ValueError(
            f"--contributions is of the winning class, and {name} gives values: leave it out"
        )
    return inputs
