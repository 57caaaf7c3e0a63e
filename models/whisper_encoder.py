"""The encoder of Whisper: a log-mel spectrogram to hidden states, 50 frames a second.

Source: Radford et al., Robust speech recognition via large-scale weak supervision, ICML 2023; the
published code and weights are under the MIT licence. `checkpoints/whisper_weights.py` reads the
weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from system.errors import OptionError

MELS = 80
HEAD_WIDTH = 64  # features of one attention head, the same in every published size
LONGEST = 1500  # encoder frames (30 s): Whisper has no positions beyond


@dataclass(frozen=True)
class WhisperSize:
    """Width and depth of an encoder."""

    width: int
    layers: int

    @property
    def heads(self) -> int:
        return self.width // HEAD_WIDTH


SIZES = {
    "tiny": WhisperSize(384, 4),
    "base": WhisperSize(512, 6),
    "small": WhisperSize(768, 12),
}


class LowRank(nn.Module):
    """What is added to a frozen linear layer: a product of two narrow matrices, zero at first.

    Source: Hu et al., LoRA: Low-rank adaptation of large language models, ICLR 2022.
    """

    def __init__(self, in_width: int, out_width: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(in_width, rank, bias=False)
        self.up = nn.Linear(rank, out_width, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))


class AdaptedLinear(nn.Linear):
    """A linear layer; with an `adapter` of low rank where `rank` is above 0."""

    def __init__(self, in_width: int, out_width: int, rank: int = 0) -> None:
        super().__init__(in_width, out_width)
        self.adapter = LowRank(in_width, out_width, rank) if rank else None

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if self.adapter is None else y + self.adapter(x)


class WhisperBlock(nn.Module):
    """Self-attention, then two linear layers with the exact GELU between; normalised before each.

    Query, key and value are one layer. Whisper's key has no bias: here it is zero.
    """

    def __init__(self, width: int, heads: int, rank: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.attn_norm = nn.LayerNorm(width)
        self.qkv = AdaptedLinear(width, 3 * width, rank)
        self.out = AdaptedLinear(width, width, rank)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp1 = AdaptedLinear(width, 4 * width, rank)
        self.mlp2 = AdaptedLinear(4 * width, width, rank)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """(N, T, D), (N, T) bool of the frames that may be looked at -> (N, T, D)."""
        x = x + self.out(self._attend(self.attn_norm(x), kept))
        return x + self.mlp2(nn.functional.gelu(self.mlp1(self.mlp_norm(x))))

    def _attend(self, x: Tensor, kept: Tensor | None) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        allowed = None if kept is None else kept[:, None, None, :]
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return mixed.transpose(1, 2).flatten(2)


class WhisperEncoder(nn.Module):
    """All hidden states of Whisper's encoder.

    Every frame of a block looks at every other, as in training, where Whisper saw silence in the
    place of what did not exist. What is missing in a block must therefore be silent (the lowest
    value of the normalised spectrogram), and needs no mask. Only what a batch pads shorter blocks
    with is no part of them: see `lengths`.

    Args:
        size: of the published encoder.
        layers: the first so many; None for all. With all of them the last hidden state goes
            through the final normalisation, which belongs to the whole encoder.
        adapter_rank: of the low-rank adapters on all linear layers; 0 for none.
    """

    positions: Tensor

    def __init__(self, size: WhisperSize, layers: int | None = None, adapter_rank: int = 0) -> None:
        super().__init__()
        kept = size.layers if layers is None else layers
        if not 1 <= kept <= size.layers:
            raise ValueError(f"encoder_layers must lie in 1 to {size.layers}, not {kept}")
        if adapter_rank < 0:
            raise ValueError(f"adapter_rank must be 0 or more, not {adapter_rank}")
        self.conv1 = nn.Conv1d(MELS, size.width, 3, padding=1)
        self.conv2 = nn.Conv1d(size.width, size.width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            WhisperBlock(size.width, size.heads, adapter_rank) for _ in range(kept)
        )
        self.final_norm = nn.LayerNorm(size.width) if kept == size.layers else None
        positions = sinusoids(LONGEST, size.width)
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> list[Tensor]:
        """Encode.

        Args:
            mel: (N, 80, L) normalised log-mel spectrogram, 100 frames a second.
            lengths: (N,) frames of each, at least 1, after which there are zeros that are not
                heard; None where all have L.

        Returns:
            (N, ceil(L / 2), D) of each: the convolutions with the positions, then every block.

        Raises:
            ValueError: more than 30 s.
        """
        x = nn.functional.gelu(self.conv1(mel))
        kept = None
        if lengths is not None:
            existing = torch.arange(mel.shape[-1], device=mel.device) < lengths[:, None]  # (N, L)
            x, kept = x * existing[:, None], existing[:, ::2]
        x = nn.functional.gelu(self.conv2(x)).transpose(1, 2)
        if x.shape[1] > LONGEST:
            raise OptionError(
                f"Whisper encodes at most {LONGEST / 50:g} s in one piece, and these are "
                f"{x.shape[1] / 50:g} s: use shorter windows or blocks, or score window by window",
                "window_seconds",
                "speech_block_seconds",
                "whole_clips",
            )
        x = (x + self.positions[: x.shape[1]]).contiguous()
        hidden = [x]
        for block in self.blocks:
            hidden.append(block(hidden[-1], kept))
        if self.final_norm is not None:
            hidden[-1] = self.final_norm(hidden[-1])
        return hidden

    def adapters(self) -> nn.ModuleList:
        """The low-rank parts; empty where there are none."""
        return nn.ModuleList(part for part in self.modules() if isinstance(part, LowRank))


def sinusoids(length: int, width: int) -> Tensor:
    """Whisper's positions (length, width): sines in the first half, cosines in the second."""
    step = math.log(10000.0) / (width // 2 - 1)
    rates = torch.exp(-step * torch.arange(width // 2, dtype=torch.float32))
    angles = torch.arange(length, dtype=torch.float32)[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)
