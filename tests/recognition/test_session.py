"""Recordings do not see each other, whether they run in turn, at once, or in two threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoints.checkpoint import Checkpoint
from media.adaptation import Prior
from media.blendshapes import VALUES
from media.clip import Clip, Window
from media.faces import build_detector
from models import build_model
from models.whisper_encoder import SIZES, WhisperSize
from models.whisper_speech import CLIPS
from recognition import recogniser as recogniser_module
from recognition.recogniser import Recogniser, build_recogniser
from recognition.recogniser_options import RecognitionOptions
from recognition.session import Session
from recognition.thumbnails import Thumbnails
from tests.builders import LABELS, SMALL, make_checkpoint, make_recording
from tests.conftest import WriteMedia
from timeline.row import TimelineRow

CONFIG = replace(SMALL, **CLIPS, speech_context_seconds=1.0, detector="whole")
CPU = torch.device("cpu")
Rows = list[TimelineRow]


@pytest.fixture
def recogniser(monkeypatch: pytest.MonkeyPatch) -> Recogniser:
    """Faces are seen against their own means, and each block of speech is encoded once."""
    monkeypatch.setitem(SIZES, "tiny", WhisperSize(128, 2))
    monkeypatch.setattr(recogniser_module, "build_detector", lambda *_: build_detector("whole"))
    monkeypatch.setattr(recogniser_module, "build_mesh_reading", lambda: None)
    torch.manual_seed(2)
    parts = {"speech": "whisper_speech", "blendshapes": "blendshape_tcn"}
    members = {m: {"name": n, "arguments": {"num_classes": 2}} for m, n in parts.items()}
    model = build_model("late_fusion", num_classes=2, **members).eval()
    priors = {"blendshapes": Prior(np.zeros(VALUES, dtype=np.float32))}
    checkpoint = Checkpoint(model, LABELS, CONFIG, priors=priors)
    options = RecognitionOptions(batch_size=3, adapt=True, contributions=True)
    return build_recogniser(checkpoint, CPU, options)


def _clips(seed: int, label: str, seconds: int) -> list[Clip]:
    recording = make_recording(seed, label, float(seconds), CONFIG)
    return [recording.cut(Window(float(i), i + 1.0), CONFIG) for i in range(seconds)]


@pytest.fixture(scope="module")
def first() -> list[Clip]:
    return _clips(0, "happy", 8)


@pytest.fixture(scope="module")
def second() -> list[Clip]:
    return _clips(1, "sad", 10)


def _rows(session: Session, clips: Sequence[Clip], speaker: str | None = "anna") -> Rows:
    return [row for _, row in session.recognise(clips, speaker)]


def _same(left: Rows, right: Rows) -> bool:
    return len(left) == len(right) and all(
        np.array_equal(a.probabilities, b.probabilities) and a.measures == b.measures
        for a, b in zip(left, right, strict=True)
        if a.probabilities is not None and b.probabilities is not None
    )


def test_sessions_that_take_turns_give_what_each_gives_alone(
    recogniser: Recogniser, first: list[Clip], second: list[Clip]
) -> None:
    alone = [_rows(Session(recogniser), clips) for clips in (first, second)]
    assert alone[0][-1].measures["adapted"] == alone[1][-1].measures["adapted"] == 1.0
    running = [Session(recogniser).recognise(clips, "anna") for clips in (first, second)]
    together: list[Rows] = [[], []]
    for steps in zip_longest(*running):
        for rows, step in zip(together, steps, strict=True):
            rows += [] if step is None else [step[1]]
    assert _same(together[0], alone[0])
    assert _same(together[1], alone[1])
    shared = Session(recogniser)
    _rows(shared, first)
    assert not _same(_rows(shared, second), alone[1]), "one session goes on with a speaker"


def test_sessions_in_two_threads_give_what_each_gives_alone(
    recogniser: Recogniser, first: list[Clip], second: list[Clip]
) -> None:
    alone = [_rows(Session(recogniser), clips) for clips in (first, second)]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            sessions = [Session(recogniser), Session(recogniser)]
            together = list(pool.map(_rows, sessions, (first, second)))
            assert _same(together[0], alone[0])
            assert _same(together[1], alone[1])


def test_a_recording_leaves_nothing_to_the_next_of_nobody_known(
    recogniser: Recogniser, first: list[Clip], second: list[Clip]
) -> None:
    session = Session(recogniser)
    before = _rows(session, second, None)
    _rows(session, first, None)
    assert _same(_rows(session, second, None), before)


def test_a_recogniser_cannot_be_changed(recogniser: Recogniser) -> None:
    with pytest.raises(FrozenInstanceError):
        recogniser.hop_seconds = 0.5  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        recogniser.options.adapt = False  # type: ignore[misc]


def test_files_read_in_two_threads_share_detector_and_mesh(
    tmp_path: Path, write_media: WriteMedia, talking_pictures: list[np.ndarray]
) -> None:
    torch.manual_seed(0)
    checkpoint = make_checkpoint("blendshape_tcn", SMALL)
    recogniser = build_recogniser(checkpoint, CPU, RecognitionOptions(face_measures=True))
    paths = [
        write_media(tmp_path / f"{name}.mp4", talking_pictures[start : start + 15])
        for name, start in (("a", 0), ("b", 40))
    ]
    alone = [list(Session(recogniser).analyse(path).timeline.rows) for path in paths]
    assert alone[0][0].modalities == "video"
    assert not _same(*alone)
    with ThreadPoolExecutor(2) as pool:
        analyses = list(pool.map(lambda path: Session(recogniser).analyse(path), paths))
    assert [analysis.path for analysis in analyses] == paths
    for analysis, rows in zip(analyses, alone, strict=True):
        assert _same(list(analysis.timeline.rows), rows)


def test_an_analysis_knows_its_recording_and_what_could_not_be_used(
    recogniser: Recogniser, monkeypatch: pytest.MonkeyPatch, first: list[Clip]
) -> None:
    def stream(*arguments: object) -> Iterator[Clip]:
        arguments[-1]("a packet is damaged")  # type: ignore[operator]
        return iter(first)

    monkeypatch.setattr(recogniser_module, "stream_clips", stream)
    analysis = Session(recogniser).analyse("a/b.mp4")
    assert (analysis.path, analysis.duration) == (Path("a/b.mp4"), 8.0)
    assert analysis.notes == analysis.timeline.warnings == ("a packet is damaged",)
    assert analysis.checkpoint == recogniser.identity()
    assert list(analysis.timelines.values()) == [analysis.timeline]


def test_thumbnails_are_few_and_from_everywhere(first: list[Clip]) -> None:
    thumbnails = Thumbnails(3)
    for clip in first:
        thumbnails.add(clip)
    assert [time for time, _ in thumbnails.kept] == [0.5, 4.5]
