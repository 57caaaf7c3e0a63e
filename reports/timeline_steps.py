"""What a timeline's figure draws: its windows, or means over neighbours where there are many."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from timeline.table import Timeline

MOST_STEPS = 400  # beyond this many windows a step of the figure is the mean of several


@dataclass(frozen=True)
class Steps:
    """Windows, or means over equally many neighbouring windows.

    Args:
        edges: (K + 1,) seconds.
        probabilities: (K, C), rows of NaN where nothing was recognised.
        presence: (2, K) share of windows with a face and with sound.
        windows: how many windows make a step.
        uncertain: (K,) share of windows with something in them that are uncertain; None where
            that was not asked for.
        measures: (K,) of each further column, NaN where there is none.
        of_classes: whether one of the columns can be dominant; not of values.
    """

    edges: np.ndarray
    probabilities: np.ndarray
    presence: np.ndarray
    windows: int
    uncertain: np.ndarray | None
    measures: dict[str, np.ndarray]
    of_classes: bool = True

    @property
    def gaps(self) -> np.ndarray:
        """(K,) bool."""
        return np.isnan(self.probabilities[:, 0])

    def runs(self, classes: np.ndarray) -> list[tuple[float, float, int]]:
        """(start, end, class) of each run of equal values in (K,) `classes`."""
        bounds = [0, *(np.flatnonzero(np.diff(classes)) + 1), len(classes)]
        return [
            (float(self.edges[first]), float(self.edges[last]), int(classes[first]))
            for first, last in pairwise(bounds)
        ]

    def dominant(self) -> np.ndarray:
        """(K,) index of the most probable class, -1 in gaps and of values."""
        if not self.of_classes:
            return np.full(len(self.probabilities), -1)
        filled = np.nan_to_num(self.probabilities, nan=0.0)
        return np.where(self.gaps, -1, filled.argmax(axis=1))


def average_steps(timeline: Timeline) -> Steps:
    """At most 400 steps of a timeline."""
    windows = -(-len(timeline.rows) // MOST_STEPS)
    firsts = np.arange(0, len(timeline.rows), windows)
    rows = timeline.rows
    present = [["video" in row.modalities, "audio" in row.modalities] for row in rows]
    unsure = [np.nan if row.probabilities is None else float(bool(row.uncertain)) for row in rows]
    measured = {
        name: np.array([[row.measures[name]] for row in rows], dtype=float)
        for name in timeline.measures
    }
    uncertain = np.nan_to_num(_mean(np.array(unsure)[:, None], firsts)[:, 0])
    return Steps(
        edges=timeline.borders()[[*firsts, len(rows)]],
        probabilities=_mean(timeline.probabilities(), firsts),
        presence=_mean(np.array(present, dtype=float), firsts).T,
        windows=windows,
        uncertain=uncertain if timeline.marks_uncertain else None,
        measures={name: _mean(values, firsts)[:, 0] for name, values in measured.items()},
        of_classes=timeline.task != "regression",
    )


def _mean(table: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """(W, C) -> (K, C), over the rows from each of `firsts` to the next, leaving out NaN."""
    known = np.add.reduceat(~np.isnan(table), firsts, axis=0)
    sums = np.add.reduceat(np.nan_to_num(table), firsts, axis=0)
    return np.divide(sums, known, out=np.full(sums.shape, np.nan), where=known > 0)
