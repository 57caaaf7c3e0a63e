"""What a corpus declares of itself. Whatever lists corpora reads these records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from datasets.annotations import Record


@dataclass(frozen=True)
class CorpusOption:
    """What only some corpora can be asked for: a flag of `datasets.prepare`.

    Args:
        name: of the flag, and of the reader's argument.
        help: one line.
        kind: what its text becomes; `bool` for a switch.
        choices: values allowed; none for any.
        many: whether it takes several values.
        metavar: what stands for a value in the help; none for the argument's own name.
        of_reader: false where preparing the records uses it, and not their reader.
    """

    name: str
    help: str
    kind: type = bool
    choices: tuple[str, ...] = ()
    many: bool = False
    metavar: str | None = None
    of_reader: bool = True


@dataclass(frozen=True)
class Corpus:
    """A corpus and how to read it.

    Args:
        name: as on the command line.
        read: folder (and options of the corpus, by name) to records; raises ValueError where the
            folder does not hold the corpus.
        layout: the files that it reads, in a line of Markdown.
        labels: what labels its records have, in a few words of Markdown.
        classes: labels that its records can have, in order; none where the files decide.
        licence: terms of its data.
        source: the publication to cite.
        links: where it is to be had.
        options: what only it (and few others) can be asked for.
        reports: whether `read` takes `report`, which is told in a few lines what it finds worth
            knowing.
        cache: name of a file beside the manifest in which `read` keeps what took seconds to find,
            taken as `cache`; none where it keeps nothing.
        cropped_faces: whether its frames are faces already, so that none need be looked for.
        max_fps: frames a second that are prepared at most; None for all.
        split: the published protocol by which it is split where none is asked for; none for drawn
            speakers.
    """

    name: str
    read: Callable[..., list[Record]]
    layout: str
    labels: str
    licence: str
    classes: tuple[str, ...] = ()
    source: str = ""
    links: tuple[str, ...] = ()
    options: tuple[CorpusOption, ...] = ()
    reports: bool = False
    cache: str = ""
    cropped_faces: bool = False
    max_fps: float | None = None
    split: str = ""


CORPORA: dict[str, Corpus] = {}


def register_corpus(corpus: Corpus) -> Corpus:
    """Make a corpus known by its name, and give it back.

    Raises:
        ValueError: the name is taken, or an option of that name means something else elsewhere.
    """
    if corpus.name in CORPORA:
        raise ValueError(f"two corpora are called {corpus.name}; rename one")
    for option in corpus.options:
        for other in options_by_name().get(option.name, {}).values():
            if _meaning(option) != _meaning(other):
                raise ValueError(
                    f"option {option.name} of {corpus.name} takes other values than in another "
                    "corpus; rename it"
                )
    CORPORA[corpus.name] = corpus
    return corpus


def options_by_name() -> dict[str, dict[str, CorpusOption]]:
    """Each option's name to the corpora that take it, each with what it means there."""
    found: dict[str, dict[str, CorpusOption]] = {}
    for corpus in CORPORA.values():
        for option in corpus.options:
            found.setdefault(option.name, {})[corpus.name] = option
    return found


def _meaning(option: CorpusOption) -> tuple[Any, ...]:
    return option.kind, option.choices, option.many, option.metavar
