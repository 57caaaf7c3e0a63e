"""Figures of predictions against truth: ROC, precision-recall, reliability, scatter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from evaluation.metrics import (
    calibration_error,
    concordance,
    ranking_by_class,
    reliability,
    wilson_interval,
)
from reports.style import FAINT_INK, MM, SERIES_COLOURS, emotion_styles, paper_style

COLUMN = 85 * MM  # width of a paper's column
_BINS = 10


def plot_ranking_curves(
    scores: np.ndarray, truth: np.ndarray, class_names: Sequence[str]
) -> Figure:
    """ROC and precision-recall curves of each class against the rest, one column wide.

    Args:
        scores: (N, C), higher is likelier.
        truth: (N, C) of 0 and 1. A class that does not occur is named and has no curve.
    """
    styles = emotion_styles(class_names)
    aucs, areas = ranking_by_class(scores, truth)
    rows = (len(class_names) + 2) // 2
    with paper_style():
        figure = Figure(figsize=(COLUMN, 1.98 + 0.125 * rows), layout="constrained")
        left, right = figure.subplots(1, 2)
        _draw_square(left, "false positive rate", "true positive rate", "ROC")
        _draw_square(right, "recall", "precision", "Precision–recall")
        left.plot([0, 1], [0, 1], color=FAINT_INK, lw=0.5, ls=":")
        handles, labels = [], []
        for place, name in enumerate(class_names):
            look: dict[str, Any] = {
                "color": styles[name].colour,
                "ls": styles[name].line,
                "lw": 0.9,
            }
            if aucs[place] is not None:
                false_rate, true_rate, _ = roc_curve(truth[:, place], scores[:, place])
                left.plot(false_rate, true_rate, **look)
            if areas[place] is not None:
                precision, recall, _ = precision_recall_curve(truth[:, place], scores[:, place])
                right.plot(recall, precision, drawstyle="steps-post", **look)
            handles.append(Line2D([], [], **look))
            labels.append(f"{name}  {_short(aucs[place])} / {_short(areas[place])}")
        figure.legend(
            handles,
            labels,
            title="area under ROC / average precision",
            loc="outside lower center",
            ncols=2,
            handlelength=2.6,
            title_fontsize=6.5,
        )
        figure.draw_without_rendering()
    return figure


@dataclass(frozen=True)
class Reliability:
    """Probabilities of one table before and after calibration.

    Args:
        title: what a row is, `clips` or `windows`.
        before: (N, C) probabilities.
        after: (N, C) probabilities.
        labels: (N,) true class indices.
    """

    title: str
    before: np.ndarray
    after: np.ndarray
    labels: np.ndarray


def plot_reliability(tables: Sequence[Reliability]) -> Figure:
    """How often the most probable class is right, by its probability; a row of panels a table.

    Bars at the foot are the share of the rows; whiskers are 95 % intervals of independent rows.
    """
    with paper_style():
        figure = Figure(figsize=(COLUMN, 0.1 + 1.85 * len(tables)), layout="constrained")
        axes = figure.subplots(len(tables), 2, sharex=True, sharey=True, squeeze=False)
        for row, table in zip(axes, tables, strict=True):
            for axis, probabilities, state in (
                (row[0], table.before, "as trained"),
                (row[1], table.after, "calibrated"),
            ):
                error = calibration_error(probabilities, table.labels)
                _draw_square(axis, "", "", f"{table.title}, {state}")
                axis.text(0.04, 0.95, f"ECE {error:.3f}", va="top", size=6.5)
                _draw_reliability(axis, probabilities, table.labels)
            row[0].set_ylabel("accuracy")
        for axis in axes[-1]:
            axis.set_xlabel("confidence")
        figure.draw_without_rendering()
    return figure


def plot_agreement(values: np.ndarray, targets: np.ndarray, names: Sequence[str]) -> Figure:
    """Predicted against true values, a panel a target, with its concordance.

    Args:
        values: (N, C) predictions.
        targets: (N, C) truths.
    """
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    with paper_style():
        figure = Figure(figsize=(COLUMN, 0.1 + 1.75 * rows * 2 / columns), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for place, name in enumerate(names):
            axis, true, predicted = axes[place], targets[:, place], values[:, place]
            ends = (min(true.min(), predicted.min()), max(true.max(), predicted.max()))
            axis.plot(ends, ends, color=FAINT_INK, lw=0.5, ls=":")
            axis.plot(true, predicted, "o", color=SERIES_COLOURS["val"], ms=2, alpha=0.4, mew=0)
            agreement = concordance(predicted, true)
            axis.set(xlabel="true", ylabel="predicted", aspect="equal")
            axis.xaxis.set_major_locator(MaxNLocator(5))
            axis.yaxis.set_major_locator(MaxNLocator(5))
            axis.set_title(f"{name}, CCC {_short(agreement)}")
        for axis in axes[len(names) :]:
            axis.remove()
        figure.draw_without_rendering()
    return figure


def _draw_square(axis: Axes, xlabel: str, ylabel: str, title: str) -> None:
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xlabel=xlabel, ylabel=ylabel)
    axis.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    axis.set_yticks([0, 0.5, 1], ["0", ".5", "1"])
    axis.set_title(title)
    axis.grid()


def _draw_reliability(axis: Axes, probabilities: np.ndarray, labels: np.ndarray) -> None:
    confidence, accuracy, counts = reliability(probabilities, labels, _BINS)
    shares, edges = np.histogram(probabilities.max(axis=1), bins=_BINS, range=(0, 1))
    axis.stairs(shares / len(labels), edges, fill=True, color="#dcdfe2", zorder=0.5)
    axis.plot([0, 1], [0, 1], color=FAINT_INK, lw=0.5, ls=":")
    ends = [wilson_interval(a * n, int(n)) for a, n in zip(accuracy, counts, strict=True)]
    low, high = np.array(ends).T
    axis.vlines(confidence, low, high, color=SERIES_COLOURS["val"], lw=0.7)
    axis.plot(confidence, accuracy, "o-", color=SERIES_COLOURS["val"], ms=2.5, lw=0.9)


def _short(value: float | None) -> str:
    """.87, as papers write shares; a dash for what is undefined."""
    if value is None:
        return "–"
    return f"{value:.2f}".replace("0.", ".", 1)
