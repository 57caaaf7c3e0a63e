"""Files of an annotation table, of whatever corpora: see `datasets/annotations.py`."""

from __future__ import annotations

from datasets.annotations import read_annotations
from datasets.corpora.corpus import Corpus, register_corpus

CORPUS = register_corpus(
    Corpus(
        name="annotation",
        read=read_annotations,
        layout="the files of an annotation table",
        labels="the table's",
        licence="as its files",
    )
)
