"""Splits that keep a speaker on one side."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from datasets.annotations import SUBSETS, Record


def split_by_ids(
    records: Sequence[Record], validation: Iterable[int | str], testing: Iterable[int | str]
) -> list[Record]:
    """Give the named speakers to validation and testing, all others to training.

    An id is the speaker as written, or the number at its end (5 matches `ravdess-05`).

    Raises:
        ValueError: an id names no speaker, or stands in both lists.
    """
    speakers = {record.speaker for record in records}
    chosen = {
        "validation": _speakers_of(validation, speakers),
        "testing": _speakers_of(testing, speakers),
    }
    both = chosen["validation"] & chosen["testing"]
    if both:
        raise ValueError(f"speaker {sorted(both)[0]} stands in validation and in testing")
    subset_of = {speaker: subset for subset, group in chosen.items() for speaker in group}
    return [replace(r, subset=subset_of.get(r.speaker, "training")) for r in records]


def split_by_ratio(
    records: Sequence[Record], validation: float, testing: float, seed: int = 1
) -> list[Record]:
    """Give whole speakers, drawn by seed, to each side; every side with a share gets one.

    Raises:
        ValueError: shares that do not leave room for training, or too few speakers.
    """
    shares = {"validation": validation, "testing": testing}
    if min(shares.values()) < 0 or sum(shares.values()) >= 1:
        raise ValueError("the shares of validation and testing must be 0 or more and sum below 1")
    speakers = sorted({record.speaker for record in records})
    random.Random(seed).shuffle(speakers)
    counts = {name: max(1, round(s * len(speakers))) if s else 0 for name, s in shares.items()}
    if sum(counts.values()) >= len(speakers):
        raise ValueError(f"{len(speakers)} speakers are too few to split; name subsets in the file")
    held = speakers[: counts["validation"]]
    tested = speakers[counts["validation"] : sum(counts.values())]
    return split_by_ids(records, held, tested)


def check_speakers(records: Sequence[Record]) -> None:
    """Raise ValueError, naming the first, where a speaker stands on two sides of the split."""
    subsets: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.speaker and record.subset:
            subsets[record.speaker].add(record.subset)
    for speaker, sides in sorted(subsets.items()):
        if len(sides) > 1:
            names = " and ".join(name for name in SUBSETS if name in sides)
            raise ValueError(f"speaker {speaker} stands in {names}: give each speaker one subset")


def _speakers_of(ids: Iterable[int | str], speakers: set[str]) -> set[str]:
    chosen = set()
    for wanted in ids:
        number = _number(str(wanted))
        found = {s for s in speakers if s == str(wanted) or (number and _number(s) == number)}
        exact = {s for s in found if s == str(wanted)}
        if not found:
            raise ValueError(f"no speaker {wanted}; there are {', '.join(sorted(speakers)[:30])}")
        chosen |= exact or found
    return chosen


def _number(speaker: str) -> int | None:
    match = re.search(r"(\d+)$", speaker)
    return int(match.group(1)) if match else None
