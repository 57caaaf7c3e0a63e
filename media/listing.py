"""What a user names as media: files, folders, globs, or tables of files and their speakers."""

from __future__ import annotations

import glob
import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from media.suffixes import find_media
from system.csv_table import read_table
from system.errors import OptionError
from system.files import printable

MEDIA_COLUMN = "media"  # of a table: paths, from where the table lies
SUMMARY_NAME = "summary"  # of the table of a batch: no recording's files are called so
LONGEST_NAME = 200  # bytes; file systems take 255, and suffixes are added


@dataclass(frozen=True)
class MediaItem:
    """A recording to read.

    Args:
        path: of its file.
        speaker: who is in it, where that is said; files of one speaker share what is learned of
            the face.
    """

    path: Path
    speaker: str | None = None


def list_media(
    patterns: Sequence[str],
    speaker_column: str | None = None,
    by_folder: bool = False,
    say: Callable[[str], None] | None = None,
) -> list[MediaItem]:
    """Recordings in order: files, media files of folders, matches of globs, rows of tables.

    Args:
        speaker_column: all patterns are CSV tables, and this column of theirs names the speaker.
        by_folder: the folder that a file lies in is its speaker's.
        say: is told what is left of each folder, with counts.

    Raises:
        ValueError: a pattern that names nothing, or a table without such columns.
    """
    if speaker_column is not None:
        found = [item for name in patterns for item in _read_table(Path(name), speaker_column)]
    else:
        paths = [path for pattern in patterns for path in _matches(pattern, say)]
        found = [MediaItem(p, str(p.resolve().parent) if by_folder else None) for p in paths]
    return list({where(item.path): item for item in found}.values())


def _matches(pattern: str, say: Callable[[str], None] | None) -> list[Path]:
    path = Path(pattern)
    left = ""
    if os.path.isdir(path):  # noqa: PTH112 - unlike pathlib's, false for names that cannot be
        found = find_media(path)
        matches, left = found.files, found.tell_left()
    elif os.path.exists(path) or not glob.has_magic(pattern):  # noqa: PTH110
        matches = [path]
    else:
        matches = sorted(Path(p) for p in glob.glob(pattern, recursive=True))  # noqa: PTH207
    if not matches:
        there = f" (there are {left})" if left else ""
        raise OptionError(f"{pattern} names no media file{there}", "media_path")
    if left and say is not None:
        say(f"{printable(path)}: {len(matches)} media files; left: {left}")
    return matches


def _read_table(path: Path, speaker_column: str) -> list[MediaItem]:
    if path.suffix.lower() != ".csv" or not path.is_file():
        raise OptionError(
            f"a column of speakers is one of CSV tables, and {path} is none",
            "speaker_column",
            "media_path",
        )
    table = read_table(path, raw=(MEDIA_COLUMN,))
    for column in (MEDIA_COLUMN, speaker_column):
        if column not in table.columns:
            there = ", ".join(table.columns)
            raise ValueError(f"{path} has no column {column!r}; it has: {there}")
    found = [
        MediaItem(path.parent / row[MEDIA_COLUMN], row[speaker_column] or None)
        for _, row in table.rows
        if row[MEDIA_COLUMN]
    ]
    if not found:
        raise ValueError(f"{path} names no media file")
    return found


def output_names(
    paths: Sequence[Path], owner: Callable[[str], str | None] = lambda _: None
) -> dict[Path, str]:
    """Name of each recording's files, which no other recording has.

    It is the recording's own without suffix. Where others have that name too, in this list or from
    an earlier run, eight digits of a hash of its path follow: so a name does not change when files
    are added. Letter case makes no difference, as some file systems see none.

    Args:
        owner: of a name, the recording (as `where` tells it) whose files have it already.
    """
    stems = {path: _shortened(path.stem) for path in paths}
    counts = Counter(_folded(stem) for stem in stems.values())
    names: dict[Path, str] = {}
    for path, stem in stems.items():
        known, first = owner(stem), counts[_folded(stem)] == 1
        if _folded(stem) != SUMMARY_NAME and (known == where(path) or (known is None and first)):
            names[path] = stem
    taken = {_folded(name) for name in names.values()} | set(counts)
    for path, stem in stems.items():
        if path not in names:
            names[path] = _numbered(path, stem, taken, owner)
            taken.add(_folded(names[path]))
    return {path: names[path] for path in paths}


def where(path: Path) -> str:
    """Which file of which folder, as outputs tell it."""
    return printable(os.path.abspath(path))  # noqa: PTH100 - links stay as they are


def _numbered(path: Path, stem: str, taken: set[str], owner: Callable[[str], str | None]) -> str:
    digits = 8
    while True:
        name = f"{stem}-{_digest(where(path))[:digits]}"
        if _folded(name) not in taken and owner(name) in (None, where(path)):
            return name
        digits += 1


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _shortened(stem: str) -> str:
    """The name itself, or what fits of a long one and a hash of all of it."""
    encoded = os.fsencode(stem)
    if len(encoded) <= LONGEST_NAME:
        return stem
    return encoded[: LONGEST_NAME - 9].decode("utf-8", "ignore") + f"-{_digest(stem)[:8]}"


def _digest(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()
