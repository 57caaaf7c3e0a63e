"""Recordings and tables that people sent with their reports: the right value of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.annotations import read_annotations
from media.clip import tile_windows
from media.configuration import ClipConfig
from media.errors import MediaError
from media.reading import read_recording
from media.recording import Recording

pytestmark = pytest.mark.data
CONFIG = ClipConfig()


@pytest.fixture(scope="module")
def faults(real_data: Path) -> Path:
    folder = real_data / "faults"
    if not folder.is_dir():
        pytest.skip(f"no such media at {folder}")
    return folder


def _read(path: Path) -> tuple[Recording, list[str], list[bool]]:
    """The recording, what is told of it, and which of its seconds hold speech."""
    told: list[str] = []
    recording = read_recording(path, CONFIG, None, tell=told.append)
    windows = tile_windows(recording.duration, 1.0, 1.0)
    return recording, told, [recording.cut(window, CONFIG).has_speech for window in windows]


def test_the_level_of_a_recording_does_not_change_its_samples(faults: Path) -> None:
    twice, whole = (_read(faults / name)[0] for name in ("gain2.wav", "gain32768.wav"))
    np.testing.assert_array_equal(twice.waveform, whole.waveform)
    assert 3000 < np.abs(twice.waveform.astype(int)).max() < 32767


def test_channels_out_of_phase_speak(faults: Path) -> None:
    recording, told, speaks = _read(faults / "antiphase.mkv")
    plain, _, _ = _read(faults / "gain2.wav")
    assert speaks == [True, True, True]
    assert told == ["the channels of the sound cancel each other: channel 1 is used"]
    assert (
        np.abs(recording.waveform.astype(int)).max() > np.abs(plain.waveform.astype(int)).max() / 3
    )


def test_sound_that_is_no_number_is_no_voice(faults: Path) -> None:
    _, told, speaks = _read(faults / "allnan.wav")
    assert not any(speaks)
    assert told == ["2 s of sound is not finite (NaN, infinite): silence"]
    _, told, speaks = _read(faults / "nan_1s.wav")
    assert speaks == [True, False, True]
    assert told == ["1 s of sound is not finite (NaN, infinite): silence"]


def test_one_sample_is_no_recording(faults: Path) -> None:
    with pytest.raises(MediaError, match="lasts less than a millisecond"):
        _read(faults / "one_sample.wav")


def test_damage_and_truncation_are_told(faults: Path) -> None:
    _, told, _ = _read(faults / "trunc_fast.mp4")
    assert told == ["the file ends at 1.50 s of 2.40 s that it promises"]
    _, told, _ = _read(faults / "corrupt.mp4")
    assert told == ["32 of 105 packets of audio cannot be decoded"]


@pytest.mark.parametrize("name", ["quoted", "caps", "beyond", "nosubcol", "noval"])
def test_tables_as_people_export_them_are_read(faults: Path, name: str) -> None:
    records = read_annotations(faults / f"{name}.csv")
    assert {record.label for record in records} <= {"happy", "angry", "sad"}
    assert all(record.speaker for record in records)
    assert any(record.subset for record in records) == (name != "nosubcol")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("extra", "line 3: has 5 fields under a header of 4 columns"),
        ("short", "line 3: has 2 fields under a header of 4 columns"),
        ("rev", "line 2: the end, 0.2 s, is not after the start, 0.9 s"),
        ("nanend", "line 2, column end: must be a number of seconds, 0 or more, not 'nan'"),
    ],
)
def test_lines_that_cannot_be_read_are_named(faults: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}\.csv, {message}"):
        read_annotations(faults / f"{name}.csv")
