"""Layers that several architectures share: time, pooling and attention, all under masks."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of (B, D, T) over the steps that (B, T) `mask` keeps; zero where it keeps none."""
    if mask is None:
        return x.mean(dim=-1)
    kept = mask.unsqueeze(1).to(x.dtype)  # (B, 1, T)
    return (x * kept).sum(dim=-1) / kept.sum(dim=-1).clamp(min=1.0)


def keep(x: Tensor, mask: Tensor | None) -> Tensor:
    """(B, D, L) with the steps that (B, L) `mask` does not keep set to zero, as padding reads."""
    return x if mask is None else x * mask.unsqueeze(1)


class AttentivePooling(nn.Module):
    """Learned weights over time, then weighted mean and standard deviation.

    Source: Okabe et al., Attentive statistics pooling, Interspeech 2018.
    """

    def __init__(self, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Conv1d(width, hidden, 1), nn.Tanh(), nn.Conv1d(hidden, 1, 1))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, D, L), (B, L) bool of the steps that exist -> (B, 2 D), zero where none does."""
        score = self.score(x)  # (B, 1, L)
        if mask is None:
            return self._pool(x, score.softmax(dim=-1))
        some = mask.any(dim=1)[:, None, None]
        weight = score.masked_fill(~mask.unsqueeze(1) & some, float("-inf")).softmax(dim=-1)
        return self._pool(x, weight) * some[:, :, 0]

    @staticmethod
    def _pool(x: Tensor, weight: Tensor) -> Tensor:
        mean = (x * weight).sum(dim=-1)
        variance = ((x - mean.unsqueeze(-1)) ** 2 * weight).sum(dim=-1)
        return torch.cat([mean, (variance + 1e-5).sqrt()], dim=-1)


class CrossAttention(nn.Module):
    """Queries of one stream look at keys and values of another.

    Parameter names are those of the checkpoints published with Chumachenko et al., ICPR 2022.
    """

    def __init__(self, key_width: int, query_width: int, width: int, num_heads: int) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"num_heads must divide the width {width}, and {num_heads} does not")
        self.num_heads = num_heads
        self.scale = (width // num_heads) ** -0.5
        self.q = nn.Linear(query_width, width, bias=False)
        self.kv = nn.Linear(key_width, 2 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, keys: Tensor, queries: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Attend.

        Args:
            keys: (B, K, Dk).
            queries: (B, Q, Dq).
            kept: (B, K) bool, the keys that exist.

        Returns:
            (B, Q, D) values, zero where no key exists, and the (B, heads, Q, K) attention map.
        """
        q = self._heads(self.q(queries))
        k, v = (self._heads(part) for part in self.kv(keys).chunk(2, dim=-1))
        scores = (q @ k.transpose(-2, -1)) * self.scale
        exists = kept[:, None, None, :]
        # A row without any key would be 0 / 0: it keeps its scores here and is zeroed after.
        hidden = ~exists & kept.any(dim=-1)[:, None, None, None]
        attention = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1) * exists
        mixed = (attention @ v).transpose(1, 2).flatten(2)
        return self.proj(mixed) * kept.any(dim=-1)[:, None, None], attention

    def _heads(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, heads, N, D / heads)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class Mlp(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(x)))


