"""Figures for papers: a timeline, learning curves, a confusion matrix, and writing them.

Figures are built as objects, without pyplot's global state, so that they may be made in a thread
and in any number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.style import INK, MM, MOST_MARKERS, SERIES_COLOURS, paper_style, text_colour
from reports.timeline_figure import TimelineStyle, plot_timeline
from system.files import replacing

__all__ = [
    "TimelineStyle",
    "confusion_epoch_path",
    "plot_confusion",
    "plot_confusion_epoch",
    "plot_learning_curves",
    "plot_timeline",
    "write_figure",
]

FIGURE_METADATA: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
}


def plot_learning_curves(log: Sequence[dict[str, Any]]) -> Figure:
    """Loss, scores and learning rate over epochs, one column wide; absent keys are left out.

    Args:
        log: lines of `log.jsonl`: `epoch` and any of `train_loss`, `val_loss`, `train_acc`,
            `val_acc`, `val_uar`, `val_macro_f1`, `val_ccc`, `lr`, `lr_head`.

    Raises:
        ValueError: no line has any of these.
    """
    panels = {
        "Loss": ("train_loss", "val_loss"),
        "Score": ("train_acc", "val_acc", "val_uar", "val_macro_f1", "val_ccc"),
        "Learning rate": ("lr", "lr_head"),
    }
    shown = {
        title: present
        for title, keys in panels.items()
        if (present := [key for key in keys if any(line.get(key) is not None for line in log)])
    }
    if not shown:
        raise ValueError("the log holds no losses, scores or learning rates to plot")
    heights = [0.45 if title == "Learning rate" else 1.0 for title in shown]
    with paper_style():
        figure = Figure(figsize=(85 * MM, 0.35 + 1.5 * sum(heights)), layout="constrained")
        grid = {"height_ratios": heights}
        axes = list(
            figure.subplots(len(shown), 1, sharex=True, squeeze=False, gridspec_kw=grid).flat
        )
        for axis, (title, keys) in zip(axes, shown.items(), strict=True):
            _draw_series(axis, title, keys, log)
        _mark_best_epoch(axes, log)
        first, last = (end for end in axes[-1].dataLim.intervalx)
        axes[-1].set(xlabel="epoch", xlim=(first - 0.5, last + 0.5))
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        figure.draw_without_rendering()
    return figure


def plot_confusion(matrix: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Counts and shares of each true class by predicted class, coloured by share of the row.

    Args:
        matrix: (C, C) counts, true classes in rows.

    Raises:
        ValueError: the matrix does not fit the class names.
    """
    counts = np.asarray(matrix)
    classes = len(class_names)
    if counts.shape != (classes, classes):
        raise ValueError(f"a confusion matrix of shape {counts.shape} for {classes} class names")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    side = max(85 * MM, 0.95 + 0.36 * classes)
    with paper_style():
        figure = Figure(figsize=(side, side), layout="constrained")
        axis = figure.add_subplot()
        axis.imshow(shares, cmap=_shades(SERIES_COLOURS["val"]), vmin=0, vmax=1)
        _write_cells(axis, counts, shares)
        _name_classes(axis, class_names)
        uar = shares.diagonal()[totals[:, 0] > 0].mean() if totals.any() else float("nan")
        war = counts.trace() / max(1, counts.sum())
        axis.set_title(f"n = {counts.sum():g}   UAR {uar:.1%}   WAR {war:.1%}", weight="normal")
        figure.draw_without_rendering()
    return figure


def plot_confusion_epoch(matrix: np.ndarray, class_names: Sequence[str], epoch: int) -> Figure:
    """`plot_confusion` of validation after an epoch, which its title names."""
    figure = plot_confusion(matrix, class_names)
    axis = figure.axes[0]
    with paper_style():
        axis.set_title(f"epoch {epoch}   {axis.get_title(loc='left')}", weight="normal")
        figure.draw_without_rendering()
    return figure


