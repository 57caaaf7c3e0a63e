"""Pictures of explanations: relevance laid over faces, a sheet over a clip, and attention maps.

Lengths on paper are inches unless a name says millimetres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from reports.lettering import shorten
from reports.style import (
    ABSENT_COLOUR,
    FAINT_INK,
    GAP_COLOUR,
    INK,
    MM,
    PRESENT_COLOUR,
    EmotionStyle,
    emotion_styles,
    hatch_colour,
    paper_style,
)
from timeline.table import format_time

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601 weights of red, green, blue
STRENGTH = 0.72  # of the strongest relevance over the face
# The dark end of inferno would read as shadow on a face, and the pale one as light.
HEAT = LinearSegmentedColormap.from_list("heat", colormaps["inferno"](np.linspace(0.22, 0.9, 256)))
WIDTH_MM = 180.0
SIDE, TOP, FOOT = 0.1, 0.5, 0.36
FACE, GAP, TIME, TEXT = 0.78, 0.05, 0.5, 1.2  # of one row of the sheet
SHEET_COLUMNS = 2


@dataclass(frozen=True)
class SheetRow:
    """One window on a contact sheet.

    Args:
        start, end: of the window, in seconds.
        face: (S, S, 3) uint8 RGB; None where none was found.
        relevance: (h, w) 0 to 1; None with `face`.
        label: what is explained.
        number: its probability, or its value.
        is_probability: whether it is the former.
    """

    start: float
    end: float
    face: np.ndarray | None
    relevance: np.ndarray | None
    label: str
    number: float
    is_probability: bool = True


def overlay(face: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """Relevance in colour over a grey face.

    Args:
        face: (S, S, 3) uint8 RGB.
        relevance: (h, w) 0 to 1, stretched over the face.

    Returns:
        (S, S, 3) uint8 RGB.
    """
    side = (face.shape[1], face.shape[0])
    resized = Image.fromarray(relevance.astype(np.float32)).resize(side, Image.Resampling.BICUBIC)
    heat = np.clip(np.asarray(resized), 0, 1)
    grey = (face @ np.array(LUMA))[..., None] / 255
    opacity = STRENGTH * heat[..., None]
    mixed = (1 - opacity) * grey + opacity * HEAT(heat)[..., :3]
    return np.round(255 * mixed).astype(np.uint8)


def plot_contact_sheet(
    rows: Sequence[SheetRow], class_names: Sequence[str], title: str, note: str
) -> Figure:
    """One row a window, down two columns: time, face, overlay, and what was seen in it.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one window")
    columns = min(SHEET_COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    width = WIDTH_MM * MM
    height = TOP + lines * (FACE + GAP) + FOOT
    with paper_style():
        figure = Figure(figsize=(width, height))
        _write_heading(figure, title, note)
        styles = emotion_styles(class_names)
        for index, row in enumerate(rows):
            column, line = divmod(index, lines)
            left = SIDE + column * (width - 2 * SIDE) / SHEET_COLUMNS
            low = height - TOP - (line + 1) * (FACE + GAP) + GAP
            _draw_row(figure, (left, low), row, styles[row.label])
        _draw_scale(figure, "relevance, of each picture's own strongest place")
        figure.draw_without_rendering()
    return figure


def plot_attention(
    face: np.ndarray,
    heads: np.ndarray,
    rollouts: np.ndarray,
    diversity: np.ndarray,
    title: str,
) -> Figure:
    """What a picture's class token looks at: a row a layer, a column a head, then the rollout.

    Args:
        face: (S, S, 3) uint8 RGB.
        heads: (L, H, g, g) attention of the class token to the patches, each map scaled by itself.
        rollouts: (L, g, g) attention rolled out up to each layer.
        diversity: (L,) of the heads, in bits.
    """
    layers, count = heads.shape[:2]
    width, bar = WIDTH_MM * MM, 0.75
    cell = min(0.62, (width - 2 * SIDE - TIME - bar - GAP) / (count + 1) - GAP)
    step = cell + GAP
    top = TOP + 0.12
    with paper_style():
        figure = Figure(figsize=(width, top + layers * step + FOOT))
        height = figure.get_size_inches()[1]
        _write_heading(
            figure, title, "class token's attention to patches; rollout up to each layer"
        )
        head_names = [str(head) for head in range(1, count + 1)]
        for index, name in enumerate([*head_names, "rollout"]):
            left = SIDE + TIME + index * step + (GAP if index == count else 0)
            _write(figure, (left + cell / 2, height - top + 0.05), name, ha="center")
        _write(figure, (SIDE, height - top + 0.05), "head")
        left = SIDE + TIME + (count + 1) * step + 2 * GAP
        _write(figure, (left, height - top + 0.05), "diversity, bits")
        for layer in range(layers):
            low = height - top - (layer + 1) * step + GAP
            _write(figure, (SIDE, low + cell / 2), f"layer {layer + 1}", va="center")
            for head in range(count):
                place = (SIDE + TIME + head * step, low)
                picture = _add_axes(figure, place, cell, cell)
                _show(picture, HEAT(scaled(heads[layer, head])))
            place = (SIDE + TIME + count * step + GAP, low)
            picture = _add_axes(figure, place, cell, cell)
            _show(picture, overlay(face, scaled(rollouts[layer])))
            _draw_bar(figure, (left, low + cell / 2), float(diversity[layer]), bar - 0.3)
        _draw_scale(figure, "attention, of each map's own strongest place")
        figure.draw_without_rendering()
    return figure


def scaled(values: np.ndarray) -> np.ndarray:
    """From the least, 0, to the greatest, 1; zeros where all are alike."""
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else np.zeros_like(values)


def _draw_row(
    figure: Figure, corner: tuple[float, float], row: SheetRow, look: EmotionStyle
) -> None:
    left, low = corner
    middle = low + FACE / 2
    start, end = (_clock(seconds) for seconds in (row.start, row.end))
    _write(figure, (left, middle), start, va="center", weight="bold")
    _write(figure, (left, middle - 0.13), f"to {end}", va="center", color=FAINT_INK, size=5.5)
    first = _add_axes(figure, (left + TIME, low), FACE, FACE)
    second = _add_axes(figure, (left + TIME + FACE + GAP, low), FACE, FACE)
    beside = left + TIME + 2 * (FACE + GAP) + GAP
    if row.face is None or row.relevance is None:
        for axis in (first, second):
            axis.add_patch(
                Rectangle((0, 0), 1, 1, facecolor="white", edgecolor=GAP_COLOUR, hatch="////", lw=0)
            )
        _write(figure, (beside, middle), "no face", va="center", color=FAINT_INK)
        return
    _show(first, row.face)
    _show(second, overlay(row.face, row.relevance))
    _write(figure, (beside, middle + 0.1), row.label, va="center", weight="bold", size=8.0)
    if not row.is_probability:
        _write(figure, (beside, middle - 0.1), f"{row.number:.3g}", va="center")
        return
    axis = _add_axes(figure, (beside, middle - 0.13), TEXT * 0.6, 0.08)
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.add_patch(Rectangle((0, 0), 1, 1, facecolor=ABSENT_COLOUR, linewidth=0))
    edge = hatch_colour(look.colour)
    filled = Rectangle((0, 0), row.number, 1, facecolor=look.colour, edgecolor=edge, lw=0)
    filled.set_hatch(look.hatch)
    axis.add_patch(filled)
    place = (beside + TEXT * 0.6 + 0.05, middle - 0.09)
    _write(figure, place, f"{row.number:.0%}", va="center")


def _draw_bar(figure: Figure, place: tuple[float, float], value: float, length: float) -> None:
    left, middle = place
    axis = _add_axes(figure, (left, middle - 0.035), length, 0.07)
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.add_patch(Rectangle((0, 0), 1, 1, facecolor=ABSENT_COLOUR, linewidth=0))
    axis.add_patch(Rectangle((0, 0), value, 1, facecolor=PRESENT_COLOUR, linewidth=0))
    _write(figure, (left + length + 0.04, middle), f"{value:.2f}", va="center")


def _write_heading(figure: Figure, title: str, note: str) -> None:
    width, height = figure.get_size_inches()
    shown = shorten(title, 8.5, width - 2 * SIDE)
    _write(figure, (SIDE, height - 0.2), shown, size=8.5, weight="bold")
    _write(figure, (SIDE, height - 0.35), note, color=FAINT_INK)


def _draw_scale(figure: Figure, label: str) -> None:
    axis = _add_axes(figure, (SIDE, 0.14), 0.9, 0.07)
    bar = figure.colorbar(ScalarMappable(cmap=HEAT), cax=axis, orientation="horizontal")
    bar.set_ticks([])
    bar.outline.set_visible(False)
    _write(figure, (SIDE + 0.97, 0.175), f"0 to 1: {label}", va="center", color=FAINT_INK, size=5.5)


def _add_axes(figure: Figure, corner: tuple[float, float], width: float, height: float) -> Axes:
    """Axes without a frame, placed in inches."""
    across, up = figure.get_size_inches()
    box = (corner[0] / across, corner[1] / up, width / across, height / up)
    axis = figure.add_axes(box, xlim=(0, 1), ylim=(0, 1))
    axis.set_axis_off()
    return axis


def _show(axis: Axes, picture: np.ndarray) -> None:
    """A picture that fills its axes; patches keep their edges."""
    smooth = "bilinear" if picture.dtype == np.uint8 else "nearest"
    axis.imshow(picture, extent=(0, 1, 0, 1), aspect="auto", interpolation=smooth)


def _clock(seconds: float) -> str:
    """`m:ss`, with hundredths where there are any: rows may be a few pictures long."""
    whole, hundredths = divmod(round(seconds * 100), 100)
    return format_time(whole) + (f".{hundredths:02d}" if hundredths else "")


def _write(
    figure: Figure, place: tuple[float, float], text: str, size: float = 6.5, **style: Any
) -> None:
    style.setdefault("color", INK)
    figure.text(*place, text, size=size, transform=figure.dpi_scale_trans, **style)
