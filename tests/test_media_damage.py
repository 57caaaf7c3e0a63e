"""Files that are broken, or no media at all: read what can be read, and say what cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from media.clip import ClipConfig
from media.errors import MediaError
from media.faces import build_detector
from media.recording import probe, read_recording, stream_clips
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
