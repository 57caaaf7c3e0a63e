"""A small labelled corpus made by code: stretches of one long demo clip, labelled by their phase.

`python -m datasets.demo_corpus FOLDER` writes `demo.mp4` and `annotations.csv`. There is one
synthetic person, who stands in every subset (so no speaker is named): it shows that training works
and measures nothing.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

from datasets.annotations import SUBSETS, Record, write_annotations
from datasets.demo_clip import (
    FROWN,
    NEUTRAL,
    PHASES,
    PHASES_SECONDS,
    SMILE,
    SURPRISED,
    TRANSITION,
    make_demo_clip,
)

LABELS = ((SMILE, "happy"), (NEUTRAL, "neutral"), (SURPRISED, "surprised"), (FROWN, "angry"))
CLIP_SECONDS = 144.0
STRETCH_SECONDS = 1.5
_TURNS = (0, 0, 1, 0, 0, 2)  # of six neighbouring stretches, which subset each goes to


def make_demo_corpus(folder: Path, seconds: float = CLIP_SECONDS) -> Path:
    """Write the clip (once) and the annotation file. Returns the annotation file."""
    clip = folder / "demo.mp4"
    if not clip.exists():
        make_demo_clip(clip, seconds)
    stretch = seconds / PHASES_SECONDS
    starts = [start * stretch for start, _ in PHASES] + [seconds]
    labels = {id(expression): name for expression, name in LABELS}
    records: list[Record] = []
    for (start, end), (_, expression) in zip(pairwise(starts), PHASES, strict=True):
        if id(expression) in labels:
            records += _cut_phase(str(clip), start + TRANSITION, end, labels[id(expression)])
    write_annotations(records, folder / "annotations.csv")
    return folder / "annotations.csv"


def _cut_phase(video: str, start: float, end: float, label: str) -> list[Record]:
    count = int((end - start) / STRETCH_SECONDS)
    return [
        Record(
            video=video,
            audio="",
            label=label,
            start=start + i * STRETCH_SECONDS,
            end=start + (i + 1) * STRETCH_SECONDS,
            dataset="demo",
            subset=SUBSETS[_TURNS[i % len(_TURNS)]],
        )
        for i in range(count)
    ]


if __name__ == "__main__":
    sys.stdout.write(f"{make_demo_corpus(Path(sys.argv[1]))}\n")