class CrossAttentionBlock(nn.Module):
    """Pre-normalised cross-attention, then an MLP with a residual (none around the attention)."""

    def __init__(self, key_width: int, query_width: int, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1_q = nn.LayerNorm(query_width)
        self.norm1_k = nn.LayerNorm(key_width)
        self.attn = CrossAttention(key_width, query_width, width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 2 * width)

    def forward(self, keys: Tensor, queries: Tensor, kept: Tensor) -> Tensor:
        """(B, K, Dk), (B, Q, Dq), (B, K) bool -> (B, Q, D)."""
        x, _ = self.attn(self.norm1_k(keys), self.norm1_q(queries), kept)
        return x + self.mlp(self.norm2(x))


def encode_existing(
    encode: Callable[[Tensor], Tensor], items: Tensor, mask: Tensor | None, width: int
) -> Tensor:
    """Encode the items that exist, one by one.

    Items that are masked out are not computed and do not touch batch statistics. While a graph is
    traced they are computed and thrown away, so that the graph holds for every mask.

    Args:
        encode: (N, ...) -> (N, width).
        items: (B, T, ...).
        mask: (B, T) bool, or None where all exist.
        width: of what `encode` gives.

    Returns:
        (B, width, T), zero where the mask is false.
    """
    batch, length = items.shape[:2]
    flat = items.flatten(0, 1)
    if mask is None:
        features = encode(flat)
    elif torch.jit.is_tracing():
        features = encode(flat).masked_fill(~mask.flatten()[:, None], 0.0)
    else:
        kept = mask.flatten()
        features = flat.new_zeros(batch * length, width)
        if bool(kept.any()):
            encoded = encode(flat[kept])
            features = features.to(encoded.dtype)
            features[kept] = encoded
    return features.unflatten(0, (batch, length)).transpose(1, 2)


def existing_first(mask: Tensor) -> Tensor:
    """(B, T) bool -> (B, T) indices: the steps that exist in their order, then the others."""
    return (~mask).to(torch.uint8).argsort(dim=1, stable=True)


class Recurrent(nn.Module):
    """LSTM or GRU over the steps that exist, as if the others were not there.

    Steps are brought together in their order and packed, so neither padding nor a hole between
    two steps is ever read.
    """

    def __init__(self, kind: str, in_width: int, hidden: int, bidirectional: bool = True) -> None:
        super().__init__()
        layer = {"lstm": nn.LSTM, "gru": nn.GRU}[kind]
        self.rnn = layer(in_width, hidden, batch_first=True, bidirectional=bidirectional)
        self.width = hidden * (1 + bidirectional)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, D, T), (B, T) bool -> each step (B, width, T) and the last states (B, width).

        Zero where nothing exists.
        """
        x = x.transpose(1, 2)
        if mask is None:
            steps, states = self.rnn(x)
            return steps.transpose(1, 2), self._join(states)
        order = existing_first(mask)
        packed = pack_padded_sequence(
            _gather_steps(x, order),
            mask.sum(dim=1).clamp(min=1).cpu(),
            batch_first=True,
            enforce_sorted=False,
        )
        out: PackedSequence
        out, states = self.rnn(packed)
        steps, _ = pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])
        steps = _gather_steps(steps, order.argsort(dim=1)).masked_fill(~mask[:, :, None], 0.0)
        last = self._join(states).masked_fill(~mask.any(dim=1, keepdim=True), 0.0)
        return steps.transpose(1, 2), last

    @staticmethod
    def _join(states: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """(directions, B, H) -> (B, directions * H)."""
        hidden = states[0] if isinstance(states, tuple) else states
        return hidden.transpose(0, 1).flatten(1)


def _gather_steps(x: Tensor, order: Tensor) -> Tensor:
    """(B, T, D), (B, T) indices -> (B, T, D)."""
    return x.gather(1, order[:, :, None].expand(-1, -1, x.shape[2]))


class TemporalBlock(nn.Module):
    """Residual block of a temporal convolutional network: dilated, then pointwise.

    Source: Bai, Kolter and Koltun, An empirical evaluation of generic convolutional and recurrent
    networks for sequence modeling, 2018; not causal, and with batch normalisation.
    """

    def __init__(self, width: int, dilation: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv1d(width, width, 1, bias=False),
            nn.BatchNorm1d(width),
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, D, T), zero where nothing exists -> the same."""
        return keep((x + self.body(x)).relu(), mask)


class TransformerBlock(nn.Module):
    """Pre-normalised self-attention and MLP.

    Source: Dosovitskiy et al., An image is worth 16x16 words, ICLR 2021.
    """

    def __init__(self, width: int, num_heads: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"num_heads must divide the width {width}, and {num_heads} does not")
        self.num_heads = num_heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.mlp = Mlp(width, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """(B, N, D), (B, N) bool of the tokens that may be looked at -> (B, N, D)."""
        x = x + self.dropout(self._attend(self.norm1(x), kept))
        return x + self.dropout(self.mlp(self.norm2(x)))

    def _attend(self, x: Tensor, kept: Tensor | None) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        allowed = None
        if kept is not None:  # where none exists, all are looked at: no 0 / 0
            allowed = (kept | ~kept.any(dim=1, keepdim=True))[:, None, None, :]
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class TokenEmbedding(nn.Module):
    """A feature map as tokens: a class token before them, a learned position added to each.

    Positions are learned on a `grid` x `grid` map; for another map they are interpolated.
    """

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + grid * grid, width))
        nn.init.trunc_normal_(self.class_token, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)

    def forward(self, feature_map: Tensor) -> Tensor:
        """(N, D, h, w) -> (N, 1 + h w, D)."""
        tokens = feature_map.flatten(2).transpose(1, 2)
        first = self.class_token.expand(tokens.shape[0], -1, -1)
        height, width = feature_map.shape[-2:]
        return torch.cat([first, tokens], dim=1) + resize_positions(self.positions, height, width)


def resize_positions(positions: Tensor, height: int, width: int) -> Tensor:
    """Positions (1, 1 + g g, D) of a class token and a square map, for a map of another size."""
    grid = math.isqrt(positions.shape[1] - 1)
    if (height, width) == (grid, grid):
        return positions
    plane = positions[:, 1:].transpose(1, 2).unflatten(2, (grid, grid))
    plane = nn.functional.interpolate(plane, size=(height, width), mode="bicubic")
    return torch.cat([positions[:, :1], plane.flatten(2).transpose(1, 2)], dim=1)


def time_positions(length: int, width: int, like: Tensor) -> Tensor:
    """Sine and cosine positions (length, width), `width` even, of `like`'s type and device.

    Source: Vaswani et al., Attention is all you need, NeurIPS 2017.
    """
    step = torch.arange(length, device=like.device, dtype=torch.float32)[:, None]
    index = torch.arange(0, width, 2, device=like.device, dtype=torch.float32)
    angle = step * torch.exp(index * (-math.log(10000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).to(like.dtype)
