"""MobileNet of face pictures, 3.2 M parameters, to start from a face recognition network.

Source: Howard et al., MobileNets: efficient convolutional neural networks for mobile vision
applications, 2017, at width 1, as trained on VGGFace2 by Savchenko, Efficient facial
representations for age, gender and identity recognition, PeerJ Computer Science 2019 (HSE
FaceRes). Batch normalisation is folded into the convolutions, as in the published weights.
"""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor, nn

from models.picture_model import PictureModel
from models.registry import register_model

# Channels that leave each block, and its stride; block 0 is the stem.
WIDTHS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


class _Conv(nn.Conv2d):
    """3x3 convolution that pads as TensorFlow's SAME does: at stride 2, even sides at their end.

    Padding an even side at both ends, as torch does, would move the picture by a pixel.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] == 1:
            return super().forward(x)
        bottom, right = (1 - side % 2 for side in x.shape[-2:])
        padded = nn.functional.pad(x, (1 - right, 1, 1 - bottom, 1))
        return nn.functional.conv2d(padded, self.weight, self.bias, self.stride, 0, 1, self.groups)


def _block(in_width: int, out_width: int, stride: int) -> nn.Sequential:
    """Depthwise 3x3, then pointwise."""
    return nn.Sequential(
        _Conv(in_width, in_width, 3, stride, 1, groups=in_width),
        nn.ReLU6(inplace=True),
        nn.Conv2d(in_width, out_width, 1),
        nn.ReLU6(inplace=True),
    )


@register_model("mobilenet_face")
class MobileNetFace(PictureModel):
    """A classifier of single pictures; `stem` and `block1` to `block13` can be trained by name."""

    source = "Howard et al., 2017; Savchenko, PeerJ Computer Science 2019"
    width = WIDTHS[-1]
    clip_defaults = MappingProxyType({"face_mean": (0.0,) * 3, "face_std": (1.0,) * 3})

    def __init__(self, num_classes: int = 7, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Sequential(_Conv(3, WIDTHS[0], 3, STRIDES[0], 1), nn.ReLU6(inplace=True))
        for index in range(1, len(WIDTHS)):
            block = _block(WIDTHS[index - 1], WIDTHS[index], STRIDES[index])
            setattr(self, f"block{index}", block)
        head = nn.Linear(self.width, num_classes) if num_classes else nn.Identity()
        self.classifier = nn.Sequential(nn.Dropout(dropout), head)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 1024)."""
        x = self.stem(pictures.contiguous(memory_format=torch.channels_last))
        for index in range(1, len(WIDTHS)):
            x = self.run_block(self.get_submodule(f"block{index}"), x)
        return x.mean(dim=(2, 3))
