"""Still faces up to 224 pixels, 3,116 of the `facial_expressions` collection, labelled by students.

The labels are noisy. Most pictures are grey press photographs (Labeled Faces in the Wild), many of
people who speak; some are film stills (Indian Movie Face Database). Layout: `<class>/0000.jpg` and
`index.csv` (video, label, speaker), paths relative to it. The pictures are faces already.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from datasets.annotations import Record, read_annotations
from datasets.corpora.corpus import Corpus, register_corpus
from labels.emotions import SEVEN


def read_records(root: Path) -> list[Record]:
    """One record a picture.

    Raises:
        ValueError: no index in the folder, or one that cannot be read.
    """
    index = root if root.is_file() else root / "index.csv"
    if not index.exists():
        raise ValueError(f"no index.csv with the columns video, label, speaker in {root}")
    return [replace(record, dataset="faces_extra") for record in read_annotations(index)]


CORPUS = register_corpus(
    Corpus(
        name="faces_extra",
        read=read_records,
        layout="still faces by `index.csv` (`video, label, speaker`); cropped already",
        labels="7",
        licence="research use (labels Apache-2.0; pictures of LFW and IMFDB)",
        classes=SEVEN,
        source="the facial_expressions collection",
        links=("https://github.com/muxspace/facial_expressions",),
        cropped_faces=True,
    )
)
