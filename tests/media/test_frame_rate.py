"""A recording at fewer frames a second."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from media.frame_rate import choose_pictures, limit_pictures
from tests.builders import make_recording


@pytest.mark.parametrize(
    ("fps", "taken"), [(60.0, 30.0), (59.94, 29.97), (50.0, 30.0), (120.0, 30.0), (29.97, 29.97)]
)
def test_pictures_are_taken_at_up_to_thirty_a_second(fps: float, taken: float) -> None:
    times = np.round(np.arange(round(60 * fps)) / fps, 3)  # as files that count milliseconds
    chosen = choose_pictures(times, 30.0)
    assert chosen.sum() / 60 == pytest.approx(taken, rel=0.002)
    assert np.diff(times[chosen]).max() < 1 / 30 + 1 / fps + 0.001


def test_every_second_picture_of_sixty_a_second_is_taken() -> None:
    chosen = choose_pictures(np.arange(600) / 60, 30.0)
    assert chosen[::2].all()
    assert not chosen[1::2].any()
    pause = np.concatenate([np.arange(60) / 60, 10 + np.arange(60) / 60])
    assert choose_pictures(pause, 30.0).sum() == 60, "no picture makes up for a pause"


def test_faces_go_with_their_pictures() -> None:
    recording = make_recording(1)  # pictures at 10 a second
    some = replace(recording, faces=recording.faces[4:], face_times=recording.face_times[4:])
    some = replace(some, face_ids=recording.face_ids[4:])
    half = limit_pictures(some, 5.0)
    np.testing.assert_array_equal(half.picture_times, recording.picture_times[::2])
    np.testing.assert_array_equal(half.face_times, recording.picture_times[4::2])
    np.testing.assert_array_equal(half.faces, recording.faces[4::2])
    assert len(half.face_ids) == len(half.faces)
    assert limit_pictures(some, 30.0).faces.shape == some.faces.shape
