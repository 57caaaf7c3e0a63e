"""Annotation files: what is labelled, where it lies, and on which side of the split it stands.

Two forms are read: the field's four-field lines `video.npy;audio.wav;label;subset` (label counted
from 1, subset training, validation or testing), and a headed CSV with the columns `COLUMNS` (any
further column is kept, `p_<class>` columns are soft labels; `corpus` may be called `dataset`). The
CSV is what we write.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, field
from pathlib import Path

from datasets.labels import RAVDESS, canonical
from files import replacing

SUBSETS = ("training", "validation", "testing")
COLUMNS = ("video", "audio", "start", "end", "label", "speaker", "gender", "corpus", "subset")
_CORPUS = ("corpus", "dataset")  # names of one column; the first is written
_SUBSET_NAMES = {"train": "training", "val": "validation", "valid": "validation", "test": "testing"}


@dataclass(frozen=True)
class Record:
    """A labelled stretch of a corpus.

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
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read annotation file {path}: {error}") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"annotation file {path} is empty")
    folder = path.parent.resolve()
    is_table = "label" in lines[0].lower().split(",")
    records = _read_table(lines, path, folder) if is_table else _read_legacy(lines, path, folder)
    if not records:
        raise ValueError(f"annotation file {path} has a header and no rows")
    return records


def _read_table(lines: list[str], path: Path, folder: Path) -> list[Record]:
    records = []
    for number, row in enumerate(csv.DictReader(lines), start=2):
        try:
            records.append(_record_from_row(row, folder))
        except (ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return records


def _record_from_row(row: dict[str, str], folder: Path) -> Record:
    soft = {canonical(n[2:]): float(v) for n, v in row.items() if n.startswith("p_") and v}
    known = {*COLUMNS, *_CORPUS, *(name for name in row if name.startswith("p_"))}
    if not row.get("label"):
        raise ValueError("no label")
    extra = {"gender": row["gender"]} if row.get("gender") else {}
    return Record(
        video=_absolute(row.get("video", ""), folder),
        audio=_absolute(row.get("audio", ""), folder),
        label=canonical(row["label"]),
        start=float(row.get("start") or 0.0),
        end=float(row["end"]) if row.get("end") else None,
        speaker=row.get("speaker", ""),
        dataset=next((row[name] for name in _CORPUS if row.get(name)), ""),
        subset=_subset(row.get("subset", "")),
        soft=soft,
        extra=extra | {name: value for name, value in row.items() if name not in known},
    )


def _read_legacy(lines: list[str], path: Path, folder: Path) -> list[Record]:
    records = []
    for number, line in enumerate(lines, start=1):
        parts = [part.strip() for part in line.split(";")]
        if len(parts) != 4 or not parts[2].isdigit():
            raise ValueError(
                f"{path}, line {number}: expected `video;audio;label;subset` or a CSV header "
                f"with a label column, found {line[:60]!r}"
            )
        video, audio, label, subset = parts
        if not 1 <= int(label) <= len(RAVDESS):
            raise ValueError(f"{path}, line {number}: label {label} is not in 1..{len(RAVDESS)}")
        records.append(
            Record(
                video=_absolute(video, folder),
                audio=_absolute(audio, folder),
                label=RAVDESS[int(label) - 1],
                speaker=_speaker_of_ravdess(video or audio),
                subset=_subset(subset),
            )
        )
    return records


def _speaker_of_ravdess(path: str) -> str:
    """The two digits that close a RAVDESS file name, or nothing."""
    parts = Path(path).stem.split("_")[0].split("-")
    return parts[-1] if len(parts) == 7 and parts[-1].isdigit() else ""


def _subset(name: str) -> str:
    lowered = name.strip().lower()
    subset = _SUBSET_NAMES.get(lowered, lowered)
    if subset and subset not in SUBSETS:
        raise ValueError(f"unknown subset {name!r}; choose from {', '.join(SUBSETS)}")
    return subset


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
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
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
