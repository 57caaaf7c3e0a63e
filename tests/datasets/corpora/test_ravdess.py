"""RAVDESS is read by the names of its files."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets.corpora import ravdess


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_ravdess_prefers_the_video_with_sound_over_its_twin(tmp_path: Path) -> None:
    _touch(
        tmp_path,
        "Video_Speech_Actor_01/Actor_01/01-01-03-02-01-01-01.mp4",
        "Video_Speech_Actor_01/Actor_01/02-01-03-02-01-01-01.mp4",
        "ACTOR02/02-01-05-01-01-01-02.MP4",
        "Actor_02/03-01-05-01-01-01-02.wav",
        "Actor_02/03-02-05-01-01-01-02.wav",
    )
    first, second = sorted(ravdess.read_records(tmp_path), key=lambda r: r.speaker)
    assert Path(first.video).name.startswith("01-")
    assert (first.label, first.extra["intensity"], first.audio) == ("happy", "strong", "")
    assert Path(second.video).name.startswith("02-")
    assert Path(second.audio).name == "03-01-05-01-01-01-02.wav"
    assert second.extra["gender"] == "female"
    assert len(ravdess.read_records(tmp_path, song=True)) == 3


def test_an_empty_ravdess_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no RAVDESS files"):
        ravdess.read_records(tmp_path)
