"""One window of a timeline, and what it may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

Modalities = Literal["audio+video", "audio", "video", "none"]
Task = Literal["classification", "multilabel", "regression"]


@dataclass(frozen=True, eq=False)
class TimelineRow:
    """What was recognised in one window.

    Args:
        start, end: the window [start, end), in seconds.
        partial: true for a short tail.
        face_id: identity of the followed face, None where there is none.
        face_share: share of the window's pictures in which that face was found, 0 to 1.
        modalities: what the model had to go by.
        probabilities: (C,) summing to 1; of a multilabel model each label's own, of a regression
            the values. None where `modalities` is `none`.
        uncertain: whether the set of classes that remain possible is not of one class; None where
            that was not asked for.
        measures: further numbers by column, such as `contribution_face`, or the fraction of the
            window that holds speech (`speech_fraction`): None where there is none.
    """

    start: float
    end: float
    partial: bool
    face_id: int | None
    face_share: float
    modalities: Modalities
    probabilities: np.ndarray | None
    uncertain: bool | None = None
    measures: Mapping[str, float | None] = field(default_factory=dict)


def check_row(row: TimelineRow, number: int, classes: int, task: Task) -> None:
    """Raise ValueError, naming the row by its number, where it holds what no window can."""
    if row.modalities not in get_args(Modalities):
        raise ValueError(f"row {number} has modalities '{row.modalities}'")
    if not 0 <= row.face_share <= 1:
        raise ValueError(f"row {number} has face_share {row.face_share}, not within 0 to 1")
    if (row.probabilities is None) != (row.modalities == "none"):
        raise ValueError(f"row {number}: probabilities must be absent exactly without modalities")
    if row.probabilities is not None:
        _check_values(row.probabilities, f"row {number}", classes, task)


def is_distribution(values: np.ndarray) -> bool:
    """Whether (C,) values are at least 0 and sum to 1, within the rounding of a CSV file."""
    return bool(values.min() >= 0 and abs(values.sum() - 1) <= 1e-4 * max(len(values), 10))


def _check_values(values: np.ndarray, row: str, classes: int, task: Task) -> None:
    if values.shape != (classes,):
        raise ValueError(f"{row} has {values.shape} probabilities, not {classes}")
    if task == "classification" and not is_distribution(values):
        raise ValueError(f"{row} has probabilities that sum to {values.sum():.4f} or are below 0")
    if task == "multilabel" and not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"{row} has a probability that is not within 0 to 1")
