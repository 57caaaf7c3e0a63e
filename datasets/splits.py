"""Splits that keep a speaker on one side: by ids, by ratio, in folds, one left out, as published.

Each gives the records with their `subset` set. What is drawn is drawn by seed, and alike on all
sides in corpora, genders and emotions.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from datasets.annotations import SUBSETS, Record
from system.errors import OptionError

LEAVE_ONE_CORPUS_OUT = "leave_one_corpus_out"  # as a protocol of cross-validation


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

    The sides get their shares of corpora, genders and emotions as nearly as whole speakers allow.
    A record without a speaker goes where the others of its file go.

    Raises:
        ValueError: shares that do not leave room for training, or too few speakers.
    """
    shares = {"validation": validation, "testing": testing}
    if min(shares.values()) < 0 or sum(shares.values()) >= 1:
        raise ValueError("the shares of validation and testing must be 0 or more and sum below 1")
    people = len(_group_records(records))
    counts = {name: max(1, round(s * people)) if s else 0 for name, s in shares.items()}
    if sum(counts.values()) >= people:
        raise ValueError(f"{people} speakers are too few to split; name subsets in the file")
    counts["training"] = people - sum(counts.values())
    side_of = _deal_speakers(records, list(counts.values()), seed)
    return [replace(r, subset=list(counts)[side_of[_person(r)]]) for r in records]


