"""A timeline's file has the format that its suffix names, and a new format is one registration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from timeline import formats
from timeline.csv_format import write_csv
from timeline.formats import read_timeline, register_format, write_timeline
from timeline.json_format import write_json
from timeline.row import TimelineRow
from timeline.table import Timeline, format_time


@pytest.fixture
def timeline() -> Timeline:
    rows = tuple(
        TimelineRow(float(i), i + 1.0, False, 0, 1.0, "video", np.array([0.25, 0.75]))
        for i in range(2)
    )
    return Timeline(rows, ("sad", "happy"), "talk.mp4", 2.0, 1.0, 1.0)


@pytest.fixture
def subtitles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A format from outside: a line a segment."""
    monkeypatch.setattr(formats, "FORMATS", dict(formats.FORMATS))

    def write(timeline: Timeline, path: Path) -> None:
        lines = [
            f"{format_time(part.start)}-{format_time(part.end)} {part.dominant}"
            for part in timeline.segments()
        ]
        path.write_text("\n".join(lines), encoding="utf-8")

    register_format(".lines", write)


def test_the_suffix_names_the_format(timeline: Timeline, tmp_path: Path) -> None:
    for suffix, write in ((".csv", write_csv), (".json", write_json)):
        write(timeline, tmp_path / f"own{suffix}")
        write_timeline(timeline, tmp_path / f"chosen{suffix.upper()}")
        chosen = (tmp_path / f"chosen{suffix.upper()}").read_bytes()
        assert chosen == (tmp_path / f"own{suffix}").read_bytes()
        assert len(read_timeline(tmp_path / f"own{suffix}").rows) == 2


@pytest.mark.usefixtures("subtitles")
def test_a_format_from_outside_is_written_by_its_suffix(timeline: Timeline, tmp_path: Path) -> None:
    write_timeline(timeline, tmp_path / "talk.lines")
    assert (tmp_path / "talk.lines").read_text() == "0:00-0:02 happy"
    with pytest.raises(ValueError, match=r"a timeline is a \.csv or \.json file, not '\.lines'"):
        read_timeline(tmp_path / "talk.lines")
    with pytest.raises(ValueError, match=r"talk\.x: a timeline is a \.csv, \.json or \.lines file"):
        write_timeline(timeline, tmp_path / "talk.x")
    assert not (tmp_path / "talk.x").exists()


@pytest.mark.usefixtures("subtitles")
@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        (".lines", r"there is a format for \.lines already"),
        (".csv", r"there is a format for \.csv already"),
        ("lines", "small letters, with its point"),
        (".LINES", "small letters, with its point"),
    ],
)
def test_a_suffix_is_registered_once_and_as_files_have_it(suffix: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        register_format(suffix, write_csv)
