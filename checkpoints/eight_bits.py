"""Weights stored in 8 bits: whole numbers, and a scale for each output channel of a layer.

A quarter of the size of 32 bits, for files that are passed on. Weights are turned back into 32 bits
where a file is read, so nothing else knows of it, and a network computes as before.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

LEAST_VALUES = 4096  # of a tensor that is worth it; smaller ones are stored in 16 bits
_LARGEST = 127
_SCALE = "::scale"  # no module's name holds a colon


def store_in_eight_bits(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Large weights as int8 with `<name>::scale` (float32, one a channel); others in 16 bits.

    The largest error of a weight is half a step: a 254th of its channel's largest value. Weights
    that are not finite stay as they are, and so does what is no 32-bit number.
    """
    stored: dict[str, Tensor] = {}
    for name, value in weights.items():
        if value.dtype != torch.float32 or not bool(value.isfinite().all()):
            stored[name] = value
        elif value.ndim < 2 or value.numel() < LEAST_VALUES:
            stored[name] = value.half()
        else:
            scale = value.flatten(1).abs().amax(dim=1).clamp(min=1e-12) / _LARGEST
            steps = value / _by_channel(scale, value)
            stored[name] = steps.round().to(torch.int8)
            stored[name + _SCALE] = scale
    return stored


def restore_from_eight_bits(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `store_in_eight_bits` stored, in 32 bits where it was 8; all else unchanged.

    Raises:
        ValueError: a scale that does not belong to its weights.
    """
    restored: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.endswith(_SCALE):
            continue
        scale = weights.get(name + _SCALE)
        if scale is not None:
            if value.ndim < 2 or scale.shape != value.shape[:1]:
                raise ValueError(f"the scale of {name} does not belong to its weights")
            value = value.float() * _by_channel(scale.float(), value)
        restored[name] = value
    return restored


def _by_channel(scale: Tensor, value: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (value.ndim - 1))
