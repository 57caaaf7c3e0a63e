"""Scores of predictions against truth, for classes, labels and values.

Classes that do not occur among the labels have no recall, and are left out of every mean over
classes instead of counting as 0; a score that is undefined is None. A class that occurs and is
never predicted has precision 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import (
    average_precision_score,
    cohen_kappa_score,
    log_loss,
    precision_recall_fscore_support,
    roc_auc_score,
)
from sklearn.metrics import confusion_matrix as _confusion

RELIABILITY_BINS = 15  # as in Guo et al. (2017)


def classification_scores(
    log_p: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> dict[str, Any]:
    """Scores of the most probable class; weighted recall is `accuracy`, macro recall is `uar`.

    Accuracy (WAR), unweighted average recall (UAR, balanced accuracy), macro and weighted
    precision and F1, Cohen's kappa, and recall by class.

    Args:
        log_p: (N, C) log-probabilities.
        labels: (N,) true class indices.
        class_names: (C,) names.
    """
    predicted = log_p.argmax(axis=1)
    present = np.unique(labels)
    precisions, recalls, f1s, counts = precision_recall_fscore_support(
        labels, predicted, labels=present, zero_division=0.0
    )
    varied = len(np.union1d(present, predicted)) > 1
    return {
        "clips": len(labels),
        "accuracy": float((predicted == labels).mean()),
        "uar": float(np.mean(recalls)),
        "macro_f1": float(np.mean(f1s)),
        "macro_precision": float(np.mean(precisions)),
        "weighted_precision": float(np.average(precisions, weights=counts)),
        "weighted_f1": float(np.average(f1s, weights=counts)),
        "kappa": float(cohen_kappa_score(labels, predicted)) if varied else None,
        "recall": {class_names[i]: float(r) for i, r in zip(present, recalls, strict=True)},
    }


def confusion_matrix(log_p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(C, C) counts, true classes in rows."""
    return _confusion(labels, log_p.argmax(axis=1), labels=np.arange(log_p.shape[1]))


def probability_scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """How good the probabilities are, beyond their order: calibration, and each class by itself.

    Log-loss in nats; Brier score, the squared error summed over classes, 0 to 2; expected
    calibration error with bins of equal width and of equal count (`ece_adaptive`); areas under
    the ROC curve and average precision, one class against the rest, as mean over classes.

    Args:
        probabilities: (N, C), above 0 and of sum 1.
        labels: (N,) true class indices.
    """
    truth = np.eye(probabilities.shape[1])[labels]
    aucs, precisions = ranking_by_class(probabilities, truth)
    classes = np.arange(probabilities.shape[1])
    return {
        "log_loss": float(log_loss(labels, probabilities, labels=classes)),
        "brier": float(((probabilities - truth) ** 2).sum(axis=1).mean()),
        "ece": calibration_error(probabilities, labels),
        "ece_adaptive": calibration_error(probabilities, labels, adaptive=True),
        "roc_auc": mean_of_known(aucs),
        "average_precision": mean_of_known(precisions),
    }


