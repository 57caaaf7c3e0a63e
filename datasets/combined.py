"""RAVDESS and CREMA-D as one corpus of six emotions: 115 speakers.

Calm is read as neutral and surprised, which CREMA-D does not have, is dropped; RAVDESS is its
speech only. The two corpora may lie in any folders under one root, as files are found by name.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from datasets import cremad, ravdess
from datasets.annotations import SUBSETS, Record
from datasets.labels import SIX, place

LICENCE = f"RAVDESS: {ravdess.LICENCE}; CREMA-D: {cremad.LICENCE}"
_DRAWS = 64  # of speakers to subsets, the most even of which is taken

Counts = Counter[tuple[str, str]]  # (corpus, emotion) -> records


def read_records(root: Path, label: cremad.Scored = "intended") -> list[Record]:
    """Records of both corpora under the six common labels; `extra["original"]` keeps the old one.

    Raises:
        ValueError: one of the two is not under the folder.
    """
    records = []
    for record in (*ravdess.read_records(root), *cremad.read_records(root, label)):
        index = place(record.label, SIX)
        if index is not None:
            extra = {**record.extra, "original": record.label}
            records.append(replace(record, label=SIX[index], extra=extra))
    return records


def split_stratified(
    records: Sequence[Record], validation: float, testing: float, seed: int = 1
) -> list[Record]:
    """Give each speaker one subset, every subset its share of each corpus and gender.

    Of several seeded draws of speakers the one is taken whose subsets' emotions are most alike.

    Raises:
        ValueError: shares that leave nothing to training, a record without a speaker, or a corpus
            and gender with too few speakers for all subsets.
    """
    shares = {"validation": validation, "testing": testing}
    if min(shares.values()) < 0 or sum(shares.values()) >= 1:
        raise ValueError("the shares of validation and testing must be 0 or more and sum below 1")
    if any(not record.speaker for record in records):
        raise ValueError("a record has no speaker; a split by speakers needs one on each")
    groups = _group_speakers(records)
    counts = _count_by_speaker(records)
    rng = random.Random(seed)
    draws = [_draw(groups, shares, rng) for _ in range(_DRAWS)]
    best = min(draws, key=lambda draw: _unevenness(draw, counts))
    return [replace(record, subset=best[record.speaker]) for record in records]


def _group_speakers(records: Iterable[Record]) -> dict[tuple[str, str], list[str]]:
    """Speakers by corpus and gender, in order of name."""
    groups: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in records:
        groups[record.dataset, record.extra.get("gender", "")].add(record.speaker)
    return {key: sorted(speakers) for key, speakers in sorted(groups.items())}


def _count_by_speaker(records: Iterable[Record]) -> dict[str, Counts]:
    counts: dict[str, Counts] = defaultdict(Counter)
    for record in records:
        counts[record.speaker][record.dataset, record.label] += 1
    return counts


def _draw(
    groups: dict[tuple[str, str], list[str]], shares: dict[str, float], rng: random.Random
) -> dict[str, str]:
    """Subset of each speaker; a subset with a share gets at least one speaker of each group."""
    subset_of: dict[str, str] = {}
    for (corpus, gender), speakers in groups.items():
        sizes = {name: max(1, round(s * len(speakers))) if s else 0 for name, s in shares.items()}
        if sum(sizes.values()) >= len(speakers):
            raise ValueError(f"{len(speakers)} {gender} speakers of {corpus} are too few to split")
        shuffled = rng.sample(speakers, len(speakers))
        sides = [name for name, size in sizes.items() for _ in range(size)]
        sides += ["training"] * (len(speakers) - len(sides))
        subset_of |= dict(zip(shuffled, sides, strict=True))
    return subset_of


def _unevenness(subset_of: dict[str, str], counts: dict[str, Counts]) -> float:
    """Largest difference between an emotion's share of a corpus in a subset and in all of it."""
    totals: dict[str, Counts] = defaultdict(Counter)
    for speaker, subset in subset_of.items():
        totals[subset].update(counts[speaker])
        totals["all"].update(counts[speaker])
    whole = _emotion_shares(totals["all"])
    parts = [_emotion_shares(totals[name]) for name in SUBSETS if name in totals]
    return max(abs(part.get(key, 0.0) - share) for part in parts for key, share in whole.items())


def _emotion_shares(counts: Counts) -> dict[tuple[str, str], float]:
    by_corpus: Counter[str] = Counter()
    for (corpus, _), n in counts.items():
        by_corpus[corpus] += n
    return {(corpus, label): n / by_corpus[corpus] for (corpus, label), n in counts.items()}
