"""EmoDB: ten actors, ten German sentences, seven emotions, 535 recordings.

Source: Burkhardt et al., A database of German emotional speech, Interspeech 2005 (free for
research). Layout: `wav/03a01Fa.wav`: actor, code of the text, emotion (the first letter of its
German name), version. Files are found by name, in any folders. One of the emotions is boredom,
which is in no class set.
"""

from __future__ import annotations

import re
from pathlib import Path

from datasets.annotations import Record
from datasets.corpora.corpus import Corpus, register_corpus
from media.suffixes import SOUND, find_media

_NAME = re.compile(r"^(\d\d)([ab]\d\d)([WLEAFTN])([a-z])$")
_EMOTIONS = {
    "W": "angry",  # Wut
    "L": "boredom",  # Langeweile
    "E": "disgust",  # Ekel
    "A": "fearful",  # Angst
    "F": "happy",  # Freude
    "T": "sad",  # Trauer
    "N": "neutral",
}
_MALE = {"03", "10", "11", "12", "15"}


def read_records(root: Path) -> list[Record]:
    """One record a recording.

    Raises:
        ValueError: no recording of EmoDB under the folder.
    """
    records = []
    for path in find_media(root, SOUND).files:
        match = _NAME.match(path.stem)
        if match:
            records.append(_record(path, *match.groups()))
    if not records:
        raise ValueError(f"no EmoDB files such as wav/03a01Fa.wav under {root}")
    return records


def _record(path: Path, actor: str, text: str, emotion: str, version: str) -> Record:
    return Record(
        video="",
        audio=str(path),
        label=_EMOTIONS[emotion],
        speaker=f"emodb-{actor}",
        dataset="emodb",
        extra={
            "gender": "male" if actor in _MALE else "female",
            "language": "de",
            "statement": text,
            "repetition": version,
        },
    )


CORPUS = register_corpus(
    Corpus(
        name="emodb",
        read=read_records,
        layout="German: `wav/03a01Fa.wav`",
        labels="7: EmoDB has boredom and lacks surprised",
        licence="free for research",
        classes=tuple(sorted(_EMOTIONS.values())),
        source="Burkhardt et al., Interspeech 2005",
        links=("http://emodb.bilderbar.info",),
    )
)
