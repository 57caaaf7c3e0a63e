"""Flags of `datasets.prepare` that say how to split, of which one way may be asked for."""

from __future__ import annotations

import argparse
from functools import partial

from datasets.annotations import Record
from datasets.corpora import CORPORA
from datasets.splits import (
    PROTOCOLS,
    check_fold,
    k_folds,
    leave_one_out,
    split_by_ids,
    split_by_protocol,
    split_by_ratio,
)

RATIO = (0.15, 0.15)  # shares of speakers that validate and test, where nothing else is asked for


def add_split_flags(parser: argparse.ArgumentParser) -> None:
    """Ways to split, of which one may be asked for. Speakers are named in full or by number."""
    add = parser.add_argument_group("split").add_argument
    add_people = partial(add, nargs="+", default=[], metavar="SPEAKER")
    ways = ("keep", "ratio", "ids", *PROTOCOLS)
    add("--split", choices=ways, help="`keep`: as the corpus has it; a published protocol by name")
    add_people("--validation_speakers", help="who validates, with `ids`")
    add_people("--test_speakers", help="who tests, with `ids`")
    add_people("--exclude_speakers", help="whom to leave out")
    add("--split_ratio", type=float, nargs=2, metavar=("VAL", "TEST"), help="shares of speakers")
    add("--n_folds", type=int, help="folds of speakers, each testing in turn")
    add("--fold", type=int, help="which fold tests, counted from 0")
    add("--leave_one_out", metavar="SPEAKER", help="the one who tests")
    add("--manual_seed", type=int, default=1, help="of what is drawn")


def split_records(records: list[Record], options: argparse.Namespace) -> list[Record]:
    """Records with the subsets that the command line asks for.

    Where it asks for none: those that the corpus has, the split published for it, or else
    `RATIO` of the speakers.

    Raises:
        ValueError: two ways are asked for at once, or one that the records do not allow.
    """
    way, seed, fold = _choose_way(options), options.manual_seed, options.fold or 0
    if way == "--n_folds":
        check_fold(fold, options.n_folds)
        return k_folds(records, options.n_folds, seed)[fold]
    if way == "--leave_one_out":
        return leave_one_out(records, options.leave_one_out, seed=seed)
    if way == "--validation_speakers/--test_speakers":
        return split_by_ids(records, options.validation_speakers, options.test_speakers)
    split = "ratio" if way == "--split_ratio" else options.split or _default_split(records)
    if split == "keep":
        return records
    if split == "ratio":
        held_share, test_share = options.split_ratio or RATIO
        return split_by_ratio(records, held_share, test_share, seed)
    return split_by_protocol(records, split, fold)


def _choose_way(options: argparse.Namespace) -> str:
    """The one flag that asks for a way to split, or nothing where none does."""
    ways = _list_ways(options)
    if len(ways) > 1:
        raise ValueError(f"{' and '.join(ways)} cannot be combined: choose one way to split")
    way = ways[0] if ways else ""
    if options.fold is not None and way != "--n_folds":
        if not way:
            raise ValueError("--fold needs --n_folds or a --split with folds")
        protocol = PROTOCOLS.get(options.split)
        if protocol is None or not protocol.folds:
            raise ValueError(f"--fold has no meaning with {options.split or way}")
    return way


def _list_ways(options: argparse.Namespace) -> list[str]:
    """The flags that each ask for a way to split."""
    asked = {
        "--split": options.split not in (None, "ratio", "ids"),
        "--split_ratio": bool(options.split_ratio) or options.split == "ratio",
        "--validation_speakers/--test_speakers": bool(
            options.validation_speakers or options.test_speakers or options.split == "ids"
        ),
        "--n_folds": options.n_folds is not None,
        "--leave_one_out": options.leave_one_out is not None,
    }
    return [name for name, is_asked in asked.items() if is_asked]


def _default_split(records: list[Record]) -> str:
    if any(record.subset for record in records):
        return "keep"
    names = {record.dataset for record in records}
    corpus = CORPORA.get(names.pop()) if len(names) == 1 else None
    return (corpus.split if corpus else "") or "ratio"
