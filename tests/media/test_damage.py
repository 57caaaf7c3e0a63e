"""Files that are broken, or no media at all: read what can be read, and say what cannot."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from media.configuration import ClipConfig
from media.errors import MediaError
from media.faces import build_detector
from media.reading import probe, read_recording, stream_clips
from tests.conftest import FPS, RATE, WriteMedia

CONFIG = ClipConfig(face_size=32, face_margin=0.0, detector="whole")
WHOLE = build_detector("whole")


@pytest.fixture(scope="module")
def sound_file(tmp_path_factory: pytest.TempPathFactory, write_media: WriteMedia) -> Path:
    """8 s: pictures that get brighter and a steady tone, in small independent packets."""
    pictures = [np.full((64, 96, 3), i + 20, np.uint8) for i in range(8 * FPS)]
    tone = 0.3 * np.sin(np.arange(8 * RATE) * 0.2).astype(np.float32)
    path = tmp_path_factory.mktemp("damage") / "a.ts"
    return write_media(path, pictures, sound=tone, video_codec="mpeg2video", audio_codec="mp2")


def test_a_truncated_file_is_read_as_far_as_it_goes(sound_file: Path, tmp_path: Path) -> None:
    whole = read_recording(sound_file, CONFIG, WHOLE)
    cut = tmp_path / "cut.ts"
    data = sound_file.read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    part = read_recording(cut, CONFIG, WHOLE)
    assert 3.0 < part.duration < 5.0
    count = len(part.waveform) - RATE // 10
    assert np.array_equal(part.waveform[:count], whole.waveform[:count])
    assert np.array_equal(part.face_times[:-2], whole.face_times[: len(part.faces) - 2])


def test_damage_in_mid_file_leaves_the_times_after_it_exact(
    sound_file: Path, tmp_path: Path
) -> None:
    whole = read_recording(sound_file, CONFIG, WHOLE)
    data = bytearray(sound_file.read_bytes())
    third = len(data) // 3 // 188 * 188
    noise = np.random.default_rng(0).integers(0, 256, third // 3, dtype=np.uint8).tobytes()
    data[third : third + len(noise)] = noise
    broken = tmp_path / "broken.ts"
    broken.write_bytes(data)
    part = read_recording(broken, CONFIG, WHOLE)
    assert part.duration == pytest.approx(whole.duration, abs=0.05)
    assert np.allclose(part.waveform[-2 * RATE :], whole.waveform[-2 * RATE :], atol=2)
    assert len(part.faces) < len(whole.faces)
    late = part.face_times > 6.0
    assert np.isin(part.face_times[late].round(6), whole.face_times.round(6)).all()
    same = np.searchsorted(whole.face_times, part.face_times[late] - 1e-6)
    gap = part.faces[late].astype(int) - whole.faces[same]
    assert np.abs(gap).max() <= 2


def test_lost_packets_leave_a_silent_gap(sound_file: Path, tmp_path: Path) -> None:
    data = sound_file.read_bytes()
    third = len(data) // 3 // 188 * 188
    (tmp_path / "gap.ts").write_bytes(data[:third] + data[2 * third :])
    part = read_recording(tmp_path / "gap.ts", CONFIG, WHOLE)
    whole = read_recording(sound_file, CONFIG, WHOLE)
    assert part.duration == pytest.approx(whole.duration, abs=0.05)
    assert np.allclose(part.waveform[-RATE:], whole.waveform[-RATE:], atol=2)
    assert not part.waveform[int(3.5 * RATE) : int(4.5 * RATE)].any()
    assert np.diff(part.picture_times).max() > 1.0


def test_damaged_packets_of_an_mp4_are_skipped(tmp_path: Path, talking_face: Path) -> None:
    data = bytearray(talking_face.read_bytes())
    start = data.index(b"mdat") + len(data) // 3
    data[start : start + len(data) // 4] = bytes(len(data) // 4)
    (tmp_path / "broken.mp4").write_bytes(data)
    whole = read_recording(talking_face, CONFIG, WHOLE)
    part = read_recording(tmp_path / "broken.mp4", CONFIG, WHOLE)
    assert part.duration == pytest.approx(whole.duration, abs=0.1)
    clips = list(stream_clips(tmp_path / "broken.mp4", CONFIG, WHOLE, 1.0))
    assert [clip.window.start for clip in clips] == [0.0, 1.0, 2.0]


def test_a_file_whose_index_is_cut_off_is_refused(tmp_path: Path, talking_face: Path) -> None:
    data = talking_face.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match=r"cut.mp4: cannot be read .*damaged"):
        read_recording(tmp_path / "cut.mp4", CONFIG, WHOLE)


def test_a_file_of_which_nothing_can_be_decoded_is_refused(
    tmp_path: Path, talking_face: Path
) -> None:
    data = bytearray(talking_face.read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = b"\xff" * (end - start)
    (tmp_path / "noise.mp4").write_bytes(data)
    with pytest.raises(MediaError, match=r"noise.mp4: no sound or picture"):
        read_recording(tmp_path / "noise.mp4", CONFIG, WHOLE)


@pytest.mark.parametrize("read", [probe, lambda path: read_recording(path, CONFIG, WHOLE)])
def test_what_is_no_media_file_is_refused_in_one_line(tmp_path: Path, read: object) -> None:
    assert callable(read)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is not a video\n" * 100)
    (tmp_path / "notes.txt").write_text("this is not a video\n" * 100)
    (tmp_path / "zeros.mkv").write_bytes(bytes(10000))
    (tmp_path / "folder").mkdir()
    wanted = {
        "missing.mp4": "does not exist",
        "folder": "is a folder",
        "empty.mp4": "is empty",
        "text.mp4": "cannot be read",
        "notes.txt": "(neither sound nor pictures|cannot be read)",
        "zeros.mkv": "cannot be read",
    }
    for name, reason in wanted.items():
        with pytest.raises(MediaError, match=f"{name}: .*{reason}") as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read_is_refused(
    talking_face: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root, as in containers, may read every file
    with pytest.raises(MediaError, match="Permission denied; check the path"):
        probe(talking_face)


def test_subtitles_alone_are_neither_sound_nor_pictures(tmp_path: Path) -> None:
    path = tmp_path / "a.srt"
    path.write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n\n")
    with pytest.raises(MediaError, match="neither sound nor pictures"):
        probe(path)


def _notes(path: Path) -> list[str]:
    told: list[str] = []
    read_recording(path, CONFIG, WHOLE, tell=told.append)
    streamed: list[str] = []
    list(stream_clips(path, CONFIG, WHOLE, 1.0, tell=streamed.append))
    assert streamed == told
    return told


@pytest.mark.parametrize("suffix", ["mkv", "wav", "flac", "flv", "aiff", "avi"])
def test_a_file_that_ends_before_it_says_is_told(
    tmp_path: Path, write_media: WriteMedia, suffix: str
) -> None:
    pictures = [] if suffix in ("wav", "flac", "aiff") else [np.zeros((64, 64, 3), np.uint8)] * 60
    codecs = {"wav": "pcm_s16le", "flac": "flac", "aiff": "pcm_s16be", "avi": "mp3"}
    path = write_media(
        tmp_path / f"a.{suffix}",
        pictures,
        sound=(0.3 * np.random.default_rng(0).normal(size=round(2.4 * RATE))).astype(np.float32),
        audio_codec=codecs.get(suffix, "aac"),
        video_codec="mpeg4" if suffix == "avi" else "libx264",
    )
    assert _notes(path) == []
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    assert any(re.fullmatch(r"the file ends at [01]\.\d+ s of 2\.\d+ s .*", n) for n in _notes(cut))


def test_lost_packets_are_counted(tmp_path: Path, talking_face: Path) -> None:
    data = bytearray(talking_face.read_bytes())
    start = data.index(b"mdat") + len(data) // 3
    data[start : start + len(data) // 4] = bytes(len(data) // 4)
    (tmp_path / "broken.mp4").write_bytes(data)
    told = _notes(tmp_path / "broken.mp4")
    assert any(re.fullmatch(r"\d+ of \d+ packets of video cannot be decoded", n) for n in told)
    assert _notes(talking_face) == []


def test_a_pointer_to_a_file_in_git_lfs_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "1001_DFA_ANG_XX.wav"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(MediaError, match=r"is a Git LFS pointer.*git lfs pull"):
        read_recording(path, CONFIG, WHOLE)


def test_samples_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    path = tmp_path / "nan.wav"
    sound = np.full(2 * RATE, np.nan, dtype="<f4")
    sound[:RATE] = 0.1
    _write_float_wav(path, sound)
    assert _notes(path) == ["1 s of sound is not finite (NaN, infinite): silence"]
    second = list(stream_clips(path, CONFIG, WHOLE, 1.0))[1]
    assert not second.has_speech


def _write_float_wav(path: Path, sound: np.ndarray) -> None:
    """Mono 32-bit floating point at `RATE`."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, RATE, 4 * RATE, 4, 32)
    body = struct.pack("<4sI", b"data", sound.nbytes) + sound.tobytes()
    path.write_bytes(
        struct.pack("<4sI4s", b"RIFF", 4 + len(form) + len(body), b"WAVE") + form + body
    )


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(MediaError, match="is a pipe or device; save the recording"):
        probe(tmp_path / "a.mp4")


def test_pictures_of_gigabytes_are_refused(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "huge.png"
    Image.new("1", (12_000, 12_000)).save(path)
    with pytest.raises(MediaError, match="12000 x 12000 pixels, more than 67 million"):
        read_recording(path, CONFIG, WHOLE)
