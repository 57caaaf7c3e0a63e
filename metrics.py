"""Scores of predicted against true classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix as _confusion
from sklearn.metrics import f1_score, recall_score


def classification_scores(
    log_p: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> dict[str, Any]:
    """Accuracy (WAR), unweighted average recall (UAR), macro F1 and recall by class.

    Args:
        log_p: (N, C) log-probabilities.
        labels: (N,) true class indices. Classes that do not occur do not count in UAR.
        class_names: (C,) names.
    """
    predicted = log_p.argmax(axis=1)
    present = np.unique(labels)
    recalls = recall_score(labels, predicted, labels=present, average=None, zero_division=0.0)
    return {
        "clips": len(labels),
        "accuracy": float((predicted == labels).mean()),
        "uar": float(np.mean(recalls)),
        "macro_f1": float(
            f1_score(labels, predicted, labels=present, average="macro", zero_division=0.0)
        ),
        "recall": {class_names[i]: float(r) for i, r in zip(present, recalls, strict=True)},
    }


def confusion_matrix(log_p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(C, C) counts, true classes in rows."""
    return _confusion(labels, log_p.argmax(axis=1), labels=np.arange(log_p.shape[1]))
