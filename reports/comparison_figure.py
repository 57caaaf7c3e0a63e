"""The figure of a comparison: scores, differences from the best, ranks, and score against cost.

One column wide. Models are lettered where there is no room for names.
"""

from __future__ import annotations

from collections.abc import Callable
from string import ascii_uppercase
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from evaluation.comparison import SIGNIFICANT
from evaluation.decisions import MEASURE_NAMES, MEASURES
from reports.recommendation import find_pair, short_number
from reports.style import FAINT_INK, GROUP_COLOURS, GROUP_MARKERS, INK, MM, paper_style

Draw = Callable[[SubFigure, Axes, dict[str, Any]], None]
_ROW = 0.2  # inches of a model in the panels of scores
_LONGEST = 26  # letters of a name
_DOT: dict[str, Any] = {"elinewidth": 0.9, "capsize": 1.6, "capthick": 0.7, "markersize": 3.2}


def plot_comparison(analysis: dict[str, Any]) -> Figure:
    """Draw an analysis of `compare_runs`; panels of ranks and of cost only where they are known."""
    models = analysis["models"]
    rows = 0.6 + _ROW * len(models)
    panels: list[tuple[float, Draw]] = [
        (0.3 + rows + 0.07 * len(models), _draw_scores),
        (rows, _draw_differences),
    ]
    if analysis["ranking"] is not None:
        panels.append((0.85 + 0.16 * ((len(models) + 1) // 2), _draw_ranks))
    if analysis["cost"] is not None:
        panels.append((2.1, _draw_cost))
    heights = [height for height, _ in panels]
    with paper_style():
        figure = Figure(figsize=(85 * MM, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(panels), 1, squeeze=False, height_ratios=heights)
        for part, (_, draw) in zip(parts.flat, panels, strict=True):
            draw(part, part.subplots(), analysis)
        figure.draw_without_rendering()
        if analysis["cost"] is not None:
            _letter_points(parts.flat[-1].axes[0], *_costs_and_scores(analysis))
    return figure


def letter(place: int) -> str:
    """A, B, ... Z, A1, B1, ..."""
    turn, rest = divmod(place, len(ascii_uppercase))
    return ascii_uppercase[rest] + (str(turn) if turn else "")


def _names(analysis: dict[str, Any]) -> list[str]:
    names = [model["name"] for model in analysis["models"]]
    return [f"{_shorten(name)}  {letter(place)}" for place, name in enumerate(names)]


def _shorten(name: str) -> str:
    if len(name) <= _LONGEST:
        return name
    half = (_LONGEST - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def _draw_scores(part: SubFigure, axis: Axes, analysis: dict[str, Any]) -> None:
    models = analysis["models"]
    for place, measure in enumerate(MEASURES):
        scores = [model["scores"][measure] for model in models]
        axis.errorbar(
            [100 * score["value"] for score in scores],
            [row + 0.25 * (place - 1) for row in range(len(models))],
            xerr=_whiskers(scores, "value"),
            fmt=GROUP_MARKERS[place],
            color=GROUP_COLOURS[place],
            label=MEASURE_NAMES[measure],
            **_DOT,
        )
    _entitle(part, "Scores", f"% of {analysis['clips']} clips, {_interval_text(analysis)}")
    part.legend(loc="outside upper right", ncols=3, borderpad=0.1)
    _name_rows(axis, _names(analysis))


def _draw_differences(part: SubFigure, axis: Axes, analysis: dict[str, Any]) -> None:
    models = analysis["models"]
    best = max(models, key=lambda model: model["scores"]["uar"]["value"])
    for row, model in enumerate(models):
        if model is best:
            axis.plot(0, row, "D", color=INK, markersize=3.2)
            axis.annotate("best", (0, row), (-4, 0), textcoords="offset points", **_aside("right"))
            continue
        pair = find_pair(analysis, model["name"], best["name"])
        sign = 1 if pair["first"] == model["name"] else -1
        uar = pair["uar"]
        known = uar["low"] is not None
        ends = sorted(sign * uar[end] for end in ("low", "high")) if known else [None, None]
        entry = {"difference": sign * uar["difference"], "low": ends[0], "high": ends[1]}
        differs = uar["p_holm"] < SIGNIFICANT
        axis.errorbar(
            100 * entry["difference"],
            row,
            xerr=_whiskers([entry], "difference"),
            fmt="o",
            color=GROUP_COLOURS[1],
            markerfacecolor=GROUP_COLOURS[1] if differs else "white",
            **_DOT,
        )
    axis.axvline(0, color=FAINT_INK, lw=0.6, ls=":", zorder=0)
    _entitle(
        part, "UAR less the best model's", "points; filled: differs at 5 % (permutation, Holm)"
    )
    axis.margins(x=0.12)
    _name_rows(axis, _names(analysis))


def _draw_ranks(part: SubFigure, axis: Axes, analysis: dict[str, Any]) -> None:
    """Demsar's diagram: mean ranks on a line, bars over models that do not differ."""
    ranking = analysis["ranking"]
    order = sorted(ranking["mean_ranks"].items(), key=lambda item: item[1])
    cliques, last = ranking["cliques"], len(order)
    step, first = 0.16, 0.2 + 0.09 * len(cliques)
    axis.plot([1, last], [0, 0], color=INK, lw=0.8)
    for rank in range(1, last + 1):
        axis.plot([rank, rank], [0, -0.05], color=INK, lw=0.6)
        axis.text(rank, -0.08, str(rank), size=6.5, ha="center", va="bottom")
    half = (last + 1) // 2
    places = {model["name"]: place for place, model in enumerate(analysis["models"])}
    margin = 0.12 * (last - 1)
    for place, (name, rank) in enumerate(order):
        left = place < half
        level = first + step * (place if left else last - 1 - place)
        end = 1 - margin if left else last + margin
        axis.plot([rank, rank, end], [0, level, level], color=FAINT_INK, lw=0.6, clip_on=False)
        shown = f"{letter(places[name])} {rank:.2f}"
        axis.text(end, level, f" {shown} ", ha="right" if left else "left", va="center", size=6.5)
    for number, clique in enumerate(cliques):
        ranks = [ranking["mean_ranks"][name] for name in clique]
        level = 0.1 + 0.09 * number
        axis.plot([min(ranks) - 0.03, max(ranks) + 0.03], [level, level], color=INK, lw=2.2)
    _entitle(
        part,
        f"Mean rank over {ranking['blocks']} speakers",
        f"bars: within the critical difference of {ranking['critical_difference']:.2f} (Nemenyi)",
    )
    axis.set(xlim=(1 - 2.6 * margin, last + 2.6 * margin), ylim=(first + step * half, -0.3))
    axis.set_axis_off()


def _draw_cost(part: SubFigure, axis: Axes, analysis: dict[str, Any]) -> None:
    scores = [model["scores"]["uar"] for model in analysis["models"]]
    costs, values = _costs_and_scores(analysis)
    front = pareto_front(costs, values)
    axis.set_xscale("log")
    axis.step(
        [costs[i] for i in front],
        [values[i] for i in front],
        where="post",
        color=FAINT_INK,
        lw=0.8,
        ls=(0, (4, 1.5)),
        label="best for the cost",
        zorder=1,
    )
    for place, (cost, value, score) in enumerate(zip(costs, values, scores, strict=True)):
        colour = GROUP_COLOURS[0] if place in front else FAINT_INK
        whiskers = _whiskers([score], "value")
        axis.errorbar(cost, value, yerr=whiskers, fmt="o", color=colour, zorder=2, **_DOT)
    device = f", {analysis['cost']['device']}" if analysis["cost"]["device"] else ""
    axis.set_ylabel("UAR (%)")
    _entitle(part, "Score against cost", analysis["cost"]["name"] + device)
    _scale_cost(axis, costs)
    axis.grid(axis="y")
    part.legend(loc="outside upper right", borderpad=0.1)


def pareto_front(costs: list[float], values: list[float]) -> list[int]:
    """Indices, by rising cost, of those that none both costs no more and scores no less than."""
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -values[i]))
    front: list[int] = []
    for i in order:
        if not front or values[i] > values[front[-1]]:
            front.append(i)
    return front


def _costs_and_scores(analysis: dict[str, Any]) -> tuple[list[float], list[float]]:
    """Cost and UAR in percent of each model."""
    models, key = analysis["models"], analysis["cost"]["key"]
    costs = [float(model["efficiency"][key]) for model in models]
    return costs, [100 * float(model["scores"]["uar"]["value"]) for model in models]


def _letter_points(axis: Axes, costs: list[float], values: list[float]) -> None:
    """A letter beside each point, where it lies on no other letter or point. Drawn once before."""
    figure = axis.get_figure(root=True)
    assert figure is not None
    pixels = axis.transData.transform(np.column_stack([costs, values])) * 72 / figure.dpi
    taken = list(pixels)
    steps = [(x, y) for far in (7, 14, 21, 28) for x in (far, -far) for y in (5, -5, 14, -14)]
    for place, point in enumerate(pixels):
        free = [step for step in steps if all(np.abs(point + step - t).max() > 6.9 for t in taken)]
        step = (free or steps)[0]
        taken.append(point + step)
        leader = {"arrowstyle": "-", "lw": 0.4, "color": FAINT_INK, "shrinkA": 0, "shrinkB": 2}
        axis.annotate(
            letter(place),
            (costs[place], values[place]),
            step,
            textcoords="offset points",
            size=7,
            weight="bold",
            ha="center",
            va="center",
            arrowprops=leader if max(map(abs, step)) > 7 else None,
        )


def _scale_cost(axis: Axes, costs: list[float]) -> None:
    low, high = min(costs), max(costs)
    room = max(1.4, (high / low) ** 0.12)
    axis.set_xlim(low / room, high * room)
    subs = (1.0,) if high / low > 100 else (1.0, 2.0, 5.0)
    axis.xaxis.set_major_locator(LogLocator(subs=subs))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
    axis.xaxis.set_minor_locator(NullLocator())


def _whiskers(entries: list[dict[str, Any]], key: str) -> list[list[float]] | None:
    """Lengths in percent to both ends; None where an end is not known."""
    if any(entry["low"] is None for entry in entries):
        return None
    return [
        [max(0.0, 100 * (entry[key] - entry["low"])) for entry in entries],
        [max(0.0, 100 * (entry["high"] - entry[key])) for entry in entries],
    ]


def _interval_text(analysis: dict[str, Any]) -> str:
    return f"95 % intervals over {analysis['units']} {analysis['intervals_by']}s"


def _entitle(part: SubFigure, title: str, below: str) -> None:
    part.suptitle(title, x=0.01, ha="left", size=8, weight="bold")
    part.supxlabel(below, size=7)


def _name_rows(axis: Axes, names: list[str]) -> None:
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="x")


def _aside(align: str) -> dict[str, Any]:
    return {"size": 6.5, "color": FAINT_INK, "ha": align, "va": "center"}
