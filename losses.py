"""Criteria: a model's output dict and targets to named losses, of which `loss` is minimised."""

from __future__ import annotations

from torch import Tensor, nn


class ClassificationLoss(nn.Module):
    """Cross-entropy against class probabilities, with label smoothing."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), not {label_smoothing}")
        self._cross_entropy = nn.CrossEntropyLoss(label_smoothing=label_smoothing)

    def forward(self, output: dict[str, Tensor], target: Tensor) -> dict[str, Tensor]:
        """`logits` (B, C), target (B, C) probabilities -> {"loss": ()}."""
        return {"loss": self._cross_entropy(output["logits"].float(), target)}
