"""ResNet-50 and a classifier of one hidden layer: a trunk of 23.5 M parameters, a head of 2.1 M.

Source: He et al., Deep residual learning for image recognition, CVPR 2016; the trunk is
torchvision's, and is pretrained on ImageNet where weights are loaded. Only the head is trained
then, unless blocks are named.
"""

from __future__ import annotations

from types import MappingProxyType

from torch import Tensor, nn

from models.backbones import (
    TORCHVISION_WEIGHTS,
    WIDTHS,
    backbone_blocks,
    build_resnet,
    resnet_map,
)
from models.picture_model import PictureModel
from models.registry import register_model

HIDDEN = 1024


@register_model("resnet50")
class ResNet50(PictureModel):
    """A picture's 2048 features, then dropout, 1024, ReLU, dropout, classes."""

    source = "He et al., CVPR 2016 (torchvision)"
    clip_defaults = MappingProxyType({"face_size": 224})
    default_trainable = ("head",)

    def __init__(self, num_classes: int = 7, dropout: float = 0.5) -> None:
        super().__init__()
        self.width = WIDTHS["resnet50"]
        self.backbone = build_resnet("resnet50")
        head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(self.width, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(HIDDEN, num_classes or 1),
        )
        self.classifier = head if num_classes else nn.Identity()

    @property
    def torchvision_weights(self) -> dict[str, str]:
        """Those of the trunk."""
        return {"backbone": TORCHVISION_WEIGHTS["resnet50"]}

    def blocks(self) -> dict[str, nn.Module]:
        """`stem`, `layer1` to `layer4`, `head`."""
        return {**backbone_blocks(self.backbone), "head": self.classifier}

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 2048)."""
        return resnet_map(self, self.backbone, pictures).mean(dim=(2, 3))
