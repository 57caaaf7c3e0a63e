"""EmoDB, nEMO, ASED and URDU under one index: `index.csv` beside a folder for each corpus.

The index has the columns audio, label, speaker, gender, corpus, language, paths relative to it.
Each record keeps its own corpus, so that corpora can be balanced and left out in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from datasets.annotations import Record, read_annotations
from datasets.copies import without_copies
from datasets.corpora import ased, emodb, nemo, urdu
from datasets.corpora.corpus import Corpus, CorpusOption, register_corpus

_MEMBERS = (emodb.CORPUS, nemo.CORPUS, ased.CORPUS, urdu.CORPUS)
LICENCES = {corpus.name: corpus.licence for corpus in _MEMBERS}


def read_records(
    root: Path,
    corpora: Sequence[str] = tuple(LICENCES),
    keep_duplicates: bool = False,
    report: Callable[[str], None] | None = None,
) -> list[Record]:
    """One record a row of the index.

    Args:
        root: folder of `index.csv`, or that file.
        corpora: those to read.
        keep_duplicates: whether recordings with the sound of an earlier one of their corpus stay.
        report: is told how many were left out.

    Raises:
        ValueError: no index, a row of an unknown corpus or without a speaker, or no row of those
            asked for.
    """
    index = root if root.is_file() else root / "index.csv"
    if not index.exists():
        raise ValueError(f"no index.csv with the columns audio, label, speaker, corpus in {root}")
    records = read_annotations(index)
    _check(records, index)
    records = [record for record in records if record.dataset in corpora]
    if not records:
        raise ValueError(f"no row of {', '.join(corpora)} in {index}")
    others = [record for record in records if record.dataset != "ased"]
    records = [*others, *ased.settle_genders([r for r in records if r.dataset == "ased"])]
    return records if keep_duplicates else without_copies(records, report)


def _check(records: Sequence[Record], index: Path) -> None:
    for record in records:
        if record.dataset not in LICENCES:
            raise ValueError(
                f"{index}: {record.name} is of corpus {record.dataset!r}; known are "
                f"{', '.join(LICENCES)} (read others as `annotation`)"
            )
        if not record.speaker.startswith(f"{record.dataset}-"):
            raise ValueError(
                f"{index}: speaker {record.speaker!r} of {record.name} must start with "
                f"{record.dataset}-, so that speakers of two corpora never share a name"
            )


CORPUS = register_corpus(
    Corpus(
        name="speech_corpora",
        read=read_records,
        layout="EmoDB, nEMO, ASED and URDU from one `index.csv` (`audio, label, speaker, gender, "
        "corpus, language`, paths relative to it); `--corpora emodb nemo` takes only some",
        labels="each corpus its own",
        licence="; ".join(f"{name}: {licence}" for name, licence in LICENCES.items()),
        source="; ".join(corpus.source for corpus in _MEMBERS),
        options=(
            CorpusOption("corpora", "only these", str, choices=tuple(LICENCES), many=True),
            ased.KEEP_DUPLICATES,
        ),
        reports=True,
    )
)
