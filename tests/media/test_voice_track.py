"""Voice over time: times, windows, and the seconds of speech in them."""

from __future__ import annotations

import numpy as np
import pytest

from media.voice_track import FRAMES_PER_SECOND, VoiceTrack, empty_voice

STEP = 1 / FRAMES_PER_SECOND


def make_track(*voiced: int, length: int = 100) -> VoiceTrack:
    probabilities = np.full(length, 0.1, dtype=np.float16)
    probabilities[list(voiced)] = 0.8
    return VoiceTrack(probabilities)


def test_a_time_lies_in_the_frame_that_covers_it() -> None:
    track = make_track(10)
    times = np.array([10 * STEP - 1e-4, 10 * STEP, 11 * STEP - 1e-4, 11 * STEP])
    assert track.voiced_at(times, 0.5, spread=0.0).tolist() == [False, True, True, False]


def test_speech_spreads_to_both_sides() -> None:
    track = make_track(10)  # 0.320 to 0.352 s
    times = np.array([0.21, 0.23, 0.45, 0.46])
    assert track.voiced_at(times, 0.5, spread=0.1).tolist() == [False, True, True, False]


@pytest.mark.parametrize("rate", [50, 100])
def test_frames_of_any_rate_find_as_many_seconds_of_speech(rate: int) -> None:
    track = make_track(*range(20, 60))
    voiced = track.voiced_at((np.arange(3 * rate) + 0.5) / rate, 0.5, spread=0.0)
    assert voiced.sum() / rate == pytest.approx(40 * STEP, abs=1.5 / rate)


def test_a_threshold_decides_what_speech_is() -> None:
    track = make_track(10)
    times = np.arange(100) * STEP
    assert track.voiced_at(times, 0.05).all()
    assert not track.voiced_at(times, 0.9).any()
    assert track.speech_seconds(0.0, 3.2, 0.9) == 0.0


def test_speech_seconds_count_the_part_of_a_frame_that_lies_inside() -> None:
    track = make_track(10, 11)
    assert track.speech_seconds(0.0, 3.2, 0.5) == pytest.approx(2 * STEP)
    assert track.speech_seconds(0.0, 10.5 * STEP, 0.5) == pytest.approx(0.5 * STEP)
    assert track.speech_seconds(10.5 * STEP, 11.5 * STEP, 0.5) == pytest.approx(STEP)


def test_outside_the_sound_there_is_no_speech() -> None:
    track = make_track(*range(100))
    assert track.voiced_at(np.array([-0.5, 1.0, 3.1, 4.0]), 0.5).tolist() == [
        False,
        True,
        True,
        False,
    ]
    assert track.speech_seconds(3.0, 5.0, 0.5) == pytest.approx(0.2)
    assert not empty_voice().voiced_at(np.array([0.0, 1.0]), 0.5).any()
    assert empty_voice().speech_seconds(0.0, 1.0, 0.5) == 0.0


def test_a_track_that_slides_keeps_its_times() -> None:
    track = make_track(*np.flatnonzero(np.random.default_rng(0).random(100) > 0.5))
    times = np.arange(2.0, 3.0, 0.01)
    wanted = track.voiced_at(times, 0.5)
    slid = track.after(0.7).after(1.5)
    assert slid.first == 46  # the frame in which 1.5 s lies
    assert np.array_equal(slid.voiced_at(times, 0.5), wanted)
    again = slid.followed_by([np.full(10, 0.9, np.float16)])
    assert again.voiced_at(np.array([3.25]), 0.5).all()
    assert track.after(-1.0).first == 0
    assert len(track.after(9.0).probabilities) == 0


def test_a_part_seen_from_a_window_answers_as_the_whole() -> None:
    track = make_track(*np.flatnonzero(np.random.default_rng(1).random(100) > 0.5))
    part = track.between(0.9, 2.1).seen_from(1.0)
    assert len(part.probabilities) == 38
    times = np.arange(0.0, 1.0, 0.02)
    assert np.array_equal(part.voiced_at(times, 0.5), track.voiced_at(times + 1.0, 0.5))
    seconds = part.speech_seconds(0.0, 1.0, 0.5)
    assert seconds == pytest.approx(track.speech_seconds(1.0, 2.0, 0.5))


@pytest.mark.parametrize("window", [(-1.0, 0.5), (2.9, 4.0), (5.0, 6.0), (-3.0, -1.0)])
def test_a_part_may_reach_beyond_the_sound(window: tuple[float, float]) -> None:
    track = make_track(*range(0, 100, 3))
    part = track.between(*window)
    times = np.linspace(*window, 50)
    assert np.array_equal(part.voiced_at(times, 0.5, 0.0), track.voiced_at(times, 0.5, 0.0))
