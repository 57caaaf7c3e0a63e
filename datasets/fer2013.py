"""FER2013: 35,887 grey 48x48 faces from the web, with the ten annotators' votes of FER+.

Sources: Goodfellow et al., Challenges in representation learning, ICONIP 2013 (research use);
Barsoum et al., Training deep networks for facial expression recognition with crowd-sourced label
distribution, ICMI 2016. Layout: `train/<class>/Training_*.jpg`, `test/<class>/PublicTest_*.jpg`
and `PrivateTest_*.jpg`, and `ferplus_votes.csv` (path, then votes by class) where it is there. The
one-file form `fer2013.csv` (emotion, pixels, Usage) is unpacked into that layout once, with the
votes of FER+'s `fer2013new.csv` (whose rows go with those of `fer2013.csv`) if it lies beside it.

Pictures occur twice, also across the splits. A training or validation picture that is identical to
one of a later subset is left out, and of several in one subset the first is kept.
"""

from __future__ import annotations

import csv
import hashlib
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from datasets.annotations import Record
from datasets.labels import canonical
from files import replacing

LICENCE = "research use"
SIDE = 48  # pixels
_SUBSETS = {"PrivateTest": "testing", "PublicTest": "validation", "Training": "training"}
_REJECTED = ("unknown", "not_a_face")
_FOLDERS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # emotion 0..6
_PLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
_PLUS_TAIL = {"unknown": "unknown", "NF": "not_a_face"}
_CSV, _PLUS_CSV, _VOTES = "fer2013.csv", "fer2013new.csv", "ferplus_votes.csv"


@dataclass(frozen=True)
class Duplicates:
    """How many files hold the same bytes.

    Args:
        pictures: files.
        unique: different contents.
        within: subset -> files that repeat one of the same subset.
        across: two subsets -> contents that stand in both.
        conflicting: contents that stand under several classes.
    """

    pictures: int
    unique: int
    within: dict[str, int]
    across: dict[tuple[str, str], int]
    conflicting: int


def read_records(root: Path, pictures: Path | None = None) -> list[Record]:
    """One record a picture; FER+'s largest vote is the label where there are votes.

    `soft` holds the vote shares, single votes dropped as the field does. `extra["fer2013"]` keeps
    the original label. A picture that most annotators found unknown or not a face is left out.

    Args:
        root: folder of the pictures, or of `fer2013.csv`, or that file.
        pictures: where to unpack `fer2013.csv`; `fer2013_pictures` beside it if not given.

    Raises:
        ValueError: no FER2013 picture under the folder; or a csv that cannot be read.
    """
    root = _picture_folder(root, pictures)
    votes = _read_votes(root / _VOTES)
    records: list[Record] = []
    seen: set[str] = set()
    for path in _list_pictures(root):
        digest = _digest(path)
        record = _record(path, votes.get(path.relative_to(root).as_posix()))
        if digest not in seen and record is not None:
            records.append(record)
        seen.add(digest)
    if not records:
        raise ValueError(f"no FER2013 pictures such as train/happy/Training_1.jpg under {root}")
    return records


def find_duplicates(root: Path) -> Duplicates:
    """Count the pictures under a folder that are the same, byte by byte."""
    places: dict[str, list[Path]] = defaultdict(list)
    for path in _list_pictures(root):
        places[_digest(path)].append(path)
    within: Counter[str] = Counter()
    across: Counter[tuple[str, str]] = Counter()
    for paths in places.values():
        counts = Counter(_SUBSETS[_split_name(path)] for path in paths)
        within.update({subset: n - 1 for subset, n in counts.items() if n > 1})
        across.update(combinations(sorted(counts), 2))
    return Duplicates(
        pictures=sum(len(paths) for paths in places.values()),
        unique=len(places),
        within=dict(within),
        across=dict(across),
        conflicting=sum(len({path.parent.name for path in paths}) > 1 for paths in places.values()),
    )


