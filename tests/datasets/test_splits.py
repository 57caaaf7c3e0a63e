"""Splits: whole speakers, alike on all sides, the same for a seed, and as published."""

from __future__ import annotations

from collections import Counter

import pytest

from datasets.annotations import SUBSETS, Record
from datasets.prepare import parse_options
from datasets.split_flags import split_records
from datasets.splits import (
    PROTOCOLS,
    check_speakers,
    corpora_of,
    k_folds,
    leave_one_corpus_out,
    leave_one_out,
    split_by_protocol,
    split_by_ratio,
    without_speakers,
)

EMOTIONS = ("happy", "sad", "angry")


def _corpus(people: int = 24, dataset: str = "ravdess") -> list[Record]:
    """Three emotions of each speaker; odd ones male, as in RAVDESS."""
    return [
        Record(
            "",
            f"{dataset}-{person}-{emotion}.wav",
            emotion,
            speaker=f"{dataset}-{person:02d}",
            dataset=dataset,
            extra={"gender": "male" if person % 2 else "female"},
        )
        for person in range(1, people + 1)
        for emotion in EMOTIONS
    ]


def _speakers(records: list[Record], subset: str) -> set[str]:
    return {record.speaker for record in records if record.subset == subset}


def _actors(records: list[Record], subset: str) -> list[int]:
    return sorted(int(speaker[-2:]) for speaker in _speakers(records, subset))


@pytest.mark.parametrize("seed", range(5))
def test_a_ratio_keeps_genders_and_corpora_even(seed: int) -> None:
    records = split_by_ratio(_corpus(24) + _corpus(48, "cremad"), 0.25, 0.25, seed)
    check_speakers(records)
    for subset, share in (("training", 0.5), ("validation", 0.25), ("testing", 0.25)):
        counts = Counter((r.dataset, r.extra["gender"]) for r in records if r.subset == subset)
        for (dataset, _), n in counts.items():
            assert n == 3 * share * (12 if dataset == "ravdess" else 24)


def test_a_ratio_evens_out_emotions_that_speakers_do_not_share() -> None:
    glad = [Record("", f"{i}", "happy", speaker=f"g{i}") for i in range(20)]
    sad = [Record("", f"{i}", "sad", speaker=f"s{i}") for i in range(20)]
    records = split_by_ratio(glad + sad, 0.2, 0.2)
    for subset in ("validation", "testing"):
        assert Counter(r.label for r in records if r.subset == subset) == {"happy": 4, "sad": 4}


def test_records_without_speaker_split_by_file() -> None:
    records = [Record("", f"{i // 2}.wav", "sad", start=float(i % 2)) for i in range(20)]
    split = split_by_ratio(records, 0.2, 0.2)
    sides: dict[str, set[str]] = {}
    for record in split:
        sides.setdefault(record.audio, set()).add(record.subset)
    assert all(len(side) == 1 for side in sides.values())
    assert Counter(r.subset for r in split) == {"training": 12, "validation": 4, "testing": 4}


def test_each_speaker_tests_in_one_fold_and_validates_in_one() -> None:
    folds = k_folds(_corpus(24), 5, seed=2)
    tested: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for index, records in enumerate(folds):
        check_speakers(records)
        assert {record.subset for record in records} == set(SUBSETS)
        assert _speakers(records, "validation") == _speakers(folds[(index + 1) % 5], "testing")
        tested.update(_speakers(records, "testing"))
        held.update(_speakers(records, "validation"))
    assert set(tested.values()) == set(held.values()) == {1}
    assert len(tested) == 24
    assert k_folds(_corpus(24), 5, seed=2) == folds
    assert k_folds(_corpus(24), 5, seed=3) != folds
    with pytest.raises(ValueError, match="2 folds of 24 speakers"):
        k_folds(_corpus(24), 2)


def test_folds_hold_as_many_women_as_men() -> None:
    for records in k_folds(_corpus(24), 6, seed=1):
        genders = Counter(r.extra["gender"] for r in records if r.subset == "testing")
        assert genders == {"male": 6, "female": 6}


def test_one_speaker_is_left_out() -> None:
    records = leave_one_out(_corpus(10), 4, validation=0.2)
    check_speakers(records)
    assert _speakers(records, "testing") == {"ravdess-04"}
    assert len(_speakers(records, "validation")) == 2
    with pytest.raises(ValueError, match="no speaker 99"):
        leave_one_out(_corpus(10), 99)


def test_the_published_split_of_ravdess() -> None:
    records = split_by_protocol(_corpus(24), "ravdess_icpr22")
    assert _actors(records, "testing") == [5, 10, 16, 19]
    assert _actors(records, "validation") == [11, 13, 18, 22]
    assert len(_actors(records, "training")) == 16


