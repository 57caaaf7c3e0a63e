"""Names of media files: the one table of suffixes, and what a folder holds of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path


def _suffixes(names: str) -> frozenset[str]:
    return frozenset(f".{name}" for name in names.split())


# All are read by FFmpeg's libraries. Files of other names are read too where they are named.
VIDEO = _suffixes(
    "3g2 3gp asf avi divx dv f4v flv gif m2ts m2v m4v mkv mov mp4 mpeg mpg mts mxf ogm ogv qt "
    "ts vob webm wmv"
)
SOUND = _suffixes(
    "aac ac3 aif aifc aiff amr au caf flac m4a m4b mka mp2 mp3 oga ogg opus snd w64 wav weba wma"
)
PICTURE = _suffixes("bmp jpeg jpg png tif tiff webp")
MEDIA = VIDEO | SOUND | PICTURE
_SYSTEM_FOLDERS = {"__macosx", "$recycle.bin", "system volume information"}


@dataclass
class Found:
    """What a folder holds.

    Args:
        files: with one of the suffixes asked for, in order of their paths.
        left: how many others, by the reason: a suffix, `hidden`, `linked folder`, `unreadable`.
    """

    files: list[Path] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)

    def tell_left(self) -> str:
        """What was left, with counts, such as `3 .txt, 1 hidden`; empty where nothing was."""
        order = sorted(self.left.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{count} {reason}" for reason, count in order)


def find_media(folder: Path, suffixes: Collection[str] = MEDIA) -> Found:
    """Files under a folder whose suffix, in any case, is asked for.

    Hidden files and folders (`._01.mp4`, `.ipynb_checkpoints`) are what systems and editors leave
    behind, and no recordings.
    """
    found = Found()

    def note_unreadable(_: OSError) -> None:
        found.left["unreadable folder"] += 1

    for root, folders, names in os.walk(folder, onerror=note_unreadable):
        kept = []
        for name in sorted(folders):
            if is_hidden(name):
                found.left["hidden folder"] += 1
            elif (Path(root) / name).is_symlink():
                found.left["linked folder"] += 1
            else:
                kept.append(name)
        folders[:] = kept
        for name in names:
            _sort_in(Path(root) / name, suffixes, found)
    found.files.sort()
    return found


def _sort_in(path: Path, suffixes: Collection[str], found: Found) -> None:
    if is_hidden(path.name):
        found.left["hidden"] += 1
    elif path.suffix.lower() in suffixes:
        found.files.append(path)
    else:
        found.left[path.suffix.lower() or "without suffix"] += 1


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is one that systems and editors leave behind."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS
