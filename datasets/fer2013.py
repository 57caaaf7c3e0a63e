"""FER2013: 35,887 grey 48x48 faces from the web, with the ten annotators' votes of FER+.

Sources: Goodfellow et al., Challenges in representation learning, ICONIP 2013 (research use);
Barsoum et al., Training deep networks for facial expression recognition with crowd-sourced label
distribution, ICMI 2016. Layout: `train/<class>/Training_*.jpg`, `test/<class>/PublicTest_*.jpg`
and `PrivateTest_*.jpg`, and `ferplus_votes.csv` (path, then votes by class) where it is there.

Pictures occur twice, also across the splits. A training or validation picture that is identical to
one of a later subset is left out, and of several in one subset the first is kept.
"""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

from datasets.annotations import Record
from datasets.labels import canonical

LICENCE = "research use"
_SUBSETS = {"PrivateTest": "testing", "PublicTest": "validation", "Training": "training"}
_REJECTED = ("unknown", "not_a_face")


def read_records(root: Path) -> list[Record]:
    """One record a picture; FER+'s largest vote is the label where there are votes.

    `soft` holds the vote shares, single votes dropped as the field does. `extra["fer2013"]` keeps
    the original label. A picture that most annotators found unknown or not a face is left out.

    Raises:
        ValueError: no FER2013 picture under the folder.
    """
    votes = _read_votes(root / "ferplus_votes.csv")
    records: list[Record] = []
    seen: set[str] = set()
    paths = sorted(path for path in root.glob("t*/*/*_*") if path.suffix in {".jpg", ".png"})
    paths.sort(key=lambda path: list(_SUBSETS).index(_split_name(path)))
    for path in paths:
        digest = hashlib.sha1(path.read_bytes()).hexdigest()
        record = _record(path, votes.get(path.relative_to(root).as_posix()))
        if digest not in seen and record is not None:
            records.append(record)
        seen.add(digest)
    if not records:
        raise ValueError(f"no FER2013 pictures such as train/happy/Training_1.jpg under {root}")
    return records


def _split_name(path: Path) -> str:
    name = path.name.split("_")[0]
    if name not in _SUBSETS:
        raise ValueError(f"{path}: expected a name that starts with {', '.join(_SUBSETS)}")
    return name


def _record(path: Path, votes: dict[str, float] | None) -> Record | None:
    original = canonical(path.parent.name)
    label, soft = original, {}
    if votes:
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
