"""What all picture classifiers share: one picture at a time, and the mean of their logits."""

from __future__ import annotations

from torch import Tensor, nn

from models.layers import encode_existing, masked_mean
from models.registry import EmotionModel


class PictureModel(EmotionModel):
    """A subclass sets `width` and `classifier`, and gives `encode_pictures`.

    A clip's logits are the mean over its pictures: zero, so no class before another, where no
    picture exists.
    """

    inputs = ("face",)
    head = ("classifier",)
    single_pictures = True
    can_branch = True
    classifier: nn.Module

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, width)."""
        raise NotImplementedError

    def sequence(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, 3, H, W), (B, T) bool -> (B, width, T), zero where the mask is false."""
        return encode_existing(self.encode_pictures, x, mask, self.width)

    def forward(self, face: Tensor, face_mask: Tensor | None = None) -> dict[str, Tensor]:
        """(B, T, 3, H, W), (B, T) bool -> {"logits": (B, C)}; `width` features where C is 0."""
        features = self.sequence(face, face_mask).transpose(1, 2)  # (B, T, width)
        logits = self.classifier(features).transpose(1, 2)
        return {"logits": masked_mean(logits, face_mask)}
