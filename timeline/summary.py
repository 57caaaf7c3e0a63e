"""A timeline in several lines for a terminal."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from timeline.row import Modalities
from timeline.table import Timeline, format_time

MODALITY_WORDS: dict[Modalities, str] = {
    "audio+video": "face and sound",
    "video": "face only",
    "audio": "sound only",
    "none": "nothing",
}
LABEL_THRESHOLD = 0.5  # above it, a label of a multilabel model counts as there


def summarise(timeline: Timeline, longest: int = 5) -> str:
    """What was recognised and how often, with so many of the longest segments."""
    counts = Counter(row.modalities for row in timeline.rows)
    present = ", ".join(f"{word} {counts[key]}" for key, word in MODALITY_WORDS.items())
    lines = [
        f"{Path(timeline.media).name}: {format_time(timeline.duration)}",
        f"Windows of {timeline.window_seconds:g} s every {timeline.hop_seconds:g} s: "
        f"{len(timeline.rows)} ({present})",
    ]
    lines += [f"warning: {warning}" for warning in timeline.warnings]
    if timeline.marks_uncertain:
        lines.append(f"Uncertain: {sum(bool(row.uncertain) for row in timeline.rows)} windows")
    if np.isnan(timeline.probabilities()).all():
        return "\n".join([*lines, "Nothing was recognised: no window holds a face or sound"])
    parts = {
        "classification": _share_lines,
        "multilabel": _label_lines,
        "regression": _value_lines,
    }
    lines += parts[timeline.task](timeline)
    if timeline.task == "classification":
        lines += _segment_lines(timeline, longest)
    return "\n".join(lines)


def dominant_shares(timeline: Timeline) -> list[tuple[str, float]]:
    """Fraction of the time for which each class is the dominant one, the most frequent first.

    Of labels and values, their means over time. Empty where nothing was recognised.
    """
    table, seconds = _known(timeline)
    if not len(table):
        return []
    values = np.average(table, axis=0, weights=seconds)
    if timeline.task == "classification":
        values = np.bincount(table.argmax(axis=1), seconds, len(values)) / timeline.duration
    order = np.argsort(-values, kind="stable")
    keep_all = timeline.task == "regression"
    return [(timeline.class_names[c], float(values[c])) for c in order if keep_all or values[c] > 0]


def _known(timeline: Timeline) -> tuple[np.ndarray, np.ndarray]:
    """(K, C) of the rows that hold something, and (K,) seconds that each stands for."""
    table, seconds = timeline.probabilities(), np.diff(timeline.borders())
    known = ~np.isnan(table[:, 0])
    return table[known], seconds[known]


def _share_lines(timeline: Timeline) -> list[str]:
    """Share of the time and mean probability of each class, the most frequent first."""
    table, seconds = _known(timeline)
    means = np.average(table, axis=0, weights=seconds)
    shares = np.bincount(table.argmax(axis=1), seconds, len(means)) / timeline.duration
    width = max(len(name) for name in timeline.class_names)
    order = sorted(range(len(means)), key=lambda c: (-shares[c], -means[c]))
    return ["Dominant share of time, and mean probability:"] + [
        f"  {timeline.class_names[c]:<{width}}  {shares[c]:5.0%}  {means[c]:.2f}" for c in order
    ]


def _label_lines(timeline: Timeline) -> list[str]:
    """Share of the time for which each label is there, and its mean probability."""
    table, seconds = _known(timeline)
    means = np.average(table, axis=0, weights=seconds)
    there = ((table > LABEL_THRESHOLD) * seconds[:, None]).sum(axis=0) / timeline.duration
    width = max(len(name) for name in timeline.class_names)
    head = f"Share of time above {LABEL_THRESHOLD:g}, and mean probability of each label:"
    return [head] + [
        f"  {timeline.class_names[c]:<{width}}  {there[c]:5.0%}  {means[c]:.2f}"
        for c in np.argsort(-means, kind="stable")
    ]


def _value_lines(timeline: Timeline) -> list[str]:
    """Mean over time, least and greatest of each value."""
    table, seconds = _known(timeline)
    means = np.average(table, axis=0, weights=seconds)
    width = max(len(name) for name in timeline.class_names)
    return ["Mean over time, least and greatest:"] + [
        f"  {name:<{width}}  {mean:8.3g}  {low:8.3g}  {high:8.3g}"
        for name, mean, low, high in zip(
            timeline.class_names, means, table.min(axis=0), table.max(axis=0), strict=True
        )
    ]


def _segment_lines(timeline: Timeline, longest: int) -> list[str]:
    known = [part for part in timeline.segments() if part.dominant is not None]
    known.sort(key=lambda part: part.start - part.end)
    return ["Longest segments:"] + [
        f"  {format_time(part.start)}-{format_time(part.end)} {part.dominant} "
        f"({part.confidence:.2f})"
        for part in known[:longest]
    ]
