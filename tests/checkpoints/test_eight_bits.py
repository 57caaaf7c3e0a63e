"""Weights in 8 bits."""

from __future__ import annotations

import pytest
import torch

from checkpoints.eight_bits import restore_from_eight_bits, store_in_eight_bits


def make_weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(-3, 1, 64)[:, None, None]  # channels of very different size
    return {
        "conv.weight": torch.randn(64, 32, 5, generator=generator) * scales,
        "conv.bias": torch.randn(64, generator=generator),
        "norm.num_batches_tracked": torch.tensor(7),
    }


def test_a_weight_is_off_by_at_most_half_a_step_of_its_channel() -> None:
    weights = make_weights()
    restored = restore_from_eight_bits(store_in_eight_bits(weights))
    error = (restored["conv.weight"] - weights["conv.weight"]).flatten(1).abs().amax(dim=1)
    largest = weights["conv.weight"].flatten(1).abs().amax(dim=1)
    assert bool((error <= largest / 253).all())
    assert bool((error > 0).all())  # it was really stored in 8 bits


def test_large_weights_take_one_byte_each() -> None:
    stored = store_in_eight_bits(make_weights())
    assert stored["conv.weight"].dtype == torch.int8
    assert stored["conv.bias"].dtype == torch.float16
    assert stored["norm.num_batches_tracked"] == 7


def test_storing_twice_changes_nothing_more() -> None:
    once = restore_from_eight_bits(store_in_eight_bits(make_weights()))
    again = restore_from_eight_bits(store_in_eight_bits(once))
    assert torch.allclose(once["conv.weight"], again["conv.weight"], rtol=1e-6, atol=0)


def test_a_channel_of_zeros_stays_zero() -> None:
    weights = {"weight": torch.zeros(8, 1024)}
    assert not bool(restore_from_eight_bits(store_in_eight_bits(weights))["weight"].any())


def test_weights_that_are_not_finite_are_kept_as_they_are() -> None:
    weights = {"weight": torch.full((8, 1024), float("nan"))}
    assert store_in_eight_bits(weights)["weight"].dtype == torch.float32


def test_a_scale_of_other_weights_is_refused() -> None:
    stored = store_in_eight_bits(make_weights())
    stored["conv.weight::scale"] = torch.ones(3)
    with pytest.raises(ValueError, match=r"scale of conv\.weight"):
        restore_from_eight_bits(stored)
