"""A row of a timeline as a record of plain values, which every format is made of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from timeline.row import Task, TimelineRow
from timeline.table import MEASURES, UNCERTAIN, Timeline


def row_record(timeline: Timeline, row: TimelineRow) -> dict[str, Any]:
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
        values_key(timeline.task): probabilities,
        **({UNCERTAIN: row.uncertain} if row.uncertain is not None else {}),
        **{n: None if v is None else round(float(v), 6) for n, v in row.measures.items()},
    }


def row_from_record(
    record: dict[str, Any], class_names: tuple[str, ...], task: Task
) -> TimelineRow:
    values, face_id = record[values_key(task)], record["face_id"]
    probabilities = None if values is None else np.array([finite(values[c]) for c in class_names])
    measures = {
        name: None if value in (None, "") else finite(value)
        for name, value in record.items()
        if name.startswith(MEASURES)
    }
    return TimelineRow(
        start=finite(record["start"]),
        end=finite(record["end"]),
        partial=bool(record["partial"]),
        face_id=None if face_id is None else int(face_id),
        face_share=finite(record["face_share"]),
        modalities=record["modalities"],
        probabilities=probabilities,
        uncertain=record.get(UNCERTAIN),
        measures=measures,
    )


def values_key(task: Task) -> str:
    return "values" if task == "regression" else "probabilities"


def finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"'{value}' is not a finite number")
    return number
