"""Scores of a confusion matrix: (C, C) counts, true classes in rows.

Classes that do not occur among the true ones have no recall, and are left out of every mean over
classes instead of counting as 0. A class that occurs and is never predicted has precision 0.
"""

from __future__ import annotations

import numpy as np


def count_pairs(targets: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(C, C) counts of (N,) true and (N,) predicted class indices."""
    counts = np.bincount(targets * classes + predicted, minlength=classes**2)
    return counts.reshape(classes, classes)


def accuracy(counts: np.ndarray) -> float:
    """The fraction that is right: weighted average recall. NaN of no clip."""
    return _ratio(np.diagonal(counts).sum(), counts.sum())


def recalls(counts: np.ndarray) -> np.ndarray:
    """(C,) the fraction of each class that is recognised; NaN where a class does not occur."""
    true = counts.sum(axis=1)
    return np.where(true > 0, np.diagonal(counts) / np.maximum(true, 1), np.nan)


def uar(counts: np.ndarray) -> float:
    """Unweighted average recall, also called balanced accuracy. NaN of no clip."""
    known = recalls(counts)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")


def precisions(counts: np.ndarray) -> np.ndarray:
    """(C,) the fraction of each class's predictions that is right; 0 where it has none."""
    return np.diagonal(counts) / np.maximum(counts.sum(axis=0), 1)


def f1_scores(counts: np.ndarray) -> np.ndarray:
    """(C,) harmonic means of precision and recall."""
    return 2 * np.diagonal(counts) / np.maximum(counts.sum(axis=0) + counts.sum(axis=1), 1)


def macro(scores: np.ndarray, counts: np.ndarray) -> float:
    """Mean of (C,) scores over the classes that occur."""
    return float(scores[counts.sum(axis=1) > 0].mean())


def weighted(scores: np.ndarray, counts: np.ndarray) -> float:
    """Mean of (C,) scores over clips: each class weighs as often as it occurs."""
    return float(np.average(scores, weights=counts.sum(axis=1)))


def macro_f1(counts: np.ndarray) -> float:
    """Mean F1 over the classes that occur."""
    return macro(f1_scores(counts), counts)


def kappa(counts: np.ndarray) -> float | None:
    """Cohen's kappa (1960); None where one class alone is true and predicted."""
    total = counts.sum()
    by_chance = float((counts.sum(axis=0) * counts.sum(axis=1)).sum() / total**2)
    return None if by_chance == 1 else (accuracy(counts) - by_chance) / (1 - by_chance)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
