"""Pictures through a CNN and a denoising autoencoder; an LSTM over the bottleneck.

Each picture's features are disturbed in training, squeezed to 128 values, and restored: `forward`
gives `reconstruction` and `reconstruction_target` for a loss beside that of the classes. Sources:
Vincent et al., Stacked denoising autoencoders, JMLR 2010; Donahue et al., Long-term recurrent
convolutional networks, CVPR 2015; Okabe et al., Interspeech 2018 (`attention`); Tran et al.,
Learning spatiotemporal features with 3D convolutional networks, ICCV 2015 (`3dcnn`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.backbones import TORCHVISION_WEIGHTS, WIDTHS, build_resnet, encode_pictures
from models.layers import AttentivePooling, Recurrent, encode_existing, keep, masked_mean
from models.registry import EmotionModel, register_model

ENCODERS = ("custom", "resnet18")
VARIANTS = ("lstm", "attention", "3dcnn")
CHANNELS = (32, 64, 128, 256)
BOTTLENECK, HIDDEN = 128, 128


@register_model("cnn_ae_lstm")
class CNNAutoencoderLSTM(EmotionModel):
    """Encoder, autoencoder, model of time, 128, ReLU, dropout, classes.

    Pictures that do not exist are passed over by the LSTM wherever they stand; to 3D convolutions
    they are the zeros that stand beyond the ends.

    Args:
        num_classes: classes; 0 gives the features before the dense layers.
        backbone: `custom` (four convolutions) or `resnet18`.
        bidirectional: of the LSTM.
        model_variant: `lstm` takes the LSTM's last states, `attention` pools all of its steps by
            learned weights, `3dcnn` convolves space and time together and has no LSTM.
        noise: standard deviation of what is added to the normalised features in training.
        dropout: before the classifier.
    """

    inputs = ("face",)
    head = ("classifier",)
    can_branch = True
    source = "Vincent et al., JMLR 2010; Donahue et al., CVPR 2015; variants of this project"

    def __init__(
        self,
        num_classes: int = 7,
        backbone: str = "custom",
        bidirectional: bool = True,
        model_variant: str = "lstm",
        noise: float = 0.1,
        dropout: float = 0.4,
    ) -> None:
        super().__init__()
        _check(backbone, model_variant)
        self.backbone_name, self.model_variant, self.noise = backbone, model_variant, noise
        features = WIDTHS.get(backbone, CHANNELS[-1])
        if model_variant == "3dcnn":
            self.backbone: nn.Module = _SpaceTimeCNN()
        else:
            self.backbone = build_resnet(backbone) if backbone != "custom" else _PictureCNN()
        self.norm = nn.LayerNorm(features)
        self.squeeze = nn.Sequential(
            nn.Linear(features, 256),
            nn.ReLU(inplace=True),
            nn.Linear(256, BOTTLENECK),
            nn.LayerNorm(BOTTLENECK),
        )
        self.restore = nn.Sequential(
            nn.Linear(BOTTLENECK, 256), nn.ReLU(inplace=True), nn.Linear(256, features)
        )
        self.width = pooled = BOTTLENECK
        if model_variant != "3dcnn":
            self.lstm = Recurrent("lstm", BOTTLENECK, HIDDEN, bidirectional)
            self.width = pooled = self.lstm.width
        if model_variant == "attention":
            self.pool, pooled = AttentivePooling(self.width), 2 * self.width
        self.classifier = _build_head(pooled, num_classes, dropout)

    @property
    def torchvision_weights(self) -> dict[str, str]:
        """Those of the encoder, where it is torchvision's."""
        weights = TORCHVISION_WEIGHTS.get(self.backbone_name)
        return {"backbone": weights} if weights else {}

    def sequence(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, 3, H, W), (B, T) bool -> (B, width, T), zero where the mask is false."""
        return self._follow(self._code(self._features(x, mask)), mask)[0]

    def forward(self, face: Tensor, face_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Classify and restore.

        Returns:
            `logits` (B, C), or the pooled features where C is 0; `reconstruction` and
            `reconstruction_target` (B, T, D), zero where no picture exists. The target carries no
            gradient: else features that say nothing would be the easiest to restore.
        """
        clean = self._features(face, face_mask)
        code = self._code(clean)
        _, pooled = self._follow(code, face_mask)
        exists = None if face_mask is None else face_mask.unsqueeze(-1)
        target, restored = clean.detach(), self.restore(code)
        if exists is not None:
            target, restored = target * exists, restored * exists
        return {
            "logits": self.classifier(pooled),
            "reconstruction": restored,
            "reconstruction_target": target,
        }

    def _features(self, face: Tensor, mask: Tensor | None) -> Tensor:
        """Normalised features of each picture (B, T, D)."""
        if self.model_variant == "3dcnn":
            features = self.backbone(face, mask)
        else:
            features = encode_existing(self._encode, face, mask, self.norm.normalized_shape[0])
        return self.norm(features.transpose(1, 2))

    def _encode(self, pictures: Tensor) -> Tensor:
        if isinstance(self.backbone, _PictureCNN):
            return self.backbone(pictures)
        return encode_pictures(self, self.backbone, pictures)

    def _code(self, clean: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, 128), of disturbed features in training."""
        disturbed = clean + self.noise * torch.randn_like(clean) if self.training else clean
        return self.squeeze(disturbed)

    def _follow(self, code: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, T, 128) -> each step (B, width, T), and all of them together (B, pooled)."""
        x = keep(code.transpose(1, 2), mask)
        if self.model_variant == "3dcnn":
            return x, masked_mean(x, mask)
        steps, last = self.lstm(x, mask)
        return steps, self.pool(steps, mask) if self.model_variant == "attention" else last


