"""RAVDESS: 24 actors, eight emotions, speech and song, as video with sound, video only, sound only.

Source: Livingstone and Russo, The Ryerson Audio-Visual Database of Emotional Speech and Song, PLoS
ONE 2018 (CC BY-NC-SA 4.0). A file name is seven numbers, read by `labels/ravdess_names.py`. `01-`
and `02-` files of the same remaining numbers are one performance recorded once, so is an `03-`
file; the column `performance` holds those numbers.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

from datasets.annotations import Record
from datasets.corpora.corpus import Corpus, CorpusOption, register_corpus
from labels.emotions import RAVDESS
from labels.ravdess_names import RavdessName, read_ravdess_name
from media.suffixes import SOUND, VIDEO, find_media


def read_records(root: Path, song: bool = False) -> list[Record]:
    """One record a performance, whatever layout of folders and letter case the files lie in.

    A video with sound is preferred over its silent twin; a silent video takes the sound of the
    audio-only file of the same performance where that is there.

    Raises:
        ValueError: no RAVDESS file under the folder.
    """
    names: dict[str, RavdessName] = {}
    files: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in find_media(root, VIDEO | SOUND).files:
        name = read_ravdess_name(path.stem)
        if name and (song or name.channel == "speech"):
            names[name.performance] = name
            files[name.performance].setdefault(name.modality, path)
    if not names:
        raise ValueError(f"no RAVDESS files such as 01-01-03-01-01-01-05.mp4 under {root}")
    return [_record(files[performance], name) for performance, name in sorted(names.items())]


def _record(files: dict[str, Path], name: RavdessName) -> Record:
    video = files.get("01") or files.get("02")
    audio = None if "01" in files else files.get("03")
    return Record(
        video=str(video or ""),
        audio=str(audio or ""),
        label=name.emotion,
        speaker=name.speaker,
        dataset="ravdess",
        extra={
            "performance": name.performance,
            "channel": name.channel,
            "intensity": name.intensity,
            "statement": str(name.statement),
            "repetition": str(name.repetition),
            "gender": name.gender,
        },
    )


_SONG = CorpusOption("song", "songs too")
CORPUS = register_corpus(
    Corpus(
        name="ravdess",
        read=read_records,
        layout="speech in the zips' layouts, in any letter case; audio-visual, video-only and "
        "audio-only files, those of one performance joined. `--song`: songs too",
        labels="8",
        licence="CC BY-NC-SA 4.0",
        classes=RAVDESS,
        source="Livingstone and Russo, PLoS ONE 2018",
        links=("https://zenodo.org/records/1188976",),
        options=(_SONG,),
        split="ravdess_icpr22",
    )
)
CORPUS_WITH_SONG = register_corpus(
    replace(
        CORPUS,
        name="ravdess_song",
        read=partial(read_records, song=True),
        layout="the same with songs",
        options=(),
    )
)
