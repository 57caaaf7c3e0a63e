"""nEMO: nine Polish actors, ninety sentences, six emotions, 4,481 recordings.

Source: Christop, nEMO: Dataset of Emotional Speech in Polish, LREC-COLING 2024 (CC BY-NC-SA 4.0).
Layout: `samples/EB0_anger_1.wav` (speaker, emotion, sentence), and `data.tsv` (file_id, emotion,
raw_text, normalized_text, speaker_id, gender, age; speakers are written behind spaces). Files are
found by name, in any folders.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from datasets.annotations import Record
from datasets.corpora.corpus import Corpus, register_corpus
from labels.emotions import canonical
from media.suffixes import SOUND, find_media

_NAME = re.compile(r"^([A-Z]{2}\d)_(anger|fear|happiness|neutral|sadness|surprised)_(\d+)$")
_TABLE = "data.tsv"
_COLUMNS = ("speaker_id", "gender", "age")


def read_records(root: Path) -> list[Record]:
    """One record a recording, with gender and age of its speaker where `data.tsv` is there.

    Raises:
        ValueError: no recording of nEMO under the folder, or a table without the columns.
    """
    speakers = _read_speakers(next(iter(sorted(root.rglob(_TABLE))), None))
    records = []
    for path in find_media(root, SOUND).files:
        match = _NAME.match(path.stem)
        if match:
            speaker, emotion, sentence = match.groups()
            known = speakers.get(speaker, {})
            records.append(
                Record(
                    video="",
                    audio=str(path),
                    label=canonical(emotion),
                    speaker=f"nemo-{speaker}",
                    dataset="nemo",
                    extra={**known, "language": "pl", "statement": sentence},
                )
            )
    if not records:
        raise ValueError(f"no nEMO files such as samples/EB0_anger_1.wav under {root}")
    return records


def _read_speakers(path: Path | None) -> dict[str, dict[str, str]]:
    """Gender and age of each speaker; nothing where there is no table."""
    if path is None:
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        missing = set(_COLUMNS) - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path} has no column {', '.join(sorted(missing))}")
        return {
            row["speaker_id"].strip(): {"gender": row["gender"], "age": row["age"]}
            for row in reader
        }


CORPUS = register_corpus(
    Corpus(
        name="nemo",
        read=read_records,
        layout="Polish: `samples/EB0_anger_1.wav`; gender and age from `data.tsv`",
        labels="6, without disgust",
        licence="CC BY-NC-SA 4.0",
        classes=("neutral", "happy", "sad", "angry", "fearful", "surprised"),
        source="Christop, LREC-COLING 2024",
        links=("https://huggingface.co/datasets/amu-cai/nEMO",),
    )
)
