"""Scores of a table of predictions: in all, by group, with intervals, and after calibration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from evaluation.calibration import (
    CALIBRATION_METHODS,
    CONFORMAL_METHODS,
    Calibration,
    fit_calibration,
    fit_conformal,
    set_coverage,
)
from evaluation.metrics import (
    classification_report,
    classification_scores,
    concordance,
    mean_of_known,
    multilabel_scores,
    probability_scores,
    regression_scores,
    wilson_interval,
)
from evaluation.predictions import PROBABILITY_FLOOR, PredictionTable
from evaluation.statistics import bootstrap_interval, first_of_each_performance, has_width

LEVEL = 0.95  # of intervals
COVERAGE = 0.9  # that prediction sets aim at
FEWEST_CLIPS = 10  # that a group needs to be named the worst, where another has them
MOST_GROUPS = 12  # different values of a column beyond which it is no grouping
MAIN_SCORES = {
    "classification": ("accuracy", "uar"),
    "multilabel": ("exact_match", "macro_f1"),
    "regression": ("ccc", "mae"),
}
_LESS_IS_BETTER = ("mae",)
_SHARES = ("accuracy", "exact_match")  # of clips, each right or wrong
_LIMITS = {
    "accuracy": (0.0, 1.0),
    "uar": (0.0, 1.0),
    "exact_match": (0.0, 1.0),
    "macro_f1": (0.0, 1.0),
    "ccc": (-1.0, 1.0),
    "mae": (0.0, np.inf),
}
_KNOWN_GROUPS = ("dataset", "gender", "intensity")
_NO_GROUPS = ("performance",)

Score = Callable[[np.ndarray], float]


def table_scores(table: PredictionTable) -> dict[str, Any]:
    """All scores of a table by its task; a table of windows counts `windows` instead of `clips`."""
    names = table.class_names
    if table.task == "classification":
        scores = classification_scores(table.log_probabilities, table.targets, names)
        scores |= probability_scores(_floored(table.scores), table.targets)
        present = np.unique(table.targets)
        scores["absent"] = [name for i, name in enumerate(names) if i not in present]
    elif table.task == "multilabel":
        scores = multilabel_scores(table.scores, table.targets, names)
    else:
        scores = regression_scores(table.scores, table.targets, names)
    if table.span is not None:
        scores["windows"] = scores.pop("clips")
    return scores


def detailed_report(table: PredictionTable) -> dict[str, Any]:
    """The table of `classification_report_<subset>.json`: a row a class, label or target."""
    if table.task == "classification":
        return classification_report(table.scores, table.targets, table.class_names)
    return table_scores(table)


def window_loss(table: PredictionTable) -> float:
    """Mean cross-entropy over windows, against the annotators' shares where they are known."""
    truth = table.soft
    if truth is None:
        truth = np.eye(len(table.class_names))[table.targets]
    return float(-(truth * table.log_probabilities).sum(axis=1).mean())


def score_intervals(table: PredictionTable) -> dict[str, Any]:
    """Main scores with 95 % intervals by bootstrap over speakers, each performance counted once.

    A clip of unknown speaker is a unit of its own. With one unit there is no interval.
    """
    once = count_once(table)
    result: dict[str, Any] = {
        "level": LEVEL,
        "by": "speaker" if (table.speaker != "").all() else "clip",
        "units": len(np.unique(table.bootstrap_unit)),
        "clips": len(once),
    }
    for name, score in main_scores(once).items():
        low, high = _interval(once, score, _LIMITS[name]) or (None, None)
        result[name] = {"value": score(np.arange(len(once))), "low": low, "high": high}
    return result


def count_once(table: PredictionTable) -> PredictionTable:
    """The table without second recordings of a performance."""
    return table.take(first_of_each_performance(table.bootstrap_unit, table.performance))


