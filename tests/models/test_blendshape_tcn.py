"""Blendshapes to logits."""

from __future__ import annotations

import pytest
import torch

from models import build_model
from models.registry import EmotionModel


def _model(temporal: str) -> EmotionModel:
    torch.manual_seed(0)
    return build_model("blendshape_tcn", num_classes=4, temporal=temporal).eval()


def test_without_time_the_order_and_number_of_steps_say_nothing() -> None:
    model = _model("mean")
    step = torch.randn(2, 1, 55)
    others = torch.randn(2, 4, 55)
    torch.testing.assert_close(
        model(blendshapes=step)["logits"], model(blendshapes=step.expand(-1, 10, -1))["logits"]
    )
    torch.testing.assert_close(
        model(blendshapes=others)["logits"], model(blendshapes=others.flip(1))["logits"]
    )


def test_without_time_log_probabilities_of_steps_are_averaged() -> None:
    model = _model("mean")
    steps = torch.randn(1, 3, 55)
    alone = [model(blendshapes=steps[:, i : i + 1])["logits"] for i in range(3)]
    torch.testing.assert_close(model(blendshapes=steps)["logits"], torch.stack(alone).mean(dim=0))
    assert alone[0].exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_with_time_the_order_counts() -> None:
    model = _model("tcn")
    steps = torch.randn(2, 10, 55)
    kept = model(blendshapes=steps)["logits"]
    assert not torch.allclose(kept, model(blendshapes=steps.flip(1))["logits"], atol=1e-4)


@pytest.mark.parametrize("temporal", ["tcn", "mean"])
def test_a_single_step_is_enough(temporal: str) -> None:
    logits = _model(temporal)(blendshapes=torch.randn(3, 1, 55))["logits"]
    assert logits.shape == (3, 4)
    assert logits.isfinite().all()


def test_another_kind_of_time_is_refused() -> None:
    with pytest.raises(ValueError, match="no temporal 'lstm'; choose from tcn, mean"):
        build_model("blendshape_tcn", temporal="lstm")
