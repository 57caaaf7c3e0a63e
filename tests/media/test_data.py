"""Real clips, where they are present beside the project."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from media.clip import tile_windows
from media.configuration import ClipConfig
from media.faces import Detector, build_detector
from media.reading import read_recording, stream_clips
from media.recording import Recording
from tests.conftest import REAL_DATA

pytestmark = pytest.mark.data

CONFIG = ClipConfig()
CLIPS = sorted([*REAL_DATA.glob("media/*.m*"), *REAL_DATA.glob("ravdess_av/*/*.mp4")])


@pytest.fixture(scope="module")
def mtcnn() -> Detector:
    return build_detector("mtcnn")


@pytest.fixture(scope="module")
def read(mtcnn: Detector) -> Callable[[Path], Recording]:
    """Reads a clip, once for all tests."""
    return cache(lambda path: read_recording(path, CONFIG, mtcnn))


@pytest.mark.parametrize("path", CLIPS, ids=lambda path: path.name)
def test_rows_tile_each_real_clip(
    path: Path, mtcnn: Detector, read: Callable[[Path], Recording]
) -> None:
    recording = read(path)
    clips = list(stream_clips(path, CONFIG, mtcnn, 0.5))
    assert [clip.window for clip in clips] == tile_windows(recording.duration, 1.0, 0.5)
    for clip in clips:
        again = recording.cut(clip.window, CONFIG)
        assert np.array_equal(clip.faces, again.faces)
        assert np.array_equal(clip.waveform, again.waveform)


@pytest.mark.parametrize("name", ["single_face.mp4", "portrait_phone.mp4", "bbaf2n.mpg"])
def test_one_person_is_followed_throughout(name: str, read: Callable[[Path], Recording]) -> None:
    recording = read(REAL_DATA / "media" / name)
    assert len(recording.face_times) > 0.98 * len(recording.picture_times)
    assert len(set(recording.face_ids)) == 1


def test_where_no_face_is_none_is_found(read: Callable[[Path], Recording]) -> None:
    recording = read(REAL_DATA / "media" / "no_face.mp4")
    assert len(recording.picture_times) == 95
    assert not len(recording.face_times)


def test_a_face_that_leaves_is_not_kept(read: Callable[[Path], Recording]) -> None:
    recording = read(REAL_DATA / "media" / "face_noface.mov")
    assert recording.face_times.max() == pytest.approx(2.37, abs=0.05)  # then comes a title
    assert recording.picture_times.max() > 5.0
