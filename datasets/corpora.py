"""The corpora by name. A new one is a module with `read_records(root)` and an entry here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets import affdex, combined, cremad, facial_expressions, fer2013, own_folder, ravdess
from datasets.annotations import Record, read_annotations


@dataclass(frozen=True)
class Corpus:
    """A corpus and how to read it.

    Args:
        name: as on the command line.
        read: folder (and options of the corpus, by name) to records; raises ValueError where the
            folder does not hold the corpus.
        licence: terms of its data.
        source: the publication to cite.
        cropped_faces: whether its pictures are faces already, so that none need be looked for.
        max_fps: pictures a second that are prepared at most; None for all.
    """

    name: str
    read: Callable[..., list[Record]]
    licence: str
    source: str
    cropped_faces: bool = False
    max_fps: float | None = None


_RAVDESS = "Livingstone and Russo, PLoS ONE 2018"
_CREMAD = "Cao et al., IEEE Transactions on Affective Computing 2014"
_FER2013 = "Goodfellow et al., ICONIP 2013; Barsoum et al., ICMI 2016"
_AFFDEX = "McDuff et al., AFFDEX SDK, CHI EA 2016"
_with_song = partial(ravdess.read_records, song=True)
_perceived = partial(cremad.read_records, label="perceived")

CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        Corpus("ravdess", ravdess.read_records, ravdess.LICENCE, _RAVDESS),
        Corpus("ravdess_song", _with_song, ravdess.LICENCE, _RAVDESS),
        Corpus("cremad", cremad.read_records, cremad.LICENCE, _CREMAD),
        Corpus("cremad_perceived", _perceived, cremad.LICENCE, _CREMAD),
        Corpus("combined", combined.read_records, combined.LICENCE, f"{_RAVDESS}; {_CREMAD}"),
        Corpus("fer2013", fer2013.read_records, fer2013.LICENCE, _FER2013, cropped_faces=True),
        Corpus(
            facial_expressions.NAME,
            facial_expressions.read_records,
            facial_expressions.LICENCE,
            "LFW: Huang et al., 2007; IMFDB: Setty et al., NCVPRIPG 2013",
            cropped_faces=True,
        ),
        Corpus("affdex", affdex.read_records, affdex.LICENCE, _AFFDEX, max_fps=affdex.MAX_FPS),
        Corpus("own_folder", own_folder.read_records, own_folder.LICENCE, ""),
        Corpus("annotation", read_annotations, "as its files", ""),
    )
}


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
