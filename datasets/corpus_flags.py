"""Flags of `datasets.prepare` that are of one corpus, and are refused for the others."""

from __future__ import annotations

import argparse
import logging
from functools import partial
from pathlib import Path
from typing import Any

from datasets.affdex import TASKS, AffdexOptions
from datasets.fer2013 import Duplicates, format_duplicates
from datasets.speech_corpora import LICENCES
from system.files import printable

_LOG = logging.getLogger(__name__)

_AFFDEX = "affdex_"  # then the name of an `AffdexOptions` entry
_WITH_COPIES = ("ased", "speech_corpora")
_CORPORA_OF = {
    "song": ("ravdess",),
    "keep_duplicates": ("fer2013", *_WITH_COPIES),
    "original_labels": ("fer2013",),
    "talking": ("fer2013",),
    "corpora": ("speech_corpora",),
}


def add_corpus_flags(parser: argparse.ArgumentParser) -> None:
    """Add what only one corpus knows. Where a flag is not given, its value is None or false."""
    add = parser.add_argument_group("of one corpus").add_argument
    add("--song", action="store_true", help="RAVDESS: songs too")
    add(
        "--keep_duplicates",
        action="store_true",
        help="FER2013: also what repeats another subset; ASED: also recordings that are copies",
    )
    add("--original_labels", action="store_true", help="FER2013: its own labels, not FER+'s votes")
    add("--talking", action="store_true", help="FER2013: each training face also with mouth open")
    number = partial(add, type=float, metavar="NUMBER")
    add("--corpora", nargs="+", choices=tuple(LICENCES), help="speech_corpora: only these")
    add("--affdex_task", choices=tuple(TASKS), help="which target columns to write")
    number("--affdex_window_seconds", help="length of the records")
    number("--affdex_hop_seconds", help="from one record to the next")
    number("--affdex_threshold", help="the strongest emotion is the label above it, 0 to 100")
    add(
        "--affdex_thresholds",
        nargs="+",
        metavar="EMOTION=NUMBER",
        help="by emotion, for targets of `multilabel`; 50 where not given",
    )
    number("--affdex_max_gap", help="seconds between samples that are interpolated between")
    number("--affdex_tolerance", help="seconds for which a single sample stands")
    number("--affdex_min_coverage", help="share of a record that must be measured")
    number("--affdex_min_attention", help="samples below are as if there were no face, 0 to 100")
    number("--affdex_offset", help="seconds added to the export's times to give the video's")
    number("--affdex_fps", help="of exports that number frames; else the video's own")
    add("--affdex_video_pattern", metavar="PATTERN", help="of videos' names, as '*interview*'")


def corpus_identity(options: argparse.Namespace) -> dict[str, Any]:
    """What a prepared folder belongs to: the corpus, where it lies, and its options as given."""
    given = {
        name: value
        for name, value in vars(options).items()
        if name in _CORPORA_OF or name.startswith(_AFFDEX)
    }
    return {
        "corpus": options.corpus,
        "root": printable(Path(options.root).resolve()),
        "options": {name: value for name, value in given.items() if value not in (None, False)},
    }


def read_corpus_flags(options: argparse.Namespace) -> dict[str, Any]:
    """Options for the reader of the corpus that the command line names.

    Args:
        options: of the command line.

    Raises:
        ValueError: a flag is of another corpus, or its value cannot be.
    """
    affdex = {name: value for name, value in vars(options).items() if name.startswith(_AFFDEX)}
    owners = _CORPORA_OF | dict.fromkeys(affdex, ("affdex",))
    for name, corpora in owners.items():
        value = getattr(options, name)
        if value is not None and value is not False and options.corpus not in corpora:
            others = ", ".join(corpora)
            raise ValueError(f"--{name} is of {others} only, not of {options.corpus}")
    if options.corpus == "ravdess":
        return {"song": options.song}
    if options.corpus in _WITH_COPIES:
        chosen = {"corpora": options.corpora} if options.corpora else {}
        return {"keep_duplicates": options.keep_duplicates, "report": _LOG.info, **chosen}
    if options.corpus == "fer2013":
        keep = options.keep_duplicates
        report = partial(_tell_duplicates, keep)
        known = Path(options.out) / "copies.json"
        return {
            "keep_duplicates": keep,
            "original_labels": options.original_labels,
            "report": report,
            "known": known,
        }
    given = {name: value for name, value in affdex.items() if value is not None}
    return {"options": _affdex_options(given)} if options.corpus == "affdex" else {}


def _tell_duplicates(keep: bool, found: Duplicates) -> None:
    _LOG.info(format_duplicates(found, keep))


def _affdex_options(given: dict[str, Any]) -> AffdexOptions:
    values = {name.removeprefix(_AFFDEX): value for name, value in given.items()}
    if "thresholds" in values:
        values["thresholds"] = dict(map(_read_threshold, values["thresholds"]))
    return AffdexOptions(**values)


def _read_threshold(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name.strip().lower(), float(number)
    except ValueError:
        raise ValueError(f"expected EMOTION=NUMBER such as joy=40, not {text!r}") from None
