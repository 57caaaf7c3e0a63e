"""The rule of evidence: calibrated voice and face are added, classifiers of one face averaged."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from checkpoints.checkpoint import combine_checkpoints
from evaluation.calibration import Calibration
from models.late_fusion import EVIDENCE, LateFusion
from tests.builders import make_checkpoint

NAMES = {"landmarks": "landmark_tcn", "blendshapes": "blendshape_tcn", "speech": "speech_cnn"}


def _fusion(*scales: float) -> LateFusion:
    """Of landmarks, blendshapes and speech, in that order, each with its own temperature."""
    parts = {
        modality: replace(
            make_checkpoint(name), calibration=Calibration("temperature", (scale,) * 2, (0.0,) * 2)
        )
        for (modality, name), scale in zip(NAMES.items(), scales, strict=True)
    }
    model = combine_checkpoints(parts, EVIDENCE).model
    assert isinstance(model, LateFusion)
    return model


SAYS = torch.tensor([[[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]]).log()  # (1, 3 members, 2 classes)


def _combined(model: LateFusion, *present: bool) -> torch.Tensor:
    return model.combine(SAYS, torch.tensor([present]))[0].exp()


def test_the_voice_and_the_mean_of_the_face_are_added() -> None:
    face = SAYS[0, :2].mean(dim=0)
    expected = (face + SAYS[0, 2]).softmax(dim=0)
    torch.testing.assert_close(_combined(_fusion(1.0, 1.0, 1.0), True, True, True), expected)


def test_who_is_missing_says_nothing() -> None:
    model = _fusion(1.0, 1.0, 1.0)
    expected = (SAYS[0, 1] + SAYS[0, 2]).softmax(dim=0)
    torch.testing.assert_close(_combined(model, False, True, True), expected)
    torch.testing.assert_close(_combined(model, False, False, True), SAYS[0, 2].exp())
    torch.testing.assert_close(_combined(model, False, False, False), torch.tensor([0.5, 0.5]))


def test_each_member_speaks_at_its_own_temperature() -> None:
    cold = _combined(_fusion(1.0, 1.0, 0.25), False, False, True)
    torch.testing.assert_close(cold, (SAYS[0, 2] * 0.25).softmax(dim=0))


def test_a_part_without_calibration_counts_as_it_is() -> None:
    parts = {modality: make_checkpoint(name) for modality, name in NAMES.items()}
    model = combine_checkpoints(parts, EVIDENCE).model
    assert model.get_buffer("scale").tolist() == pytest.approx([1.0, 1.0, 1.0])
