"""Whole files: one time line for sound and pictures, streaming equal to reading, and errors."""

from __future__ import annotations

import wave
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

import media.decoding
import media.reading
from media.clip import Clip, Window, tile_windows
from media.configuration import ClipConfig
from media.errors import MediaError
from media.faces import Detector, build_detector
from media.reading import probe, read_recording, stream_clips
from media.recording import Recording
from tests.conftest import EVENT, FPS, RATE, WriteMedia

CONFIG = ClipConfig(face_size=32, face_margin=0.0, detector="whole")
WHOLE = build_detector("whole")


@pytest.fixture(scope="module")
def mtcnn() -> Detector:
    return build_detector("mtcnn")


@pytest.fixture(scope="module")
def levels() -> list[np.ndarray]:
    """50 grey pictures (2 s) that get brighter from one to the next."""
    return [np.full((64, 96, 3), 4 * i + 20, np.uint8) for i in range(50)]


def assert_same(a: Clip, b: Clip) -> None:
    assert a.window == b.window
    for name in ("faces", "face_mask", "waveform"):
        assert np.array_equal(getattr(a, name), getattr(b, name)), (name, a.window)
    for name in ("face_id", "face_share", "has_speech"):
        assert getattr(a, name) == getattr(b, name), (name, a.window)


def brightest(recording: Recording) -> float:
    return float(recording.face_times[recording.faces.mean(axis=(1, 2, 3)).argmax()])


def loud_from(recording: Recording) -> float:
    return int(np.flatnonzero(np.abs(recording.waveform) > 8000)[0]) / RATE


