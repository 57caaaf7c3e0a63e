"""ASED: 65 speakers of four Amharic dialects, five emotions, 2,474 recordings.

Source: Retta et al., A New Amharic Speech Emotion Dataset and Classification Benchmark, ACM
TALLIP 2022 (no licence stated). Layout: a folder for each emotion with files such as
`a5-03-01-02-50.wav`: emotion and number of the folder, sentence, repetition, gender (01 female,
02 male), speaker. Files are found by name, in any folders; one published name has a capital letter.

Four recordings are there twice, as first and second repetition. Five speakers have one file each
whose name gives the other gender; a speaker's gender is what most of the names say.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from datasets.annotations import Record
from datasets.copies import without_copies
from datasets.corpora.corpus import Corpus, CorpusOption, register_corpus
from media.suffixes import SOUND, find_media

_NAME = re.compile(r"^([nfhsa])\d-(\d\d)-(\d\d)-(0[12])-(\d\d)$")
_EMOTIONS = {"n": "neutral", "f": "fearful", "h": "happy", "s": "sad", "a": "angry"}


def read_records(
    root: Path, keep_duplicates: bool = False, report: Callable[[str], None] | None = None
) -> list[Record]:
    """One record a recording.

    Args:
        keep_duplicates: whether recordings with the sound of an earlier one stay.
        report: is told how many were left out.

    Raises:
        ValueError: no recording of ASED under the folder.
    """
    records = []
    for path in find_media(root, SOUND).files:
        match = _NAME.match(path.stem.lower())
        if match:
            records.append(_record(path, *match.groups()))
    if not records:
        raise ValueError(f"no ASED files such as a5-03-01-02-50.wav under {root}")
    records = settle_genders(records)
    return records if keep_duplicates else without_copies(records, report)


def settle_genders(records: Sequence[Record]) -> list[Record]:
    """The records, each with the gender that most records of its speaker have."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        counts[record.speaker][record.extra["gender"]] += 1
    return [
        replace(r, extra={**r.extra, "gender": counts[r.speaker].most_common(1)[0][0]})
        for r in records
    ]


def _record(
    path: Path, emotion: str, sentence: str, repetition: str, gender: str, speaker: str
) -> Record:
    return Record(
        video="",
        audio=str(path),
        label=_EMOTIONS[emotion],
        speaker=f"ased-{speaker}",
        dataset="ased",
        extra={
            "gender": "female" if gender == "01" else "male",
            "language": "am",
            "statement": f"{emotion}{sentence}",
            "repetition": str(int(repetition)),
        },
    )


KEEP_DUPLICATES = CorpusOption("keep_duplicates", "also recordings that are copies of others")
CORPUS = register_corpus(
    Corpus(
        name="ased",
        read=read_records,
        layout="Amharic: `a5-03-01-02-50.wav` in a folder for each emotion",
        labels="5, without disgust and surprised",
        licence="no licence stated; to be cited (Retta et al. 2022)",
        classes=tuple(sorted(_EMOTIONS.values())),
        source="Retta et al., ACM TALLIP 2022",
        links=("https://github.com/Ethio2021/ASED_V1",),
        options=(KEEP_DUPLICATES,),
        reports=True,
    )
)
