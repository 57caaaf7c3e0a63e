"""The corpora, one file each. Importing the package registers them all.

A new one is a file here that registers its `Corpus`, and its name in the import below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets.annotations import Record
from datasets.corpora import (
    affdex,
    annotation,
    ased,
    combined,
    cremad,
    emodb,
    faces_extra,
    fer2013,
    nemo,
    own_folder,
    ravdess,
    speech_corpora,
    urdu,
)
from datasets.corpora.corpus import (
    CORPORA,
    Corpus,
    CorpusOption,
    options_by_name,
    register_corpus,
)

__all__ = [
    "CORPORA",
    "Corpus",
    "CorpusOption",
    "affdex",
    "annotation",
    "ased",
    "combined",
    "cremad",
    "emodb",
    "faces_extra",
    "fer2013",
    "nemo",
    "options_by_name",
    "own_folder",
    "ravdess",
    "read_corpus",
    "register_corpus",
    "speech_corpora",
    "urdu",
]


def read_corpus(name: str, root: Path, **options: Any) -> list[Record]:
    """Records of a corpus under a folder (or of its table).

    Args:
        name: of the corpus.
        root: its folder or table.
        options: of this corpus's reader, see the `read_records` of its module.

    Raises:
        ValueError: unknown corpus, no such folder, or one that does not hold the corpus.
    """
    if name not in CORPORA:
        raise ValueError(f"unknown corpus {name!r}; choose from {', '.join(CORPORA)}")
    if not root.exists():
        raise ValueError(f"{root} does not exist; give the folder of {name}")
    return CORPORA[name].read(root, **options)


def format_corpora() -> str:
    """A table of all corpora in Markdown, as docs/corpora.md has it."""
    rows = ["| corpus | reads | labels | terms |", "|---|---|---|---|"]
    for corpus in CORPORA.values():
        name = f"`{corpus.name}`"
        linked = f"[{name}]({corpus.links[0]})" if corpus.links else name
        cells = (linked, corpus.layout, corpus.labels, corpus.licence)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)
