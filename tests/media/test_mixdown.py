"""Channels to one: what cancels, what is dead, and what is above full scale."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from media.audio import SoundTrack
from media.configuration import ClipConfig
from media.mixdown import HELD_SECONDS, mix_weights
from media.reading import read_recording, stream_clips
from tests.conftest import WriteMedia
from tests.media.test_audio import RATE, gather, make_frame


def speech(seconds: float = 1.0, seed: int = 0) -> np.ndarray:
    """(N,) float32 noise whose loudness swings, peak 0.5."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    noise = rng.normal(size=count) * (1 + np.sin(np.arange(count) * 2e-3))
    return (0.5 * noise / np.abs(noise).max()).astype(np.float32)


def in_frames(
    channels: np.ndarray, layout: str = "mono", start: float = 0.0, rate: int = RATE
) -> list[av.AudioFrame]:
    size = 1000
    return [
        make_frame(channels[:, i : i + size], start + i / rate, rate, layout)
        for i in range(0, channels.shape[1], size)
    ]


def read(channels: np.ndarray, layout: str = "mono", rate: int = RATE) -> np.ndarray:
    return gather(SoundTrack(RATE, 0.0), *in_frames(np.atleast_2d(channels), layout, rate=rate))


@pytest.mark.parametrize("rate", [RATE, 44100])
@pytest.mark.parametrize("factor", [2.0, 8.0, 32768.0, 2.0**31])
def test_the_level_of_floating_point_sound_does_not_change_the_result(
    factor: float, rate: int
) -> None:
    plain = speech() * 1.9  # peak 0.95
    heard, louder = read(plain, rate=rate), read(plain * np.float32(factor), rate=rate)
    scale = 2.0 ** round(np.log2(np.abs(heard).max() / np.abs(louder).max()))
    assert 0.5 < np.abs(heard).max() < 1.0
    assert 1 / 16 <= scale <= 1
    np.testing.assert_allclose(louder * scale, heard, atol=scale * 2 / 32768)


def test_integers_saved_as_floating_point_are_read_as_those_integers() -> None:
    plain = speech()
    whole = np.round(plain * 32768)
    np.testing.assert_array_equal(read(whole), whole / 32768)


def test_sound_that_is_louder_later_is_not_clipped_either() -> None:
    sound = np.concatenate([speech(HELD_SECONDS + 1.0), 4 * speech(1.0, seed=1)])
    heard = read(sound)
    quiet, loud = heard[: 5 * RATE], heard[-RATE:]
    np.testing.assert_allclose(quiet, sound[: 5 * RATE], atol=1e-4)
    np.testing.assert_allclose(loud, sound[-RATE:] / 2, atol=1e-4)


