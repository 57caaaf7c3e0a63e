"""EfficientFace: one face picture to logits, 1.28 M parameters.

Source: Zhao, Liu and Zhou, Robust Lightweight Facial Expression Recognition Network with Label
Distribution Training, AAAI 2021. A ShuffleNet V2 trunk whose second stage is joined by a local
extractor (four quarters of the picture, each with its own depthwise filters) and gated by a
channel-spatial modulator. The published 224-pixel model cuts quarters of 28; here they are halves
of the feature map, so any side divisible by 16 works. Parameter names are those of the authors'
checkpoint. Code: ours.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from models.layers import encode_existing, masked_mean
from models.registry import EmotionModel, register_model

REPEATS = (4, 8, 4)
WIDTHS = (29, 116, 232, 464, 1024)
FEATURES = WIDTHS[-1]


def _depthwise(in_width: int, out_width: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(in_width, out_width, 3, stride, 1, groups=in_width, bias=False)


def _pointwise(in_width: int, out_width: int) -> list[nn.Module]:
    return [
        nn.Conv2d(in_width, out_width, 1, bias=False),
        nn.BatchNorm2d(out_width),
        nn.ReLU(inplace=True),
    ]


class _ShuffleUnit(nn.Module):
    """ShuffleNet V2 unit: half of the channels pass, half are convolved, then both are mixed."""

    def __init__(self, in_width: int, out_width: int, stride: int) -> None:
        super().__init__()
        half = out_width // 2
        self.stride = stride
        if stride > 1:
            self.branch1 = nn.Sequential(
                _depthwise(in_width, in_width, stride),
                nn.BatchNorm2d(in_width),
                *_pointwise(in_width, half),
            )
        self.branch2 = nn.Sequential(
            *_pointwise(in_width if stride > 1 else half, half),
            _depthwise(half, half, stride),
            nn.BatchNorm2d(half),
            *_pointwise(half, half),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            left, right = self.branch1(x), self.branch2(x)
        else:
            left, passed = x.chunk(2, dim=1)
            right = self.branch2(passed)
        return nn.functional.channel_shuffle(torch.cat([left, right], dim=1), 2)


class _LocalExtractor(nn.Module):
    """Each quarter of the picture through depthwise filters of its own, halved in size."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        for quarter in (1, 2, 3, 4):
            setattr(self, f"conv{quarter}_1", _depthwise(in_width, out_width, 2))
            setattr(self, f"bn{quarter}_1", nn.BatchNorm2d(out_width))
            setattr(self, f"conv{quarter}_2", _depthwise(out_width, out_width, 1))
            setattr(self, f"bn{quarter}_2", nn.BatchNorm2d(out_width))

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=3)
        columns = []
        for column, quarters in ((left, (1, 2)), (right, (3, 4))):
            halves = zip(column.chunk(2, dim=2), quarters, strict=True)
            columns.append(torch.cat([self._quarter(part, index) for part, index in halves], dim=2))
        return torch.cat(columns, dim=3)

    def _quarter(self, x: Tensor, quarter: int) -> Tensor:
        for layer in (1, 2):
            conv = getattr(self, f"conv{quarter}_{layer}")
            x = getattr(self, f"bn{quarter}_{layer}")(conv(x)).relu()
        return x


class _ChannelGate(nn.Module):
    def __init__(self, width: int, reduced: int) -> None:
        super().__init__()
        layers = {
            "flatten": nn.Flatten(),
            "gate_c_fc_0": nn.Linear(width, reduced),
            "gate_c_bn_1": nn.BatchNorm1d(reduced),
            "gate_c_relu_1": nn.ReLU(),
            "gate_c_fc_final": nn.Linear(reduced, width),
        }
        self.gate_c = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        return self.gate_c(x.mean(dim=(2, 3)))[:, :, None, None]


