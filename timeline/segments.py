"""Neighbouring windows of one dominant class, joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True)
class Segment:
    """A run of neighbouring windows with one dominant class; None where nothing was recognised."""

    start: float
    end: float
    dominant: str | None
    confidence: float | None


def join_windows(
    borders: np.ndarray, labels: Sequence[str | None], confidences: np.ndarray
) -> list[Segment]:
    """Neighbours of the same label joined; their confidence is the mean over time.

    Args:
        borders: (W + 1,) seconds, between which each window stands alone.
        labels: dominant class of each of the W windows.
        confidences: (W,) of those classes; of windows without one they have no effect.
    """
    parts = []
    changes = [i for i in range(1, len(labels)) if labels[i] != labels[i - 1]]
    for first, last in pairwise([0, *changes, len(labels)]):
        seconds = np.diff(borders[first : last + 1])
        mean = float(np.average(confidences[first:last], weights=seconds))
        confidence = mean if labels[first] else None
        parts.append(Segment(borders[first], borders[last], labels[first], confidence))
    return parts