def ranking_by_class(
    scores: np.ndarray, truth: np.ndarray
) -> tuple[list[float | None], list[float | None]]:
    """Area under the ROC curve and average precision of each column against its truth.

    Args:
        scores: (N, C), higher is likelier.
        truth: (N, C) of 0 and 1. A column without a 1 has neither score, one without a 0 no area.
    """
    aucs: list[float | None] = []
    precisions: list[float | None] = []
    for column, true in zip(scores.T, truth.T, strict=True):
        occurs, varies = bool(true.any()), bool(true.any() and not true.all())
        aucs.append(float(roc_auc_score(true, column)) if varies else None)
        precisions.append(float(average_precision_score(true, column)) if occurs else None)
    return aucs, precisions


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, bins: int, adaptive: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence in the most probable class against how often it is right.

    Args:
        probabilities: (N, C).
        labels: (N,) true class indices.
        adaptive: bins of equal count (Nguyen & O'Connor 2015) instead of equal width.

    Returns:
        (K,) mean confidence, accuracy and count of each bin that holds anything.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    if adaptive:
        parts = np.array_split(np.argsort(confidence, kind="stable"), bins)
    else:
        place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
        parts = [np.flatnonzero(place == number) for number in range(bins)]
    filled = [part for part in parts if len(part)]
    return (
        np.array([confidence[part].mean() for part in filled]),
        np.array([correct[part].mean() for part in filled]),
        np.array([len(part) for part in filled]),
    )


def calibration_error(
    probabilities: np.ndarray,
    labels: np.ndarray,
    bins: int = RELIABILITY_BINS,
    adaptive: bool = False,
) -> float:
    """Expected calibration error of the most probable class (Guo et al. 2017)."""
    confidence, accuracy, counts = reliability(probabilities, labels, bins, adaptive)
    return float(np.average(np.abs(confidence - accuracy), weights=counts))


def classification_report(
    probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
    """Precision, recall, F1, support, ROC area and average precision by class, and means.

    Args:
        probabilities: (N, C).
        labels: (N,) true class indices. A class that does not occur has support 0 and no scores.
    """
    truth = np.eye(len(class_names), dtype=int)[labels]
    predicted = np.eye(len(class_names), dtype=int)[probabilities.argmax(axis=1)]
    rows = _report_rows(predicted, probabilities, truth, class_names)
    return {
        "accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
        "classes": rows,
        "macro": _mean_row(rows, weighted=False),
        "weighted": _mean_row(rows, weighted=True),
    }


def multilabel_scores(
    probabilities: np.ndarray, targets: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
    """Micro, macro and by-clip F1 at a threshold of 0.5, and mean average precision.

    A clip without true and without predicted labels has F1 1.

    Args:
        probabilities: (N, C), each label by itself.
        targets: (N, C) of 0 and 1.
    """
    truth = targets.astype(int)
    predicted = (probabilities >= 0.5).astype(int)
    rows = _report_rows(predicted, probabilities, truth, class_names)
    both, either = (predicted & truth).sum(axis=1), (predicted + truth).sum(axis=1)
    f1s = [_ratio(2 * b, e) if e else 1.0 for b, e in zip(both, either, strict=True)]
    return {
        "clips": len(targets),
        "exact_match": float((predicted == truth).all(axis=1).mean()),
        "micro_f1": _ratio(2 * both.sum(), either.sum()),
        "macro_f1": mean_of_known(row["f1"] for row in rows.values()),
        "samples_f1": float(np.mean(f1s)),
        "average_precision": mean_of_known(row["average_precision"] for row in rows.values()),
        "roc_auc": mean_of_known(row["roc_auc"] for row in rows.values()),
        "labels": rows,
    }


def regression_scores(
    values: np.ndarray, targets: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """Errors and correlations of each target, and their means over targets.

    Args:
        values: (N, C) predictions.
        targets: (N, C) truths.
    """
    rows = {
        name: _regression_row(values[:, column], targets[:, column])
        for column, name in enumerate(names)
    }
    measures = ("mae", "rmse", "pearson", "ccc")
    means = {key: mean_of_known(row[key] for row in rows.values()) for key in measures}
    return {"clips": len(targets), **means, "targets": rows}


def concordance(values: np.ndarray, targets: np.ndarray) -> float | None:
    """Concordance correlation coefficient (Lin 1989); None where both are one same constant.

    Args:
        values: (N,) predictions.
        targets: (N,) truths.
    """
    shift = values.mean() - targets.mean()
    spread = values.var() + targets.var() + shift**2
    covariance = ((values - values.mean()) * (targets - targets.mean())).mean()
    return float(2 * covariance / spread) if spread > 0 else None


def wilson_interval(hits: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share of independent trials (Wilson 1927); (0, 1) of no trial."""
    if not count:
        return 0.0, 1.0
    interval = binomtest(round(hits), count).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def mean_of_known(values: Iterable[float | None]) -> float | None:
    """Mean of what is defined; None where nothing is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _regression_row(values: np.ndarray, targets: np.ndarray) -> dict[str, float | None]:
    error = values - targets
    varied = np.ptp(values) > 0 and np.ptp(targets) > 0
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "pearson": float(np.corrcoef(values, targets)[0, 1]) if varied else None,
        "ccc": concordance(values, targets),
    }


def _report_rows(
    predicted: np.ndarray, scores: np.ndarray, truth: np.ndarray, class_names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """A row for each column of (N, C) 0 and 1; a column without a true 1 has no scores."""
    aucs, areas = ranking_by_class(scores, truth)
    rows: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(class_names):
        hits, guesses = int((predicted[:, i] & truth[:, i]).sum()), int(predicted[:, i].sum())
        support = int(truth[:, i].sum())
        rows[name] = {
            "precision": _ratio(hits, guesses) if support else None,
            "recall": _ratio(hits, support) if support else None,
            "f1": _ratio(2 * hits, guesses + support) if support else None,
            "roc_auc": aucs[i],
            "average_precision": areas[i],
            "support": support,
        }
    return rows


def _mean_row(rows: dict[str, dict[str, Any]], weighted: bool) -> dict[str, float | None]:
    measures = ("precision", "recall", "f1", "roc_auc", "average_precision")
    mean: dict[str, float | None] = {}
    for measure in measures:
        known = [row for row in rows.values() if row[measure] is not None]
        weights = [row["support"] if weighted else 1 for row in known]
        values = [row[measure] for row in known]
        mean[measure] = float(np.average(values, weights=weights)) if known else None
    return mean


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
