"""RAVDESS and CREMA-D as one corpus of six emotions: 115 speakers.

Calm is read as neutral and surprised, which CREMA-D does not have, is dropped; RAVDESS is its
speech only. The two corpora may lie in any folders under one root, as files are found by name.
Split it with `datasets.splits.split_by_ratio`, which gives each speaker one side and each side its
shares of corpora, genders and emotions; the genders need CREMA-D's `VideoDemographics.csv`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from datasets.annotations import Record
from datasets.corpora import cremad, ravdess
from datasets.corpora.corpus import Corpus, register_corpus
from labels.emotions import SIX, class_index


def read_records(root: Path, label: cremad.Scored = "intended") -> list[Record]:
    """Records of both corpora under the six common labels; `extra["original"]` keeps the old one.

    Raises:
        ValueError: one of the two is not under the folder.
    """
    records = []
    for record in (*ravdess.read_records(root), *cremad.read_records(root, label)):
        index = class_index(record.label, SIX)
        if index is not None:
            extra = {**record.extra, "original": record.label}
            records.append(replace(record, label=SIX[index], extra=extra))
    return records


CORPUS = register_corpus(
    Corpus(
        name="combined",
        read=read_records,
        layout="RAVDESS and CREMA-D, in one root",
        labels="the 6 they share; calm counts as neutral, surprised is left out",
        licence=f"RAVDESS: {ravdess.CORPUS.licence}; CREMA-D: {cremad.CORPUS.licence}",
        classes=SIX,
        source=f"{ravdess.CORPUS.source}; {cremad.CORPUS.source}",
    )
)
