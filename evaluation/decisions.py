"""Scores of hard decisions with intervals over speakers, and two systems compared on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from evaluation.statistics import (
    accuracy_shares,
    bootstrap_interval,
    cohens_d,
    first_of_each_performance,
    mcnemar,
    permutation_test,
    score_interval,
    uar_shares,
)

MEASURES = ("accuracy", "uar", "macro_f1")
MEASURE_NAMES = {"accuracy": "accuracy", "uar": "UAR", "macro_f1": "macro F1"}


@dataclass(frozen=True)
class Decisions:
    """What a system decided on clips.

    Args:
        targets: (N,) true class indices.
        predicted: (N,) class indices.
        n_classes: how many there are.
        units: (N,) what is resampled as a whole: speakers, or clips where they are unknown.
        performances: (N,) rows of a unit with equal ones count once (the first); None for none.
    """

    targets: np.ndarray
    predicted: np.ndarray
    n_classes: int
    units: np.ndarray
    performances: np.ndarray | None = None

    def once(self) -> Decisions:
        """Without second recordings of a performance, which neither scores nor tests count."""
        return self.take(first_of_each_performance(self.units, self.performances))

    def take(self, rows: np.ndarray) -> Decisions:
        """Those of these rows."""
        return replace(
            self,
            targets=self.targets[rows],
            predicted=self.predicted[rows],
            units=self.units[rows],
            performances=None if self.performances is None else self.performances[rows],
        )

    def score(self, measure: str) -> Callable[[np.ndarray], float]:
        """A measure as a function of row indices, quick enough to resample."""
        pairs = self.targets * self.n_classes + self.predicted

        def of_rows(rows: np.ndarray) -> float:
            counts = np.bincount(pairs[rows], minlength=self.n_classes**2)
            return score_confusion(counts.reshape(self.n_classes, self.n_classes), measure)

        return of_rows

    def value(self, measure: str) -> float:
        """The measure over all rows."""
        return self.score(measure)(np.arange(len(self.targets)))

    def by_unit(self, measure: str) -> np.ndarray:
        """(U,) the measure of each unit, in ascending order of their names."""
        names, place = np.unique(self.units, return_inverse=True)
        score = self.score(measure)
        return np.array([score(np.flatnonzero(place == unit)) for unit in range(len(names))])


def score_confusion(counts: np.ndarray, measure: str) -> float:
    """Accuracy, UAR or macro F1 of (C, C) counts, true classes in rows.

    Classes that do not occur among the true ones have no part in the means over classes.
    """
    hits, true = np.diagonal(counts), counts.sum(axis=1)
    there = true > 0
    if measure == "accuracy":
        return float(hits.sum() / counts.sum())
    if measure == "uar":
        return float((hits[there] / true[there]).mean())
    if measure != "macro_f1":
        raise ValueError(f"unknown measure '{measure}'; choose from {', '.join(MEASURES)}")
    return float((2 * hits / np.maximum(1, true + counts.sum(axis=0)))[there].mean())


def summarise(decisions: Decisions) -> dict[str, Any]:
    """Clips, units, and each measure's value with the ends of its 95 % interval (or None)."""
    once = decisions.once()
    result: dict[str, Any] = {"clips": len(once.targets), "units": len(np.unique(once.units))}
    for measure in MEASURES:
        low, high = score_interval(once.score(measure), once.units)
        result[measure] = {
            "value": once.value(measure),
            "low": _known(low),
            "high": _known(high),
        }
    return result


def compare_pair(first: Decisions, second: Decisions) -> dict[str, Any]:
    """Differences, first less second, on the same clips in the same order, with tests and effects.

    For accuracy and UAR: the permutation test by unit. For each measure: the difference with its
    95 % interval, and Cohen's d of it over units. McNemar's test takes clips for independent.
    """
    one, two = first.once(), second.once()
    result: dict[str, Any] = {"clips": len(one.targets), "units": len(np.unique(one.units))}
    right = one.predicted == one.targets, two.predicted == two.targets
    gains = right[0].astype(float) - right[1]
    shares = {"accuracy": accuracy_shares(one.targets), "uar": uar_shares(one.targets)}
    for measure in MEASURES:
        low, high = bootstrap_interval(_score_difference(one, two, measure), one.units)
        entry = {
            "difference": one.value(measure) - two.value(measure),
            "low": _known(low),
            "high": _known(high),
            "cohens_d": _known(cohens_d(one.by_unit(measure) - two.by_unit(measure))),
        }
        if measure in shares:
            entry["p_permutation"] = permutation_test(gains * shares[measure], one.units)
        result[measure] = entry
    result["mcnemar"] = asdict(mcnemar(*right))
    return result


def _score_difference(
    one: Decisions, two: Decisions, measure: str
) -> Callable[[np.ndarray], float]:
    of_one, of_two = one.score(measure), two.score(measure)
    return lambda rows: of_one(rows) - of_two(rows)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value