def main_scores(table: PredictionTable) -> dict[str, Score]:
    """Each main score of a task as a function of row indices, quick enough to resample."""
    if table.task == "classification":
        hits = (table.scores.argmax(axis=1) == table.targets).astype(float)
        labels, classes = table.targets, len(table.class_names)

        def uar(rows: np.ndarray) -> float:
            counts = np.bincount(labels[rows], minlength=classes)
            right = np.bincount(labels[rows], weights=hits[rows], minlength=classes)
            return float((right[counts > 0] / counts[counts > 0]).mean())

        return {"accuracy": lambda rows: float(hits[rows].mean()), "uar": uar}
    if table.task == "multilabel":
        truth, predicted = table.targets > 0.5, table.scores >= 0.5
        exact = (truth == predicted).all(axis=1)

        def macro_f1(rows: np.ndarray) -> float:
            both = (truth[rows] & predicted[rows]).sum(axis=0)
            there = truth[rows].sum(axis=0)
            sizes = there + predicted[rows].sum(axis=0)
            return float((2 * both[there > 0] / sizes[there > 0]).mean()) if there.any() else 0.0

        return {"exact_match": lambda rows: float(exact[rows].mean()), "macro_f1": macro_f1}
    error = np.abs(table.scores - table.targets).mean(axis=1)

    def ccc(rows: np.ndarray) -> float:
        pairs = zip(table.scores[rows].T, table.targets[rows].T, strict=True)
        return mean_of_known(concordance(*pair) for pair in pairs) or 0.0

    return {"ccc": ccc, "mae": lambda rows: float(error[rows].mean())}


def group_scores(table: PredictionTable) -> dict[str, Any]:
    """Main scores of each speaker, gender, corpus and other group, and the worst of each kind.

    Each performance counts once. The interval of the first score is over speakers; in a group of
    one, over clips.

    The worst is of the lowest UAR (macro F1, or highest MAE), among groups of at least
    `FEWEST_CLIPS` clips where there is such a group.
    """
    found: dict[str, Any] = {}
    table = count_once(table)
    for name, values in {"speaker": table.speaker, **_groupings(table)}.items():
        known = np.unique(values[values != ""])
        if len(known) < 2:
            continue
        groups = {str(value): _brief_scores(table, values == value) for value in known}
        found[name] = {"groups": groups, "worst": _worst(groups, table.task)}
    return found


def modality_scores(
    table: PredictionTable, without: dict[str, PredictionTable]
) -> dict[str, dict[str, Any]]:
    """Scores with each modality masked, and the change of the main score with its interval.

    The change, as all intervals, counts each performance once.

    Args:
        without: by modality, predictions of the same clips from the same weights.

    Raises:
        ValueError: a table is not of the same clips.
    """
    results = {}
    for modality, other in without.items():
        same = len(other) == len(table) and (other.clip == table.clip).all()
        if not same or not np.array_equal(other.targets, table.targets):
            raise ValueError(f"{other.path} and {table.path} are not of the same clips")
        scores = table_scores(other)
        main = _ranking_score(table.task)
        once = count_once(table)
        whole, masked = main_scores(once)[main], main_scores(count_once(other))[main]

        def change(rows: np.ndarray, masked: Score = masked, whole: Score = whole) -> float:
            return masked(rows) - whole(rows)

        low, high = _interval(once, change) or (None, None)
        value = change(np.arange(len(once)))
        scores["change"] = {"score": main, "value": value, "low": low, "high": high}
        scores["intervals"] = score_intervals(other)
        results[modality] = scores
    return results


def calibration_scores(fitted_on: PredictionTable, table: PredictionTable) -> dict[str, Any]:
    """Calibration and prediction sets, fitted on one table and scored on another.

    Prediction sets are of the probabilities that the temperature gives.

    Args:
        fitted_on: predictions of other speakers, that the model was not trained on.
    """
    result: dict[str, Any] = {
        "fitted_on": len(fitted_on),
        "before": _calibration_errors(table.scores, table.targets),
    }
    fits = {
        method: fit_calibration(fitted_on.log_probabilities, fitted_on.targets, method)
        for method in CALIBRATION_METHODS
    }
    for method, fit in fits.items():
        after = _calibration_errors(fit.apply(table.log_probabilities), table.targets)
        result[method] = {**fit.to_dict(), "temperature": fit.temperature, **after}
    result["sets"] = _set_scores(fits["temperature"], fitted_on, table)
    return result


