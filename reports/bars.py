"""Figure of scores by speaker and by group: a bar a group, with its interval and count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reports.style import FAINT_INK, INK, MM, SERIES_COLOURS, paper_style, short_names

MOST_BARS = 40  # in a panel; of more, those of the lowest second score
_ROW = 3.3 * MM  # height
_BAR_COLOUR = "#b9c7d6"


@dataclass(frozen=True)
class Bar:
    """Scores of one group, 0 to 1: the first is drawn as a bar, the second as a mark.

    Args:
        interval: of the first score; None where it is not known.
    """

    name: str
    clips: int
    first: float
    second: float
    interval: Sequence[float] | None = None


def plot_score_bars(
    panels: dict[str, Sequence[Bar]], names: tuple[str, str] = ("accuracy", "UAR")
) -> Figure:
    """Scores of groups, a panel a kind of group, one column wide.

    Args:
        panels: by title; groups are drawn in their order.
        names: of the two scores.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not any(panels.values()):
        raise ValueError("no groups to draw scores of")
    shown = {title: _lowest(bars) for title, bars in panels.items() if bars}
    rows = [len(bars) for bars in shown.values()]
    with paper_style():
        height = 0.55 + sum(0.24 + _ROW * count for count in rows)
        figure = Figure(figsize=(85 * MM, height), layout="constrained")
        grid = {"height_ratios": [count + 0.6 for count in rows]}
        axes = list(
            figure.subplots(len(shown), 1, sharex=True, squeeze=False, gridspec_kw=grid).flat
        )
        for axis, (title, bars) in zip(axes, shown.items(), strict=True):
            _draw_bars(axis, bars)
            total = len(panels[title])
            of_all = f": the {len(bars)} lowest of {total}" if total > len(bars) else ""
            axis.set_title(title + of_all)
        axes[-1].set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
        handles = [
            Patch(color=_BAR_COLOUR),
            Line2D([], [], color=INK, lw=0.7),
            Line2D([], [], color=SERIES_COLOURS["uar"], marker="D", ls="", ms=2.6),
        ]
        labels = [names[0], "95 % interval", names[1]]
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        figure.draw_without_rendering()
    return figure


def _lowest(bars: Sequence[Bar]) -> list[Bar]:
    if len(bars) <= MOST_BARS:
        return list(bars)
    chosen = {bar.name for bar in sorted(bars, key=lambda bar: bar.second)[:MOST_BARS]}
    return [bar for bar in bars if bar.name in chosen]


def _draw_bars(axis: Axes, bars: Sequence[Bar]) -> None:
    places = range(len(bars))
    axis.barh(places, [bar.first for bar in bars], height=0.72, color=_BAR_COLOUR)
    for place, bar in zip(places, bars, strict=True):
        if bar.interval:
            axis.plot(bar.interval, [place, place], color=INK, lw=0.7)
        axis.text(1.02, place, f"n = {bar.clips}", size=5.5, color=FAINT_INK, va="center")
    marks = [bar.second for bar in bars]
    axis.plot(marks, places, "D", color=SERIES_COLOURS["uar"], ms=2.6)
    axis.set_yticks(places, short_names([bar.name for bar in bars]))
    axis.set(xlim=(0, 1.14), ylim=(len(bars) - 0.5, -0.5))
    axis.spines["bottom"].set_bounds(0, 1)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")
