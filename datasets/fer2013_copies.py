"""Which pictures of FER2013 repeat others of its subsets, byte by byte or nearly."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datasets.fingerprints import MIN_SIMILARITY, find_all_similar, read_grey_prints
from system.files import write_json

SIDE = 48  # pixels
# Stricter than the leak guard, which sees pictures as they are stored. Of 40 pairs looked at
# between this and the guard's limit, 38 were copies.
_NEARLY_SAME = MIN_SIMILARITY - 0.01
SUBSETS = {"PrivateTest": "testing", "PublicTest": "validation", "Training": "training"}
_EARLIER = {"testing": ("validation", "training"), "validation": ("training",)}
_COUNTS = ("pictures", "unique", "within", "conflicting")
_BY_PAIR = ("across", "near")


@dataclass(frozen=True)
class Duplicates:
    """Which pictures repeat others, byte by byte or nearly.

    Args:
        pictures: files.
        unique: different contents.
        within: subset -> files that repeat one of the same subset.
        across: two subsets -> contents that stand in both.
        near: two subsets -> pairs that are nearly, not byte by byte, the same.
        conflicting: contents that stand under several classes.
        repeats: what is to be left out -> the picture that it repeats, of its subset or a later.
    """

    pictures: int
    unique: int
    within: dict[str, int]
    across: dict[tuple[str, str], int]
    near: dict[tuple[str, str], int]
    conflicting: int
    repeats: dict[Path, Path]

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file; pairs become lists."""
        values = {name: getattr(self, name) for name in _COUNTS}
        pairs = {n: [[*pair, k] for pair, k in getattr(self, n).items()] for n in _BY_PAIR}
        repeats = [[str(copy), str(kept)] for copy, kept in self.repeats.items()]
        return {**values, **pairs, "repeats": repeats}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Duplicates:
        """What `to_dict` gave."""
        pairs: dict[str, Any] = {n: {(a, b): k for a, b, k in values[n]} for n in _BY_PAIR}
        repeats = {Path(copy): Path(kept) for copy, kept in values["repeats"]}
        return Duplicates(**{name: values[name] for name in _COUNTS}, **pairs, repeats=repeats)


def format_duplicates(found: Duplicates, keep: bool) -> str:
    """A few lines for people: what repeats what, and what was left out for it."""
    order = list(SUBSETS.values())[::-1]
    left_out = Counter(SUBSETS[split_name(path)] for path in found.repeats)
    counts = ", ".join(f"{subset} {left_out[subset]}" for subset in order)
    lines = [
        f"FER2013: {found.pictures} pictures, {found.unique} different; "
        f"{found.conflicting} stand under several classes",
        "repeated within: " + ", ".join(f"{s} {found.within.get(s, 0)}" for s in order),
    ]
    for one, other in combinations(order, 2):
        pair = _subset_pair(one, other)
        same, near = found.across.get(pair, 0), found.near.get(pair, 0)
        lines.append(f"{one} and {other}: {same} the same, {near} pairs nearly the same")
    lines.append("kept: all" if keep else f"left out: {counts}")
    return "\n".join(lines)


def compare_once(paths: list[Path], known: Path | None) -> Duplicates:
    """As `compare`, or what it found before where no file has changed since."""
    if known is None:
        return compare(paths)
    facts = ((path, path.stat()) for path in paths)
    listing = "\n".join(f"{path}|{stat.st_size}|{stat.st_mtime_ns}" for path, stat in facts)
    digest = hashlib.sha256(listing.encode()).hexdigest()
    try:
        values = json.loads(known.read_text())
        if values["listing"] == digest:
            return Duplicates.from_dict(values["duplicates"])
    except (OSError, ValueError, KeyError):
        pass  # not there, or half of it: compared anew
    found = compare(paths)
    known.parent.mkdir(parents=True, exist_ok=True)
    write_json({"listing": digest, "duplicates": found.to_dict()}, known)
    return found


def compare(paths: list[Path]) -> Duplicates:
    """Which of some pictures repeat others of them, of which the earlier are kept."""
    subsets = [SUBSETS[split_name(path)] for path in paths]
    first: dict[bytes, int] = {}
    places: dict[int, list[int]] = defaultdict(list)  # index of the first -> of all the same
    pictures = []
    for index, path in enumerate(paths):
        content = path.read_bytes()
        same = first.setdefault(hashlib.sha1(content).digest(), index)
        places[same].append(index)
        if same == index:
            pictures.append(_decode(content))
    near = _find_near(pictures, list(places), places, subsets)
    repeats = {copy: group[0] for group in places.values() for copy in group[1:]}
    for one, other in near:  # pictures are in the order in which subsets are kept
        repeats.setdefault(other, one)
    counts = [Counter(subsets[index] for index in group) for group in places.values()]
    within: Counter[str] = Counter()
    for row in counts:
        within.update({subset: n - 1 for subset, n in row.items() if n > 1})
    return Duplicates(
        pictures=len(paths),
        unique=len(places),
        within=dict(within),
        across=dict(Counter(pair for row in counts for pair in combinations(sorted(row), 2))),
        near=dict(Counter(_subset_pair(subsets[one], subsets[other]) for one, other in near)),
        conflicting=sum(len({paths[i].parent.name for i in g}) > 1 for g in places.values()),
        repeats={paths[copy]: paths[one] for copy, one in repeats.items()},
    )


def _find_near(
    pictures: list[np.ndarray],
    owners: list[int],
    places: dict[int, list[int]],
    subsets: list[str],
) -> list[tuple[int, int]]:
    """Pairs of different contents, on two sides of the split, that are nearly the same.

    Args:
        pictures: each content once; `owners` are the indices of the files that hold them first.
        places: index of the first file of a content -> of all that hold it.
        subsets: of each file.
    """
    if not pictures:
        return []
    prints = read_grey_prints(pictures)
    counts = [len(vectors) for vectors in prints]
    sides = np.repeat([subsets[owner] for owner in owners], counts)
    rows = np.repeat(owners, counts)
    vectors = np.concatenate(prints)
    found = []
    for subset in ("testing", "validation"):
        held, rest = sides == subset, np.isin(sides, _EARLIER[subset])
        for one, other in find_all_similar(vectors[held], vectors[rest], _NEARLY_SAME):
            files = product(places[rows[held][one]], places[rows[rest][other]])
            found += [(min(f), max(f)) for f in files if subsets[f[0]] != subsets[f[1]]]
    return found


def _subset_pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)


def _decode(content: bytes) -> np.ndarray:
    """(H, W) uint8; a black one where the file is damaged, which preparing the corpus reports."""
    values = np.frombuffer(content, dtype=np.uint8)
    picture = cv2.imdecode(values, cv2.IMREAD_GRAYSCALE) if len(values) else None
    return np.zeros((SIDE, SIDE), dtype=np.uint8) if picture is None else picture


def split_name(path: Path) -> str:
    name = path.name.split("_")[0]
    if name not in SUBSETS:
        raise ValueError(f"{path}: expected a name that starts with {', '.join(SUBSETS)}")
    return name
