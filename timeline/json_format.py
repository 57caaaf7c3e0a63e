"""The JSON file of a timeline: everything but the thumbnails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from system.files import replacing
from timeline.record import finite, row_from_record, row_record, values_key
from timeline.row import Task
from timeline.table import Timeline

FORMAT = "emofuse-timeline"
VERSION = 1


def write_json(timeline: Timeline, path: Path) -> None:
    """Write everything but the thumbnails, with units and the checkpoint's identity."""
    values, unit = values_key(timeline.task), "probability"
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
        "rows": [row_record(timeline, row) for row in timeline.rows],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Timeline:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"its format is not '{FORMAT}'")
    if content["version"] != VERSION:
        raise ValueError(f"its version is {content['version']}, not {VERSION}")
    names, task = tuple(content["class_names"]), content.get("task", "classification")
    if task not in get_args(Task):
        raise ValueError(f"unknown task '{task}'")
    return Timeline(
        rows=tuple(row_from_record(record, names, task) for record in content["rows"]),
        class_names=names,
        media=content["media"],
        duration=finite(content["duration"]),
        window_seconds=finite(content["window_seconds"]),
        hop_seconds=finite(content["hop_seconds"]),
        checkpoint=content["checkpoint"],
        task=task,
        source=content.get("source", {}),
        warnings=tuple(content.get("warnings", ())),
    )
