"""A folder of one's own data: `class_name/*.mp4`, or a headed CSV beside the files.

The CSV is an annotation file (see `datasets.annotations`): columns video or audio, label, and
better a speaker too. Without speakers nothing can keep one person on one side of a split.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

from datasets.annotations import Record, read_annotations
from datasets.labels import canonical

LICENCE = "your own"
_VIDEO = {".mp4", ".mov", ".avi", ".mkv", ".webm", ".flv", ".mpg", ".m4v"}
_PICTURE = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
_AUDIO = {".wav", ".flac", ".mp3", ".ogg", ".m4a", ".opus"}


def read_records(root: Path) -> list[Record]:
    """Records of a CSV (`root`, or the only one in it), or one a file under folders of classes.

    A warning says so where a record has no speaker.

    Raises:
        ValueError: neither a table nor files in folders of classes, several tables, or a table
            that cannot be read.
    """
    tables = [root] if root.is_file() else sorted(root.glob("*.csv"))
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise ValueError(f"{root} holds several tables ({names}); give the one that is meant")
    records = read_annotations(tables[0]) if tables else _read_folders(root)
    unknown = sum(not record.speaker for record in records)
    if unknown:
        warnings.warn(
            f"{unknown} of {len(records)} records in {root} have no speaker: one person may stand "
            "on both sides of a split, and scores will be better than the model is. Give a CSV "
            "with the columns video, label, speaker.",
            stacklevel=2,
        )
    return [replace(record, dataset=record.dataset or "own") for record in records]


def _read_folders(root: Path) -> list[Record]:
    records = []
    for path in sorted(root.glob("*/*")):
        suffix = path.suffix.lower()
        label = canonical(path.parent.name)
        if suffix in _VIDEO | _PICTURE:
            records.append(Record(video=str(path), audio="", label=label))
        elif suffix in _AUDIO:
            records.append(Record(video="", audio=str(path), label=label))
    if not records:
        raise ValueError(
            f"no files such as happy/clip.mp4 and no CSV with the columns video, label in {root}"
        )
    return records
