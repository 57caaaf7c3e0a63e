"""Intermediate fusion of face and speech: `concat`, `ia`, `it` and `lt`.

Source: Chumachenko, Iosifidis and Gabbouj, Self-attention fusion for audiovisual emotion
recognition with incomplete data, ICPR 2022 (`ia` intermediate attention, `it` intermediate
transformer, `lt` late transformer), with the parameter names of the checkpoints published with it
(there: `speech_model="mfcc_cnn"`). `concat` is ours: pooled features side by side, then an MLP.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.face_cnn import FaceCNN
from models.layers import CrossAttention, CrossAttentionBlock, masked_mean
from models.registry import EmotionModel, register_model
from models.speech_cnn import MfccCNN, SpeechCNN

FUSIONS = ("concat", "ia", "it", "lt")
SPEECH_BRANCHES: dict[str, type[SpeechCNN] | type[MfccCNN]] = {
    "speech_cnn": SpeechCNN,
    "mfcc_cnn": MfccCNN,
}


@register_model("multimodalcnn")
class MultiModalCNN(EmotionModel):
    """Face and speech branches that meet halfway. A missing modality is a mask.

    Args:
        num_classes: classes; 0 gives the joint features.
        fusion: one of `FUSIONS`.
        num_heads: of the attention, where the fusion has one.
        speech_model: `speech_cnn`, or `mfcc_cnn` for the published checkpoints.
        n_mels: rows of the speech input.
        dropout: before the last layer of `concat`.
    """

    inputs = ("face", "speech")
    head = ("classifier_1", "av", "va", "av1", "va1")

    def __init__(
        self,
        num_classes: int = 7,
        fusion: str = "ia",
        num_heads: int = 1,
        speech_model: str = "speech_cnn",
        n_mels: int = 64,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"unknown fusion {fusion!r}; choose from {', '.join(FUSIONS)}")
        if speech_model not in SPEECH_BRANCHES:
            choices = ", ".join(SPEECH_BRANCHES)
            raise ValueError(f"unknown speech_model {speech_model!r}; choose from {choices}")
        self.fusion = fusion
        self.audio_model = SPEECH_BRANCHES[speech_model](num_classes, n_mels)
        self.visual_model = FaceCNN(num_classes)
        self._build_fusion(num_heads)
        width = self.audio_model.width + self.visual_model.width
        self.classifier_1 = _build_head(fusion, width, num_classes, dropout)

    def _build_fusion(self, num_heads: int) -> None:
        audio, video = self.audio_model, self.visual_model
        if self.fusion == "lt":
            self.av = CrossAttentionBlock(video.width, audio.width, audio.width, num_heads)
            self.va = CrossAttentionBlock(audio.width, video.width, video.width, num_heads)
        elif self.fusion in ("ia", "it"):
            layer = CrossAttention if self.fusion == "ia" else CrossAttentionBlock
            a, v = audio.middle_width, video.middle_width
            self.av1 = layer(v, a, a, num_heads)
            self.va1 = layer(a, v, v, num_heads)

    def forward(
        self,
        face: Tensor,
        speech: Tensor,
        face_mask: Tensor | None = None,
        speech_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Fuse.

        Args:
            face: (B, T, 3, H, W), face_mask: (B, T) bool.
            speech: (B, n_mels, L), speech_mask: (B,) bool.

        Returns:
            {"logits": (B, C)}, or 256 joint features where C is 0.
        """
        video = self.visual_model.early(self.visual_model.encode(face, face_mask), face_mask)
        audio = self.audio_model.early(speech)  # (B, Da, La)
        seen = _all_true(video) if face_mask is None else face_mask  # (B, T)
        heard = _all_true(audio)  # (B, La)
        if speech_mask is not None:
            heard = heard & speech_mask.unsqueeze(1)
        fuse = getattr(self, f"_fuse_{self.fusion}")
        return {"logits": self.classifier_1(torch.cat(fuse(audio, video, heard, seen), dim=1))}

    def _fuse_concat(
        self, audio: Tensor, video: Tensor, heard: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self._finish(audio, video, heard, seen)

    def _fuse_ia(
        self, audio: Tensor, video: Tensor, heard: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Only the attention maps are used: what one stream is asked for gates that stream."""
        keys_a, keys_v = audio.transpose(1, 2), video.transpose(1, 2)
        _, asked_video = self.av1(keys_v, keys_a, seen)  # (B, heads, La, T)
        _, asked_audio = self.va1(keys_a, keys_v, heard)  # (B, heads, T, La)
        gate_video, gate_audio = _gate(asked_video, heard), _gate(asked_audio, seen)
        return self._finish(audio * gate_audio, video * gate_video, heard, seen)

    def _fuse_it(
        self, audio: Tensor, video: Tensor, heard: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        keys_a, keys_v = audio.transpose(1, 2), video.transpose(1, 2)
        audio = audio + self.av1(keys_v, keys_a, seen).transpose(1, 2)
        video = video + self.va1(keys_a, keys_v, heard).transpose(1, 2)
        return self._finish(audio, video, heard, seen)

    def _fuse_lt(
        self, audio: Tensor, video: Tensor, heard: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Each pooled half holds values of the other stream, so neither is masked at the end."""
        audio, video = self.audio_model.late(audio), self.visual_model.late(video, seen)
        heard = heard[:, :1].expand(-1, audio.shape[-1])
        keys_a, keys_v = audio.transpose(1, 2), video.transpose(1, 2)
        audio = self.av(keys_v, keys_a, seen).transpose(1, 2)
        video = self.va(keys_a, keys_v, heard).transpose(1, 2)
        asking = seen | ~seen.any(dim=1, keepdim=True)  # without a face, every query still asks
        return audio.mean(dim=-1), masked_mean(video, asking)

    def _finish(
        self, audio: Tensor, video: Tensor, heard: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        audio = self.audio_model.late(audio).mean(dim=-1) * heard[:, :1]
        return audio, masked_mean(self.visual_model.late(video, seen), seen)


def _build_head(fusion: str, width: int, num_classes: int, dropout: float) -> nn.Sequential:
    if not num_classes:
        return nn.Sequential(nn.Identity())
    if fusion != "concat":
        return nn.Sequential(nn.Linear(width, num_classes))
    hidden = width // 2
    return nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, num_classes)
    )


def _gate(attention: Tensor, askers: Tensor) -> Tensor:
    """What (B, Q) existing queries ask of each key: mean over heads, sum over queries.

    (B, heads, Q, K) map -> (B, 1, K) gate; 1 where nobody asks.
    """
    gate = (attention.mean(dim=1) * askers.unsqueeze(-1)).sum(dim=1, keepdim=True)
    return torch.where(askers.any(dim=1)[:, None, None], gate, torch.ones_like(gate))


def _all_true(x: Tensor) -> Tensor:
    """(B, D, L) -> (B, L) of true."""
    return torch.ones(x.shape[0], x.shape[-1], dtype=torch.bool, device=x.device)
