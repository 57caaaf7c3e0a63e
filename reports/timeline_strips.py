"""The strips under a timeline's probabilities: what was present, and what each modality adds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from reports.style import ABSENT_COLOUR, FAINT_INK, GROUP_COLOURS, INK, PRESENT_COLOUR
from reports.timeline_steps import Steps
from timeline.table import CONTRIBUTION_PREFIX, GATE_PREFIX

UNCERTAIN_COLOUR = GROUP_COLOURS[5]
MODALITY_COLOURS = dict(
    zip(("face", "speech", "landmarks", "blendshapes"), GROUP_COLOURS, strict=False)
)
MODALITY_LINES: dict[str, Any] = {
    "face": "-",
    "speech": (0.0, (4.0, 1.2)),
    "landmarks": (0.0, (1.0, 1.0)),
}
MODALITY_LINES |= {"blendshapes": (0.0, (6.0, 1.2, 1.0, 1.2))}
HEAD = 0.14  # inches above a strip of measures, for what it shows
STRIPS = {CONTRIBUTION_PREFIX: "adds to the winner", GATE_PREFIX: "gate lets through"}


def draw_presence(axis: Axes, steps: Steps) -> None:
    """Slim rows, sound over face, and over both what is uncertain where that is known.

    Paler where only some windows of a step are.
    """
    _shade(axis, steps.edges, steps.presence, 0, PRESENT_COLOUR)
    labels = {0.5: "face", 1.5: "sound"}
    if steps.uncertain is not None:
        _shade(axis, steps.edges, steps.uncertain[None], 2, UNCERTAIN_COLOUR)
        labels[2.5] = "uncertain"
    for height in range(1, len(labels)):
        axis.axhline(height, color="white", linewidth=1.5)
    axis.set_ylim(0, len(labels))
    label_rows(axis, labels)


def draw_measures(axis: Axes, steps: Steps, prefix: str) -> None:
    """One stepped line for each modality, of the columns that begin with the prefix."""
    columns = {n.removeprefix(prefix): v for n, v in steps.measures.items() if n.startswith(prefix)}
    for name, values in columns.items():
        colour = MODALITY_COLOURS.get(name, INK)
        axis.stairs(values, steps.edges, baseline=0, fill=True, color=colour, alpha=0.18, lw=0)
        axis.stairs(
            values,
            steps.edges,
            baseline=None,
            color=colour,
            linestyle=MODALITY_LINES.get(name, "-"),
            label=name,
        )
    low, high = _span(np.concatenate(list(columns.values())), prefix)
    axis.axhline(0, color=FAINT_INK, linewidth=0.5)
    least = 0.25 * (high - low)  # apart, for their labels to be legible
    ticks = sorted([0.0, *(end for end in (low, high) if abs(end) >= least)])
    axis.set_yticks(ticks, [f"{tick:+.1f}" if low < 0 and tick else f"{tick:g}" for tick in ticks])
    room = 0.05 * (high - low)  # for lines at the ends
    axis.set_ylim(low - room if low < 0 else 0, high + room)
    axis.annotate(
        STRIPS[prefix],
        xy=(0, 1),
        xytext=(0, 2.5),
        xycoords="axes fraction",
        textcoords="offset points",
        size=6.5,
        color=FAINT_INK,
    )
    axis.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=len(columns),
        borderpad=0,
        borderaxespad=0.15,
        handlelength=1.8,
    )


def label_rows(axis: Axes, labels: dict[float, str]) -> None:
    """Names beside slim rows, at their heights, and no frame."""
    axis.set_yticks(list(labels), list(labels.values()))
    axis.tick_params(left=False)
    axis.spines[:].set_visible(False)


def _shade(axis: Axes, edges: np.ndarray, shares: np.ndarray, low: int, colour: str) -> None:
    """(R, K) shares of 0 to 1 as R rows from the height `low` up."""
    shades = LinearSegmentedColormap.from_list("presence", [ABSENT_COLOUR, colour])
    heights = np.arange(low, low + len(shares) + 1)
    axis.pcolormesh(edges, heights, shares, cmap=shades, vmin=0, vmax=1)


def _span(values: np.ndarray, prefix: str) -> tuple[float, float]:
    """0 to 1 of gates; of contributions the least span in tenths that holds 0 and them all."""
    known = values[~np.isnan(values)]
    if prefix == GATE_PREFIX or not len(known):
        return 0.0, 1.0
    low, high = (math.floor(known.min() * 10) / 10, math.ceil(known.max() * 10) / 10)
    return min(0.0, low), max(0.1, high)
