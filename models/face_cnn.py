"""Face pictures over time: EfficientFace per picture, then 1D convolutions.

Source: the visual branch of Chumachenko, Iosifidis and Gabbouj, Self-attention fusion for
audiovisual emotion recognition with incomplete data, ICPR 2022. Parameter names are those of the
checkpoints published with it.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.efficientface import FEATURES, EfficientFaceTrunk
from models.layers import masked_mean
from models.registry import register_model


def _temporal_block(in_width: int, out_width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(in_width, out_width, 3, padding="same"),
        nn.BatchNorm1d(out_width),
        nn.ReLU(inplace=True),
    )


@register_model("face_cnn")
class FaceCNN(EfficientFaceTrunk):
    """A classifier of its own, and the visual branch of `multimodalcnn`."""

    inputs = ("face",)
    head = ("classifier_1",)
    can_branch = True
    source = "Chumachenko et al., ICPR 2022"
    middle_width, width = 64, 128

    def __init__(self, num_classes: int = 7) -> None:
        super().__init__()
        self.conv1d_0 = _temporal_block(FEATURES, self.middle_width)
        self.conv1d_1 = _temporal_block(self.middle_width, self.middle_width)
        self.conv1d_2 = _temporal_block(self.middle_width, self.width)
        self.conv1d_3 = _temporal_block(self.width, self.width)
        head = nn.Linear(self.width, num_classes) if num_classes else nn.Identity()
        self.classifier_1 = nn.Sequential(head)

    def early(self, face: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, T, 3, H, W), (B, T) bool -> (B, 64, T), and the mask."""
        return self._pass(self.encode(face, mask), (self.conv1d_0, self.conv1d_1), mask), mask

    def late(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, 64, T) -> (B, 128, T), and the mask."""
        return self._pass(x, (self.conv1d_2, self.conv1d_3), mask), mask

    @staticmethod
    def _pass(x: Tensor, blocks: tuple[nn.Module, ...], mask: Tensor | None) -> Tensor:
        """Missing steps are zero before each block, so they read as the padding at the ends."""
        for block in blocks:
            x = block(x if mask is None else x * mask.unsqueeze(1))
        return x

    def forward(self, face: Tensor, face_mask: Tensor | None = None) -> dict[str, Tensor]:
        """(B, T, 3, H, W), (B, T) bool -> {"logits": (B, C)}; 128 features where C is 0."""
        x, _ = self.late(*self.early(face, face_mask))
        return {"logits": self.classifier_1(masked_mean(x, face_mask))}