class _SpatialGate(nn.Module):
    def __init__(self, width: int, reduced: int, dilation: int = 4) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {
            "gate_s_conv_reduce0": nn.Conv2d(width, reduced, 1),
            "gate_s_bn_reduce0": nn.BatchNorm2d(reduced),
            "gate_s_relu_reduce0": nn.ReLU(),
        }
        for i in range(2):
            layers[f"gate_s_conv_di_{i}"] = nn.Conv2d(
                reduced, reduced, 3, padding=dilation, dilation=dilation
            )
            layers[f"gate_s_bn_di_{i}"] = nn.BatchNorm2d(reduced)
            layers[f"gate_s_relu_di_{i}"] = nn.ReLU()
        layers["gate_s_conv_final"] = nn.Conv2d(reduced, 1, 1)
        self.gate_s = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        return self.gate_s(x)


class _Modulator(nn.Module):
    """Gate each value by the sigmoid of channel gate times spatial gate."""

    def __init__(self, width: int, reduction: int = 16) -> None:
        super().__init__()
        self.channel_att = _ChannelGate(width, width // reduction)
        self.spatial_att = _SpatialGate(width, width // reduction)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.channel_att(x) * self.spatial_att(x)) * x


class EfficientFaceTrunk(EmotionModel):
    """Face pictures to 1024 features each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, WIDTHS[0], 3, 2, 1, bias=False),
            nn.BatchNorm2d(WIDTHS[0]),
            nn.ReLU(inplace=True),
        )
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        stages = []
        for repeats, in_width, out_width in zip(REPEATS, WIDTHS, WIDTHS[1:], strict=False):
            units = [_ShuffleUnit(in_width, out_width, 2)]
            units += [_ShuffleUnit(out_width, out_width, 1) for _ in range(repeats - 1)]
            stages.append(nn.Sequential(*units))
        self.stage2, self.stage3, self.stage4 = stages
        self.local = _LocalExtractor(WIDTHS[0], WIDTHS[1])
        self.modulator = _Modulator(WIDTHS[1])
        self.conv5 = nn.Sequential(*_pointwise(WIDTHS[3], FEATURES))

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 1024). H and W must be divisible by 16."""
        if pictures.shape[-1] % 16 or pictures.shape[-2] % 16:
            height, width = pictures.shape[-2:]
            raise ValueError(
                f"face pictures must be multiples of 16 on a side, not {height}x{width}"
            )
        x = self.maxpool(self.conv1(pictures.contiguous(memory_format=torch.channels_last)))
        x = self.modulator(self.stage2(x)) + self.local(x)
        x = self.conv5(self.stage4(self.stage3(x)))
        return x.mean(dim=(2, 3))

    def encode(self, face: Tensor, face_mask: Tensor | None = None) -> Tensor:
        """(B, T, 3, H, W), (B, T) bool -> (B, 1024, T); zero where the mask is false.

        Pictures that are masked out are not computed and do not touch batch statistics.
        """
        return encode_existing(self.encode_pictures, face, face_mask, FEATURES)


@register_model("efficientface")
class EfficientFace(EfficientFaceTrunk):
    """The published classifier. A window's logits are the mean over its pictures."""

    inputs = ("face",)
    head = ("fc",)
    single_pictures = True
    can_branch = True
    source = "Zhao, Liu and Zhou, AAAI 2021"
    width = FEATURES

    def __init__(self, num_classes: int = 7, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(FEATURES, num_classes) if num_classes else nn.Identity()

    def sequence(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, 3, H, W), (B, T) bool -> (B, 1024, T)."""
        return self.encode(x, mask)

    def forward(self, face: Tensor, face_mask: Tensor | None = None) -> dict[str, Tensor]:
        """(B, T, 3, H, W), (B, T) bool -> {"logits": (B, C)}; 1024 features where C is 0."""
        pooled = masked_mean(self.sequence(face, face_mask), face_mask)
        return {"logits": self.fc(self.dropout(pooled))}