@pytest.mark.parametrize(
    ("suffix", "video", "audio"),
    [
        ("mp4", "libx264", "aac"),
        ("mkv", "libx264", "flac"),
        ("mov", "libx264", "pcm_s16le"),
        ("webm", "libx264", "libopus"),
        ("ts", "mpeg2video", "mp2"),
        ("avi", "mpeg4", "pcm_s16le"),
    ],
)
def test_flash_and_beep_are_at_the_same_time_in_every_format(
    tmp_path: Path,
    write_media: WriteMedia,
    levels: list[np.ndarray],
    beep: np.ndarray,
    suffix: str,
    video: str,
    audio: str,
) -> None:
    pictures = [p // 2 for p in levels]
    pictures[round(EVENT * FPS)] = np.full((64, 96, 3), 255, np.uint8)
    path = tmp_path / f"a.{'mkv' if suffix == 'webm' else suffix}"
    write_media(path, pictures, sound=beep, video_codec=video, audio_codec=audio)
    recording = read_recording(path, CONFIG, WHOLE)
    assert abs(brightest(recording) - loud_from(recording)) < 0.01
    assert brightest(recording) == pytest.approx(EVENT, abs=0.04)  # .ts starts with its sound


def test_sound_and_pictures_are_cut_by_the_same_times(talking_face: Path, mtcnn: Detector) -> None:
    config = ClipConfig()
    recording = read_recording(talking_face, config, mtcnn)
    assert len(recording.face_times) == 60
    for start, event_inside in ((0.2, False), (0.25, True), (1.2, True), (1.22, False)):
        clip = recording.cut(Window(start, start + 1.0), replace(config, pictures=25))
        bright = clip.faces.mean(axis=(1, 2, 3))
        assert (bright.max() > 1.25 * np.median(bright)) == event_inside
    after = recording.cut(Window(1.19, 2.19), config).waveform[config.speech_context :]
    assert int(np.flatnonzero(np.abs(after) > 0.3)[0]) / RATE == pytest.approx(0.01, abs=0.003)


@pytest.mark.parametrize("hop", [1.0, 0.5, 0.3])
@pytest.mark.parametrize("block_seconds", [0.01, 1.0, 100.0])
def test_streamed_clips_equal_clips_cut_from_the_whole(
    talking_face: Path,
    mtcnn: Detector,
    monkeypatch: pytest.MonkeyPatch,
    hop: float,
    block_seconds: float,
) -> None:
    config = ClipConfig(face_size=32)
    recording = read_recording(talking_face, config, mtcnn)
    windows = tile_windows(recording.duration, config.window_seconds, hop)
    monkeypatch.setattr(media.decoding, "BLOCK_SECONDS", block_seconds)
    clips = list(stream_clips(talking_face, config, mtcnn, hop))
    assert [clip.window for clip in clips] == windows
    assert clips[-1].window.partial
    assert any(clip.face_mask.any() for clip in clips)
    for window, clip in zip(windows, clips, strict=True):
        assert_same(clip, recording.cut(window, config))


def test_memory_does_not_grow_with_the_length(
    tmp_path: Path, write_media: WriteMedia, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [np.full((32, 32, 3), i % 200, np.uint8) for i in range(60 * FPS)]
    silence = np.zeros(60 * RATE, np.float32)
    path = write_media(tmp_path / "a.mkv", pictures, sound=silence, audio_codec="flac")
    held: list[int] = []
    extend = media.reading._extend

    def watched(recording: Recording, blocks: list) -> Recording:
        longer = extend(recording, blocks)
        held.append(longer.waveform.nbytes + longer.faces.nbytes)
        return longer

    monkeypatch.setattr(media.reading, "_extend", watched)
    assert len(list(stream_clips(path, CONFIG, WHOLE, 1.0))) == 60
    assert max(held) < 8 * RATE * 2 + 8 * FPS * 32 * 32 * 3  # some seconds


def test_a_hop_that_would_leave_gaps_is_refused_at_once(talking_face: Path) -> None:
    with pytest.raises(ValueError, match="hop"):
        stream_clips(talking_face, CONFIG, WHOLE, hop_seconds=1.5)


def test_sound_that_starts_late_is_placed_by_its_time(
    tmp_path: Path, write_media: WriteMedia, levels: list[np.ndarray], beep: np.ndarray
) -> None:
    path = write_media(tmp_path / "a.mkv", levels, sound=beep, sound_start=0.5, audio_codec="flac")
    recording = read_recording(path, CONFIG, WHOLE)
    assert loud_from(recording) == pytest.approx(EVENT + 0.5, abs=0.002)
    assert not recording.waveform[: RATE // 2].any()
    assert recording.face_times[0] == 0.0
    assert recording.duration == pytest.approx(2.9, abs=0.01)


def test_pictures_that_start_late_are_placed_by_their_times(
    tmp_path: Path, write_media: WriteMedia, levels: list[np.ndarray], beep: np.ndarray
) -> None:
    times = [0.6 + i / FPS for i in range(len(levels))]
    path = write_media(tmp_path / "a.mkv", levels, times=times, sound=beep, audio_codec="flac")
    recording = read_recording(path, CONFIG, WHOLE)
    assert recording.face_times[0] == pytest.approx(0.6)
    assert loud_from(recording) == pytest.approx(EVENT, abs=0.002)
    assert recording.duration == pytest.approx(2.6, abs=0.01)


def test_a_variable_frame_rate_is_just_times(
    tmp_path: Path, write_media: WriteMedia, levels: list[np.ndarray]
) -> None:
    times = [0.0, 0.03, 0.05, 0.4, 0.45, 0.9, 1.3, 1.35, 2.0]
    path = write_media(tmp_path / "a.mkv", levels[: len(times)], times=times)
    recording = read_recording(path, CONFIG, WHOLE)
    assert recording.picture_times == pytest.approx(times, abs=0.001)
    clip = recording.cut(Window(0.4, 1.4), CONFIG)
    assert clip.face_mask.sum() == 5


def test_video_without_sound_and_silent_video_have_no_speech(
    tmp_path: Path, write_media: WriteMedia, levels: list[np.ndarray]
) -> None:
    mute = write_media(tmp_path / "mute.mp4", levels)
    silent = write_media(tmp_path / "silent.mp4", levels, sound=np.zeros(2 * RATE, np.float32))
    for path, has_audio in ((mute, False), (silent, True)):
        assert probe(path).has_audio == has_audio
        clips = list(stream_clips(path, CONFIG, WHOLE, 1.0))
        assert [clip.has_speech for clip in clips[:2]] == [False, False]
        assert all(clip.face_mask.all() for clip in clips[:2])


@pytest.mark.parametrize(
    ("suffix", "codec"), [("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "libmp3lame")]
)
def test_sound_files_have_speech_and_no_faces(
    tmp_path: Path, write_media: WriteMedia, beep: np.ndarray, suffix: str, codec: str
) -> None:
    path = write_media(tmp_path / f"a.{suffix}", sound=beep, audio_codec=codec)
    clips = list(stream_clips(path, CONFIG, WHOLE, 1.0))
    assert len(clips) == 3
    assert [clip.has_speech for clip in clips] == [False, True, False]
    assert not any(clip.face_mask.any() for clip in clips)
    assert loud_from(read_recording(path, CONFIG, WHOLE)) == pytest.approx(EVENT, abs=0.003)


def test_cover_art_is_no_video(
    tmp_path: Path, write_media: WriteMedia, beep: np.ndarray, face_picture: np.ndarray
) -> None:
    path = write_media(tmp_path / "a.mp3", sound=beep, audio_codec="libmp3lame", cover=face_picture)
    with av.open(str(path)) as container:
        assert container.streams.video
    assert not probe(path).has_video
    assert not len(read_recording(path, CONFIG, WHOLE).faces)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_still_picture_lasts_one_window(
    tmp_path: Path, face_picture: np.ndarray, mtcnn: Detector, suffix: str
) -> None:
    from PIL import Image

    Image.fromarray(face_picture).save(tmp_path / f"a.{suffix}")
    clips = list(stream_clips(tmp_path / f"a.{suffix}", ClipConfig(), mtcnn, 1.0))
    assert [clip.window for clip in clips] == [Window(0.0, 1.0)]
    assert clips[0].face_mask.sum() == 1
    assert not clips[0].has_speech


def test_without_a_detector_sound_alone_is_read(
    talking_face: Path, tmp_path: Path, write_media: WriteMedia, levels: list[np.ndarray]
) -> None:
    whole, speech = (read_recording(talking_face, CONFIG, d) for d in (WHOLE, None))
    assert np.array_equal(whole.waveform, speech.waveform)
    assert not len(speech.faces)
    assert speech.duration == whole.duration
    longer = write_media(tmp_path / "a.mp4", levels, sound=np.ones(RATE, np.float32))
    assert read_recording(longer, CONFIG, None).duration == pytest.approx(2.0, abs=0.01)


def test_a_stream_that_ends_early_does_not_hold_the_other_back(
    tmp_path: Path,
    write_media: WriteMedia,
    levels: list[np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(media.decoding, "SOUND_LAG", 0.5)
    monkeypatch.setattr(media.decoding, "PICTURES_LAG", 0.5)
    noise = np.random.default_rng(0).normal(0, 0.1, 6 * RATE).astype(np.float32)
    long_sound = write_media(tmp_path / "a.mkv", levels, sound=noise, audio_codec="flac")
    long_video = write_media(tmp_path / "b.mkv", levels, sound=noise[:8000], audio_codec="flac")
    for path in (long_sound, long_video):
        known = [block.known for block in media.decoding.read_blocks(path, CONFIG, WHOLE)]
        assert len(known) > 1
        recording = read_recording(path, CONFIG, WHOLE)
        assert len(recording.faces) >= 47  # what the decoder held back is not waited for
        for clip in stream_clips(path, CONFIG, WHOLE, 0.5):
            assert_same(clip, recording.cut(clip.window, CONFIG))
    assert read_recording(long_sound, CONFIG, WHOLE).duration == pytest.approx(6.0, abs=0.1)


def test_joined_recordings_go_on_in_time(
    tmp_path: Path, write_media: WriteMedia, levels: list[np.ndarray]
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32)
    options = {"video_codec": "mpeg2video", "audio_codec": "mp2"}
    part = write_media(tmp_path / "a.ts", levels, sound=noise, **options).read_bytes()
    (tmp_path / "joined.ts").write_bytes(part * 3)
    recording = read_recording(tmp_path / "joined.ts", CONFIG, WHOLE)
    assert recording.duration == pytest.approx(6.0, abs=0.15)
    assert len(recording.faces) == 150
    assert np.diff(recording.face_times).max() < 0.12
    assert len(recording.waveform) / RATE == pytest.approx(recording.duration, abs=0.1)


def test_progress_rises_to_one(talking_face: Path) -> None:
    shares: list[float] = []
    list(stream_clips(talking_face, CONFIG, WHOLE, 1.0, progress=shares.append))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(shares) > 1


def test_probe_tells_what_a_file_says_of_itself(talking_face: Path) -> None:
    info = probe(talking_face)
    assert (info.has_audio, info.has_video, info.width, info.height) == (True, True, 320, 240)
    assert info.fps == pytest.approx(25)
    assert info.duration == pytest.approx(2.4, abs=0.1)


def test_slides_are_streamed_as_they_are_read_whole(
    tmp_path: Path, write_media: WriteMedia
) -> None:
    pictures = [np.full((64, 64, 3), 40 * i + 20, np.uint8) for i in range(4)]
    tone = 0.3 * np.sin(np.arange(12 * RATE) * 0.2).astype(np.float32)
    path = write_media(tmp_path / "a.mkv", pictures, times=[0.0, 2.0, 4.5, 6.0], sound=tone)
    whole = read_recording(path, CONFIG, WHOLE)
    seen = []
    for clip in stream_clips(path, CONFIG, WHOLE, 1.0):
        expected = whole.cut(clip.window, CONFIG)
        np.testing.assert_array_equal(clip.faces, expected.faces)
        np.testing.assert_array_equal(clip.face_mask, expected.face_mask)
        seen.append(bool(clip.face_mask.any()))
    assert seen[:11] == [True] * 11


def test_a_single_sample_is_no_recording(tmp_path: Path) -> None:
    path = tmp_path / "one.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(b"\1\1")
    with pytest.raises(MediaError, match="lasts less than a millisecond"):
        read_recording(path, ClipConfig(), None)
