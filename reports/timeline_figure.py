"""The figure of a timeline: dominant emotions, probabilities, what was present, and faces.

Lengths on paper are inches unless a name says millimetres.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from reports.lettering import shorten, text_width
from reports.style import (
    FAINT_INK,
    GAP_COLOUR,
    MM,
    MOST_MARKERS,
    EmotionStyle,
    emotion_styles,
    hatch_colour,
    paper_style,
    text_colour,
)
from reports.timeline_steps import Steps, average_steps
from reports.timeline_strips import HEAD, STRIPS, draw_measures, draw_presence, label_rows
from timeline.table import CONTRIBUTION_PREFIX, GATE_PREFIX, Timeline, TimelineStyle, format_time

CAVEAT = "Acted or perceived expression, not inner state."
TICK_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 21600)
TICK_SPACING = 0.6
LEFT, RIGHT, SIDE = 0.62, 0.12, 0.08  # margins of the panels, and of the text beside them
LEGEND_ROW, LEGEND_HANDLE = 0.15, 0.285
FOOT_ROW = 0.1
FOOT: dict[str, Any] = {"size": 5.5, "color": FAINT_INK}
FACE_SIDE, FACE_GAP, FACE_HEAD = 0.44, 0.05, 0.07
PANELS = {
    "band": 0.2,
    "curves": 1.45,
    "presence": 0.2,
    CONTRIBUTION_PREFIX: 0.42,
    GATE_PREFIX: 0.26,
    "faces": FACE_SIDE + FACE_HEAD,
}
GAP_STYLE: dict[str, Any] = {
    "facecolor": "white",
    "edgecolor": GAP_COLOUR,
    "hatch": "////",
    "linewidth": 0.0,
}


def plot_timeline(
    timeline: Timeline, style: TimelineStyle = "stacked", width_mm: float = 180.0
) -> Figure:
    """Emotions over time, for print at `width_mm` (85 for a column, 180 for a page).

    From the top: the dominant emotion, paler where it is uncertain; the probabilities; where sound
    and a face were present; what each modality adds, where that was asked for; and faces from the
    recording framed in the dominant emotion's colour. Hatched white is time in which nothing was
    recognised. Windows that overlap are drawn over one hop around their middle
    (`Timeline.borders`); of more than 400 windows neighbours are averaged, and the foot says so.
    Labels that do not exclude one another, and values, are always drawn as lines.

    Raises:
        ValueError: an unknown style, or rows that do not tile the recording.
    """
    if style not in get_args(TimelineStyle):
        raise ValueError(
            f"unknown style '{style}'; choose from {', '.join(get_args(TimelineStyle))}"
        )
    timeline.check()
    steps = average_steps(timeline)
    styles = emotion_styles(timeline.class_names)
    if timeline.task != "classification":
        style = "lines"
    with paper_style():
        handles = _legend_handles(steps, styles, style)
        figure, panels = _build_panels(timeline, steps, handles, width_mm * MM)
        if "band" in panels:
            _draw_band(panels["band"], steps, styles)
            name = "dominant" if timeline.task == "classification" else "strongest"
            label_rows(panels["band"], {0.5: name})
        draw = _draw_areas if style == "stacked" else _draw_lines
        draw(panels["curves"], steps, styles)
        _finish_curves(panels["curves"], steps, timeline.task == "regression")
        draw_presence(panels["presence"], steps)
        for prefix in (name for name in STRIPS if name in panels):
            draw_measures(panels[prefix], steps, prefix)
        _draw_time_axis(panels[_last_in_time(panels)], timeline.duration)
        if "faces" in panels:
            _draw_faces(panels["faces"], timeline, steps, styles)
        figure.draw_without_rendering()
    return figure


def _build_panels(
    timeline: Timeline, steps: Steps, handles: list[Artist], width: float
) -> tuple[Figure, dict[str, Axes]]:
    """An empty figure with its title, legend and foot, and the panels one under another."""
    columns = _legend_columns(handles, width - 2 * SIDE)
    foot = _foot_lines(timeline, steps, width)
    sizes = _panel_sizes(timeline, steps)
    heights = {"title": 0.3, "legend": LEGEND_ROW * -(-len(handles) // columns) + 0.06}
    heights |= {name: size + 0.04 for name, size in sizes.items()}
    heights[_last_in_time(sizes)] += 0.2  # the labels of the time axis
    heads = {name: HEAD for name in STRIPS if name in sizes}
    height = sum(heights.values()) + sum(heads.values()) + FOOT_ROW * len(foot) + 0.14
    figure = Figure(figsize=(width, height))
    panels, top = {}, height
    for name, size in heights.items():
        if name in sizes:
            top -= heads.get(name, 0)
            low = (top - sizes[name]) / height
            box = (LEFT / width, low, 1 - (LEFT + RIGHT) / width, sizes[name] / height)
            panels[name] = figure.add_axes(box, xlim=(0, timeline.duration))
            panels[name].tick_params(bottom=False, labelbottom=False)
        top -= size
    _write_title(figure, timeline)
    corner = (SIDE / width, 1 - heights["title"] / height)
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": corner}
    figure.legend(handles=handles, ncols=columns, borderpad=0, borderaxespad=0, **place)
    for number, line in enumerate(reversed(foot)):
        figure.text(SIDE, 0.06 + FOOT_ROW * number, line, **FOOT, transform=figure.dpi_scale_trans)
    return figure, panels


def _panel_sizes(timeline: Timeline, steps: Steps) -> dict[str, float]:
    """Heights of the panels that this timeline needs, from the top."""
    sizes = dict(PANELS)
    if timeline.task == "regression":
        del sizes["band"]
    if steps.uncertain is not None:
        sizes["presence"] *= 1.5  # a third row
    for prefix in STRIPS:
        if not any(name.startswith(prefix) for name in steps.measures):
            del sizes[prefix]
    if not timeline.thumbnails:
        del sizes["faces"]
    return sizes


def _last_in_time(panels: Iterable[str]) -> str:
    """The lowest panel over the time axis."""
    return [name for name in panels if name != "faces"][-1]


def _legend_handles(
    steps: Steps, styles: dict[str, EmotionStyle], style: TimelineStyle
) -> list[Artist]:
    handles: list[Artist] = [
        _patch(look, name) if style == "stacked" else Line2D([], [], **_line(look), label=name)
        for name, look in styles.items()
    ]
    return handles + [Patch(**GAP_STYLE, label="nothing found")] * bool(steps.gaps.any())


def _legend_columns(handles: list[Artist], room: float) -> int:
    """The columns of the lowest legend that fits on paper, filled as evenly as can be."""
    widths = [text_width(str(handle.get_label()), 6.5) + LEGEND_HANDLE for handle in handles]
    for rows in range(1, len(widths)):
        columns = -(-len(widths) // rows)
        if sum(part.max() for part in np.array_split(widths, columns)) <= room:
            return columns
    return 1


def _patch(style: EmotionStyle, label: str) -> Patch:
    return Patch(
        facecolor=style.colour,
        edgecolor=hatch_colour(style.colour),
        hatch=style.hatch,
        linewidth=0,
        label=label,
    )


def _line(look: EmotionStyle) -> dict[str, Any]:
    return {
        "color": look.colour,
        "linestyle": look.line,
        "marker": look.marker,
        "markeredgecolor": "white",
        "markeredgewidth": 0.3,
    }


def _write_title(figure: Figure, timeline: Timeline) -> None:
    width, height = figure.get_size_inches()
    every = f" every {timeline.hop_seconds:g} s"
    note = f"{format_time(timeline.duration)}, windows of {timeline.window_seconds:g} s" + every * (
        timeline.hop_seconds != timeline.window_seconds
    )
    room = width - 0.4 - text_width(note, 6.5)
    title = shorten(Path(timeline.media).name, 8.5, room)
    top = 1 - 0.2 / height
    figure.text(SIDE / width, top, title, size=8.5, weight="bold")
    figure.text(1 - RIGHT / width, top, note, size=6.5, color=FAINT_INK, ha="right")


def _foot_lines(timeline: Timeline, steps: Steps, width: float) -> list[str]:
    """Model, averaging and caveat, on as few lines as the width allows."""
    model = str(timeline.checkpoint.get("name", "")) or "unknown model"
    digest = str(timeline.checkpoint.get("sha256", ""))[:8]
    parts = [f"Model: {model}" + f" ({digest})" * bool(digest)]
    parts += [f"Each step is the mean of {steps.windows} windows."] * (steps.windows > 1)
    if steps.uncertain is not None:
        coverage = timeline.checkpoint.get("conformal", {}).get("coverage")
        told = f" at {coverage:.0%} coverage" if coverage else ""
        parts.append(f"Uncertain{told}: not exactly one class remains possible.")
    lines: list[str] = []
    for part in [*parts, CAVEAT]:
        joined = f"{lines[-1]}   ·   {part}" if lines else part
        if lines and text_width(joined, 5.5) <= width - 0.2:
            lines[-1] = joined
        else:
            lines.append(part)
    return lines


def _draw_band(axis: Axes, steps: Steps, styles: dict[str, EmotionStyle]) -> None:
    """Dominant emotions: named where the name fits, hatched where not, pale where uncertain."""
    names, dominant = list(styles), steps.dominant()
    per_second = _panel_width(axis) / steps.edges[-1]
    unsure = np.zeros(len(dominant), int) if steps.uncertain is None else steps.uncertain >= 0.5
    for start, end, code in steps.runs(np.where(dominant < 0, -1, 2 * dominant + unsure)):
        if code < 0:
            axis.axvspan(start, end, **GAP_STYLE)
            continue
        index, is_pale = divmod(code, 2)
        colour = _paler(styles[names[index]].colour) if is_pale else styles[names[index]].colour
        fits = text_width(names[index], 6.5) + 0.06 <= (end - start) * per_second
        axis.axvspan(
            start,
            end,
            facecolor=colour,
            edgecolor=hatch_colour(colour),
            hatch=None if fits else styles[names[index]].hatch,
            linewidth=0,
        )
        if (end - start) * per_second > 0.04:  # wide enough to be kept apart from its neighbours
            axis.axvline(start, color="white", linewidth=0.5)
        if fits:
            middle, ink = (start + end) / 2, text_colour(colour)
            axis.text(middle, 0.47, names[index], size=6.5, color=ink, ha="center", va="center")
    axis.set_ylim(0, 1)


def _paler(colour: str) -> str:
    """Two thirds of the way to white."""
    red, green, blue = (1 - (1 - channel) / 3 for channel in to_rgb(colour))
    return to_hex((red, green, blue))


def _draw_areas(axis: Axes, steps: Steps, styles: dict[str, EmotionStyle]) -> None:
    tops = np.cumsum(steps.probabilities, axis=1).T  # (C, K)
    tops /= tops[-1]
    bottoms = np.vstack([np.where(steps.gaps, np.nan, 0.0), tops[:-1]])
    for look, bottom, top in zip(styles.values(), bottoms, tops, strict=True):
        axis.stairs(
            top,
            steps.edges,
            baseline=bottom,
            fill=True,
            facecolor=look.colour,
            edgecolor=hatch_colour(look.colour),
            hatch=look.hatch,
            linewidth=0,
        )


def _draw_lines(axis: Axes, steps: Steps, styles: dict[str, EmotionStyle]) -> None:
    middles = (steps.edges[:-1] + steps.edges[1:]) / 2
    few = len(middles) <= MOST_MARKERS
    for look, values in zip(styles.values(), steps.probabilities.T, strict=True):
        (line,) = axis.plot(middles, values, **_line(look), clip_on=False)
        if not few:
            line.set_marker("")
    axis.grid(axis="y")


def _finish_curves(axis: Axes, steps: Steps, of_values: bool) -> None:
    for start, end, is_gap in steps.runs(steps.gaps.astype(int)):
        if is_gap:
            axis.axvspan(start, end, **GAP_STYLE)
    if of_values:
        axis.set(ylabel="value")
        return
    axis.set(ylim=(0, 1), ylabel="probability")
    axis.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])


def _panel_width(axis: Axes) -> float:
    figure = axis.get_figure(root=True)
    assert figure is not None
    return float(axis.get_position().width * figure.get_size_inches()[0])


def _draw_time_axis(axis: Axes, duration: float) -> None:
    most = max(2.0, _panel_width(axis) / TICK_SPACING)
    step = next((s for s in TICK_STEPS if duration / s <= most), TICK_STEPS[-1])
    ticks = np.arange(0, duration * 1.0001, step)
    axis.tick_params(bottom=True, labelbottom=True)
    axis.set_xticks(ticks, [format_time(tick) for tick in ticks])
    last = axis.get_xticklabels()[-1]
    if duration - ticks[-1] < 0.02 * duration:
        last.set_horizontalalignment("right")
    unit = "h:mm:ss" if duration >= 3600 else "m:ss"
    axis.annotate(
        unit,
        xy=(0, 0),
        xytext=(-14, -6.2),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="top",
        size=6.5,
        color=FAINT_INK,
    )


def _draw_faces(
    axis: Axes, timeline: Timeline, steps: Steps, styles: dict[str, EmotionStyle]
) -> None:
    """As many faces as fit side by side, each under its time, which a small triangle marks."""
    seconds = timeline.duration / _panel_width(axis)  # per inch
    half, names, dominant = FACE_SIDE / 2 * seconds, list(styles), steps.dominant()
    last = -np.inf
    for time, picture in sorted(timeline.thumbnails, key=lambda pair: pair[0]):
        middle = min(max(time, half), max(half, timeline.duration - half))
        if middle - last < 2 * half + FACE_GAP * seconds:
            continue
        last = middle
        step = int(np.clip(np.searchsorted(steps.edges, time, "right") - 1, 0, len(dominant) - 1))
        colour = styles[names[dominant[step]]].colour if dominant[step] >= 0 else GAP_COLOUR
        box = (middle - half, middle + half, 0.0, FACE_SIDE)
        axis.imshow(picture, extent=box, aspect="auto", interpolation="bilinear")
        frame = Rectangle((box[0], 0), 2 * half, FACE_SIDE, fill=False, edgecolor=colour)
        axis.add_patch(frame).set(linewidth=1.4, clip_on=False)
        axis.plot(time, FACE_SIDE + 0.045, marker="^", color=colour, markersize=2.5, clip_on=False)
    axis.set(xlim=(0, timeline.duration), ylim=(0, PANELS["faces"]))
    axis.set_axis_off()
