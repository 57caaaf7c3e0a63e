"""A folder of one's own data: files in folders of classes, or a headed CSV beside the files.

The CSV is an annotation file (see `datasets.annotations`): columns video or audio, label, and
better a speaker too. Without speakers nothing can keep one person on one side of a split.

In folders, the class is the folder (at the one depth, under the root) whose names are emotions:
`happy/clip.mp4`, `happy/actor1/clip.mp4`, `train/happy/clip.mp4`. Where no folder is named after
an emotion, the outermost is the class. A folder `train`, `val` or `test` above it is the subset.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasets.annotations import Record, read_annotations, read_subset
from datasets.corpora.corpus import Corpus, register_corpus
from labels.emotions import EMOTIONS, canonical
from media.suffixes import SOUND, find_media

_LOG = logging.getLogger(__name__)


def read_records(root: Path) -> list[Record]:
    """Records of a CSV (`root`, or the only one in it), or of the files under folders of classes.

    A video and a sound file of one name in one folder are one record. A warning says so where a
    record has no speaker.

    What was taken and what was left is logged, with counts.

    Raises:
        ValueError: neither a table nor files in folders of classes, several tables, or a table
            that cannot be read.
    """
    tables = [root] if root.is_file() else sorted(root.glob("[!.]*.csv"))
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise ValueError(f"{root} holds several tables ({names}); give the one that is meant")
    records = read_annotations(tables[0]) if tables else _read_folders(root)
    unknown = sum(not record.speaker for record in records)
    if unknown:
        warnings.warn(
            f"{unknown} of {len(records)} records in {root} have no speaker: one person may stand "
            "on both sides of a split, and scores will be better than the model is. Give a CSV "
            "with the columns video, label, speaker.",
            stacklevel=2,
        )
    return [replace(record, dataset=record.dataset or "own") for record in records]


def _read_folders(root: Path) -> list[Record]:
    found = find_media(root)
    folders = {path: path.relative_to(root).parts[:-1] for path in found.files}
    depth = _class_depth(root, list(folders.values()))
    taken = [path for path in found.files if len(folders[path]) > depth]
    outside = len(found.files) - len(taken)
    if outside:
        found.left["in no folder of a class"] += outside
    if not taken:
        there = f" (there are {found.tell_left()})" if found.left else ""
        raise ValueError(
            f"no files such as happy/clip.mp4 and no CSV with the columns video, label in {root}"
            f"{there}"
        )
    records = [
        record
        for group in _group_by_name(taken)
        for record in _records_of(group, folders[group[0]], depth)
    ]
    counts = Counter(record.label for record in records)
    classes = ", ".join(f"{count} {label}" for label, count in sorted(counts.items()))
    _LOG.info(f"{len(taken)} files taken as {len(records)} records: {classes}")
    if found.left:
        _LOG.info(f"left: {found.tell_left()}")
    for line in _tell_spellings(folders, taken, depth):
        _LOG.info(line)
    return records


def _class_depth(root: Path, folders: Sequence[tuple[str, ...]]) -> int:
    """How far below the root the folders of classes lie; 0 where none is named after an emotion."""
    examples: dict[int, str] = {}
    for parts in folders:
        for depth, name in enumerate(parts):
            if canonical(name) in EMOTIONS:
                examples.setdefault(depth, "/".join(parts))
    if len(examples) > 1:
        first, second = (examples[depth] for depth in sorted(examples)[:2])
        raise ValueError(
            f"{root}: emotions name folders of different depth, as {first} and {second}; put all "
            "at one depth, or give a CSV with the columns video, label, speaker"
        )
    return next(iter(examples), 0)


def _group_by_name(paths: Sequence[Path]) -> list[list[Path]]:
    """Files of one folder and name, whatever their suffixes, in order."""
    groups: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        groups[path.with_suffix("")].append(path)
    return list(groups.values())


def _records_of(paths: list[Path], parts: tuple[str, ...], depth: int) -> list[Record]:
    """One record for pictures and sound of one name; one for each file where there are more."""
    label = canonical(parts[depth])
    subset = next((found for name in parts[:depth] if (found := read_subset(name))), "")
    record = Record(video="", audio="", label=label, subset=subset)
    sounds = [path for path in paths if path.suffix.lower() in SOUND]
    videos = [path for path in paths if path not in sounds]
    if len(sounds) == len(videos) == 1:
        return [replace(record, video=str(videos[0]), audio=str(sounds[0]))]
    return [replace(record, video=str(path)) for path in videos] + [
        replace(record, audio=str(path)) for path in sounds
    ]


def _tell_spellings(
    folders: dict[Path, tuple[str, ...]], taken: Sequence[Path], depth: int
) -> list[str]:
    """Lines on folders that are read as an emotion of another name."""
    names = sorted({folders[path][depth] for path in taken})
    return [
        f"folder {name} is read as {canonical(name)}"
        for name in names
        if canonical(name) != name.strip().lower()
    ]


CORPUS = register_corpus(
    Corpus(
        name="own_folder",
        read=read_records,
        layout="folders of classes, or a headed CSV; see below",
        labels="yours",
        licence="your own",
    )
)
