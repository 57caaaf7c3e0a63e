"""Any 2D CNN per picture, then a model of time.

Sources: Donahue et al., Long-term recurrent convolutional networks, CVPR 2015 (`lstm`, `gru`);
Vaswani et al., Attention is all you need, NeurIPS 2017 (`attention`); Bai et al., 2018 (`tcn`).
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from models.backbones import (
    TORCHVISION_WEIGHTS,
    WIDTHS,
    backbone_blocks,
    build_backbone,
    encode_pictures,
)
from models.layers import (
    Recurrent,
    TemporalBlock,
    TransformerBlock,
    encode_existing,
    keep,
    masked_mean,
    time_positions,
)
from models.registry import EmotionModel, register_model

TEMPORAL = ("lstm", "gru", "attention", "tcn", "mean")
WIDTH = 256
DILATIONS = (1, 2, 4)


@register_model("cnn_temporal")
class CNNTemporal(EmotionModel):
    """Features of each picture, 256 of them, a model of time, a mean over time, classes.

    Pictures that do not exist are left out: the recurrent ones pass over them, attention does not
    look at them, and to the convolutions they are the zeros that stand beyond the ends.

    Args:
        num_classes: classes; 0 gives 256 features.
        backbone: one of `models.backbones.BACKBONES`.
        temporal: one of `TEMPORAL`; `mean` has no model of time.
        dropout: inside the model of time and before the classifier.
    """

    inputs = ("face",)
    head = ("classifier",)
    can_branch = True
    source = "Donahue et al., CVPR 2015; Bai et al., 2018; Vaswani et al., NeurIPS 2017"

    def __init__(
        self,
        num_classes: int = 7,
        backbone: str = "resnet18",
        temporal: str = "lstm",
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        if temporal not in TEMPORAL:
            raise ValueError(f"unknown temporal {temporal!r}; choose from {', '.join(TEMPORAL)}")
        self.backbone_name = backbone
        self.backbone = build_backbone(backbone)
        self.width = WIDTH
        self.reduce = nn.Conv1d(WIDTHS[backbone], WIDTH, 1)
        self.dropout = nn.Dropout(dropout)
        self.time = _build_time(temporal, dropout)
        self.classifier = nn.Linear(WIDTH, num_classes) if num_classes else nn.Identity()

    @property
    def torchvision_weights(self) -> dict[str, str]:
        """Those of the backbone; none for EfficientFace, whose checkpoint is the project's own."""
        weights = TORCHVISION_WEIGHTS.get(self.backbone_name)
        return {"backbone": weights} if weights else {}

    def blocks(self) -> dict[str, nn.Module]:
        """Those of the backbone (see `backbone_blocks`), `reduce`, `time`, `head`."""
        own = {"reduce": self.reduce, "time": self.time, "head": self.classifier}
        return {**backbone_blocks(self.backbone), **own}

    def sequence(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, 3, H, W), (B, T) bool -> (B, 256, T), zero where the mask is false."""
        encode = partial(encode_pictures, self, self.backbone)
        features = encode_existing(encode, x, mask, self.reduce.in_channels)
        x = keep(self.dropout(self.reduce(features)), mask)
        return keep(self.time(x, mask), mask)

    def forward(self, face: Tensor, face_mask: Tensor | None = None) -> dict[str, Tensor]:
        """(B, T, 3, H, W), (B, T) bool -> {"logits": (B, C)}; 256 features where C is 0."""
        pooled = masked_mean(self.sequence(face, face_mask), face_mask)
        return {"logits": self.classifier(self.dropout(pooled))}


def _build_time(temporal: str, dropout: float) -> nn.Module:
    """A module that takes (B, 256, T) and (B, T) bool to (B, 256, T)."""
    if temporal == "attention":
        return _Attention(dropout)
    if temporal == "tcn":
        return _Convolutions(dropout)
    return _Untimed() if temporal == "mean" else _Recurrence(temporal)


class _Recurrence(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.both = Recurrent(kind, WIDTH, WIDTH // 2)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        steps, _ = self.both(x, mask)
        return steps


class _Attention(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerBlock(WIDTH, num_heads=4, hidden=2 * WIDTH, dropout=dropout)
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x.transpose(1, 2)
        x = x + time_positions(x.shape[1], WIDTH, like=x)
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x).transpose(1, 2)


class _Convolutions(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TemporalBlock(WIDTH, rate, dropout) for rate in DILATIONS)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for layer in self.layers:
            x = layer(x, mask)
        return x


class _Untimed(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return torch.relu(x)
