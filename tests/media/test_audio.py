"""Sound: rate, down-mix, and every sample at its presentation time."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from media.audio import SoundTrack

RATE = 16000


def make_frame(
    samples: np.ndarray, start: float | None, rate: int = RATE, layout: str = "mono"
) -> av.AudioFrame:
    """A frame of (channels, N) float32 samples that begins `start` seconds into the file."""
    frame = av.AudioFrame.from_ndarray(samples.astype(np.float32), format="fltp", layout=layout)
    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
    frame.pts = None if start is None else round(start * rate)
    return frame


def gather(track: SoundTrack, *frames: av.AudioFrame) -> np.ndarray:
    """Everything a track gives for these frames, as float."""
    pieces = [piece for frame in frames for piece in track.add(frame)]
    pieces += track.finish()
    sound = np.concatenate([np.zeros(0, np.int16), *pieces])
    assert sound.dtype == np.int16
    return sound / 32768.0


def constant(value: float, seconds: float = 0.1, channels: int = 1, rate: int = RATE) -> np.ndarray:
    return np.full((channels, round(seconds * rate)), value)


def test_sound_that_starts_late_is_preceded_by_silence() -> None:
    sound = gather(SoundTrack(RATE, origin=2.0), make_frame(constant(0.5), 2.25))
    assert len(sound) == round(0.35 * RATE)
    assert not sound[:4000].any()
    assert np.allclose(sound[4000:], 0.5, atol=1e-3)


def test_a_gap_is_filled_with_silence() -> None:
    sound = gather(
        SoundTrack(RATE, 0.0), make_frame(constant(0.5), 0.0), make_frame(constant(0.25), 0.15)
    )
    assert len(sound) == round(0.25 * RATE)
    assert not sound[1600:2400].any()
    assert np.allclose(sound[2400:], 0.25, atol=1e-3)


def test_rounded_times_open_no_gaps() -> None:
    late = [make_frame(constant(0.5), 0.1 * i + 0.015 * (i % 2)) for i in range(6)]
    sound = gather(SoundTrack(RATE, 0.0), *late)
    assert len(sound) == round(0.6 * RATE)
    assert np.allclose(sound, 0.5, atol=1e-3)


def test_overlapping_sound_is_given_once() -> None:
    sound = gather(
        SoundTrack(RATE, 0.0), make_frame(constant(0.5), 0.0), make_frame(constant(0.25), 0.05)
    )
    assert len(sound) == round(0.15 * RATE)
    assert np.allclose(sound[:1600], 0.5, atol=1e-3)
    assert np.allclose(sound[1600:], 0.25, atol=1e-3)


def test_sound_before_time_zero_is_left_out() -> None:
    ramp = np.linspace(0, 0.5, 1600)[None]
    sound = gather(SoundTrack(RATE, origin=1.0), make_frame(ramp, 0.95))
    assert len(sound) == 800
    assert np.allclose(sound, ramp[0, 800:], atol=1e-3)


def test_frames_without_times_follow_each_other() -> None:
    sound = gather(SoundTrack(RATE, 0.0), *(make_frame(constant(0.5), None) for _ in range(3)))
    assert len(sound) == round(0.3 * RATE)


def test_stereo_becomes_the_mean_of_both_sides() -> None:
    both = np.stack([np.full(1600, 0.8), np.full(1600, -0.2)])
    sound = gather(SoundTrack(RATE, 0.0), make_frame(both, 0.0, layout="stereo"))
    assert np.allclose(sound, 0.3, atol=1e-3)


@pytest.mark.parametrize(("layout", "channels"), [("stereo", 2), ("5.1", 6), ("quad", 4)])
def test_the_loudest_sound_on_all_channels_does_not_clip(layout: str, channels: int) -> None:
    tone = 0.99 * np.sin(np.arange(16000) * 0.1)
    frame = make_frame(np.tile(tone, (channels, 1)), 0.0, layout=layout)
    sound = gather(SoundTrack(RATE, 0.0), frame)
    assert np.allclose(sound, tone, atol=0.02)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_resampling_keeps_time_and_pitch(rate: int) -> None:
    times = np.arange(rate) / rate
    burst = np.sin(2 * np.pi * 1000 * times) * np.exp(-(((times - 0.5) / 0.01) ** 2))
    frames = [
        make_frame(burst[None, i : i + 1024], i / rate, rate=rate) for i in range(0, rate, 1024)
    ]
    sound = gather(SoundTrack(RATE, 0.0), *frames)
    assert abs(len(sound) - RATE) <= 1
    there = np.arange(len(sound)) / RATE
    wanted = np.sin(2 * np.pi * 1000 * there) * np.exp(-(((there - 0.5) / 0.01) ** 2))
    assert np.abs(sound - wanted).max() < 0.02


def test_a_change_of_rate_and_channels_in_mid_file_is_followed() -> None:
    sound = gather(
        SoundTrack(RATE, 0.0),
        make_frame(constant(0.5), 0.0),
        make_frame(constant(0.25, channels=2, rate=48000), 0.1, rate=48000, layout="stereo"),
    )
    assert abs(len(sound) - round(0.2 * RATE)) <= 1
    assert np.allclose(sound[2000:3000], 0.25, atol=1e-2)


@pytest.mark.parametrize("rate", [20, 536_886_912])
def test_a_rate_that_no_sound_has_is_told_and_not_resampled(rate: int) -> None:
    track = SoundTrack(RATE, 0.0)
    frame = make_frame(constant(0.5), 0.0)
    frame.sample_rate = rate
    assert not len(gather(track, frame))
    assert track.notes == [f"sound of {rate} Hz is none: its header is damaged"]


def test_a_time_far_ahead_is_not_believed() -> None:
    frames = [make_frame(constant(0.5), start) for start in (0.0, 1e9, 0.1)]
    sound = gather(SoundTrack(RATE, 0.0), *frames)
    assert len(sound) == round(0.2 * RATE)


def test_a_stream_that_is_not_waited_for_any_more_is_silence() -> None:
    track = SoundTrack(RATE, 0.0)
    pieces = [*track.add(make_frame(constant(0.5), 0.0)), *track.fill_until(25.0)]
    assert max(len(piece) for piece in pieces) <= 10 * RATE
    assert track.end == 25.0
    late = gather(track, make_frame(constant(0.5, seconds=1.0), 24.5))
    assert len(late) + sum(map(len, pieces)) == track.position == round(25.5 * RATE)