def test_a_damaged_sample_does_not_silence_the_recording() -> None:
    sound = speech(7.0)
    for place in (3 * RATE, round(6.5 * RATE)):
        sound[place] = 3e7
    heard = read(sound)
    others = np.abs(sound) < 1
    np.testing.assert_allclose(heard[others], sound[others], atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_what_is_not_finite_is_silence_and_told(value: float) -> None:
    sound = speech(3.0)
    sound[RATE : 2 * RATE] = value
    track = SoundTrack(RATE, 0.0)
    heard = gather(track, *in_frames(sound[None]))
    assert not heard[RATE : 2 * RATE].any()
    np.testing.assert_allclose(heard[:RATE], sound[:RATE], atol=1e-4)
    assert track.notes == ["1 s of sound is not finite (NaN, infinite): silence"]


def test_channels_that_cancel_are_not_silence() -> None:
    one = speech(7.0)
    noise = 1e-3 * speech(7.0, seed=5)
    track = SoundTrack(RATE, 0.0)
    heard = gather(track, *in_frames(np.stack([one, noise - 0.9 * one]), "stereo"))
    np.testing.assert_allclose(heard, one, atol=1e-4)
    assert track.notes == ["the channels of the sound cancel each other: channel 1 is used"]


def test_speakers_on_a_channel_each_are_both_heard() -> None:
    one, two = speech(12.0), speech(12.0, seed=1)
    one[6 * RATE :] = 0  # the second speaks only after the choice was made
    two[: 6 * RATE] = 0
    track = SoundTrack(RATE, 0.0)
    heard = gather(track, *in_frames(np.stack([one, two]), "stereo"))
    np.testing.assert_allclose(heard, one + two, atol=1e-4)
    assert track.notes == []


@pytest.mark.parametrize(("layout", "channels"), [("stereo", 2), ("5.1", 6)])
def test_a_dead_channel_takes_nothing_from_the_level(layout: str, channels: int) -> None:
    sound = np.zeros((channels, 2 * RATE), dtype=np.float32)
    sound[min(2, channels - 1)] = speech(2.0)  # the centre of 5.1
    np.testing.assert_allclose(read(sound, layout), speech(2.0), atol=1e-4)


def test_independent_channels_are_mixed_evenly() -> None:
    both = np.stack([speech(), speech(seed=1)])
    np.testing.assert_allclose(read(both, "stereo"), both.mean(axis=0), atol=1e-4)


def test_silence_before_the_first_sound_is_not_waited_for() -> None:
    track = SoundTrack(RATE, 0.0)
    for frame in in_frames(np.zeros((2, 20 * RATE)), "stereo"):
        list(track.add(frame))
    assert track.end == 20.0 - HELD_SECONDS


def test_quiet_before_the_first_sound_has_the_level_of_what_follows() -> None:
    quiet = 0.001 * speech(2.0, seed=1)
    sound = np.concatenate([quiet, 1.9 * speech(7.0)])
    heard, louder = read(sound), read(4 * sound)
    np.testing.assert_allclose(louder, heard, atol=1e-4)


def test_a_gap_does_not_make_the_choice_anew() -> None:
    one = speech(6.0)
    both = np.stack([one, -one])
    track = SoundTrack(RATE, 0.0)
    heard = gather(
        track,
        *in_frames(both, "stereo"),
        *in_frames(np.stack([one[:RATE], 0.5 * one[:RATE]]), "stereo", start=7.0),
    )
    np.testing.assert_allclose(heard[-RATE:], one[:RATE], atol=1e-4)  # channel 1, not the mean


def test_weights_of_a_mix_sum_to_one_for_any_layout() -> None:
    for layout, channels in (("5.1", 6), ("7.1", 8), ("9 channels", 9), ("quad", 4)):
        weights = mix_weights(layout, channels)
        assert weights.shape == (channels,)
        assert weights.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(mix_weights("9 channels", 9), 1 / 9)
    front, centre = mix_weights("5.1", 6)[[0, 2]]
    assert centre == pytest.approx(front * np.sqrt(2), rel=1e-3)  # BS.775


def test_nine_channels_are_sound_like_any_other(tmp_path: Path) -> None:
    import wave

    path = tmp_path / "nine.wav"
    sound = np.round(speech() * 32768).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(9)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.repeat(sound[:, None], 9, axis=1).tobytes())
    recording = read_recording(path, ClipConfig(), None)
    assert np.abs(recording.waveform.astype(int) - sound).max() <= 1


@pytest.mark.parametrize("kind", ["u8", "s16", "s32", "flt", "dbl", "s16p", "s32p", "dblp", "u8p"])
def test_every_sample_format_is_read_at_its_scale(kind: str) -> None:
    scale = {"u8": 2**7, "s1": 2**15, "s3": 2**31}.get(kind[:2], 1)
    types = {"u8": np.uint8, "s1": np.int16, "s3": np.int32, "fl": np.float32, "db": np.float64}
    both = np.stack([speech(), speech(seed=1)]).astype(np.float64)
    values = (both * scale + (128 if kind[:2] == "u8" else 0)).astype(types[kind[:2]])
    if not kind.endswith("p"):
        values = values.T.reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(values), format=kind, layout="stereo")
    frame.sample_rate = RATE
    heard = gather(SoundTrack(RATE, 0.0), frame)
    np.testing.assert_allclose(heard, both.mean(axis=0), atol=0.01 if scale == 2**7 else 1e-4)


def test_a_stream_gives_the_samples_of_the_whole_file(
    tmp_path: Path, write_media: WriteMedia
) -> None:
    one = np.concatenate([np.zeros(RATE, np.float32), speech(9.0)])
    path = write_media(
        tmp_path / "anti.wav", sound=np.stack([one, -one], axis=1), audio_codec="pcm_s16le"
    )
    config = ClipConfig()
    whole = read_recording(path, config, None)
    np.testing.assert_allclose(whole.waveform / 32768, one, atol=1e-3)
    for clip in stream_clips(path, config, None, 1.0):
        expected = whole.cut(clip.window, config)
        np.testing.assert_array_equal(clip.waveform, expected.waveform)
        assert clip.has_speech == expected.has_speech == (clip.window.start >= 1.0)