def k_folds(records: Sequence[Record], n: int, seed: int = 1) -> list[list[Record]]:
    """All records, `n` times over: the i-th time fold i tests, the next validates, the rest trains.

    Folds are of whole speakers, drawn by seed, and alike in corpora, genders and emotions.

    Raises:
        ValueError: fewer than three folds, or more folds than speakers.
    """
    people = len(_group_records(records))
    if not 3 <= n <= people:
        raise ValueError(f"{n} folds of {people} speakers: give 3 to {people}")
    sizes = [(people + fold) // n for fold in range(n)]
    return _rotate(records, _deal_speakers(records, sizes, seed), n)


def leave_one_out(
    records: Sequence[Record], speaker: int | str, validation: float = 0.1, seed: int = 1
) -> list[Record]:
    """One speaker tests; of the others the share `validation`, stratified, validates.

    Raises:
        ValueError: no such speaker, or no other to train on.
    """
    tested = _speakers_of([speaker], {record.speaker for record in records})
    others = [record for record in records if record.speaker not in tested]
    sides = iter(split_by_ratio(others, validation, 0.0, seed))
    return [replace(r, subset="testing") if r.speaker in tested else next(sides) for r in records]


def corpora_of(records: Sequence[Record]) -> list[str]:
    """The corpora that can each be left out, in alphabetical order.

    Raises:
        ValueError: a record without a corpus, or fewer than two corpora.
    """
    corpora = {record.dataset for record in records}
    if "" in corpora:
        raise ValueError(f"{LEAVE_ONE_CORPUS_OUT} needs a corpus in every record")
    if len(corpora) < 2:
        raise OptionError(
            f"{LEAVE_ONE_CORPUS_OUT} needs records of two corpora or more; all are of "
            f"{', '.join(corpora)}: give further annotation files",
            "annotation_path",
        )
    return sorted(corpora)


def leave_one_corpus_out(
    records: Sequence[Record], corpus: str, validation: float = 0.1, seed: int = 1
) -> list[Record]:
    """One corpus tests; of the people of the others a fraction validates, the rest trains.

    Args:
        corpus: the one that tests.
        validation: fraction of the other corpora's speakers, drawn alike in corpora, genders and
            emotions.
        seed: of the draw.

    Raises:
        ValueError: no such corpus, no other one, or a speaker of both sides.
    """
    if corpus not in corpora_of(records):
        raise ValueError(
            f"no records of corpus {corpus}; there are {', '.join(corpora_of(records))}"
        )
    others = [record for record in records if record.dataset != corpus]
    shared = {r.speaker for r in records if r.dataset == corpus} & {r.speaker for r in others}
    if shared - {""}:
        raise ValueError(
            f"speaker {min(shared - {''})} is of {corpus} and of another corpus: name the speakers "
            "of each corpus differently, such as by the corpus in front"
        )
    sides = iter(split_by_ratio(others, validation, 0.0, seed))
    return [replace(r, subset="testing") if r.dataset == corpus else next(sides) for r in records]


@dataclass(frozen=True)
class Protocol:
    """A split that scores are compared on.

    Args:
        corpus: whose speakers it names.
        source: who published it, and where.
        validation, testing: actors; empty where there are folds.
        folds: of actors in order, each testing in turn while the next validates.
    """

    corpus: str
    source: str
    validation: tuple[int, ...] = ()
    testing: tuple[int, ...] = ()
    folds: int = 0


# Folds of actors in order, as both sources have them. Their validation differs: MSAF has none and
# reports the best epoch on the tested fold, PEFT-SER validates on the last fifth of the other
# actors. Here the next fold validates, and never what is tested.
PROTOCOLS = {
    "ravdess_icpr22": Protocol(
        "ravdess",
        "the released models of Chumachenko, Iosifidis and Gabbouj, Self-attention fusion for "
        "audiovisual emotion recognition with incomplete data, ICPR 2022 "
        "(github.com/katerynaCh/multimodal-emotion-recognition, issue 2); the paper's own scores "
        "are means over five other folds",
        validation=(11, 13, 18, 22),
        testing=(5, 10, 16, 19),
    ),
    "ravdess_6fold": Protocol(
        "ravdess",
        "Su, Hu, Li and Cao, MSAF: Multimodal split attention fusion, arXiv:2012.07175 "
        "(github.com/anita-hu/MSAF, ravdess/main_msaf.py)",
        folds=6,
    ),
    "cremad_5fold": Protocol(
        "cremad",
        "Feng and Narayanan, PEFT-SER, ACII 2023 "
        "(github.com/usc-sail/peft-ser, train_split_gen/crema-d.py)",
        folds=5,
    ),
}


def split_by_protocol(records: Sequence[Record], name: str, fold: int = 0) -> list[Record]:
    """Split as published; speakers that a protocol names and the records lack are passed over.

    Raises:
        ValueError: an unknown protocol, records of another corpus, or a fold that is not there.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"unknown split {name!r}; choose from {', '.join(PROTOCOLS)}")
    protocol = PROTOCOLS[name]
    strangers = sorted({r.dataset for r in records if r.dataset not in ("", protocol.corpus)})
    if strangers:
        raise ValueError(
            f"split {name} is of {protocol.corpus}; there are records of {strangers[0]}"
        )
    if not protocol.folds:
        present = {_number(record.speaker) for record in records}
        held, tested = (
            [actor for actor in actors if actor in present]
            for actors in (protocol.validation, protocol.testing)
        )
        return split_by_ids(records, held, tested)
    check_fold(fold, protocol.folds)
    speakers = sorted({record.speaker for record in records}, key=lambda s: (_number(s) or 0, s))
    if len(speakers) < protocol.folds:
        raise ValueError(f"split {name} has {protocol.folds} folds of {len(speakers)} speakers")
    fold_of = {s: i * protocol.folds // len(speakers) for i, s in enumerate(speakers)}
    return _rotate(records, fold_of, protocol.folds)[fold]


def check_fold(fold: int, folds: int) -> None:
    """Raise ValueError where folds, counted from 0, do not reach that far."""
    if not 0 <= fold < folds:
        raise ValueError(f"fold {fold} of {folds}: folds are counted from 0 to {folds - 1}")


def _rotate(records: Sequence[Record], fold_of: dict[str, int], n: int) -> list[list[Record]]:
    subset_of = {0: "testing", 1: "validation"}  # by how many folds after the one that tests
    return [
        [
            replace(record, subset=subset_of.get((fold_of[_person(record)] - fold) % n, "training"))
            for record in records
        ]
        for fold in range(n)
    ]


def _person(record: Record) -> str:
    return record.speaker or record.key


def _group_records(records: Sequence[Record]) -> dict[str, list[Record]]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[_person(record)].append(record)
    return groups


def _deal_speakers(records: Sequence[Record], sizes: Sequence[int], seed: int) -> dict[str, int]:
    """Speakers to sides of so many speakers, each in turn to where its kind is most lacking."""
    counts = _count_traits(records)
    shares = np.array(sizes) / sum(sizes)
    total = np.sum(list(counts.values()), axis=0)
    lacking = shares[:, None] * total  # (sides, traits)
    room = np.array(sizes)
    order = sorted(counts)
    random.Random(seed).shuffle(order)
    side_of = {}
    for speaker in sorted(order, key=lambda name: -int(counts[name].sum())):
        gain = (
            (2 * lacking - counts[speaker]) @ (counts[speaker] / total) / np.maximum(shares, 1e-9)
        )
        side = int(np.argmax(np.where(room > 0, gain, -np.inf)))
        lacking[side] -= counts[speaker]
        room[side] -= 1
        side_of[speaker] = side
    return side_of


def _count_traits(records: Sequence[Record]) -> dict[str, np.ndarray]:
    """For each speaker, how many records it has of each emotion, gender and corpus."""
    traits = [
        (record.label, f"{record.dataset} {record.extra.get('gender', '')}") for record in records
    ]
    place = {trait: i for i, trait in enumerate(sorted({t for pair in traits for t in pair}))}
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(len(place)))
    for record, pair in zip(records, traits, strict=True):
        for trait in pair:
            counts[_person(record)][place[trait]] += 1
    return dict(counts)


def without_speakers(records: Sequence[Record], ids: Iterable[int | str]) -> list[Record]:
    """Leave out the named speakers. Raises ValueError where an id names none."""
    excluded = _speakers_of(ids, {record.speaker for record in records})
    return [record for record in records if record.speaker not in excluded]


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
