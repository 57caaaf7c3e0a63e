"""Labelled stretches outside their recordings: named, and never trained on."""

from __future__ import annotations

import pytest

from datasets.annotations import Record
from datasets.segments import check_segments, drop_outside, outside


def _record(start: float, end: float | None, line: int = 2) -> Record:
    return Record("a.mp4", "", "sad", start=start, end=end, origin=f"list.csv, line {line}")


@pytest.mark.parametrize(("start", "end"), [(0, None), (0, 1.2), (1.0, 1.4), (1.1, None)])
def test_stretches_within_are_left_alone(start: float, end: float | None) -> None:
    assert outside(_record(start, end), 1.2) is None


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (5, 9, "5 s to 9 s is not within the 1.2 s of a.mp4; correct its start and end"),
        (0, 2, "0 s to 2 s is not within the 1.2 s of a.mp4; correct"),
        (1.2, None, "1.2 s to its end is not within the 1.2 s"),
        (0, 900, "look like milliseconds: give seconds"),
        (200, 1300, "look like milliseconds: give seconds"),
    ],
)
def test_stretches_outside_are_named(start: float, end: float | None, message: str) -> None:
    text = outside(_record(start, end), 1.2)
    assert text is not None
    assert text.startswith("list.csv, line 2: ")
    assert message in text


def test_the_first_of_several_stands_for_all() -> None:
    records = [_record(0, 1), _record(5, 9, 3), _record(6, 9, 4)]
    with pytest.raises(ValueError, match=r"line 3: .* \(and 1 more rows\)"):
        check_segments(records, lambda _: 1.2)
    check_segments(records[:1], lambda _: 1.2)


def test_records_outside_are_dropped_with_their_reason() -> None:
    records = [_record(0, 1), _record(5, 9, 3), Record("b.mp4", "", "sad")]
    failures = {"b.mp4|": "cannot be read"}
    assert drop_outside(records, lambda _: 1.2, failures) == records[:1]
    assert list(failures) == ["b.mp4|", "list.csv, line 3"]
