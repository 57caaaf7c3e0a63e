"""Landmarks over time: convolutions over 68 points of a face, and over how the head moves.

Of each step the network sees the points, what they are beyond the clip's own median, how they
change from step to step, and the motion of the head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers import AttentivePooling, TemporalBlock, keep
from models.registry import EmotionModel, register_model

POINTS, ROWS = 68, 70  # rows beyond the points: motion of the head
FEATURES = 2 * (3 * POINTS + ROWS - POINTS)
DELTA_GAIN = 10.0  # changes from step to step are that much smaller than the points' spread


@register_model("landmark_tcn")
class LandmarkTCN(EmotionModel):
    """Landmarks to logits: pointwise and strided convolutions, dilated blocks, attentive pooling.

    Args:
        num_classes: classes; 0 gives the pooled features.
        dropout: in every block and before the last layer.
        landmark_width: channels.
    """

    inputs = ("landmarks",)
    head = ("classifier_1",)
    can_branch = True
    source = "this project; pooling: Okabe et al., Interspeech 2018"

    def __init__(
        self, num_classes: int = 7, dropout: float = 0.3, landmark_width: int = 96
    ) -> None:
        super().__init__()
        self.width = self.middle_width = width = landmark_width
        self.entry = nn.Sequential(
            nn.BatchNorm1d(FEATURES),
            nn.Conv1d(FEATURES, width, 1, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self.stride = nn.Sequential(
            nn.Conv1d(width, width, 5, 2, padding=2, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self.body = nn.Sequential(
            *(TemporalBlock(width, dilation, dropout) for dilation in (1, 2, 4))
        )
        self.pool = AttentivePooling(width)
        head = nn.Linear(2 * width, num_classes) if num_classes else nn.Identity()
        self.classifier_1 = nn.Sequential(nn.Dropout(dropout), head)

    def early(self, landmarks: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, S, 70, 2), (B, S) bool -> (B, D, S / 2), (B, S / 2) bool."""
        x = self.entry(describe(landmarks, mask))
        shorter = None if mask is None else mask[:, ::2]
        return self.stride(keep(x, mask)), shorter

    def late(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, D, S / 2) -> (B, D, S / 2), and the mask."""
        x = keep(x, mask)
        for block in self.body:
            x = block(x, mask)
        return x, mask

    def forward(self, landmarks: Tensor, landmarks_mask: Tensor | None = None) -> dict[str, Tensor]:
        """(B, S, 70, 2), (B, S) bool -> {"logits": (B, C)}; 2 D features where C is 0."""
        x, mask = self.late(*self.early(landmarks, landmarks_mask))
        return {"logits": self.classifier_1(self.pool(keep(x, mask), mask))}


def describe(landmarks: Tensor, mask: Tensor | None) -> Tensor:
    """(B, S, 70, 2) -> (B, 412, S): points, less their median over time, their changes, the head.

    Steps that do not exist are zero; the median is over those that do, and a change is from a
    step that does to the next that does.
    """
    points = landmarks[:, :, :POINTS].flatten(2)  # (B, S, 136)
    head = landmarks[:, :, POINTS:].flatten(2)
    if mask is None:
        mask = torch.ones(landmarks.shape[:2], dtype=torch.bool, device=landmarks.device)
    kept = mask.unsqueeze(-1)
    unknown = torch.full_like(points, float("nan"))
    median = torch.where(kept, points, unknown).nanmedian(dim=1, keepdim=True).values
    centred = torch.where(kept, points - median.nan_to_num(), torch.zeros_like(points))
    follows = (mask[:, 1:] & mask[:, :-1]).unsqueeze(-1)
    change = (points[:, 1:] - points[:, :-1]) * DELTA_GAIN
    change = nn.functional.pad(change * follows, (0, 0, 1, 0))
    return (torch.cat([points, centred, change, head], dim=-1) * kept).transpose(1, 2)
