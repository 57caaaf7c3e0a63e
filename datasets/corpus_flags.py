"""Flags of `datasets.prepare` that are of some corpora, and are refused for the others.

Which there are, each corpus declares itself: see `datasets/corpora/`.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets.corpora import CORPORA, CorpusOption, options_by_name
from system.files import printable

_LOG = logging.getLogger(__name__)


def add_corpus_flags(parser: argparse.ArgumentParser) -> None:
    """Add what only some corpora know. Where a flag is not given, its value is None or false."""
    group = parser.add_argument_group("of one corpus")
    for name, owners in options_by_name().items():
        option, text = next(iter(owners.values())), _describe(owners)
        if option.kind is bool:
            group.add_argument(f"--{name}", action="store_true", help=text)
        else:
            group.add_argument(
                f"--{name}",
                type=option.kind,
                choices=option.choices or None,
                nargs="+" if option.many else None,
                metavar=option.metavar,
                help=text,
            )


def _describe(owners: Mapping[str, CorpusOption]) -> str:
    """The help text, after the corpora for which it holds."""
    corpora: dict[str, list[str]] = {}
    for corpus, option in owners.items():
        corpora.setdefault(option.help, []).append(corpus)
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in corpora.items())


def corpus_identity(options: argparse.Namespace) -> dict[str, Any]:
    """What a prepared folder belongs to: the corpus, where it lies, and its options as given."""
    return {
        "corpus": options.corpus,
        "root": printable(Path(options.root).resolve()),
        "options": _given(options),
    }


def read_corpus_flags(options: argparse.Namespace) -> dict[str, Any]:
    """Options for the reader of the corpus that the command line names.

    Args:
        options: of the command line.

    Raises:
        ValueError: a flag is of another corpus.
    """
    corpus, owners, given = CORPORA[options.corpus], options_by_name(), _given(options)
    for name in given:
        if corpus.name not in owners[name]:
            others = ", ".join(owners[name])
            raise ValueError(f"--{name} is of {others} only, not of {corpus.name}")
    flags = {name: value for name, value in given.items() if owners[name][corpus.name].of_reader}
    flags |= {"report": _LOG.info} if corpus.reports else {}
    return flags | ({"cache": Path(options.out) / corpus.cache} if corpus.cache else {})


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Options of corpora that the command line gives a value."""
    values = {name: getattr(options, name) for name in options_by_name()}
    return {n: value for n, value in values.items() if value is not None and value is not False}
