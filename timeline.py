"""The result of recognition over one recording: a row for each window, and its files.

It knows no model: a result can be read, summarised and redrawn on a machine without torch.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from files import replacing

if TYPE_CHECKING:
    import pandas as pd

Modalities = Literal["audio+video", "audio", "video", "none"]
TimelineStyle = Literal["stacked", "lines"]  # how its probabilities are drawn

FORMAT = "emofuse-timeline"
VERSION = 1
TIME_TOLERANCE = 1e-3  # seconds: what a CSV file can hold
CLASS_PREFIX = "p_"
LEADING_COLUMNS = (
    "start",
    "end",
    "partial",
    "face_id",
    "face_share",
    "modalities",
    "dominant",
    "confidence",
)
MODALITY_WORDS: dict[Modalities, str] = {
    "audio+video": "face and sound",
    "video": "face only",
    "audio": "sound only",
    "none": "nothing",
}


@dataclass(frozen=True, eq=False)
class TimelineRow:
    """What was recognised in one window.

    Args:
        start, end: the window [start, end), in seconds.
        partial: true for a short tail.
        face_id: identity of the followed face, None where there is none.
        face_share: share of the window's pictures in which that face was found, 0 to 1.
        modalities: what the model had to go by.
        probabilities: (C,) summing to 1, or None where `modalities` is `none`.
    """

    start: float
    end: float
    partial: bool
    face_id: int | None
    face_share: float
    modalities: Modalities
    probabilities: np.ndarray | None

    @property
    def confidence(self) -> float | None:
        """Probability of the most probable class."""
        return None if self.probabilities is None else float(self.probabilities.max())


@dataclass(frozen=True)
class Stretch:
    """A run of neighbouring windows with one dominant class; None where nothing was recognised."""

    start: float
    end: float
    dominant: str | None
    confidence: float | None


@dataclass(frozen=True, eq=False)
class Timeline:
    """Emotions over one recording.

    Args:
        rows: one per window, ascending in time.
        class_names: C labels, in the order of the probabilities.
        media: path or name of the recording.
        duration: of the recording, in seconds.
        window_seconds, hop_seconds: length of a window, and step from one to the next.
        checkpoint: identity of the model (`name`, `architecture`, `sha256`, ...), as JSON holds it.
        thumbnails: (time in seconds, (S, S, 3) uint8 RGB) faces for figures; not written to files.
    """

    rows: tuple[TimelineRow, ...]
    class_names: tuple[str, ...]
    media: str
    duration: float
    window_seconds: float
    hop_seconds: float
    checkpoint: dict[str, Any] = field(default_factory=dict)
    thumbnails: tuple[tuple[float, np.ndarray], ...] = ()

    def dominant(self, row: TimelineRow) -> str | None:
        """The most probable class of a row, None where nothing was recognised."""
        return None if row.probabilities is None else self.class_names[row.probabilities.argmax()]

    def probabilities(self) -> np.ndarray:
        """(W, C) float64, a row of NaN for each window in which nothing was recognised."""
        table = np.full((len(self.rows), len(self.class_names)), np.nan)
        for index, row in enumerate(self.rows):
            if row.probabilities is not None:
                table[index] = row.probabilities
        return table

    def borders(self) -> np.ndarray:
        """(W + 1,) seconds: row i alone stands for [borders[i], borders[i + 1]).

        Where windows do not overlap this is the window itself. Where they do, it is the stretch of
        one hop around the window's middle; the first and the last reach to the recording's ends.
        """
        inner = [(before.end + after.start) / 2 for before, after in pairwise(self.rows)]
        return np.array([0.0, *inner, self.duration])

    def stretches(self) -> list[Stretch]:
        """Neighbouring rows of the same dominant class joined; confidence is the mean over time."""
        borders = self.borders()
        labels = [self.dominant(row) for row in self.rows]
        confidences = np.array([row.confidence or 0.0 for row in self.rows])
        parts = []
        changes = [i for i in range(1, len(labels)) if labels[i] != labels[i - 1]]
        for first, last in pairwise([0, *changes, len(labels)]):
            seconds = np.diff(borders[first : last + 1])
            mean = float(np.average(confidences[first:last], weights=seconds))
            confidence = mean if labels[first] else None
            parts.append(Stretch(borders[first], borders[last], labels[first], confidence))
        return parts

    def check(self) -> None:
        """Raise ValueError where rows do not tile [0, duration) or hold no valid probabilities."""
        if not self.rows:
            raise ValueError("the timeline has no rows")
        if len(set(self.class_names)) != len(self.class_names) or not self.class_names:
            raise ValueError(f"class names {self.class_names}: must be distinct, at least one")
        covered = 0.0
        for number, row in enumerate(self.rows, start=1):
            if row.start > covered + TIME_TOLERANCE:
                raise ValueError(f"no row covers {covered:.3f} s to {row.start:.3f} s")
            if row.end <= covered:
                raise ValueError(
                    f"row {number} ends at {row.end:.3f} s, no later than those before"
                )
            _check_row(row, number, len(self.class_names))
            covered = row.end
        if (np.diff(self.borders()) <= 0).any():
            raise ValueError("the rows are not in order of time")
        if abs(covered - self.duration) > TIME_TOLERANCE:
            raise ValueError(f"rows end at {covered:.3f} s, the recording at {self.duration:.3f} s")

    def to_pandas(self) -> pd.DataFrame:
        """One line per row, columns as in the CSV file; missing values where nothing was seen."""
        import pandas as pd  # takes most of a second, and only notebooks and tables need it

        cells = {c: [getattr(row, c, None) for row in self.rows] for c in LEADING_COLUMNS}
        cells["dominant"] = [self.dominant(row) for row in self.rows]
        table = pd.DataFrame(cells).astype({"face_id": "Int64", "confidence": "float64"})
        columns = [CLASS_PREFIX + name for name in self.class_names]
        return pd.concat([table, pd.DataFrame(self.probabilities(), columns=columns)], axis=1)


def write_csv(timeline: Timeline, path: Path) -> None:
    """Write the rows: a header, times in seconds with 3 decimals, probabilities with 4."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*LEADING_COLUMNS, *(CLASS_PREFIX + name for name in timeline.class_names)])
    writer.writerows(_csv_cells(timeline, row) for row in timeline.rows)
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def write_json(timeline: Timeline, path: Path) -> None:
    """Write everything but the thumbnails, with units and the checkpoint's identity."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "units": {"time": "seconds", "probabilities": "probability"},
        "media": timeline.media,
        "duration": round(timeline.duration, 6),
        "window_seconds": timeline.window_seconds,
        "hop_seconds": timeline.hop_seconds,
        "class_names": list(timeline.class_names),
        "checkpoint": timeline.checkpoint,
        "rows": [_row_record(timeline, row) for row in timeline.rows],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_timeline(path: Path) -> Timeline:
    """Read what `write_csv` or `write_json` wrote.

    A CSV file holds rows only: its name stands for the recording's, the last end for the duration,
    the longest row for the window and the first step for the hop.

    Raises:
        ValueError: another suffix, or a file that is not a whole timeline.
    """
    readers = {".csv": _timeline_from_csv, ".json": _timeline_from_json}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: a timeline is a .csv or .json file, not '{path.suffix}'")
    try:
        timeline = readers[path.suffix.lower()](path)
        timeline.check()
    except KeyError as error:
        raise ValueError(f"{path}: not a whole timeline: {error} is missing") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path}: not a whole timeline: {error}") from error
    return timeline


def summarise(timeline: Timeline, longest: int = 5) -> str:
    """A summary of several lines for a terminal, with so many of the longest stretches."""
    counts = Counter(row.modalities for row in timeline.rows)
    present = ", ".join(f"{word} {counts[key]}" for key, word in MODALITY_WORDS.items())
    lines = [
        f"{Path(timeline.media).name}: {format_time(timeline.duration)}",
        f"Windows of {timeline.window_seconds:g} s every {timeline.hop_seconds:g} s: "
        f"{len(timeline.rows)} ({present})",
    ]
    return "\n".join(lines + _share_lines(timeline) + _stretch_lines(timeline, longest))


def format_time(seconds: float) -> str:
    """`m:ss`, from an hour on `h:mm:ss`; with one decimal where it is not a whole second."""
    minutes, rest = divmod(round(seconds * 10), 600)
    clock = f"{rest // 10:02d}" + (f".{rest % 10}" if rest % 10 else "")
    if minutes < 60:
        return f"{minutes}:{clock}"
    return f"{minutes // 60}:{minutes % 60:02d}:{clock}"


def _check_row(row: TimelineRow, number: int, classes: int) -> None:
    if row.modalities not in get_args(Modalities):
        raise ValueError(f"row {number} has modalities '{row.modalities}'")
    if not 0 <= row.face_share <= 1:
        raise ValueError(f"row {number} has face_share {row.face_share}, not within 0 to 1")
    if (row.probabilities is None) != (row.modalities == "none"):
        raise ValueError(f"row {number}: probabilities must be absent exactly without modalities")
    if row.probabilities is None:
        return
    if row.probabilities.shape != (classes,):
        raise ValueError(f"row {number} has {row.probabilities.shape} probabilities, not {classes}")
    total = float(row.probabilities.sum())
    if not (row.probabilities.min() >= 0 and abs(total - 1) <= 1e-4 * max(classes, 10)):
        raise ValueError(f"row {number} has probabilities that sum to {total:.4f} or are below 0")


def _row_record(timeline: Timeline, row: TimelineRow) -> dict[str, Any]:
    """A row as JSON holds it; probabilities by class name."""
    probabilities = None
    if row.probabilities is not None:
        pairs = zip(timeline.class_names, row.probabilities, strict=True)
        probabilities = {name: round(float(value), 6) for name, value in pairs}
    return {
        "start": round(row.start, 6),
        "end": round(row.end, 6),
        "partial": row.partial,
        "face_id": row.face_id,
        "face_share": round(float(row.face_share), 6),
        "modalities": row.modalities,
        "dominant": timeline.dominant(row),
        "confidence": None if row.confidence is None else round(row.confidence, 6),
        "probabilities": probabilities,
    }


def _row_from_record(record: dict[str, Any], class_names: tuple[str, ...]) -> TimelineRow:
    values, face_id = record["probabilities"], record["face_id"]
    probabilities = None if values is None else np.array([_finite(values[c]) for c in class_names])
    return TimelineRow(
        start=_finite(record["start"]),
        end=_finite(record["end"]),
        partial=bool(record["partial"]),
        face_id=None if face_id is None else int(face_id),
        face_share=_finite(record["face_share"]),
        modalities=record["modalities"],
        probabilities=probabilities,
    )


def _csv_cells(timeline: Timeline, row: TimelineRow) -> list[str]:
    """The record's cells in the order of the columns, empty where it holds None."""
    record = _row_record(timeline, row)
    values = record.pop("probabilities") or dict.fromkeys(timeline.class_names)
    record["partial"] = str(row.partial).lower()
    decimals = {"start": 3, "end": 3, "face_share": 4, "confidence": 4}
    return [_cell(record[name], decimals.get(name)) for name in LEADING_COLUMNS] + [
        _cell(values[name], 4) for name in timeline.class_names
    ]


