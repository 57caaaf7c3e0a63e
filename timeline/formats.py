"""Files of timelines: the format is chosen by the file's suffix.

A new format is one file beside `csv_format.py` with a function `write_…(timeline, path)`, and one
line at the end of this file.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from timeline.csv_format import read_csv, write_csv
from timeline.json_format import read_json, write_json
from timeline.table import Timeline


@dataclass(frozen=True)
class Format:
    """How timelines are written to files of one suffix.

    Args:
        write: writes the whole file, or raises OSError and leaves none.
        read: gives back what the file holds, or raises ValueError; None of formats for others.
    """

    write: Callable[[Timeline, Path], None]
    read: Callable[[Path], Timeline] | None = None


FORMATS: dict[str, Format] = {}  # by suffix, in small letters with its point


def register_format(
    suffix: str,
    write: Callable[[Timeline, Path], None],
    read: Callable[[Path], Timeline] | None = None,
) -> None:
    """Make a format known by its suffix, such as `.csv`.

    Raises:
        ValueError: no suffix, or one that is taken.
    """
    if not suffix.startswith(".") or suffix != suffix.lower():
        raise ValueError(f"suffix '{suffix}': give it in small letters, with its point")
    if suffix in FORMATS:
        raise ValueError(f"there is a format for {suffix} already")
    FORMATS[suffix] = Format(write, read)


def write_timeline(timeline: Timeline, path: Path) -> None:
    """Write a timeline in the format that the file's suffix names.

    Raises:
        ValueError: a suffix of no format.
    """
    _format_of(path, list(FORMATS)).write(timeline, path)


def read_timeline(path: Path) -> Timeline:
    """Read what `write_timeline` wrote.

    A CSV file holds rows only: its name stands for the recording's, the last end for the duration,
    the longest row for the window and the first step for the hop. Where its probabilities do not
    sum to 1 they are those of labels, each its own.

    Raises:
        ValueError: a suffix of no format that is read, or a file that is not a whole timeline.
    """
    read = _format_of(path, [suffix for suffix, known in FORMATS.items() if known.read]).read
    assert read is not None
    try:
        timeline = read(path)
        timeline.check()
    except KeyError as error:
        raise ValueError(f"{path}: not a whole timeline: {error} is missing") from error
    except (ValueError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        raise ValueError(f"{path}: not a whole timeline: {error}") from error
    return timeline


def _format_of(path: Path, suffixes: list[str]) -> Format:
    if path.suffix.lower() not in suffixes:
        *others, last = suffixes
        known = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"{path}: a timeline is a {known} file, not '{path.suffix}'")
    return FORMATS[path.suffix.lower()]


register_format(".csv", write_csv, read_csv)
register_format(".json", write_json, read_json)
