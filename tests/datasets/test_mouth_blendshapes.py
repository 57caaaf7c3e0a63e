"""Blendshapes moved as by speech."""

from __future__ import annotations

import numpy as np
import torch

from datasets.mouth_blendshapes import WIDEST, talk
from media.blendshapes import BLENDSHAPES

SHAPE = (4, 55)


def _inputs(value: float = 0.2) -> dict[str, torch.Tensor]:
    mask = torch.tensor([True, True, False, True])
    return {
        "blendshapes": torch.full(SHAPE, value) * mask[:, None],
        "blendshapes_mask": mask,
    }


def _added(seed: int = 0, value: float = 0.2) -> torch.Tensor:
    inputs = _inputs(value)
    return talk(inputs, 1.0, np.random.default_rng(seed))["blendshapes"] - inputs["blendshapes"]


def test_only_the_mouth_moves_and_alike_on_both_sides() -> None:
    for seed in range(20):
        added = _added(seed)[0]
        for index, name in enumerate(BLENDSHAPES):
            if not name.startswith(("mouth", "jaw")) or "Smile" in name or "Frown" in name:
                assert added[index] == 0, name
        left, right = (BLENDSHAPES.index(f"mouthLowerDown{side}") for side in ("Left", "Right"))
        assert added[left] == added[right]
        assert 0 < added[BLENDSHAPES.index("jawOpen")] <= WIDEST
        assert (added[52:] == 0).all(), "the head's pose stays"


def test_every_step_of_a_sample_is_moved_alike_and_missing_ones_stay_zero() -> None:
    added = _added()
    torch.testing.assert_close(added[0], added[3])
    assert not added[2].any()


def test_no_score_exceeds_one() -> None:
    inputs = _inputs(0.95)
    assert talk(inputs, 1.0, np.random.default_rng(3))["blendshapes"].max() <= 1.0


def test_the_probability_is_kept_and_the_sample_itself_is_not_changed() -> None:
    rng, inputs = np.random.default_rng(0), _inputs()
    before = inputs["blendshapes"].clone()
    moved = [talk(inputs, 0.3, rng)["blendshapes"] is not inputs["blendshapes"] for _ in range(500)]
    assert 0.22 < np.mean(moved) < 0.38
    assert torch.equal(inputs["blendshapes"], before)