def _cell(value: float | str | None, decimals: int | None) -> str:
    if value is None:
        return ""
    return str(value) if decimals is None else f"{value:.{decimals}f}"


def _row_from_cells(cells: dict[str, str], class_names: tuple[str, ...]) -> TimelineRow:
    values = {name: cells[CLASS_PREFIX + name] for name in class_names}
    record: dict[str, Any] = dict(cells)
    record["partial"] = {"true": True, "false": False}[cells["partial"].lower()]
    record["face_id"] = cells["face_id"] or None
    record["probabilities"] = values if any(values.values()) else None
    return _row_from_record(record, class_names)


def _timeline_from_csv(path: Path) -> Timeline:
    with path.open(encoding="utf-8", newline="") as stream:
        header, *lines = list(csv.reader(stream, strict=True)) or [[]]
    if tuple(header[: len(LEADING_COLUMNS)]) != LEADING_COLUMNS or not lines:
        raise ValueError(f"it needs rows under a header beginning {','.join(LEADING_COLUMNS)}")
    names = tuple(name.removeprefix(CLASS_PREFIX) for name in header[len(LEADING_COLUMNS) :])
    rows = tuple(_row_from_cells(dict(zip(header, line, strict=True)), names) for line in lines)
    window_seconds = round(max(row.end - row.start for row in rows), 3)
    return Timeline(
        rows=rows,
        class_names=names,
        media=path.stem,
        duration=rows[-1].end,
        window_seconds=window_seconds,
        hop_seconds=rows[1].start if len(rows) > 1 else window_seconds,
    )


