"""Annotation files: what is labelled, where it lies, and on which side of the split it stands.

Two forms are read: the field's four-field lines `video.npy;audio.wav;label;subset` (label counted
from 1, subset training, validation or testing), and a headed CSV with the columns `COLUMNS`, in any
letter case (any further column is kept; `p_<class>` columns of known emotions and of the file's own
labels are soft labels; `corpus` may be called `dataset`). The CSV is what we write.
"""

from __future__ import annotations

import csv
import math
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from labels.emotions import EMOTIONS, RAVDESS, canonical
from labels.ravdess_names import read_ravdess_name
from system.csv_table import Table, check_text, parse_table, read_columns, read_text
from system.files import replacing

SUBSETS = ("training", "validation", "testing")
COLUMNS = ("video", "audio", "start", "end", "label", "speaker", "gender", "corpus", "subset")
_FILES = ("video", "audio")  # columns of names, which need not be UTF-8
_PREFIXES = ("p_", "target_")  # of columns that are read in any letter case
_CORPUS = ("corpus", "dataset")  # names of one column; the first is written
_SUBSET_NAMES = {"train": "training", "val": "validation", "valid": "validation", "test": "testing"}


@dataclass(frozen=True)
class Record:
    """A labelled segment of a corpus.

    Args:
        video: file of the pictures (also a still, or legacy `.npy` faces); empty if there are none.
        audio: file of the sound; empty where it is that of `video`, or there is none.
        start, end: seconds; an `end` of None means to the end.
        label: canonical emotion name.
        speaker: who is seen and heard; empty where it is not known.
        dataset: corpus.
        subset: `training`, `validation`, `testing`, or empty for not used.
        soft: probabilities by class, where several people judged.
        extra: further columns, such as gender (where it is known) or intensity.
        origin: file and line that it was read from, for messages.
        spelling: the label as it is written there, where it is another name of the same emotion.
    """

    video: str
    audio: str
    label: str
    start: float = 0.0
    end: float | None = None
    speaker: str = ""
    dataset: str = ""
    subset: str = ""
    soft: dict[str, float] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)
    origin: str = field(default="", compare=False)
    spelling: str = field(default="", compare=False)

    @property
    def key(self) -> str:
        """What the store of prepared clips calls its media."""
        return f"{self.video}|{self.audio}"

    @property
    def name(self) -> str:
        return Path(self.video or self.audio).name


def read_annotations(path: Path) -> list[Record]:
    """Records of an annotation file of either form. Relative paths are relative to the file.

    Raises:
        ValueError: the file is missing or empty, or a line cannot be read (it is named).
    """
    text = read_text(path, "annotation file")
    if not text.strip():
        raise ValueError(f"annotation file {path} is empty")
    folder = path.parent.resolve()
    if "label" not in map(_column_name, read_columns(text)):
        return _read_legacy(text, path, folder)
    table = parse_table(text, path, _column_name, _FILES)
    if not table.rows:
        raise ValueError(f"annotation file {path} has a header and no rows")
    classes = {*EMOTIONS, *(canonical(cells["label"]) for _, cells in table.rows)}
    return [_record_from_row(table, n, cells, classes, folder) for n, cells in table.rows]


def _column_name(name: str) -> str:
    """Columns that mean something to us are read in any letter case."""
    lowered = name.lower()
    if lowered in (*COLUMNS, *_CORPUS) or lowered.startswith(_PREFIXES):
        prefix = next((found for found in _PREFIXES if lowered.startswith(found)), lowered)
        return prefix + name[len(prefix) :]
    return name


def _record_from_row(
    table: Table, number: int, row: dict[str, str], classes: set[str], folder: Path
) -> Record:
    place = f"{table.path}, line {number}"
    if not row["label"]:
        raise ValueError(f"{place}, column label: is empty; name the emotion, or leave the row out")
    label = canonical(row["label"])
    soft_columns = {n: c for n in row if n.startswith("p_") and (c := canonical(n[2:])) in classes}
    soft = {
        name: share
        for column, name in soft_columns.items()
        if (share := _number(row, column, place, table.separator)) is not None
    }
    if soft and sum(soft.values()) <= 0:
        raise ValueError(f"{place}: all soft labels are 0; leave them empty to use the label alone")
    start = _number(row, "start", place, table.separator) or 0.0
    end = _number(row, "end", place, table.separator)
    if end is not None and end <= start:
        raise ValueError(f"{place}: the end, {end:g} s, is not after the start, {start:g} s")
    try:
        subset = _subset(row.get("subset", ""))
    except ValueError as error:
        raise ValueError(f"{place}: {error} (column subset)") from error
    known = {*COLUMNS, *_CORPUS, *soft_columns}
    extra = {"gender": row["gender"]} if row.get("gender") else {}
    return Record(
        video=_absolute(row.get("video", ""), folder),
        audio=_absolute(row.get("audio", ""), folder),
        label=label,
        start=start,
        end=end,
        speaker=row.get("speaker", ""),
        dataset=next((row[name] for name in _CORPUS if row.get(name)), ""),
        subset=subset,
        soft=soft,
        extra=extra | {name: value for name, value in row.items() if name not in known},
        origin=place,
        spelling=row["label"] if label != row["label"].lower() else "",
    )


