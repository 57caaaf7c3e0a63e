"""Whisper's encoder as a classifier of speech: a learned mix of its layers, pooled over time.

Frozen layers of Whisper hold more about emotion than the last one does, so all of them are used.
"""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor, nn

from models.layers import AttentivePooling, keep
from models.registry import EmotionModel, register_model
from models.whisper_encoder import MELS, SIZES, WhisperEncoder

LAYER_MIXES = ("weighted", "concat")
CLIPS = MappingProxyType(
    {
        "speech_feature": "whisper_mel",
        "n_mels": MELS,
        "n_fft": 400,
        "win_length": 400,
        "hop_length": 160,
        "f_min": 0.0,
        "f_max": 8000.0,
    }
)


class LayerMix(nn.Module):
    """Hidden states of several layers to one sequence, each normalised first.

    `weighted` takes their weighted mean (softmax of learned weights) and projects it; `concat`
    projects each layer by itself and puts the results side by side.
    """

    def __init__(self, how: str, layers: int, in_width: int, width: int) -> None:
        super().__init__()
        if how not in LAYER_MIXES:
            choices = ", ".join(LAYER_MIXES)
            raise ValueError(f"unknown layer_mix {how!r}; choose from {choices}")
        if width < layers:
            raise ValueError(f"speech_width must be at least {layers}, not {width}")
        self.how = how
        if how == "weighted":
            self.weight = nn.Parameter(torch.zeros(layers))
            widths = [width]
        else:
            widths = [width // layers] * layers
        self.project = nn.ModuleList(nn.Linear(in_width, part) for part in widths)
        self.width = sum(widths)

    def forward(self, hidden: list[Tensor]) -> Tensor:
        """(N, T, D) of each layer -> (N, T, width)."""
        normed = [nn.functional.layer_norm(x, x.shape[-1:]) for x in hidden]
        if self.how == "weighted":
            weights = self.weight.softmax(dim=0)
            mixed = normed[0] * weights[0]
            for x, weight in zip(normed[1:], weights[1:], strict=True):
                mixed = torch.addcmul(mixed, x, weight)
            normed = [mixed]
        parts = [layer(x) for layer, x in zip(self.project, normed, strict=True)]
        return nn.functional.gelu(torch.cat(parts, dim=-1))


@register_model("whisper_speech")
class WhisperSpeech(EmotionModel):
    """Blocks of sound to logits: Whisper's encoder, a mix of its layers, attentive pooling.

    The mask chooses the frames that are pooled. The encoder hears the rest of their block as well,
    but no block of which no frame is chosen.

    Args:
        num_classes: classes; 0 gives the pooled features.
        whisper_size: of the encoder, one of `SIZES`.
        encoder_layers: its first so many layers; None for all.
        layer_mix: one of `LAYER_MIXES`.
        speech_width: features of a frame after the mix.
        dropout: on these features, and before the last layer.
        adapter_rank: of low-rank adapters on the encoder's linear layers; 0 for none.
    """

    inputs = ("speech",)
    head = ("classifier_1",)
    source = "encoder: Radford et al., ICML 2023; pooling: Okabe et al., Interspeech 2018"
    clip_defaults = CLIPS

    def __init__(  # noqa: PLR0913 - each is a flag
        self,
        num_classes: int = 7,
        whisper_size: str = "tiny",
        encoder_layers: int | None = None,
        layer_mix: str = "weighted",
        speech_width: int = 128,
        dropout: float = 0.2,
        adapter_rank: int = 0,
    ) -> None:
        super().__init__()
        if whisper_size not in SIZES:
            choices = ", ".join(SIZES)
            raise ValueError(f"unknown whisper_size {whisper_size!r}; choose from {choices}")
        self.size = size = SIZES[whisper_size]
        self.encoder = WhisperEncoder(size, encoder_layers, adapter_rank)
        self.mix = LayerMix(layer_mix, len(self.encoder.blocks) + 1, size.width, speech_width)
        self.width = self.middle_width = self.mix.width
        self.dropout = nn.Dropout(dropout)
        self.pool = AttentivePooling(self.width)
        head = nn.Linear(2 * self.width, num_classes) if num_classes else nn.Identity()
        self.classifier_1 = nn.Sequential(nn.Dropout(dropout), head)
        self.default_trainable = ("mix", "pool", "head")
        if adapter_rank:
            self.default_trainable += ("adapters",)

    def blocks(self) -> dict[str, nn.Module]:
        """`encoder`, its parts `stem`, `layer1` to the last, and `adapters`; `mix`, `pool`, `head`.

        The last layer has the final normalisation with it.
        """
        encoder, named = self.encoder, super().blocks()
        layers = {f"layer{i}": nn.ModuleList([b]) for i, b in enumerate(encoder.blocks, start=1)}
        if encoder.final_norm is not None:
            layers[f"layer{len(layers)}"].append(encoder.final_norm)
        named |= {"stem": nn.ModuleList([encoder.conv1, encoder.conv2]), **layers}
        adapters = encoder.adapters()
        return {**named, "adapters": adapters} if len(adapters) else named

    def encode_blocks(self, speech: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Blocks of sound, each encoded by itself: (N, 80, L) -> (N, ceil(L / 2), width).

        `lengths` (N,) are of blocks that are padded, as `WhisperEncoder` takes them.
        """
        return self.mix(self.encoder(speech, lengths))

    def sequence(self, speech: Tensor, mask: Tensor | None = None) -> Tensor:
        """Frames of the blocks one after the other.

        Args:
            speech: (B, K, 80, L) spectrograms of K blocks, or (B, K * ceil(L / 2), width) of them
                as `encode_blocks` gives them.
            mask: (B, K * ceil(L / 2)) bool.

        Returns:
            (B, width, K * ceil(L / 2)), zero where the mask is false.
        """
        frames = self._encode_clips(speech, mask) if speech.ndim == 4 else speech
        return keep(self.dropout(frames).transpose(1, 2), mask)

    def _encode_clips(self, speech: Tensor, mask: Tensor | None) -> Tensor:
        """(B, K, 80, L), (B, K T) -> (B, K T, width), T = ceil(L / 2); zero in unused blocks."""
        batch, blocks, _, length = speech.shape
        flat, steps = speech.flatten(0, 1), (length + 1) // 2
        if mask is None:
            return self.encode_blocks(flat).reshape(batch, blocks * steps, self.width)
        lengths = _existing(flat).clamp(min=1)
        if torch.jit.is_tracing():  # the graph must hold for every mask
            encoded = self.encode_blocks(flat, lengths)
            return encoded.reshape(batch, blocks * steps, self.width)
        used = mask.reshape(batch * blocks, steps).any(dim=1)
        out = flat.new_zeros(batch * blocks, steps, self.width)
        if bool(used.any()):
            flat, lengths = flat[used], lengths[used]
            encoded = self.encode_blocks(flat, lengths if bool((lengths < length).any()) else None)
            out = out.to(encoded.dtype)
            out[used] = encoded
        return out.reshape(batch, blocks * steps, self.width)

    def forward(self, speech: Tensor, speech_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Hear.

        Args:
            speech: as `sequence` takes it.
            speech_mask: (B, steps) bool, the frames that are pooled.

        Returns:
            {"logits": (B, C)}; the 2 * width pooled features where C is 0.
        """
        x = self.sequence(speech, speech_mask)
        return {"logits": self.classifier_1(self.pool(x, speech_mask))}


def _existing(blocks: Tensor) -> Tensor:
    """Frames (N,) of (N, 80, L) blocks before the zeros that a batch pads shorter ones with.

    No sound gives zero in all bands of a frame: silence is negative.
    """
    sounds = (blocks != 0).any(dim=1)  # (N, L)
    places = torch.arange(1, blocks.shape[-1] + 1, device=blocks.device)
    return (sounds * places).amax(dim=1)


def find_block_encoder(model: nn.Module) -> WhisperSpeech | None:
    """The part of a model (itself, a branch or a member) that encodes sound block by block."""
    return next((part for part in model.modules() if isinstance(part, WhisperSpeech)), None)