def _check(backbone: str, model_variant: str) -> None:
    if model_variant not in VARIANTS:
        raise ValueError(
            f"unknown model_variant {model_variant!r}; choose from {', '.join(VARIANTS)}"
        )
    if backbone not in ENCODERS:
        raise ValueError(f"unknown backbone {backbone!r}; choose from {', '.join(ENCODERS)}")
    if model_variant == "3dcnn" and backbone != "custom":
        raise ValueError(f"model_variant 3dcnn has an encoder of its own, not {backbone}")


def _build_head(width: int, num_classes: int, dropout: float) -> nn.Module:
    if not num_classes:
        return nn.Identity()
    return nn.Sequential(
        nn.LayerNorm(width),  # an LSTM's fresh states are too small to learn from at once
        nn.Linear(width, 128),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Linear(128, num_classes),
    )


class _PictureCNN(nn.Module):
    """Four strided convolutions and a global mean: (N, 3, H, W) -> (N, 256)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(first, second, 3, 2, 1, bias=False),
                    nn.BatchNorm2d(second),
                    nn.ReLU(inplace=True),
                )
                for first, second in zip((3, *CHANNELS), CHANNELS, strict=False)
            )
        )

    def forward(self, pictures: Tensor) -> Tensor:
        return self.layers(pictures).mean(dim=(2, 3))


class _SpaceTimeCNN(nn.Module):
    """The same over space and time, strided in space alone: (B, T, 3, H, W) -> (B, 256, T)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(first, second, 3, (1, 2, 2), 1, bias=False),
                nn.BatchNorm3d(second),
                nn.ReLU(inplace=True),
            )
            for first, second in zip((3, *CHANNELS), CHANNELS, strict=False)
        )

    def forward(self, face: Tensor, mask: Tensor | None) -> Tensor:
        x = face.transpose(1, 2)
        missing = None if mask is None else ~mask[:, None, :, None, None]
        for layer in self.layers:
            x = layer(x if missing is None else x.masked_fill(missing, 0.0))
        return x.mean(dim=(3, 4))
