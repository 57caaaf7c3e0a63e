"""How the tensors of a file fit those of a model, by name and shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from system.errors import OptionError


@dataclass(frozen=True)
class KeyReport:
    """How the keys of a file met those of a model (or of the part of it named `prefix`)."""

    prefix: str
    matched: list[str]
    missing: list[str]
    unexpected: list[str]

    def __str__(self) -> str:
        part = f" of {self.prefix.rstrip('.')}" if self.prefix else ""
        return (
            f"{len(self.matched)} tensors matched{part}, {len(self.missing)} missing"
            f"{_some(self.missing)}, {len(self.unexpected)} not used{_some(self.unexpected)}"
        )


def compare_keys(model: nn.Module, weights: Mapping[str, Tensor], prefix: str = "") -> KeyReport:
    """Which tensors of a file fit the part of a model under `prefix`, by name and shape."""
    own = {
        name.removeprefix(prefix): value
        for name, value in model.state_dict().items()
        if name.startswith(prefix)
    }
    matched = [n for n, v in weights.items() if n in own and own[n].shape == v.shape]
    return KeyReport(
        prefix,
        matched,
        missing=sorted(set(own) - set(matched)),
        unexpected=sorted(set(weights) - set(matched)),
    )


def load_strictly(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load weights of which every tensor must fit and be finite.

    Raises:
        ValueError: they do not fit, or are not finite.
    """
    try:
        model.load_state_dict(dict(weights), strict=True)
    except RuntimeError as error:
        report = compare_keys(model, weights)
        raise ValueError(f"{path} does not fit its architecture: {report}") from error
    broken = [n for n, value in model.named_parameters() if not torch.isfinite(value).all()]
    if broken:
        raise OptionError(
            f"{path} holds weights that are not finite (NaN or infinite), in {len(broken)} tensors"
            f"{_some(broken)}: its training diverged; take an earlier checkpoint, or train with a "
            "lower learning rate",
            "learning_rate",
        )


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:4]) + (", …" if len(keys) > 4 else "")
    return f" ({shown})" if keys else ""
