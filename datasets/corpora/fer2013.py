"""FER2013: 35,887 grey 48x48 faces from the web, with the ten annotators' votes of FER+.

Sources: Goodfellow et al., Challenges in representation learning, ICONIP 2013 (research use);
Barsoum et al., Training deep networks for facial expression recognition with crowd-sourced label
distribution, ICMI 2016. Layout: `train/<class>/Training_*.jpg`, `test/<class>/PublicTest_*.jpg`
and `PrivateTest_*.jpg`, and `ferplus_votes.csv` (path, then votes by class) where it is there. The
one-file form `fer2013.csv` (emotion, pixels, Usage) is unpacked into that layout once, with the
votes of FER+'s `fer2013new.csv` (whose rows go with those of `fer2013.csv`) if it lies beside it.

Pictures occur twice, also across the splits, byte by byte or nearly (recompressed, brightened). A
training picture that is the same or nearly the same as one to validate or test on is left out, and
so is one to validate on that is nearly one to test on. Of several in one subset that are the same
byte by byte the first is kept.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datasets.annotations import Record
from datasets.corpora.corpus import Corpus, CorpusOption, register_corpus
from datasets.fer2013_copies import (
    SIDE,
    SUBSETS,
    Duplicates,
    compare,
    compare_once,
    format_duplicates,
    split_name,
)
from labels.emotions import SEVEN, canonical
from media.suffixes import PICTURE, is_hidden
from system.files import replacing

_REJECTED = ("unknown", "not_a_face")
_FOLDERS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # emotion 0..6
_PLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
_PLUS_TAIL = {"unknown": "unknown", "NF": "not_a_face"}
_CSV, _PLUS_CSV, _VOTES = "fer2013.csv", "fer2013new.csv", "ferplus_votes.csv"


def read_records(
    root: Path,
    pictures: Path | None = None,
    keep_duplicates: bool = False,
    original_labels: bool = False,
    report: Callable[[Duplicates], None] | None = None,
    cache: Path | None = None,
) -> list[Record]:
    """One record a picture; FER+'s largest vote is the label where there are votes.

    `soft` holds the vote shares, single votes dropped as the field does. `extra["fer2013"]` keeps
    the original label. A picture that most annotators found unknown or not a face is left out.

    Args:
        root: folder of the pictures, or of `fer2013.csv`, or that file.
        pictures: where to unpack `fer2013.csv`; `fer2013_pictures` beside it if not given.
        keep_duplicates: whether pictures that repeat others stay.
        original_labels: FER2013's own labels of seven classes, as if there were no votes; then no
            picture is left out for them.
        report: is told what repeats what.
        cache: file in which that is kept until a picture changes; seconds are saved by it.

    Raises:
        ValueError: no FER2013 picture under the folder; or a csv that cannot be read.
    """
    root = _picture_folder(root, pictures)
    votes = {} if original_labels else _read_votes(root / _VOTES)
    paths = _list_pictures(root)
    if not paths:
        raise ValueError(f"no FER2013 pictures such as train/happy/Training_1.jpg under {root}")
    duplicates = compare_once(paths, cache)
    if report:
        report(duplicates)
    left_out = {} if keep_duplicates else duplicates.repeats
    kept = (path for path in paths if path not in left_out)
    records = (_record(path, votes.get(path.relative_to(root).as_posix())) for path in kept)
    return [record for record in records if record is not None]


def find_duplicates(root: Path) -> Duplicates:
    """Which pictures under a folder are the same, byte by byte, or nearly."""
    return compare(_list_pictures(root))


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
    if usage not in SUBSETS or not 0 <= emotion < len(_FOLDERS):
        raise ValueError(f"expected an emotion 0..6 and one of {', '.join(SUBSETS)}")
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
    paths = [
        path
        for path in root.glob("t*/*/*_*")
        if path.suffix.lower() in PICTURE and not is_hidden(path.name)
    ]
    order = {name: index for index, name in enumerate(SUBSETS)}
    return sorted(paths, key=lambda path: (order[split_name(path)], str(path)))


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
        subset=SUBSETS[split_name(path)],
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


def _read_for_people(
    root: Path, report: Callable[[str], None] | None = None, **options: Any
) -> list[Record]:
    """As `read_records`; what repeats what is reported in a few lines."""

    def tell(found: Duplicates) -> None:
        if report:
            report(format_duplicates(found, options.get("keep_duplicates", False)))

    return read_records(root, report=tell, **options)


CORPUS = register_corpus(
    Corpus(
        name="fer2013",
        read=_read_for_people,
        layout="Kaggle's folders or `fer2013.csv`; FER+'s votes as soft labels",
        labels="7, or FER+'s 8",
        licence="research use",
        classes=(*SEVEN, "contempt"),
        source="Goodfellow et al., ICONIP 2013; Barsoum et al., ICMI 2016",
        links=(
            "https://www.kaggle.com/datasets/msambare/fer2013",
            "https://github.com/microsoft/FERPlus",
        ),
        options=(
            CorpusOption("keep_duplicates", "also what repeats a picture of another subset"),
            CorpusOption("original_labels", "its own labels, not FER+'s votes"),
            CorpusOption("talking", "each training face also with the mouth open", of_reader=False),
        ),
        reports=True,
        cache="copies.json",
        cropped_faces=True,
    )
)