def _set_scores(
    calibration: Calibration, fitted_on: PredictionTable, table: PredictionTable
) -> dict[str, Any]:
    scores = {}
    known = calibration.apply(fitted_on.log_probabilities)
    probabilities = calibration.apply(table.log_probabilities)
    for method in CONFORMAL_METHODS:
        rule = fit_conformal(known, fitted_on.targets, COVERAGE, method)
        sets = rule.sets(probabilities)
        scores[method] = {
            "aimed_at": COVERAGE,
            "coverage": set_coverage(sets, table.targets),
            "mean_size": float(sets.sum(axis=1).mean()),
            "uncertain": float(rule.uncertain(probabilities).mean()),
            "quantile": rule.quantile,
        }
    return scores


def _calibration_errors(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    scores = probability_scores(_floored(probabilities), labels)
    return {name: scores[name] for name in ("ece", "ece_adaptive", "log_loss", "brier")}


def _interval(
    table: PredictionTable, score: Score, limits: tuple[float, float] = (-np.inf, np.inf)
) -> list[float] | None:
    """Of a table of performances; cut to the limits of the score.

    None with one speaker, or where all are equal but at a limit, where ends may meet.
    """
    ends = bootstrap_interval(score, table.bootstrap_unit, level=LEVEL)
    if not has_width(*ends) and ends[0] not in limits:
        return None
    return [float(end) for end in np.clip(ends, *limits)]


def _share_interval(table: PredictionTable, name: str, score: Score) -> list[float] | None:
    """Of a group: over its speakers, or over its clips where they tell of no spread."""
    interval = _interval(table, score, _LIMITS[name])
    if interval is None and name in _SHARES:
        hits = score(np.arange(len(table))) * len(table)
        return list(wilson_interval(hits, len(table), LEVEL))
    return interval


def _groupings(table: PredictionTable) -> dict[str, np.ndarray]:
    """The known columns first, then others of few values."""
    others = [
        name
        for name, values in table.groups.items()
        if name not in (*_KNOWN_GROUPS, *_NO_GROUPS) and len(np.unique(values)) <= MOST_GROUPS
    ]
    ordered = [name for name in _KNOWN_GROUPS if name in table.groups] + others
    return {name: table.groups[name] for name in ordered}


def _brief_scores(table: PredictionTable, chosen: np.ndarray) -> dict[str, Any]:
    group = table.take(chosen)
    functions, first = main_scores(group), MAIN_SCORES[table.task][0]
    scores: dict[str, Any] = {name: f(np.arange(len(group))) for name, f in functions.items()}
    scores[f"{first}_interval"] = _share_interval(group, first, functions[first])
    return {"clips": len(group), **scores}


def _worst(groups: dict[str, dict[str, Any]], task: str) -> dict[str, Any]:
    enough = {n: g for n, g in groups.items() if g["clips"] >= FEWEST_CLIPS} or groups
    key = _ranking_score(task)
    sign = -1 if key in _LESS_IS_BETTER else 1
    name = min(enough, key=lambda group: (sign * enough[group][key], group))
    return {"name": name, **groups[name]}


def _ranking_score(task: str) -> str:
    """By which groups and modalities are compared; CCC of a small group means little."""
    return {"classification": "uar", "multilabel": "macro_f1", "regression": "mae"}[task]


def _floored(probabilities: np.ndarray) -> np.ndarray:
    """(N, C) of sum 1 and without zeros, which log-loss has no value for."""
    floored = np.maximum(probabilities, PROBABILITY_FLOOR)
    return floored / floored.sum(axis=1, keepdims=True)
