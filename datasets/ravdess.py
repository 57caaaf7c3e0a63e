"""RAVDESS: 24 actors, eight emotions, speech and song, as video with sound, video only, sound only.

Source: Livingstone and Russo, The Ryerson Audio-Visual Database of Emotional Speech and Song, PLoS
ONE 2018 (CC BY-NC-SA 4.0). A file name is seven numbers: modality (01 audio-video, 02 video, 03
audio), channel (01 speech, 02 song), emotion, intensity, statement, repetition, actor; odd actors
are male. `01-` and `02-` files of the same remaining numbers are one performance recorded once, so
is an `03-` file; the column `performance` holds those numbers.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from datasets.annotations import Record
from datasets.labels import RAVDESS
from media.suffixes import SOUND, VIDEO, find_media

LICENCE = "CC BY-NC-SA 4.0"
_NAME = re.compile(r"^(0[123])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(\d\d)$")


def read_records(root: Path, song: bool = False) -> list[Record]:
    """One record a performance, whatever layout of folders and letter case the files lie in.

    A video with sound is preferred over its silent twin; a silent video takes the sound of the
    audio-only file of the same performance where that is there.

    Raises:
        ValueError: no RAVDESS file under the folder.
    """
    performances: dict[tuple[str, ...], dict[str, Path]] = defaultdict(dict)
    for path in find_media(root, VIDEO | SOUND).files:
        match = _NAME.match(path.stem)
        if match:
            modality, *performance = match.groups()
            if song or performance[0] == "01":
                performances[tuple(performance)].setdefault(modality, path)
    if not performances:
        raise ValueError(f"no RAVDESS files such as 01-01-03-01-01-01-05.mp4 under {root}")
    return [_record(files, numbers) for numbers, files in sorted(performances.items())]


def _record(files: dict[str, Path], numbers: tuple[str, ...]) -> Record:
    channel, emotion, intensity, statement, repetition, actor = numbers
    video = files.get("01") or files.get("02")
    audio = None if "01" in files else files.get("03")
    return Record(
        video=str(video or ""),
        audio=str(audio or ""),
        label=RAVDESS[int(emotion) - 1],
        speaker=f"ravdess-{actor}",
        dataset="ravdess",
        extra={
            "performance": "-".join(numbers),
            "channel": "speech" if channel == "01" else "song",
            "intensity": "normal" if intensity == "01" else "strong",
            "statement": str(int(statement)),
            "repetition": str(int(repetition)),
            "gender": "male" if int(actor) % 2 else "female",
        },
    )
