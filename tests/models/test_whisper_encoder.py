"""The encoder against the formulas of the paper, written a second time in plain numpy."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import erf
from torch import Tensor

from checkpoints.whisper_weights import read_whisper
from models.whisper_encoder import SIZES, WhisperEncoder, WhisperSize

SMALL = WhisperSize(128, 3)
Weights = Mapping[str, np.ndarray]


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def _convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """(in, L) -> (out, ceil(L / stride)), a zero on either side."""
    padded = np.pad(x, ((0, 0), (1, 1)))
    starts = range(0, x.shape[1], stride)
    return np.stack([np.tensordot(weight, padded[:, s : s + 3], 2) + bias for s in starts], axis=1)


def _norm(x: np.ndarray, w: Weights, name: str) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return centred / scale * w[f"{name}.weight"] + w[f"{name}.bias"]


def _linear(x: np.ndarray, w: Weights, name: str) -> np.ndarray:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _positions(length: int, width: int) -> np.ndarray:
    half = width // 2
    rates = 10000.0 ** (-np.arange(half) / (half - 1))
    angles = np.arange(length)[:, None] * rates
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def _encode(mel: np.ndarray, w: Weights, layers: int, heads: int) -> list[np.ndarray]:
    """Hidden states of one block (80, L), in float64."""
    x = _gelu(_convolve(mel, w["conv1.weight"], w["conv1.bias"], 1))
    x = _gelu(_convolve(x, w["conv2.weight"], w["conv2.bias"], 2)).T
    x = x + _positions(*x.shape)
    hidden = [x]
    for i in range(layers):
        block = f"blocks.{i}."
        qkv = _linear(_norm(x, w, block + "attn_norm"), w, block + "qkv")
        parts = []
        for q, k, v in zip(*(np.split(p, heads, 1) for p in np.split(qkv, 3, 1)), strict=True):
            scores = np.exp(q @ k.T / math.sqrt(q.shape[1]))
            parts.append(scores / scores.sum(axis=1, keepdims=True) @ v)
        x = x + _linear(np.concatenate(parts, axis=1), w, block + "out")
        inner = _gelu(_linear(_norm(x, w, block + "mlp_norm"), w, block + "mlp1"))
        x = x + _linear(inner, w, block + "mlp2")
        hidden.append(x)
    if "final_norm.weight" in w:
        hidden[-1] = _norm(x, w, "final_norm")
    return hidden


def _as_numpy(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in tensors.items()}


def _check(encoder: WhisperEncoder, frames: int, heads: int, tolerance: float) -> None:
    mel = torch.rand(2, 80, frames, generator=torch.Generator().manual_seed(3)) * 2 - 0.75
    weights = _as_numpy(encoder.state_dict())
    with torch.inference_mode():
        hidden = encoder.eval()(mel)
    for sample in range(2):
        expected = _encode(mel[sample].double().numpy(), weights, len(encoder.blocks), heads)
        assert len(expected) == len(hidden)
        for layer, (ours, theirs) in enumerate(zip(hidden, expected, strict=True)):
            assert np.abs(ours[sample].numpy() - theirs).max() < tolerance, f"layer {layer}"


@pytest.mark.parametrize("layers", [None, 2])
@pytest.mark.parametrize("frames", [60, 33])
def test_it_equals_the_formulas_with_random_weights(layers: int | None, frames: int) -> None:
    torch.manual_seed(4)
    encoder = WhisperEncoder(SMALL, layers)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    assert (encoder.final_norm is None) == (layers is not None)
    _check(encoder, frames, heads=2, tolerance=2e-3 if layers is None else 1e-3)


def test_it_equals_the_formulas_with_the_published_weights() -> None:
    path = os.environ.get("EMOFUSE_WHISPER_TINY")
    if path is None:
        pytest.skip("EMOFUSE_WHISPER_TINY names no file of Whisper tiny or tiny.en")
    published = read_whisper(Path(path))
    assert published is not None
    assert published.size == SIZES["tiny"]
    encoder = WhisperEncoder(SIZES["tiny"])
    encoder.load_state_dict(published.tensors)
    _check(encoder, 100, heads=6, tolerance=2e-3)


def test_blocks_do_not_see_each_other() -> None:
    encoder = WhisperEncoder(SMALL).eval()
    mel = torch.randn(2, 80, 40)
    alone = encoder(mel[:1])
    mel[1] += 5
    for together, single in zip(encoder(mel), alone, strict=True):
        torch.testing.assert_close(together[:1], single, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_encoded_is_refused() -> None:
    with pytest.raises(ValueError, match=r"encoder_layers must lie in 1 to 3, not 4"):
        WhisperEncoder(SMALL, 4)
    with pytest.raises(ValueError, match=r"adapter_rank must be 0 or more"):
        WhisperEncoder(SMALL, adapter_rank=-1)
    with pytest.raises(ValueError, match=r"at most 30 s in one piece, and these are 30\.02 s"):
        WhisperEncoder(SMALL)(torch.zeros(1, 80, 3002))


def test_adapters_change_nothing_until_they_are_trained() -> None:
    torch.manual_seed(0)
    plain, adapted = WhisperEncoder(SMALL).eval(), WhisperEncoder(SMALL, adapter_rank=4).eval()
    report = adapted.load_state_dict(plain.state_dict(), strict=False)
    assert all(".adapter." in name for name in report.missing_keys)
    assert len(adapted.adapters()) == 4 * SMALL.layers
    mel = torch.randn(1, 80, 40)
    assert torch.equal(plain(mel)[-1], adapted(mel)[-1])
    for part in adapted.adapters():
        torch.nn.init.normal_(part.up.weight)
    assert not torch.allclose(plain(mel)[-1], adapted(mel)[-1])
