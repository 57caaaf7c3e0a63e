"""The demo clip is honest about itself, changes its expression, and is the same every time."""

from pathlib import Path

import av
import numpy as np
import pytest

from datasets.demo_clip import (
    CAPTION,
    FROWN,
    NEUTRAL,
    SAMPLE_RATE,
    SMILE,
    SURPRISED,
    Expression,
    draw_portrait,
    expression_track,
    make_demo_clip,
    synthesise_speech,
)
from media.faces import build_detector

MOUTH = (slice(280, 380), slice(230, 420))  # of a picture that looks at the face at time 0


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo_clip(tmp_path_factory.mktemp("demo") / "demo.mp4", seconds=2.0)


def test_the_clip_has_the_promised_streams_and_says_what_it_is(short_clip: Path) -> None:
    with av.open(str(short_clip)) as container:
        assert container.metadata["comment"] == CAPTION
        assert "synthetic" in CAPTION
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.width, video.height, video.average_rate) == (640, 480, 25)
        assert (audio.codec_context.name, audio.rate, audio.channels) == ("aac", SAMPLE_RATE, 1)
        pictures = sum(1 for _ in container.decode(video=0))
        assert video.duration * video.time_base == 2
        assert "encoder" not in container.metadata
    assert pictures == 50
    assert [file.name for file in short_clip.parent.iterdir()] == ["demo.mp4"]


def test_the_sound_does_not_outlast_the_pictures(short_clip: Path) -> None:
    with av.open(str(short_clip)) as container:
        last = list(container.decode(audio=0))[-1]
    end = float(last.time) + last.samples / SAMPLE_RATE
    assert 1.9 < end <= 2.0  # or a window of padding would follow the last


def test_two_clips_are_the_same_byte_for_byte(short_clip: Path, tmp_path: Path) -> None:
    again = make_demo_clip(tmp_path / "again.mp4", seconds=2.0)
    assert again.read_bytes() == short_clip.read_bytes()


def test_the_caption_is_burnt_into_every_picture() -> None:
    for pose in (SMILE, Expression(away=1.0)):
        strip = draw_portrait(pose, 0.0)[-26:].astype(int)
        assert strip.max() > 200
        assert np.median(strip) < 40


def test_a_pose_of_zeros_leaves_the_face_as_it_was() -> None:
    eyes = draw_portrait(SMILE, 0.0)[150:400, 150:500].astype(int)
    nudged = draw_portrait(Expression(brows=1e-6, corners=1e-6), 0.0)[150:400, 150:500]
    assert np.abs(eyes - nudged).max() <= 12  # a resampling's rounding


def test_phases_differ_in_the_mouth_and_stay_still_at_the_edge() -> None:
    pictures = [draw_portrait(pose, 0.0).astype(int) for pose in (SMILE, NEUTRAL, SURPRISED, FROWN)]
    for number, first in enumerate(pictures):
        for second in pictures[number + 1 :]:
            assert np.abs(first[MOUTH] - second[MOUTH]).mean() > 4
            assert np.array_equal(first[:60], second[:60])


def test_lips_open_with_the_syllables() -> None:
    times = np.arange(600) / 25
    opening = np.array([pose.opening for pose in expression_track(times, 24.0)])[10:110]
    waveform = synthesise_speech(24.0)
    loudness = np.abs(waveform).reshape(600, -1).mean(axis=1)[10:110]
    assert np.corrcoef(opening, loudness)[0, 1] > 0.7


def test_three_seconds_are_silent_and_three_show_no_face() -> None:
    waveform = synthesise_speech(24.0)
    assert waveform.dtype == np.float32
    assert 0.5 < np.abs(waveform).max() <= 1.0
    peaks = np.abs(waveform).reshape(24, SAMPLE_RATE).max(axis=1)
    assert np.flatnonzero(peaks == 0).tolist() == [19, 20, 21]
    track = expression_track(np.arange(600) / 25, 24.0)
    away = np.array([pose.away for pose in track]).reshape(24, 25).min(axis=1)
    assert np.flatnonzero(away > 0.95).tolist() == [12, 13, 14]


def test_the_voice_is_louder_and_higher_when_aroused() -> None:
    waveform = synthesise_speech(24.0)
    calm, aroused = waveform[6 * SAMPLE_RATE : 8 * SAMPLE_RATE], waveform[9 * SAMPLE_RATE :][:48000]
    assert np.sqrt((aroused**2).mean()) > 2 * np.sqrt((calm**2).mean())
    assert _pitch(aroused[:24000]) > 1.3 * _pitch(calm[:24000])


def _pitch(waveform: np.ndarray) -> float:
    """The strongest periodicity between 120 and 400 Hz, by autocorrelation."""
    spectrum = np.abs(np.fft.rfft(waveform, 2 * len(waveform))) ** 2
    correlation = np.fft.irfft(spectrum)
    lags = np.arange(SAMPLE_RATE // 400, SAMPLE_RATE // 120)
    return SAMPLE_RATE / float(lags[correlation[lags].argmax()])


def test_a_length_that_makes_no_clip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="between 2 and 600 s"):
        make_demo_clip(tmp_path / "demo.mp4", seconds=0.5)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_mtcnn_finds_the_face_except_where_it_is_away() -> None:
    mtcnn = build_detector("mtcnn")
    track = expression_track(np.arange(600) / 25, 24.0)
    for index in range(12, 600, 25):
        picture = np.ascontiguousarray(draw_portrait(track[index], index / 25)[::2, ::2])
        (boxes,) = mtcnn.detect(picture[None])
        assert (not len(boxes)) == (track[index].away > 0.9), f"at {index / 25:.2f} s: {boxes}"


@pytest.mark.slow
def test_the_whole_clip_is_small(tmp_path: Path) -> None:
    assert make_demo_clip(tmp_path / "demo.mp4").stat().st_size < 1_500_000
