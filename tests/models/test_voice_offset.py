"""A voice's own features, taken off what a model pools."""

from __future__ import annotations

import pytest
import torch

from models import build_model
from tests.builders import speech_blocks as _blocks
from tests.builders import whisper_logits as _logits
from tests.builders import whisper_model as _model

pytestmark = pytest.mark.usefixtures("small_whisper")


def test_an_offset_takes_away_what_a_voice_is_like_at_rest() -> None:
    model, inputs = _model(), _blocks()
    with torch.no_grad():
        features = model.pooled(**inputs)
        offset = features - model.mean_voice()
        expected = model.classifier_1(model.mean_voice().expand_as(features))
    got = _logits(model, {**inputs, "voice_offset": offset})
    torch.testing.assert_close(got, expected)
    none = torch.zeros_like(offset)
    assert torch.equal(_logits(model, {**inputs, "voice_offset": none}), _logits(model, inputs))


def test_the_mean_voice_is_that_of_training() -> None:
    model, inputs = _model(), _blocks(batch=4)
    norm = model.classifier_1[0]
    assert isinstance(norm, torch.nn.BatchNorm1d)
    norm.momentum = 1.0
    with torch.no_grad():
        features = model.pooled(**inputs)
        model.train()(**inputs)
    torch.testing.assert_close(model.mean_voice(), features.mean(dim=0))


def test_a_late_fusion_hands_the_offset_to_its_voice() -> None:
    parts = {"name": "whisper_speech", "arguments": {"num_classes": 2}}
    face = {"name": "blendshape_tcn", "arguments": {"num_classes": 2}}
    torch.manual_seed(0)
    model = build_model("late_fusion", num_classes=2, blendshapes=face, speech=parts).eval()
    member = model.members["speech"]
    assert model.voice_part is member
    inputs = {**_blocks(), "blendshapes": torch.rand(2, 10, 55)}
    with torch.no_grad():
        offset = member.pooled(inputs["speech"], inputs["speech_mask"]) - member.mean_voice()
        before, after = model(**inputs), model(**inputs, voice_offset=offset)
    assert not torch.allclose(before["speech_logits"], after["speech_logits"])
    assert torch.equal(before["blendshapes_logits"], after["blendshapes_logits"])


def test_where_nothing_is_pooled_no_voice_is_known() -> None:
    model = build_model("multimodalcnn", fusion="ia", speech_model="whisper_speech")
    assert model.voice_part is None
    assert build_model("speech_cnn").voice_part is None