def unpack_csv(csv_path: Path, folder: Path) -> Path:
    """Write the pictures of `fer2013.csv` as PNG files in the folder layout, once.

    Files are named by split and row, such as `train/happy/Training_000007.png`. An unpacking that
    was killed leaves nothing under `folder`, which is returned.

    Raises:
        ValueError: the file has other columns, or a row cannot be read (it is named).
    """
    if folder.exists():
        return folder
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    names = []
    for name, picture in _read_pictures(csv_path):
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(part / name), picture)
        names.append(name)
    if not names:
        raise ValueError(f"{csv_path} has a header and no rows")
    if csv_path.with_name(_PLUS_CSV).exists():
        _write_votes(csv_path.with_name(_PLUS_CSV), names, part / _VOTES)
    part.rename(folder)
    return folder


def _picture_folder(root: Path, pictures: Path | None) -> Path:
    source = root / _CSV if root.is_dir() else root
    if not source.is_file() or (root / "train").is_dir():
        return root
    return unpack_csv(source, pictures or source.with_name("fer2013_pictures"))


def _read_pictures(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name in the folder layout and (48, 48) uint8 grey picture of each row."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        if not {"emotion", "pixels", "Usage"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{path}: expected the columns emotion, pixels, Usage")
        for number, row in enumerate(reader):
            try:
                yield _picture_name(row, number), _to_picture(row["pixels"])
            except (ValueError, KeyError, IndexError) as error:
                raise ValueError(f"{path}, line {number + 2}: {error}") from error


def _picture_name(row: dict[str, str], number: int) -> str:
    usage, emotion = row["Usage"], int(row["emotion"])
    if usage not in _SUBSETS or not 0 <= emotion < len(_FOLDERS):
        raise ValueError(f"expected an emotion 0..6 and one of {', '.join(_SUBSETS)}")
    side = "train" if usage == "Training" else "test"
    return f"{side}/{_FOLDERS[emotion]}/{usage}_{number:06d}.png"


def _to_picture(pixels: str) -> np.ndarray:
    values = np.array(pixels.split(), dtype=np.uint8)
    if len(values) != SIDE * SIDE:
        raise ValueError(f"{len(values)} pixels, not {SIDE}x{SIDE}")
    return values.reshape(SIDE, SIDE)


def _write_votes(source: Path, names: list[str], path: Path) -> None:
    """FER+'s table, whose rows go with those of `fer2013.csv`, under the pictures' names."""
    with source.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    if len(rows) != len(names) or not {*_PLUS, *_PLUS_TAIL} <= set(rows[0]):
        raise ValueError(f"{source}: its rows do not go with the {len(names)} of {_CSV}")
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *_PLUS, *_PLUS_TAIL.values()])
        for name, row in zip(names, rows, strict=True):
            writer.writerow([name, *(row[column] for column in (*_PLUS, *_PLUS_TAIL))])


def _list_pictures(root: Path) -> list[Path]:
    """Pictures, those of the testing subset first, then validation, then training."""
    paths = sorted(path for path in root.glob("t*/*/*_*") if path.suffix in {".jpg", ".png"})
    return sorted(paths, key=lambda path: list(_SUBSETS).index(_split_name(path)))


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


def _split_name(path: Path) -> str:
    name = path.name.split("_")[0]
    if name not in _SUBSETS:
        raise ValueError(f"{path}: expected a name that starts with {', '.join(_SUBSETS)}")
    return name


def _record(path: Path, votes: dict[str, float] | None) -> Record | None:
    original = canonical(path.parent.name)
    label, soft = original, {}
    if votes and any(votes.values()):
        label = max(votes, key=lambda name: votes[name])
        if label in _REJECTED:
            return None
        kept = {name: n for name, n in votes.items() if n > 1 and name not in _REJECTED}
        soft = {name: n / sum(kept.values()) for name, n in kept.items()}
    return Record(
        video=str(path),
        audio="",
        label=label,
        dataset="fer2013",
        subset=_SUBSETS[_split_name(path)],
        soft=soft,
        extra={"fer2013": original},
    )


def _read_votes(path: Path) -> dict[str, dict[str, float]]:
    """Votes by class of each picture, or nothing where there is no file of votes."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {
            row["path"]: {canonical(name): float(n) for name, n in row.items() if name != "path"}
            for row in csv.DictReader(file)
        }
