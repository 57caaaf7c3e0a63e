"""Stronger speech encoders: 2D convolutions over the spectrogram, and they beside the 1D ones.

2D filters see the same pattern at any pitch; 1D filters see which bands it is in. Their errors
differ, so the mean of both is better than either.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers import AttentivePooling, keep
from models.registry import EmotionModel, models_of, register_model
from models.speech_cnn import SpeechCNN

WIDTHS = (24, 48, 64, 96)


class _Block2d(nn.Module):
    """A 3 x 3 convolution, halved in mel by a stride; in time too where asked for."""

    def __init__(self, in_width: int, out_width: int, time_stride: int, dropout: float) -> None:
        super().__init__()
        self.time_stride = time_stride
        self.body = nn.Sequential(
            nn.Conv2d(in_width, out_width, 3, (2, time_stride), padding=1, bias=False),
            nn.BatchNorm2d(out_width),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout / 2),
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if mask is not None:
            x = x * mask[:, None, None, :]
            mask = mask[:, :: self.time_stride]
        return self.body(x), mask


@register_model("speech_crnn")
class SpeechCRNN(EmotionModel):
    """Log-mel to logits: 2D convolutions, a bidirectional GRU over time, attentive pooling."""

    inputs = ("speech",)
    head = ("classifier_1",)
    can_branch = True
    source = "this project; form: Choi et al., Convolutional recurrent networks, ICASSP 2017"

    def __init__(
        self,
        num_classes: int = 7,
        n_mels: int = 64,
        dropout: float = 0.2,
        recurrent_width: int = 48,
    ) -> None:
        super().__init__()
        strides = (2, 1, 2, 1)
        widths = (1, *WIDTHS)
        self.blocks2d = nn.ModuleList(
            _Block2d(i, o, s, dropout) for i, o, s in zip(widths, WIDTHS, strides, strict=False)
        )
        self.project = nn.Sequential(
            nn.Conv1d(WIDTHS[-1] * (n_mels // 16), 96, 1, bias=False),
            nn.BatchNorm1d(96),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self.width = self.middle_width = 96
        self.recurrent = None
        if recurrent_width:
            self.recurrent = nn.GRU(96, recurrent_width, batch_first=True, bidirectional=True)
            self.width = self.middle_width = 2 * recurrent_width
        self.pool = AttentivePooling(self.width)
        head = nn.Linear(2 * self.width, num_classes) if num_classes else nn.Identity()
        self.classifier_1 = nn.Sequential(nn.Dropout(dropout), head)

    def early(self, speech: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(B, n_mels, L), (B, L) bool -> (B, D, L / 4), (B, L / 4) bool."""
        x = speech.unsqueeze(1)
        for block in self.blocks2d:
            x, mask = block(x, mask)
        x = keep(self.project(x.flatten(1, 2)), mask)  # (B, 96, L / 4)
        if self.recurrent is None:
            return x, mask
        return self._run(x, mask), mask

    def _run(self, x: Tensor, mask: Tensor | None) -> Tensor:
        assert self.recurrent is not None
        x = x.transpose(1, 2)
        if mask is None:
            return self.recurrent(x)[0].transpose(1, 2)
        ends = torch.arange(1, mask.shape[1] + 1, device=mask.device)  # masks may have gaps
        lengths = (mask * ends).amax(dim=1).clamp(min=1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
        out, _ = nn.utils.rnn.pad_packed_sequence(
            self.recurrent(packed)[0], batch_first=True, total_length=x.shape[1]
        )
        return out.transpose(1, 2)

    def forward(self, speech: Tensor, speech_mask: Tensor | None = None) -> dict[str, Tensor]:
        """(B, n_mels, L), (B, L) bool -> {"logits": (B, C)}; 2 D features where C is 0."""
        x, mask = self.early(speech, speech_mask)
        return {"logits": self.classifier_1(self.pool(keep(x, mask), mask))}


@register_model("speech_duo")
class SpeechDuo(EmotionModel):
    """`speech_cnn` and `speech_crnn` side by side: each learns by itself, both speak together.

    `logits` are the normalised mean of their log-probabilities; theirs serve an auxiliary loss.
    """

    inputs = ("speech",)
    head = ("members",)
    one_head = False
    source = "this project"

    def __init__(
        self,
        num_classes: int = 7,
        n_mels: int = 64,
        dropout: float = 0.2,
        recurrent_width: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.members = nn.ModuleDict(
            {
                "cnn": SpeechCNN(num_classes, n_mels, dropout),
                "crnn": SpeechCRNN(num_classes, n_mels, dropout, recurrent_width),
            }
        )

    def parts(self) -> dict[str, EmotionModel]:
        """`cnn` and `crnn`."""
        return models_of(self.members)

    def forward(self, speech: Tensor, speech_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Hear.

        Args:
            speech: (B, n_mels, L), speech_mask: (B, L) bool.

        Returns:
            `logits` (B, C) and each member's own as `cnn_logits` and `crnn_logits`; the features
            of both side by side where C is 0.
        """
        own = {n: member(speech, speech_mask)["logits"] for n, member in self.members.items()}
        if not self.num_classes:
            return {"logits": torch.cat(list(own.values()), dim=1)}
        log_p = torch.stack([value.float().log_softmax(dim=-1) for value in own.values()])
        combined = log_p.mean(dim=0).log_softmax(dim=-1)
        return {"logits": combined, **{f"{name}_logits": value for name, value in own.items()}}
