"""A ResNet-50 whose feature map a small transformer reads: 37 M parameters.

7x7x2048 -> linear 512, 49 positions and a class token -> 4 pre-normalised layers (8 heads, MLP
2048, GELU) -> LayerNorm, dropout 0.4, 256, GELU, dropout 0.3, classes. Source: the hybrid of
Dosovitskiy et al., An image is worth 16x16 words, ICLR 2021; the trunk is torchvision's. Its stem,
layer 1 and layer 2 are frozen where pretrained weights are loaded, unless blocks are named: 35.9 M
are trained then. (The trunk alone has 23.5 M, layers 3 and 4 have 22.1 M, the transformer 12.6 M.)
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
from models.layers import TokenEmbedding, TransformerBlock
from models.picture_model import PictureModel
from models.registry import register_model

HIDDEN = 256
DROPOUTS = (0.1, 0.4, 0.3)  # of the transformer's layers, and of the head's two
GRID = 7  # of a 224-pixel picture; for another side the positions are interpolated


@register_model("resnet_vit_hybrid")
class ResNetViTHybrid(PictureModel):
    """`num_classes` 0 gives the 512 features of the class token.

    `dropout`, where it is given, is that of all layers; else the transformer's have 0.1, and the
    head's 0.4 and 0.3.
    """

    class_token = True
    source = "Dosovitskiy et al., ICLR 2021 (hybrid); He et al., CVPR 2016 (torchvision)"
    clip_defaults = MappingProxyType({"face_size": 224})
    default_trainable = ("layer3", "layer4", "transformer", "head")

    def __init__(self, num_classes: int = 7, dropout: float | None = None) -> None:
        super().__init__()
        inner, first, second = DROPOUTS if dropout is None else (dropout,) * 3
        self.width = 512
        self.backbone = build_resnet("resnet50")
        self.reduce = nn.Conv2d(WIDTHS["resnet50"], self.width, 1)  # a linear layer at each place
        self.tokens = TokenEmbedding(self.width, GRID)
        self.layers = nn.ModuleList(
            TransformerBlock(self.width, num_heads=8, hidden=2048, dropout=inner) for _ in range(4)
        )
        self.norm = nn.LayerNorm(self.width)
        head = nn.Sequential(
            nn.Dropout(first),
            nn.Linear(self.width, HIDDEN),
            nn.GELU(),
            nn.Dropout(second),
            nn.Linear(HIDDEN, num_classes or 1),
        )
        self.classifier = head if num_classes else nn.Identity()

    @property
    def torchvision_weights(self) -> dict[str, str]:
        """Those of the trunk."""
        return {"backbone": TORCHVISION_WEIGHTS["resnet50"]}

    def blocks(self) -> dict[str, nn.Module]:
        """`stem`, `layer1` to `layer4`, `transformer`, `head`."""
        transformer = nn.ModuleList([self.reduce, self.tokens, self.layers, self.norm])
        trunk = backbone_blocks(self.backbone)
        return {**trunk, "transformer": transformer, "head": self.classifier}

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 512)."""
        x = self.tokens(self.reduce(resnet_map(self, self.backbone, pictures)))
        for layer in self.layers:
            x = self.run_block(layer, x)
        return self.norm(x[:, 0])
