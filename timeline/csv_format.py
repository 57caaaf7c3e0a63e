"""The CSV file of a timeline: its rows, in the columns that docs/inference.md describes."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from system.files import replacing
from timeline.record import row_from_record, row_record, values_key
from timeline.row import Task, TimelineRow, is_distribution
from timeline.table import (
    CLASS_PREFIX,
    LEADING_COLUMNS,
    MEASURES,
    UNCERTAIN,
    VALUE_PREFIX,
    Timeline,
)


def write_csv(timeline: Timeline, path: Path) -> None:
    """Write the rows: a header, times in seconds with 3 decimals, probabilities with 4."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    extras = [UNCERTAIN] * timeline.marks_uncertain + timeline.measures
    writer.writerow([*LEADING_COLUMNS, *timeline.columns, *extras])
    writer.writerows(_csv_cells(timeline, row) for row in timeline.rows)
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def read_csv(path: Path) -> Timeline:
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


def _csv_cells(timeline: Timeline, row: TimelineRow) -> list[str]:
    """The record's cells in the order of the columns, empty where it holds None."""
    record = row_record(timeline, row)
    values = record.pop(values_key(timeline.task)) or dict.fromkeys(timeline.class_names)
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
    record[values_key(task)] = values if any(values.values()) else None
    return row_from_record(record, tuple(columns), task)


def _class_columns(header: list[str]) -> dict[str, str]:
    """Class or value name -> column, from what follows the leading columns."""
    columns = {}
    for column in header:
        if column.startswith((CLASS_PREFIX, VALUE_PREFIX)):
            columns[column[2:]] = column
        elif column != UNCERTAIN and not column.startswith(MEASURES):
            raise ValueError(f"unknown column '{column}'")
    return columns
