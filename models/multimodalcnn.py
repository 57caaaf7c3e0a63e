"""Intermediate fusion of face and speech: `concat`, `ia`, `it` and `lt`.

Source: Chumachenko, Iosifidis and Gabbouj, Self-attention fusion for audiovisual emotion
recognition with incomplete data, ICPR 2022 (`ia` intermediate attention, `it` intermediate
transformer, `lt` late transformer), with the parameter names of the checkpoints published with it
(there: `speech_model="mfcc_cnn"`). `concat` is ours: pooled features side by side, then an MLP.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.layers import CrossAttention, CrossAttentionBlock, masked_mean
from models.names import FUSIONS
from models.registry import EmotionModel, accepted_arguments, build_model, register_model

SEEN = ("face", "landmarks", "blendshapes")  # modalities of the branch that sees


@register_model("multimodalcnn")
class MultiModalCNN(EmotionModel):
    """A branch that sees and one that hears meet halfway. A missing modality is a mask.

    Branches with halves (`early`, `late`) meet between them; others at the end of `sequence`.

    Args:
        num_classes: classes; 0 gives the joint features.
        fusion: one of `FUSIONS`.
        num_heads: of the attention, where the fusion has one.
        face_model: any classifier of faces, of landmarks or of blendshapes, by name.
        speech_model: any of speech; `mfcc_cnn` in the published checkpoints.
        n_mels: rows of the speech input.
        whisper_size, encoder_layers, layer_mix, speech_width, frames_joined, adapter_rank: of
            `whisper_speech` as speech model; None for its own defaults.
        dropout: before the last layer of `concat`.

    `keep_gates` adds to the output of `ia`, for each stream, (B,) `gate_<stream>`: the share of its
    steps that its gate in effect lets through (see `_let_through`), NaN where a stream is missing.
    """

    inputs = ("face", "speech")
    head = ("classifier_1", "av", "va", "av1", "va1")
    source = "Chumachenko et al., ICPR 2022; concat: this project"

    def __init__(  # noqa: PLR0913 - each is a flag
        self,
        num_classes: int = 7,
        fusion: str = "ia",
        num_heads: int = 1,
        face_model: str = "face_cnn",
        speech_model: str = "speech_cnn",
        n_mels: int = 64,
        dropout: float = 0.2,
        whisper_size: str | None = None,
        encoder_layers: int | None = None,
        layer_mix: str | None = None,
        speech_width: int | None = None,
        frames_joined: int | None = None,
        adapter_rank: int | None = None,
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"unknown fusion {fusion!r}; choose from {', '.join(FUSIONS)}")
        self.fusion = fusion
        whisper = {
            "whisper_size": whisper_size,
            "encoder_layers": encoder_layers,
            "layer_mix": layer_mix,
            "speech_width": speech_width,
            "frames_joined": frames_joined,
            "adapter_rank": adapter_rank,
        }
        common = {"num_classes": num_classes, "n_mels": n_mels}
        asked = {name: value for name, value in whisper.items() if value is not None}
        self.audio_model = _build_branch(speech_model, ("speech",), common, asked)
        self.visual_model = _build_branch(face_model, SEEN, common)
        self.seen = self.visual_model.inputs[0]
        self.inputs = (self.seen, "speech")
        self.clip_defaults = {**self.audio_model.clip_defaults, **self.visual_model.clip_defaults}
        self._build_fusion(num_heads)
        width = self.audio_model.width + self.visual_model.width
        self.classifier_1 = _build_head(fusion, width, num_classes, dropout)
        if self.audio_model.default_trainable:
            trained = [f"audio_model.{name}" for name in self.audio_model.default_trainable]
            others = [name for name in super().blocks() if name != "audio_model"]
            self.default_trainable = (*others, *trained)

    def blocks(self) -> dict[str, nn.Module]:
        """Those of every model, and as `audio_model.<name>` those of an encoder to be frozen."""
        named = super().blocks()
        if self.audio_model.default_trainable:
            inner = self.audio_model.blocks()
            named |= {f"audio_model.{name}": block for name, block in inner.items()}
        return named

    def parts(self) -> dict[str, EmotionModel]:
        """The two branches, by modality."""
        return {self.seen: self.visual_model, "speech": self.audio_model}

    def last_layer(self) -> nn.Linear | None:
        """That of the classifier; the other heads come before it."""
        layers = [layer for layer in self.classifier_1 if isinstance(layer, nn.Linear)]
        return layers[-1] if layers else None

    def _build_fusion(self, num_heads: int) -> None:
        audio, video = self.audio_model, self.visual_model
        if self.fusion == "lt":
            self.av = CrossAttentionBlock(video.width, audio.width, audio.width, num_heads)
            self.va = CrossAttentionBlock(audio.width, video.width, video.width, num_heads)
        elif self.fusion in ("ia", "it"):
            layer = CrossAttention if self.fusion == "ia" else CrossAttentionBlock
            a, v = _middle_width(audio), _middle_width(video)
            self.av1 = layer(v, a, a, num_heads)
            self.va1 = layer(a, v, v, num_heads)

    def forward(self, speech: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        """Fuse.

        Args:
            speech: (B, n_mels, L), speech_mask: (B, L) bool, or as the speech model takes it.
            inputs: what the other branch takes: face (B, T, 3, H, W) and face_mask (B, T) bool, or
                landmarks (B, S, 70, 2) and landmarks_mask (B, S) bool, or blendshapes (B, S, 55)
                and blendshapes_mask (B, S) bool.

        Returns:
            {"logits": (B, C)}, or the joint features where C is 0, and gates where they are kept.
        """
        speech_mask, seen_mask = inputs.get("speech_mask"), inputs.get(f"{self.seen}_mask")
        video, seen = _early(self.visual_model, inputs[self.seen], seen_mask)
        audio, heard = _early(self.audio_model, speech, speech_mask)
        fusions = {"concat": self._finish, "ia": self._fuse_ia, "it": self._fuse_it}
        fuse = {**fusions, "lt": self._fuse_lt}[self.fusion]
        joint = torch.cat(fuse(audio, video, heard, seen), dim=1)
        output = {"logits": self.classifier_1(joint)}
        if self.keep_gates and self.fusion == "ia":
            gate_audio, gate_video = self._gates(audio, video, heard, seen)
            gated = heard.any(dim=1) & seen.any(dim=1)
            output[f"gate_{self.seen}"] = _let_through(gate_video, seen, gated)
            output["gate_speech"] = _let_through(gate_audio, heard, gated)
        return output

    def _fuse_ia(
        self, audio: Tensor, video: Tensor, heard: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Only the attention maps are used: what one stream is asked for gates that stream."""
        gate_audio, gate_video = self._gates(audio, video, heard, seen)
        return self._finish(audio * gate_audio, video * gate_video, heard, seen)

    def _gates(
        self, audio: Tensor, video: Tensor, heard: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, 1, La) of the sound and (B, 1, T) of the other stream."""
        keys_a, keys_v = audio.transpose(1, 2), video.transpose(1, 2)
        _, asked_video = self.av1(keys_v, keys_a, seen)  # (B, heads, La, T)
        _, asked_audio = self.va1(keys_a, keys_v, heard)  # (B, heads, T, La)
        return _gate(asked_audio, seen), _gate(asked_video, heard)

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
        """Each pooled half holds values of the other stream, so all its steps ask without one."""
        audio, heard = _late(self.audio_model, audio, heard)
        video, seen = _late(self.visual_model, video, seen)
        keys_a, keys_v = audio.transpose(1, 2), video.transpose(1, 2)
        audio = self.av(keys_v, keys_a, seen).transpose(1, 2)
        video = self.va(keys_a, keys_v, heard).transpose(1, 2)
        return masked_mean(audio, _asking(heard)), masked_mean(video, _asking(seen))

    def _finish(
        self, audio: Tensor, video: Tensor, heard: Tensor, seen: Tensor
    ) -> tuple[Tensor, Tensor]:
        pooled_audio = masked_mean(*_late(self.audio_model, audio, heard))
        return pooled_audio, masked_mean(*_late(self.visual_model, video, seen))


def _build_branch(
    name: str,
    modalities: tuple[str, ...],
    common: dict[str, Any],
    asked: dict[str, Any] | None = None,
) -> EmotionModel:
    """An encoder of the registry that takes one of the modalities.

    Args:
        common: arguments, of which those are given that it takes.
        asked: arguments that it must take.
    """
    taken = {key: value for key, value in common.items() if key in accepted_arguments(name)}
    branch = build_model(name, **taken, **(asked or {}))
    if len(branch.inputs) != 1 or branch.inputs[0] not in modalities or not branch.can_branch:
        raise ValueError(f"{name} cannot be the branch for {' or '.join(modalities)}")
    return branch


def _early(branch: EmotionModel, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """(B, D, steps) features where branches meet, and (B, steps) bool of those that exist."""
    features, exist = branch.early(x, mask)
    return features, _all_true(features) if exist is None else exist


def _late(branch: EmotionModel, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    x, exist = branch.late(x, mask)
    return x, mask if exist is None else exist


def _middle_width(branch: EmotionModel) -> int:
    return branch.middle_width or branch.width


def _asking(mask: Tensor) -> Tensor:
    """The steps that exist; every one where none does."""
    return mask | ~mask.any(dim=1, keepdim=True)


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


def _let_through(gate: Tensor, kept: Tensor, gated: Tensor) -> Tensor:
    """Kish's effective number of steps as a share of those that exist, 1 for an even gate.

    A gate's mean tells nothing: it is the same for every clip, as each query gives out 1 in all.

    Args:
        gate: (B, 1, L) at least 0.
        kept: (B, L) bool, the steps that exist.
        gated: (B,) bool; NaN is given where it is false.
    """
    weight = gate.squeeze(1).float() * kept
    share = weight.sum(dim=1) ** 2 / (weight**2).sum(dim=1).clamp(min=1e-12)
    share = share / kept.sum(dim=1).clamp(min=1)
    return share.masked_fill(~gated, float("nan"))


def _all_true(x: Tensor) -> Tensor:
    """(B, D, L) -> (B, L) of true."""
    return torch.ones(x.shape[0], x.shape[-1], dtype=torch.bool, device=x.device)
