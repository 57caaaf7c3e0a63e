"""The result of recognition over one recording: a row for each window, and its files.

It knows no model: a result can be read and redrawn on a machine without torch.
"""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from system.files import replacing
from timeline.row import Task, TimelineRow, check_row, is_distribution

if TYPE_CHECKING:
    import pandas as pd

TimelineStyle = Literal["stacked", "lines"]  # how its probabilities are drawn

FORMAT = "emofuse-timeline"
VERSION = 1
TIME_TOLERANCE = 1e-3  # seconds: what a CSV file can hold
CLASS_PREFIX, VALUE_PREFIX = "p_", "y_"  # of columns: probabilities, and values of a regression
CONTRIBUTION_PREFIX, GATE_PREFIX = "contribution_", "gate_"
SPEECH_FRACTION, ADAPTED = "speech_fraction", "adapted"
# What further columns of numbers begin with: those, and face measures.
MEASURES = (
    CONTRIBUTION_PREFIX,
    GATE_PREFIX,
    SPEECH_FRACTION,
    ADAPTED,
    "blendshape_",
    "head_",
)
UNCERTAIN = "uncertain"
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
        task: what the model was trained for, and so what the probabilities are.
        source: which file of which folder the recording is, with its size and last change.
        warnings: lines on what of the recording could not be used.
    """

    rows: tuple[TimelineRow, ...]
    class_names: tuple[str, ...]
    media: str
    duration: float
    window_seconds: float
    hop_seconds: float
    checkpoint: dict[str, Any] = field(default_factory=dict)
    thumbnails: tuple[tuple[float, np.ndarray], ...] = ()
    task: Task = "classification"
    source: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """Names of the columns of classes, or of values."""
        prefix = VALUE_PREFIX if self.task == "regression" else CLASS_PREFIX
        return [prefix + name for name in self.class_names]

    @property
    def measures(self) -> list[str]:
        """Names of the further columns of numbers: what was asked for, the same in each row."""
        return list(self.rows[0].measures) if self.rows else []

    @property
    def marks_uncertain(self) -> bool:
        """Whether rows say if they are uncertain."""
        return bool(self.rows) and self.rows[0].uncertain is not None

    def dominant(self, row: TimelineRow) -> str | None:
        """The most probable class or label of a row; None of nothing recognised, and of values."""
        if row.probabilities is None or self.task == "regression":
            return None
        return self.class_names[row.probabilities.argmax()]

    def confidence(self, row: TimelineRow) -> float | None:
        """Probability of the dominant class or label."""
        if row.probabilities is None or self.task == "regression":
            return None
        return float(row.probabilities.max())

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
        confidences = np.array([self.confidence(row) or 0.0 for row in self.rows])
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
            check_row(row, number, len(self.class_names), self.task)
            if list(row.measures) != self.measures or (
                self.marks_uncertain != (row.uncertain is not None)
            ):
                raise ValueError(f"row {number} has other columns than the first")
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
        cells["confidence"] = [self.confidence(row) for row in self.rows]
        table = pd.DataFrame(cells).astype({"face_id": "Int64", "confidence": "float64"})
        table[self.columns] = self.probabilities()
        if self.marks_uncertain:
            table[UNCERTAIN] = [bool(row.uncertain) for row in self.rows]
        for name in self.measures:
            table[name] = pd.array([row.measures[name] for row in self.rows], dtype="float64")
        return table


def write_csv(timeline: Timeline, path: Path) -> None:
    """Write the rows: a header, times in seconds with 3 decimals, probabilities with 4."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    extras = [UNCERTAIN] * timeline.marks_uncertain + timeline.measures
    writer.writerow([*LEADING_COLUMNS, *timeline.columns, *extras])
    writer.writerows(_csv_cells(timeline, row) for row in timeline.rows)
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def write_json(timeline: Timeline, path: Path) -> None:
    """Write everything but the thumbnails, with units and the checkpoint's identity."""
    values, unit = _values_key(timeline.task), "probability"
    content = {
        "format": FORMAT,
        "version": VERSION,
        "task": timeline.task,
        "units": {"time": "seconds", values: "as trained" if values == "values" else unit},
        "media": timeline.media,
        "source": timeline.source,
        "warnings": list(timeline.warnings),
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
    the longest row for the window and the first step for the hop. Where its probabilities do not
    sum to 1 they are those of labels, each its own.

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
    except (ValueError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        raise ValueError(f"{path}: not a whole timeline: {error}") from error
    return timeline


def format_time(seconds: float) -> str:
    """`m:ss`, from an hour on `h:mm:ss`; with one decimal where it is not a whole second."""
    minutes, rest = divmod(round(seconds * 10), 600)
    clock = f"{rest // 10:02d}" + (f".{rest % 10}" if rest % 10 else "")
    if minutes < 60:
        return f"{minutes}:{clock}"
    return f"{minutes // 60}:{minutes % 60:02d}:{clock}"


def _row_record(timeline: Timeline, row: TimelineRow) -> dict[str, Any]:
    """A row as JSON holds it; probabilities by class name, further columns beside them."""
    confidence, probabilities = timeline.confidence(row), None
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
        "confidence": None if confidence is None else round(confidence, 6),
        _values_key(timeline.task): probabilities,
        **({UNCERTAIN: row.uncertain} if row.uncertain is not None else {}),
        **{n: None if v is None else round(float(v), 6) for n, v in row.measures.items()},
    }


def _values_key(task: Task) -> str:
    return "values" if task == "regression" else "probabilities"


def _row_from_record(
    record: dict[str, Any], class_names: tuple[str, ...], task: Task
) -> TimelineRow:
    values, face_id = record[_values_key(task)], record["face_id"]
    probabilities = None if values is None else np.array([_finite(values[c]) for c in class_names])
    measures = {
        name: None if value in (None, "") else _finite(value)
        for name, value in record.items()
        if name.startswith(MEASURES)
    }
    return TimelineRow(
        start=_finite(record["start"]),
        end=_finite(record["end"]),
        partial=bool(record["partial"]),
        face_id=None if face_id is None else int(face_id),
        face_share=_finite(record["face_share"]),
        modalities=record["modalities"],
        probabilities=probabilities,
        uncertain=record.get(UNCERTAIN),
        measures=measures,
    )


def _csv_cells(timeline: Timeline, row: TimelineRow) -> list[str]:
    """The record's cells in the order of the columns, empty where it holds None."""
    record = _row_record(timeline, row)
    values = record.pop(_values_key(timeline.task)) or dict.fromkeys(timeline.class_names)
    decimals = {"start": 3, "end": 3, "face_share": 4, "confidence": 4}
    decimals |= dict.fromkeys(timeline.measures, 4)
    extras = [name for name in record if name not in LEADING_COLUMNS]
    return [
        *(_cell(record[name], decimals.get(name)) for name in LEADING_COLUMNS),
        *(_cell(values[name], 4) for name in timeline.class_names),
        *(_cell(record[name], decimals.get(name)) for name in extras),
    ]


def _cell(value: float | str | bool | None, decimals: int | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if decimals is None else f"{value:.{decimals}f}"


def _row_from_cells(cells: dict[str, str], columns: dict[str, str], task: Task) -> TimelineRow:
    """A row from its cells by column; `columns` are those of the classes, by name."""
    values = {name: cells[column] for name, column in columns.items()}
    record: dict[str, Any] = dict(cells)
    for name in {"partial", UNCERTAIN} & set(cells):
        record[name] = {"true": True, "false": False}[cells[name].lower()]
    record["face_id"] = cells["face_id"] or None
    record[_values_key(task)] = values if any(values.values()) else None
    return _row_from_record(record, tuple(columns), task)


def _timeline_from_csv(path: Path) -> Timeline:
    with path.open(encoding="utf-8", newline="") as stream:
        header, *lines = list(csv.reader(stream, strict=True)) or [[]]
    if tuple(header[: len(LEADING_COLUMNS)]) != LEADING_COLUMNS or not lines:
        raise ValueError(f"it needs rows under a header beginning {','.join(LEADING_COLUMNS)}")
    columns = _class_columns(header[len(LEADING_COLUMNS) :])
    of_values = any(column.startswith(VALUE_PREFIX) for column in columns.values())
    task: Task = "regression" if of_values else "classification"
    rows = tuple(
        _row_from_cells(dict(zip(header, line, strict=True)), columns, task) for line in lines
    )
    known = [row.probabilities for row in rows if row.probabilities is not None]
    if task == "classification" and not all(is_distribution(values) for values in known):
        task = "multilabel"
    window_seconds = round(max(row.end - row.start for row in rows), 3)
    return Timeline(
        rows=rows,
        class_names=tuple(columns),
        media=path.stem,
        duration=rows[-1].end,
        window_seconds=window_seconds,
        hop_seconds=rows[1].start if len(rows) > 1 else window_seconds,
        task=task,
    )


def _class_columns(header: list[str]) -> dict[str, str]:
    """Class or value name -> column, from what follows the leading columns."""
    columns = {}
    for column in header:
        if column.startswith((CLASS_PREFIX, VALUE_PREFIX)):
            columns[column[2:]] = column
        elif column != UNCERTAIN and not column.startswith(MEASURES):
            raise ValueError(f"unknown column '{column}'")
    return columns


def _timeline_from_json(path: Path) -> Timeline:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"its format is not '{FORMAT}'")
    if content["version"] != VERSION:
        raise ValueError(f"its version is {content['version']}, not {VERSION}")
    names, task = tuple(content["class_names"]), content.get("task", "classification")
    if task not in get_args(Task):
        raise ValueError(f"unknown task '{task}'")
    return Timeline(
        rows=tuple(_row_from_record(record, names, task) for record in content["rows"]),
        class_names=names,
        media=content["media"],
        duration=_finite(content["duration"]),
        window_seconds=_finite(content["window_seconds"]),
        hop_seconds=_finite(content["hop_seconds"]),
        checkpoint=content["checkpoint"],
        task=task,
        source=content.get("source", {}),
        warnings=tuple(content.get("warnings", ())),
    )


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"'{value}' is not a finite number")
    return number
