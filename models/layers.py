"""Layers that several architectures share: pooling over time and cross-attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def masked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of (B, D, T) over the steps that (B, T) `mask` keeps; zero where it keeps none."""
    if mask is None:
        return x.mean(dim=-1)
    kept = mask.unsqueeze(1).to(x.dtype)  # (B, 1, T)
    return (x * kept).sum(dim=-1) / kept.sum(dim=-1).clamp(min=1.0)


class AttentivePooling(nn.Module):
    """Learned weights over time, then weighted mean and standard deviation.

    Source: Okabe et al., Attentive statistics pooling, Interspeech 2018.
    """

    def __init__(self, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Conv1d(width, hidden, 1), nn.Tanh(), nn.Conv1d(hidden, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, L) -> (B, 2 D)."""
        weight = self.score(x).softmax(dim=-1)  # (B, 1, L)
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
