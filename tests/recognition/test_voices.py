"""A voice against its own mean: learned in order, before it counts, and kept of named speakers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from checkpoints.checkpoint import Checkpoint
from media.adaptation import VOICE_SECONDS
from media.clip import Clip, Window
from models import WhisperSpeech, build_model
from models.whisper_encoder import SIZES, WhisperSize
from models.whisper_speech import CLIPS
from recognition.recogniser import Recogniser, build_recogniser
from recognition.recogniser_options import RecognitionOptions
from recognition.session import Session
from tests.builders import LABELS, SMALL, make_recording
from timeline.row import TimelineRow

CONFIG = replace(SMALL, **CLIPS, speech_context_seconds=1.0, detector="whole")
CPU = torch.device("cpu")


def _recogniser(batch_size: int = 3, adapt: bool = True) -> Recogniser:
    torch.manual_seed(2)
    model = build_model("whisper_speech", num_classes=2).eval()
    options = RecognitionOptions(batch_size=batch_size, adapt=adapt)
    return build_recogniser(Checkpoint(model, LABELS, CONFIG), CPU, options)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder of two narrow layers stands for `tiny`."""
    monkeypatch.setitem(SIZES, "tiny", WhisperSize(128, 2))


def _clips(seed: int, seconds: int) -> list[Clip]:
    recording = make_recording(seed, "happy", float(seconds), CONFIG)
    return [recording.cut(Window(float(i), i + 1.0), CONFIG) for i in range(seconds)]


def _rows(session: Session, clips: list[Clip], speaker: str | None = None) -> list[TimelineRow]:
    return [row for _, row in session.recognise(clips, speaker)]


def _probabilities(rows: list[TimelineRow]) -> np.ndarray:
    return np.array([row.probabilities for row in rows])


def test_rows_are_adapted_once_five_seconds_were_heard_before_them() -> None:
    clips = _clips(0, 8)
    rows = _rows(Session(_recogniser()), clips)
    assert [row.measures["adapted"] for row in rows] == [0.0] * 5 + [1.0] * 3
    plain = _probabilities(_rows(Session(_recogniser(adapt=False)), clips))
    adapted = _probabilities(rows)
    np.testing.assert_array_equal(adapted[:5], plain[:5])
    assert (np.abs(adapted[5:] - plain[5:]).max(axis=1) > 0).all()


def test_an_offset_is_the_mean_of_earlier_voices_by_its_seconds() -> None:
    recogniser, clips = _recogniser(), _clips(0, 7)
    model = recogniser.model
    assert isinstance(model, WhisperSpeech)
    with torch.no_grad():
        model.classifier_1[0].running_mean.normal_()
        seen: list[torch.Tensor] = []
        predict = model.forward

        def keep(**inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            seen.append(inputs["voice_offset"])
            heard.append(model.pooled(inputs["speech"], inputs["speech_mask"]))
            return predict(**inputs)

        heard: list[torch.Tensor] = []
        model.forward = keep  # type: ignore[assignment, method-assign]
        _rows(Session(recogniser), clips)
    features, offsets = torch.cat(heard), torch.cat(seen)
    before = (features[:6] - model.mean_voice()).sum(dim=0) / (VOICE_SECONDS + 6)
    torch.testing.assert_close(offsets[6], before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 8])
def test_how_many_windows_go_at_once_changes_nothing(batch_size: int) -> None:
    clips = _clips(0, 8)
    rows = _rows(Session(_recogniser(batch_size)), clips)
    expected = _rows(Session(_recogniser(3)), clips)
    np.testing.assert_allclose(_probabilities(rows), _probabilities(expected), atol=1e-5)


def test_a_named_speaker_is_known_in_the_next_recording() -> None:
    session = Session(_recogniser())
    _rows(session, _clips(0, 6), "anna")
    known = _rows(session, _clips(1, 2), "anna")
    other = _rows(session, _clips(1, 2), "ben")
    nobody = _rows(session, _clips(1, 2))
    assert all(row.measures["adapted"] == 1.0 for row in known)
    assert not any(row.measures["adapted"] for row in [*other, *nobody])
    np.testing.assert_array_equal(_probabilities(other), _probabilities(nobody))
    assert not np.allclose(_probabilities(known), _probabilities(nobody))


def test_a_network_that_knows_no_voice_cannot_adapt() -> None:
    torch.manual_seed(2)
    model = build_model("speech_cnn", num_classes=2).eval()
    checkpoint = Checkpoint(model, LABELS, SMALL, source={"name": "mine"})
    with pytest.raises(ValueError, match="mine"):
        build_recogniser(checkpoint, CPU, RecognitionOptions(adapt=True))