def _timeline_from_json(path: Path) -> Timeline:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"its format is not '{FORMAT}'")
    if content["version"] != VERSION:
        raise ValueError(f"its version is {content['version']}, not {VERSION}")
    names = tuple(content["class_names"])
    return Timeline(
        rows=tuple(_row_from_record(record, names) for record in content["rows"]),
        class_names=names,
        media=content["media"],
        duration=_finite(content["duration"]),
        window_seconds=_finite(content["window_seconds"]),
        hop_seconds=_finite(content["hop_seconds"]),
        checkpoint=content["checkpoint"],
    )


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"'{value}' is not a finite number")
    return number


def _share_lines(timeline: Timeline) -> list[str]:
    """Share of the time and mean probability of each class, the most frequent first."""
    seconds = np.diff(timeline.borders())
    table = timeline.probabilities()
    known = ~np.isnan(table[:, 0])
    if not known.any():
        return ["Nothing was recognised: no window holds a face or sound"]
    means = np.average(table[known], axis=0, weights=seconds[known])
    shares: Counter[str] = Counter()
    for row, length in zip(timeline.rows, seconds, strict=True):
        shares[timeline.dominant(row) or ""] += length
    width = max(len(name) for name in timeline.class_names)
    order = sorted(range(len(means)), key=lambda c: (-shares[timeline.class_names[c]], -means[c]))
    return ["Dominant share of time, and mean probability:"] + [
        f"  {timeline.class_names[c]:<{width}}  "
        f"{shares[timeline.class_names[c]] / timeline.duration:5.0%}  {means[c]:.2f}"
        for c in order
    ]


def _stretch_lines(timeline: Timeline, longest: int) -> list[str]:
    known = [part for part in timeline.stretches() if part.dominant is not None]
    known.sort(key=lambda part: part.start - part.end)
    return ["Longest stretches:"] * bool(known) + [
        f"  {format_time(part.start)}-{format_time(part.end)} {part.dominant} "
        f"({part.confidence:.2f})"
        for part in known[:longest]
    ]
