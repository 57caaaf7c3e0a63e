"""URDU: 400 utterances from talk shows, four emotions of 100 each, not acted.

Source: Latif et al., Cross Lingual Speech Emotion Recognition: Urdu vs. Western Languages, FIT 2018
(research only). Layout: the folders `Angry`, `Happy`, `Neutral`, `Sad` with files such as
`SM1_F10_A010.wav`: speaker (SM male, SF female), number among the speaker's files, first letter of
the emotion and number. Files are found by name, in any folders. Its text counts 38 speakers, the
names hold 29.
"""

from __future__ import annotations

import re
from pathlib import Path

from datasets.annotations import Record
from datasets.corpora.corpus import Corpus, register_corpus
from media.suffixes import SOUND, find_media

_NAME = re.compile(r"(?:^|_)(S([MF])\d+)_F\d+_([AHNS])\d+$")
_EMOTIONS = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}


def read_records(root: Path) -> list[Record]:
    """One record an utterance.

    Raises:
        ValueError: no recording of URDU under the folder.
    """
    records = []
    for path in find_media(root, SOUND).files:
        match = _NAME.search(path.stem)
        if match:
            speaker, gender, emotion = match.groups()
            records.append(
                Record(
                    video="",
                    audio=str(path),
                    label=_EMOTIONS[emotion],
                    speaker=f"urdu-{speaker}",
                    dataset="urdu",
                    extra={"gender": "male" if gender == "M" else "female", "language": "ur"},
                )
            )
    if not records:
        raise ValueError(f"no URDU files such as Angry/SM1_F10_A010.wav under {root}")
    return records


CORPUS = register_corpus(
    Corpus(
        name="urdu",
        read=read_records,
        layout="Urdu talk shows: `Angry/SM1_F10_A010.wav`",
        labels="4: angry, happy, neutral, sad",
        licence="research only",
        classes=tuple(sorted(_EMOTIONS.values())),
        source="Latif et al., FIT 2018",
        links=("https://github.com/siddiquelatif/URDU-Dataset",),
    )
)
