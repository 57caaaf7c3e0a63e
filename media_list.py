"""What `--media_path` names: files, folders, globs, or tables of files and their speakers."""

from __future__ import annotations

import csv
import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MEDIA_SUFFIXES = frozenset(
    f".{name}"
    for kind in (
        (
            "mp4",
            "m4v",
            "mov",
            "avi",
            "mkv",
            "webm",
            "flv",
            "mpg",
            "mpeg",
            "wmv",
            "3gp",
            "ts",
            "mts",
        ),
        ("wav", "flac", "mp3", "m4a", "aac", "ogg", "opus", "wma"),
    )
    for name in kind
)


MEDIA_COLUMN = "media"  # of a table: paths, from where the table lies


@dataclass(frozen=True)
class Listed:
    """A recording to read.

    Args:
        path: of its file.
        speaker: who is in it, where that is said; files of one speaker share what is learned of
            the face.
    """

    path: Path
    speaker: str | None = None


def list_media(
    patterns: Sequence[str], speaker_column: str | None = None, by_folder: bool = False
) -> list[Listed]:
    """Recordings in order: files, media files of folders, matches of globs, rows of tables.

    Args:
        speaker_column: all patterns are CSV tables, and this column of theirs names the speaker.
        by_folder: the folder that a file lies in is its speaker's.

    Raises:
        ValueError: a pattern that names nothing, or a table without such columns.
    """
    if speaker_column is not None:
        found = [item for name in patterns for item in _read_table(Path(name), speaker_column)]
    else:
        paths = [path for pattern in patterns for path in _matches(pattern)]
        found = [Listed(p, str(p.resolve().parent) if by_folder else None) for p in paths]
    return list({item.path: item for item in found}.values())


def _matches(pattern: str) -> list[Path]:
    path = Path(pattern)
    if path.is_dir():
        matches = sorted(p for p in path.rglob("*") if p.suffix.lower() in MEDIA_SUFFIXES)
    elif path.exists() or not glob.has_magic(pattern):
        matches = [path]
    else:
        matches = sorted(Path(p) for p in glob.glob(pattern, recursive=True))  # noqa: PTH207
    if not matches:
        raise ValueError(f"--media_path {pattern} names no media file")
    return matches


def _read_table(path: Path, speaker_column: str) -> list[Listed]:
    if path.suffix.lower() != ".csv" or not path.is_file():
        raise ValueError(f"--speaker_column needs CSV tables as --media_path, and {path} is none")
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            table = csv.DictReader(handle)
            columns, rows = table.fieldnames or [], list(table)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV table in UTF-8: {error}") from error
    for column in (MEDIA_COLUMN, speaker_column):
        if column not in columns:
            there = ", ".join(columns)
            raise ValueError(f"{path} has no column {column!r}; it has: {there}")
    found = [
        Listed(path.parent / row[MEDIA_COLUMN], row[speaker_column] or None)
        for row in rows
        if row[MEDIA_COLUMN]
    ]
    if not found:
        raise ValueError(f"{path} names no media file")
    return found


def output_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Name of each recording's files: its own without suffix; with it, or numbered, if shared."""
    stems = Counter(path.stem for path in paths)
    names = {p: p.stem if stems[p.stem] == 1 else p.name.replace(".", "_") for p in paths}
    taken: Counter[str] = Counter()
    for path, name in names.items():
        taken[name] += 1
        names[path] = name if taken[name] == 1 else f"{name}_{taken[name]}"
    return names