def confusion_epoch_path(folder: Path, epoch: int) -> Path:
    """Where `plot_confusion_epoch` is kept: `confusion_matrix_epoch003.png`."""
    return folder / f"confusion_matrix_epoch{epoch:03d}.png"


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as its suffix says, at 200 dots per inch where it is made of pixels.

    Raises:
        ValueError: the suffix is none of .png, .pdf and .svg.
    """
    check_figure_format(path)
    with paper_style(), replacing(path) as temporary:
        figure.savefig(temporary, dpi=200, metadata=FIGURE_METADATA[path.suffix.lower()])


def check_figure_format(path: Path) -> None:
    """Raise ValueError where the suffix is none of .png, .pdf and .svg."""
    if path.suffix.lower() not in FIGURE_METADATA:
        known = ", ".join(FIGURE_METADATA)
        raise ValueError(f"{path}: unknown figure format '{path.suffix}'; choose from {known}")


_MEASURES = {"acc": "acc.", "uar": "UAR", "macro_f1": "macro F1", "ccc": "CCC"}


def _draw_series(
    axis: Axes, title: str, keys: Sequence[str], log: Sequence[dict[str, Any]]
) -> None:
    epochs = [line.get("epoch", number) for number, line in enumerate(log, start=1)]
    for key in keys:
        values = [np.nan if line.get(key) is None else float(line[key]) for line in log]
        subset, _, measure = key.partition("_")
        colour = SERIES_COLOURS.get(measure) or SERIES_COLOURS.get(subset, INK)
        axis.plot(
            epochs,
            values,
            color=colour,
            linestyle=(0, (4, 1.5)) if subset == "train" else "-",
            marker="o" if len(log) <= MOST_MARKERS else "",
            markersize=2.2,
            label=f"{subset} {_MEASURES[measure]}" if measure in _MEASURES else subset,
        )
    axis.grid(axis="y")
    axis.set_title(title)
    if title == "Learning rate":
        _scale_learning_rate(axis, log)
    else:
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderpad=0.2)


def _scale_learning_rate(axis: Axes, log: Sequence[dict[str, Any]]) -> None:
    """Logarithmic, with the highest and the lowest rate named; a rate of 0 is not shown."""
    rates = sorted({float(line[k]) for line in log for k in ("lr", "lr_head") if line.get(k)})
    if rates:
        axis.set_yscale("log")
        axis.set_yticks([rates[0], rates[-1]], [f"{rate:.2g}" for rate in (rates[0], rates[-1])])
        axis.minorticks_off()


def _mark_best_epoch(axes: Sequence[Axes], log: Sequence[dict[str, Any]]) -> None:
    """A dotted line at the epoch of the best validation UAR, or accuracy where that is absent."""
    for key in ("val_uar", "val_macro_f1", "val_ccc", "val_acc"):
        scored = [(line[key], -number) for number, line in enumerate(log) if line.get(key)]
        if scored:
            best = -max(scored)[1]
            for axis in axes:
                axis.axvline(log[best].get("epoch", best + 1), color=INK, lw=0.6, ls=":", zorder=0)
            return


def _shades(colour: str) -> LinearSegmentedColormap:
    return LinearSegmentedColormap.from_list("shades", ["#ffffff", colour])


def _write_cells(axis: Axes, counts: np.ndarray, shares: np.ndarray) -> None:
    shades = _shades(SERIES_COLOURS["val"])
    for (row, column), share in np.ndenumerate(shares):
        text = f"{share:.0%}\n{counts[row, column]:g}" if counts[row].sum() else "–"
        ink = text_colour(to_hex(shades(share)))
        weight = "bold" if row == column else "normal"
        axis.text(column, row, text, size=5.5, color=ink, ha="center", va="center", weight=weight)


def _name_classes(axis: Axes, class_names: Sequence[str]) -> None:
    ticks = range(len(class_names))
    axis.set_xticks(ticks, list(class_names), rotation=40, ha="right", rotation_mode="anchor")
    axis.set_yticks(ticks, list(class_names))
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set(xlabel="predicted", ylabel="true")