def test_folds_of_actors_in_order() -> None:
    first = split_by_protocol(_corpus(24), "ravdess_6fold", 0)
    last = split_by_protocol(_corpus(24), "ravdess_6fold", 5)
    assert _actors(first, "testing") == [1, 2, 3, 4]
    assert _actors(first, "validation") == [5, 6, 7, 8]
    assert _actors(last, "testing") == [21, 22, 23, 24]
    assert _actors(last, "validation") == [1, 2, 3, 4]
    sizes = [
        len(_speakers(split_by_protocol(_corpus(91, "cremad"), "cremad_5fold", fold), "testing"))
        for fold in range(5)
    ]
    assert sizes == [19, 18, 18, 18, 18], "as scikit-learn's KFold cuts 91, in PEFT-SER's lists"
    with pytest.raises(ValueError, match="fold 6 of 6: folds are counted from 0 to 5"):
        split_by_protocol(_corpus(24), "ravdess_6fold", 6)
    with pytest.raises(ValueError, match="split cremad_5fold is of cremad; there are records of"):
        split_by_protocol(_corpus(24), "cremad_5fold")
    with pytest.raises(ValueError, match="unknown split 'icpr'; choose from ravdess_icpr22"):
        split_by_protocol(_corpus(24), "icpr")
    assert all(protocol.source for protocol in PROTOCOLS.values())


def test_speakers_are_left_out_by_number() -> None:
    kept = without_speakers(_corpus(4), [1, "ravdess-03"])
    assert sorted({record.speaker for record in kept}) == ["ravdess-02", "ravdess-04"]


def _split(*flags: str, dataset: str = "ravdess") -> list[Record]:
    options = parse_options(["ravdess", "--root", ".", "--out", ".", *flags])
    return split_records(_corpus(24, dataset), options)


def test_the_command_line_reaches_every_way_to_split() -> None:
    assert _actors(_split(), "testing") == [5, 10, 16, 19]
    assert _actors(_split("--split", "ravdess_6fold", "--fold", "1"), "testing") == [5, 6, 7, 8]
    assert len(_actors(_split("--split_ratio", "0.25", "0.25"), "testing")) == 6
    assert len(_actors(_split("--split", "ratio"), "testing")) == 4
    assert len(_actors(_split(dataset="cremad"), "testing")) == 4
    assert len(_actors(_split("--n_folds", "4", "--fold", "3"), "testing")) == 6
    assert _actors(_split("--leave_one_out", "7"), "testing") == [7]
    ids = _split("--test_speakers", "1", "2", "--validation_speakers", "ravdess-03")
    assert (_actors(ids, "testing"), _actors(ids, "validation")) == ([1, 2], [3])
    assert {record.subset for record in _split("--split", "keep")} == {""}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--n_folds", "4", "--leave_one_out", "7"], "--n_folds and --leave_one_out cannot be"),
        (["--n_folds", "4", "--fold", "4"], "fold 4 of 4"),
        (["--leave_one_out", "7", "--fold", "1"], "--fold has no meaning with --leave_one_out"),
        (["--split", "ravdess_icpr22", "--fold", "1"], "--fold has no meaning with ravdess_icpr22"),
        (["--fold", "1"], "--fold needs --n_folds or a --split with folds"),
    ],
)
def test_flags_without_effect_are_refused(flags: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _split(*flags)


def test_a_left_out_corpus_tests_alone_and_people_of_all_others_validate() -> None:
    records = _corpus(40) + _corpus(20, "cremad") + _corpus(20, "emodb")
    assert corpora_of(records) == ["cremad", "emodb", "ravdess"]
    for corpus in corpora_of(records):
        split = leave_one_corpus_out(records, corpus, validation=0.2)
        check_speakers(split)
        assert {r.dataset for r in split if r.subset == "testing"} == {corpus}
        assert all(r.subset == "testing" for r in split if r.dataset == corpus)
        others = {record.dataset for record in records} - {corpus}
        assert {r.dataset for r in split if r.subset == "validation"} == others
        people = {record.speaker for record in split if record.dataset != corpus}
        assert len(_speakers(split, "validation")) == round(0.2 * len(people))
    again = leave_one_corpus_out(records, "emodb", validation=0.2)
    assert again == leave_one_corpus_out(records, "emodb", validation=0.2)
    assert again != leave_one_corpus_out(records, "emodb", validation=0.2, seed=2)


def test_a_corpus_cannot_be_left_out_of_records_that_do_not_allow_it() -> None:
    with pytest.raises(
        ValueError, match="needs records of two corpora or more; all are of ravdess"
    ):
        leave_one_corpus_out(_corpus(), "ravdess")
    with pytest.raises(ValueError, match="needs a corpus in every record"):
        corpora_of([*_corpus(), Record("", "a.wav", "sad")])
    both = _corpus() + _corpus(24, "cremad")
    with pytest.raises(ValueError, match="no records of corpus urdu; there are cremad, ravdess"):
        leave_one_corpus_out(both, "urdu")
    shared = Record("", "a.wav", "sad", speaker="ravdess-01", dataset="cremad")
    with pytest.raises(ValueError, match="speaker ravdess-01 is of ravdess and of another corpus"):
        leave_one_corpus_out([*both, shared], "ravdess")
