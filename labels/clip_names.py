"""What a clip's name says: which performance it shows, who acts, and which emotion.

Names of one clip differ between systems in folder and extension, and those of RAVDESS also in the
first number: 01 sound and pictures, 02 pictures, 03 sound, of one and the same performance.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from labels.ravdess_names import read_ravdess_name

_EXTENSION = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")


@dataclass(frozen=True)
class ClipName:
    """A clip's name, read.

    Args:
        key: the same for each system's name of one clip.
        label: emotion that the name tells; empty where it tells none.
        speaker: the same for each clip of a speaker; empty where the name does not tell.
    """

    key: str
    label: str = ""
    speaker: str = ""


def read_clip_name(name: str) -> ClipName:
    """Read `any/folder/03-01-05-01-01-01-12.wav`; a start such as `talk.mp4@12.5` is kept."""
    path, at, start = name.strip().replace("\\", "/").rpartition("@")
    if not at:
        path, start = start, ""
    stem = _EXTENSION.sub("", path.rsplit("/", 1)[-1])
    known = read_ravdess_name(stem)
    if known is None:
        return ClipName(stem + at + start)
    return ClipName(f"ravdess {known.performance}{at}{start}", known.emotion, known.speaker)
