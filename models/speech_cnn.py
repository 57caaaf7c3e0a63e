"""1D convolutions over a spectrogram: ours for log-mel, and the published one for MFCC.

`mfcc_cnn` is the audio branch of Chumachenko et al., ICPR 2022, with its parameter names.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.layers import AttentivePooling, TemporalBlock, keep, masked_mean
from models.registry import EmotionModel, register_model


def _block(in_width: int, out_width: int, stride: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(in_width, out_width, 5, stride, padding=2, bias=False),
        nn.BatchNorm1d(out_width),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
    )


@register_model("speech_cnn")
class SpeechCNN(EmotionModel):
    """Log-mel to logits: strided convolutions, dilated residual blocks, attentive pooling."""

    inputs = ("speech",)
    head = ("classifier_1",)
    can_branch = True
    source = "this project; pooling: Okabe et al., Interspeech 2018"
    middle_width, width = 128, 128

    def __init__(self, num_classes: int = 7, n_mels: int = 64, dropout: float = 0.2) -> None:
        super().__init__()
        self.entry = nn.Sequential(
            _block(n_mels, 96, 1, dropout), _block(96, self.middle_width, 2, dropout)
        )
        self.body = nn.Sequential(
            *(TemporalBlock(self.width, dilation, dropout) for dilation in (1, 2, 4))
        )
        self.pool = AttentivePooling(self.width)
        head = nn.Linear(2 * self.width, num_classes) if num_classes else nn.Identity()
        self.classifier_1 = nn.Sequential(nn.Dropout(dropout), head)

    def early(self, speech: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, n_mels, L), (B, L) bool -> (B, 128, L / 2), (B, L / 2) bool."""
        x = self.entry[0](keep(speech, mask))
        shorter = None if mask is None else mask[:, ::2]
        return self.entry[1](keep(x, mask)), shorter

    def late(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, 128, L / 2) -> (B, 128, L / 2), and the mask."""
        x = keep(x, mask)
        for block in self.body:
            x = block(x, mask)
        return x, mask

    def forward(self, speech: Tensor, speech_mask: Tensor | None = None) -> dict[str, Tensor]:
        """(B, n_mels, L), (B, L) bool -> {"logits": (B, C)}; 256 features where C is 0."""
        x, mask = self.late(*self.early(speech, speech_mask))
        return {"logits": self.classifier_1(self.pool(keep(x, mask), mask))}


def _mfcc_block(in_width: int, out_width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(in_width, out_width, 3),
        nn.BatchNorm1d(out_width),
        nn.ReLU(inplace=True),
        nn.MaxPool1d(2, 1),
    )


@register_model("mfcc_cnn")
class MfccCNN(EmotionModel):
    """The published audio branch: four valid convolutions, each with a maximum over two steps."""

    inputs = ("speech",)
    head = ("classifier_1",)
    can_branch = True
    source = "Chumachenko et al., ICPR 2022"
    middle_width, width = 128, 128

    def __init__(self, num_classes: int = 8, n_mels: int = 10) -> None:
        super().__init__()
        self.conv1d_0 = _mfcc_block(n_mels, 64)
        self.conv1d_1 = _mfcc_block(64, self.middle_width)
        self.conv1d_2 = _mfcc_block(self.middle_width, 256)
        self.conv1d_3 = _mfcc_block(256, self.width)
        head = nn.Linear(self.width, num_classes) if num_classes else nn.Identity()
        self.classifier_1 = nn.Sequential(head)

    def early(self, speech: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, n_mels, L), (B, L) bool -> (B, 128, L - 6), (B, L - 6) bool."""
        return self.conv1d_1(self.conv1d_0(speech)), _shorten(mask)

    def late(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, 128, L) -> (B, 128, L - 6), and the mask."""
        return self.conv1d_3(self.conv1d_2(x)), _shorten(mask)

    def forward(self, speech: Tensor, speech_mask: Tensor | None = None) -> dict[str, Tensor]:
        """(B, n_mels, L), (B, L) bool -> {"logits": (B, C)}; 128 features where C is 0."""
        x, mask = self.late(*self.early(speech, speech_mask))
        return {"logits": self.classifier_1(masked_mean(x, mask))}


def _shorten(mask: Tensor | None) -> Tensor | None:
    """A step of two valid convolutions and maxima needs the six frames after it too."""
    return None if mask is None else mask[:, 6:]
