"""Whisper's encoder as a classifier of speech: a learned mix of its layers, pooled over time.

Frozen layers of Whisper hold more about emotion than the last one does, so all of them are used.
"""

from __future__ import annotations

import math
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn

from models.layers import AttentivePooling, keep
from models.registry import EmotionModel, register_model
from models.whisper_encoder import MELS, SIZES, WhisperEncoder

LAYER_MIXES = ("weighted", "concat", "all")
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
    """Hidden states of several layers, side by side, to one sequence.

    `weighted` takes their weighted mean (softmax of learned weights) and projects it; `concat`
    projects each layer by itself and puts the results side by side; `all` keeps them as they are.
    """

    def __init__(self, how: str, layers: int, in_width: int, width: int) -> None:
        super().__init__()
        if how not in LAYER_MIXES:
            choices = ", ".join(LAYER_MIXES)
            raise ValueError(f"unknown layer_mix {how!r}; choose from {choices}")
        if width < layers:
            raise ValueError(f"speech_width must be at least {layers}, not {width}")
        self.how, self.layers = how, layers
        self.project = nn.ModuleList()
        self.width = layers * in_width
        if how == "weighted":
            self.weight = nn.Parameter(torch.zeros(layers))
            self.project.append(nn.Linear(in_width, width))
            self.width = width
        elif how == "concat":
            part = width // layers
            self.project.extend(nn.Linear(in_width, part) for _ in range(layers))
            self.width = part * layers

    def forward(self, hidden: Tensor) -> Tensor:
        """(N, T, layers * D) -> (N, T, width)."""
        if self.how == "all":
            return hidden
        states = hidden.unflatten(-1, (self.layers, -1))  # (N, T, layers, D)
        if self.how == "weighted":
            mixed = (states * self.weight.softmax(dim=0)[:, None]).sum(dim=2)
            return nn.functional.gelu(self.project[0](mixed))
        parts = [layer(states[:, :, index]) for index, layer in enumerate(self.project)]
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
        frames_joined: encoder frames (50 a second) whose mean is one step of what is pooled.
        dropout: on the pooled features and before the last layer; not before pooling, where it
            would raise the standard deviations that are pooled, in training only.
        adapter_rank: of low-rank adapters on the encoder's linear layers; 0 for none.
        head_width: units of a hidden layer between the pooled features and the classes; 0 for none.
    """

    inputs = ("speech",)
    head = ("classifier_1",)
    can_branch = True
    source = "encoder: Radford et al., ICML 2023; pooling: Okabe et al., Interspeech 2018"
    clip_defaults = CLIPS

    def __init__(  # noqa: PLR0913 - each is a flag
        self,
        num_classes: int = 7,
        whisper_size: str = "tiny",
        encoder_layers: int | None = None,
        layer_mix: str = "weighted",
        speech_width: int = 128,
        frames_joined: int = 1,
        dropout: float = 0.2,
        adapter_rank: int = 0,
        head_width: int = 0,
    ) -> None:
        super().__init__()
        if whisper_size not in SIZES:
            choices = ", ".join(SIZES)
            raise ValueError(f"unknown whisper_size {whisper_size!r}; choose from {choices}")
        self.size = size = SIZES[whisper_size]
        self.encoder = WhisperEncoder(size, encoder_layers, adapter_rank)
        self.frames_joined = frames_joined
        layers = len(self.encoder.blocks)
        self.encoded_width = layers * size.width
        self.mix = LayerMix(layer_mix, layers, size.width, speech_width)
        self.width = self.middle_width = self.mix.width
        self.pool = AttentivePooling(self.width)
        self.classifier_1 = _build_head(2 * self.width, head_width, num_classes, dropout)
        trained = {"mix": layer_mix != "all", "adapters": adapter_rank > 0}
        self.default_trainable = ("pool", "head", *(n for n, there in trained.items() if there))

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

    def block_encoder(self) -> WhisperSpeech:
        """Itself."""
        return self

    def steps(self, length: int) -> int:
        """Steps that a block of so many spectrogram frames gives."""
        return math.ceil(math.ceil(length / 2) / self.frames_joined)

    def encode_blocks(self, speech: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Blocks of sound, each encoded by itself.

        Args:
            speech: (N, 80, L).
            lengths: (N,) of blocks that are padded, as `WhisperEncoder` takes them.

        Returns:
            (N, steps, encoded_width): the normalised states after each of the encoder's blocks,
            side by side. No trained part of this class but the encoder has a share in them.
        """
        states = [self._join(x, lengths) for x in self.encoder(speech, lengths)[1:]]
        return torch.cat([nn.functional.layer_norm(x, x.shape[-1:]) for x in states], dim=-1)

    def _join(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """(N, T, D) -> (N, ceil(T / frames_joined), D), means of neighbours that exist."""
        if self.frames_joined == 1:
            return x
        weight = x.new_ones(len(x), 1, x.shape[1])
        if lengths is not None:
            there = torch.arange(x.shape[1], device=x.device) < ((lengths + 1) // 2)[:, None]
            weight = there[:, None].to(x.dtype)
        pool = partial(nn.functional.avg_pool1d, kernel_size=self.frames_joined, ceil_mode=True)
        joined = pool(x.transpose(1, 2) * weight) / pool(weight).clamp(min=1e-6)
        return joined.transpose(1, 2)

    def _join_mask(self, mask: Tensor, blocks: int) -> Tensor:
        """(B, K * T) -> (B, K * steps): where any of the joined frames is chosen."""
        if self.frames_joined == 1:
            return mask
        frames = mask.unflatten(1, (blocks, -1))
        missing = -frames.shape[-1] % self.frames_joined
        frames = nn.functional.pad(frames, (0, missing))
        return frames.unflatten(-1, (-1, self.frames_joined)).any(dim=-1).flatten(1)

    def early(self, speech: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Steps of the blocks one after the other, and which of them exist.

        Args:
            speech: (B, K, 80, L) spectrograms of K blocks, or (B, K, steps, encoded_width) of them
                as `encode_blocks` gives them.
            mask: (B, K * ceil(L / 2)) bool, of the encoder's frames.

        Returns:
            (B, width, K * steps), zero where the mask is false, and (B, K * steps) bool.
        """
        blocks = speech.shape[1]
        joined = None if mask is None else self._join_mask(mask, blocks)
        if speech.shape[-1] == self.encoded_width:
            encoded = speech.flatten(1, 2)
        else:
            encoded = self._encode_clips(speech, mask)
        return keep(self.mix(encoded).transpose(1, 2), joined), joined

    def _encode_clips(self, speech: Tensor, mask: Tensor | None) -> Tensor:
        """(B, K, 80, L), (B, K T) -> (B, K * steps, encoded_width); zero in unused blocks."""
        batch, blocks, _, length = speech.shape
        flat, steps = speech.flatten(0, 1), self.steps(length)
        shape = (batch, blocks * steps, self.encoded_width)
        if mask is None:
            return self.encode_blocks(flat).reshape(shape)
        lengths = _existing(flat).clamp(min=1)
        if torch.jit.is_tracing():  # the graph must hold for every mask
            return self.encode_blocks(flat, lengths).reshape(shape)
        used = mask.reshape(batch * blocks, -1).any(dim=1)
        out = flat.new_zeros(batch * blocks, steps, self.encoded_width)
        if bool(used.any()):
            flat, lengths = flat[used], lengths[used]
            encoded = self.encode_blocks(flat, lengths if bool((lengths < length).any()) else None)
            out = out.to(encoded.dtype)
            out[used] = encoded
        return out.reshape(shape)

    def pooled(self, speech: Tensor, speech_mask: Tensor | None = None) -> Tensor:
        """How the voice sounds, (B, 2 width): mean and standard deviation of its chosen frames.

        Args:
            speech, speech_mask: as `early` takes them.
        """
        x, mask = self.early(speech, speech_mask)
        return self.pool(x, mask)

    @property
    def voice_part(self) -> WhisperSpeech:
        return self

    def mean_voice(self) -> Tensor:
        """(2 width,): the mean of `pooled` over what the network was trained on."""
        norm = self.classifier_1[0]
        assert isinstance(norm, nn.BatchNorm1d)
        assert norm.running_mean is not None
        return norm.running_mean

    def forward(
        self,
        speech: Tensor,
        speech_mask: Tensor | None = None,
        voice_offset: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Hear.

        Args:
            speech: as `early` takes it.
            speech_mask: (B, K * ceil(L / 2)) bool, the encoder's frames that are pooled.
            voice_offset: (B, 2 width), by how much the speaker's own voice differs from
                `mean_voice` whatever is expressed; taken from what is pooled.

        Returns:
            {"logits": (B, C)}; the pooled features, or the hidden ones, where C is 0.
        """
        features = self.pooled(speech, speech_mask)
        if voice_offset is not None:
            features = features - voice_offset
        return {"logits": self.classifier_1(features)}


def _build_head(width: int, hidden: int, num_classes: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = [nn.BatchNorm1d(width), nn.Dropout(dropout)]
    if hidden:
        layers += [nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout)]
    last = nn.Linear(hidden or width, num_classes) if num_classes else nn.Identity()
    return nn.Sequential(*layers, last)


def _existing(blocks: Tensor) -> Tensor:
    """Frames (N,) of (N, 80, L) blocks before the zeros that a batch pads shorter ones with.

    No sound gives zero in all bands of a frame: silence is negative.
    """
    sounds = (blocks != 0).any(dim=1)  # (N, L)
    places = torch.arange(1, blocks.shape[-1] + 1, device=blocks.device)
    return (sounds * places).amax(dim=1)
