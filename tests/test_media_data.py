"""Real clips, where they are present beside the project."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from media.clip import ClipConfig, tile_windows
from media.faces import Detector, build_detector
from media.recording import read_recording, stream_clips
from tests.conftest import REAL_DATA

pytestmark = pytest.mark.data

CLIPS = sorted([*REAL_DATA.glob("media/*.m*"), *REAL_DATA.glob("ravdess_av/*/*.mp4")])


@pytest.fixture(scope="module")
def mtcnn() -> Detector:
    return build_detector("mtcnn")


@pytest.mark.parametrize("path", CLIPS, ids=lambda path: path.name)
def test_rows_tile_each_real_clip(path: Path, mtcnn: Detector) -> None:
    config = ClipConfig()
    recording = read_recording(path, config, mtcnn)
    clips = list(stream_clips(path, config, mtcnn, 0.5))
    assert [clip.window for clip in clips] == tile_windows(recording.duration, 1.0, 0.5)
    for clip in clips:
        again = recording.cut(clip.window, config)
        assert np.array_equal(clip.faces, again.faces)
        assert np.array_equal(clip.waveform, again.waveform)


def faces_of(name: str, mtcnn: Detector) -> tuple[np.ndarray, np.ndarray]:
    """Times at which a face is shown, and times of all pictures."""
    recording = read_recording(REAL_DATA / name, ClipConfig(), mtcnn)
    return recording.face_times, recording.picture_times


def test_one_person_is_followed_throughout(mtcnn: Detector) -> None:
    for name in ("media/single_face.mp4", "media/portrait_phone.mp4", "media/bbaf2n.mpg"):
        recording = read_recording(REAL_DATA / name, ClipConfig(), mtcnn)
        assert len(recording.face_times) > 0.98 * len(recording.picture_times)
        assert len(set(recording.face_ids)) == 1


def test_where_no_face_is_none_is_found(mtcnn: Detector) -> None:
    shown, pictures = faces_of("media/no_face.mp4", mtcnn)
    assert len(pictures) == 95
    assert not len(shown)


def test_a_face_that_leaves_is_not_kept(mtcnn: Detector) -> None:
    shown, pictures = faces_of("media/face_noface.mov", mtcnn)
    assert shown.max() == pytest.approx(2.37, abs=0.05)  # then comes a title without a face
    assert pictures.max() > 6.0
