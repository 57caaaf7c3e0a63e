"""What `Recording.cut` takes into a window, against exact times."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from media.clip import Window, tile_windows
from media.configuration import ClipConfig
from media.recording import SHOWN_SECONDS, Recording
from tests.media.test_clip import make_recording

CONFIG = ClipConfig(face_size=16, pictures=30, picture_rate=1000.0)
RATE = CONFIG.sample_rate


def _at(*times: float, seconds: float = 4.0) -> Recording:
    """A recording with a face at each of these times; its brightness is its number, from 1."""
    count = len(times)
    return replace(
        make_recording(seconds, CONFIG),
        faces=np.stack([np.full((16, 16, 3), i + 1, np.uint8) for i in range(count)]),
        face_times=np.array(times),
        face_ids=np.zeros(count, dtype=np.int64),
        picture_times=np.array(times),
    )


def _seen(recording: Recording, start: float, end: float) -> list[int]:
    clip = recording.cut(Window(start, end), CONFIG)
    return clip.faces[clip.face_mask][:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    ("time", "first", "second"),
    [
        (0.9, [1], [2]),
        (1.0, [], [1, 2]),  # a window holds its start and not its end
        (1.0 - 5e-7, [], [1, 2]),  # rounded: as good as its start
        (1.0 - 5e-6, [1], [2]),
    ],
)
def test_a_face_at_a_boundary_is_in_one_window(
    time: float, first: list[int], second: list[int]
) -> None:
    recording = _at(time, 1.5)
    assert _seen(recording, 0.0, 1.0) == first
    assert _seen(recording, 1.0, 2.0) == second


@pytest.mark.parametrize("fps", [10.0, 24.0, 29.97, 30.0])
def test_each_face_is_in_exactly_one_of_the_windows_that_tile(fps: float) -> None:
    times = np.round(np.arange(round(4 * fps)) / fps, 6)
    recording = _at(*times)
    windows = tile_windows(4.0, 1.0, 1.0)
    seen = [number for w in windows for number in _seen(recording, w.start, w.end)]
    assert seen == list(range(1, len(times) + 1))


def test_the_sound_of_windows_that_tile_is_the_recordings() -> None:
    recording = make_recording(3.0, CONFIG)
    context = CONFIG.speech_context
    clips = [recording.cut(window, CONFIG) for window in tile_windows(3.0, 1.0, 1.0)]
    joined = np.concatenate([clip.waveform[context : context + RATE] for clip in clips])
    np.testing.assert_array_equal(joined, recording.waveform / np.float32(32768))
    assert [clip.sound_samples for clip in clips] == [RATE] * 3


@pytest.mark.parametrize(("start", "shown"), [(1.0, True), (4.9, True), (5.0, False)])
def test_a_frame_stays_for_so_long(start: float, shown: bool) -> None:
    recording = _at(0.0, seconds=9.0)
    assert (start < SHOWN_SECONDS) == shown
    assert bool(_seen(recording, start, start + 1.0)) == shown


def test_the_share_of_a_face_is_that_of_the_windows_frames() -> None:
    recording = make_recording(2.0, CONFIG)  # 25 frames a second
    some = replace(
        recording,
        faces=recording.faces[:10],
        face_times=recording.face_times[:10],
        face_ids=recording.face_ids[:10],
    )
    assert some.cut(Window(0.0, 1.0), CONFIG).face_share == pytest.approx(10 / 25)
    assert some.cut(Window(1.0, 2.0), CONFIG).face_share == 0.0


def test_cutting_leaves_the_recording_alone() -> None:
    recording = make_recording(2.0, CONFIG)
    clip = recording.cut(Window(0.0, 1.0), CONFIG)
    before = recording.faces.copy(), recording.waveform.copy()
    clip.faces[:], clip.waveform[:] = 7, 0.5
    assert np.array_equal(recording.faces, before[0])
    assert np.array_equal(recording.waveform, before[1])