def _number(row: dict[str, str], column: str, place: str, separator: str) -> float | None:
    """A number of 0 or more; None where the cell is empty."""
    text = row.get(column, "")
    if not text:
        return None
    try:
        value = float(text.replace(",", ".") if separator != "," else text)
    except ValueError:
        raise ValueError(
            f"{place}: could not convert {text!r} in column {column} to a number"
        ) from None
    if not (math.isfinite(value) and value >= 0):
        wanted = "a number of seconds" if column in ("start", "end") else "a fraction"
        raise ValueError(f"{place}, column {column}: must be {wanted}, 0 or more, not {text!r}")
    return value


def tell_spellings(records: Iterable[Record]) -> list[str]:
    """A line for each label that is written otherwise than it is read."""
    counts = Counter((record.spelling, record.label) for record in records if record.spelling)
    return [
        f"label {spelling} is read as {label} ({count} records)"
        for (spelling, label), count in sorted(counts.items())
    ]


def _read_legacy(text: str, path: Path, folder: Path) -> list[Record]:
    records = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        parts = [part.strip() for part in line.split(";")]
        if len(parts) != 4 or not parts[2].isdigit():
            raise ValueError(
                f"{path}, line {number}: expected `video;audio;label;subset` or a CSV header "
                f"with a label column, found {line[:60]!r}"
            )
        video, audio, label, subset = parts
        check_text(subset, f"{path}, line {number}")
        if not 1 <= int(label) <= len(RAVDESS):
            raise ValueError(f"{path}, line {number}: label {label} is not in 1..{len(RAVDESS)}")
        known = read_ravdess_name(Path(video or audio).stem.split("_")[0])
        records.append(
            Record(
                video=_absolute(video, folder),
                audio=_absolute(audio, folder),
                label=RAVDESS[int(label) - 1],
                speaker=known.actor if known else "",
                subset=_legacy_subset(subset, f"{path}, line {number}"),
                origin=f"{path}, line {number}",
            )
        )
    return records


def _legacy_subset(name: str, place: str) -> str:
    try:
        return _subset(name)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def read_subset(name: str) -> str:
    """The subset that a name such as `train` or `Testing` means; empty where it means none."""
    lowered = name.strip().lower()
    subset = _SUBSET_NAMES.get(lowered, lowered)
    return subset if subset in SUBSETS else ""


def _subset(name: str) -> str:
    if name.strip() and not read_subset(name):
        raise ValueError(f"unknown subset {name!r}; choose from {', '.join(SUBSETS)}")
    return read_subset(name)


def _absolute(path: str, folder: Path) -> str:
    """The path from a resolved folder. Links of the file itself are not followed: it is a key."""
    path = path.strip()
    return os.path.normpath(folder / path) if path else ""


def write_annotations(records: list[Record], path: Path) -> None:
    """Write the headed CSV. Paths under the file's folder are written relative to it."""
    extra = sorted({name for record in records for name in record.extra} - set(COLUMNS))
    classes = list(dict.fromkeys(name for record in records for name in record.soft))
    header = [*COLUMNS, *extra, *(f"p_{name}" for name in classes)]
    folder = path.parent.resolve()
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        for record in records:
            writer.writerow(_row_from_record(record, folder))


def _row_from_record(record: Record, folder: Path) -> dict[str, str]:
    row = {name: getattr(record, name) for name in ("label", "speaker", "subset")}
    row["corpus"] = record.dataset
    row["video"], row["audio"] = (_relative(p, folder) for p in (record.video, record.audio))
    row["start"] = f"{record.start:.3f}"
    row["end"] = "" if record.end is None else f"{record.end:.3f}"
    return {**record.extra, **row, **{f"p_{n}": f"{v:.4f}" for n, v in record.soft.items()}}


def _relative(path: str, folder: Path) -> str:
    """The path from a resolved folder, if it lies in it; else in full."""
    if not path:
        return ""
    absolute = os.path.normpath(Path(path).absolute())
    return absolute.removeprefix(f"{folder}{os.sep}")
