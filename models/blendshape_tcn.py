"""Blendshapes over time: a small network for each step, and convolutions over the steps.

What a step shows can be learned from single pictures; what steps show in their order cannot.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers import AttentivePooling, TemporalBlock, keep
from models.registry import EmotionModel, register_model

VALUES = 55  # of a step: 52 blendshapes, and the head's yaw, pitch and roll
KINDS = ("tcn", "mean")


@register_model("blendshape_tcn")
class BlendshapeTCN(EmotionModel):
    """Blendshapes and head pose to logits.

    Args:
        num_classes: classes; 0 gives the pooled features.
        dropout: in every block and before the last layer.
        blendshape_width: channels.
        temporal: `tcn`: dilated convolutions over time and attentive pooling. `mean`: each step is
            classified by itself, and their log-probabilities are averaged; for models trained on
            stills alone, which would take that nothing moves for a sign.
    """

    inputs = ("blendshapes",)
    head = ("classifier_1",)
    can_branch = True
    source = "this project; pooling: Okabe et al., Interspeech 2018"

    def __init__(
        self,
        num_classes: int = 7,
        dropout: float = 0.3,
        blendshape_width: int = 64,
        temporal: str = "tcn",
    ) -> None:
        super().__init__()
        if temporal not in KINDS:
            raise ValueError(
                f"blendshape_tcn has no temporal {temporal!r}; choose from {', '.join(KINDS)}"
            )
        self.temporal = temporal
        self.width = self.middle_width = width = blendshape_width
        self.entry = nn.Sequential(
            nn.BatchNorm1d(VALUES),
            *_pointwise(VALUES, width, dropout),
            *_pointwise(width, width, dropout),
        )
        dilations = (1, 2) if temporal == "tcn" else ()
        self.body = nn.ModuleList(TemporalBlock(width, step, dropout) for step in dilations)
        features = width
        if temporal == "tcn":
            self.pool = AttentivePooling(width)
            features = 2 * width
        last = nn.Linear(features, num_classes) if num_classes else nn.Identity()
        self.classifier_1 = nn.Sequential(nn.Dropout(dropout), last)

    def early(
        self, blendshapes: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """(B, S, 55), (B, S) bool -> (B, D, S), and the mask."""
        x = keep(blendshapes.transpose(1, 2), mask)
        return keep(self.entry(x), mask), mask

    def late(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, D, S) -> (B, D, S), and the mask."""
        x = keep(x, mask)
        for block in self.body:
            x = block(x, mask)
        return x, mask

    def forward(
        self, blendshapes: Tensor, blendshapes_mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        """(B, S, 55), (B, S) bool -> {"logits": (B, C)}; features where C is 0."""
        x, mask = self.late(*self.early(blendshapes, blendshapes_mask))
        if self.temporal == "tcn":
            return {"logits": self.classifier_1(self.pool(keep(x, mask), mask))}
        steps = self.classifier_1(x.transpose(1, 2))  # (B, S, C)
        if isinstance(self.classifier_1[-1], nn.Linear):
            steps = steps.log_softmax(dim=-1)
        return {"logits": _mean_of_steps(steps, mask)}


def _pointwise(inputs: int, width: int, dropout: float) -> list[nn.Module]:
    return [
        nn.Conv1d(inputs, width, 1, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
    ]


def _mean_of_steps(x: Tensor, mask: Tensor | None) -> Tensor:
    """(B, S, C) -> (B, C) over the steps that exist; zero where none does."""
    if mask is None:
        return x.mean(dim=1)
    weight = mask.unsqueeze(-1).to(x.dtype)
    return torch.where(mask.unsqueeze(-1), x, torch.zeros_like(x)).sum(dim=1) / weight.sum(
        dim=1
    ).clamp(min=1)
