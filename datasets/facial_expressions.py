"""Still faces of the `facial_expressions` collection, labelled by students.

Layout: `index.csv` with the columns video, label, speaker, and the pictures that it names. They are
mostly grey press photographs (LFW) and some film stills (IMFDB), cropped to the face. The labels
are noisy.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from datasets.annotations import Record, read_annotations

LICENCE = "research use (labels Apache-2.0; pictures of LFW and IMFDB)"
NAME = "facial_expressions"


def read_records(root: Path) -> list[Record]:
    """One record a picture; who is on it is the speaker.

    Args:
        root: folder of `index.csv`, or that file.

    Raises:
        ValueError: the table is missing or cannot be read.
    """
    table = root / "index.csv" if root.is_dir() else root
    return [replace(record, dataset=NAME) for record in read_annotations(table)]
