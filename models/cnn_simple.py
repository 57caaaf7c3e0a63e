"""Four convolutional blocks and global average pooling: 2.1 M parameters.

Source: this project; blocks of two 3x3 convolutions after Simonyan and Zisserman, Very deep
convolutional networks for large-scale image recognition, ICLR 2015, with batch normalisation.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.picture_model import PictureModel
from models.registry import register_model

WIDTHS = (48, 96, 192, 320)


def _block(in_width: int, out_width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for first, second in ((in_width, out_width), (out_width, out_width)):
        layers += [
            nn.Conv2d(first, second, 3, padding=1, bias=False),
            nn.BatchNorm2d(second),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.MaxPool2d(2))


@register_model("cnn_simple")
class CNNSimple(PictureModel):
    """A small CNN, for pictures of 32 pixels and more."""

    source = "this project"

    def __init__(self, num_classes: int = 7, dropout: float = 0.3) -> None:
        super().__init__()
        self.width = WIDTHS[-1]
        self.block1, self.block2, self.block3, self.block4 = (
            _block(first, second) for first, second in zip((3, *WIDTHS), WIDTHS, strict=False)
        )
        head = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.width, num_classes or 1))
        self.classifier = head if num_classes else nn.Identity()

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 320)."""
        x = pictures
        for block in (self.block1, self.block2, self.block3, self.block4):
            x = self.run_block(block, x)
        return x.mean(dim=(2, 3))
