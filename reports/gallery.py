"""Figure of the most confident mistakes: face pictures, or a table where there are no faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.style import FAINT_INK, MM, emotion_styles, paper_style, text_colour

MOST_MISTAKES = 12  # in a figure
_LONGEST_NAME = 34  # characters of a clip's name in the figure


@dataclass(frozen=True)
class Mistake:
    """A clip whose most probable class is not the true one.

    Args:
        clip: its name.
        true: class name.
        predicted: class name.
        confidence: probability of the predicted class.
        probability: of the true class.
        faces: (T, H, W, 3) uint8 RGB pictures over the clip; None where there are none.
    """

    clip: str
    true: str
    predicted: str
    confidence: float
    probability: float
    faces: np.ndarray | None = None


def plot_mistakes(mistakes: Sequence[Mistake], errors: int, clips: int) -> Figure:
    """The most confident mistakes first, a row each, one column wide.

    Args:
        errors: how many clips were mistaken in all.
        clips: of how many.

    Raises:
        ValueError: there is no mistake to draw.
    """
    if not mistakes:
        raise ValueError("no mistakes to draw")
    shown = sorted(mistakes, key=lambda mistake: -mistake.confidence)[:MOST_MISTAKES]
    with_faces = any(mistake.faces is not None for mistake in shown)
    height = (11 if with_faces else 6.2) * MM
    with paper_style():
        figure = Figure(figsize=(85 * MM, 0.27 + height * len(shown)))
        top = 1 - 0.25 / figure.get_figheight()
        figure.text(
            0.01,
            1 - 0.05 / figure.get_figheight(),
            f"{len(shown)} most confident of {errors} mistakes in {clips} clips",
            size=7,
            weight="bold",
            va="top",
        )
        grid = figure.add_gridspec(
            len(shown),
            2,
            width_ratios=(5, 3.1) if with_faces else (3, 5),
            left=0.01,
            right=0.99,
            bottom=0.01,
            top=top,
            wspace=0.03,
            hspace=0.06,
        )
        for place, mistake in enumerate(shown):
            left, right = (figure.add_subplot(grid[place, column]) for column in range(2))
            left.axis("off")
            right.axis("off")
            if with_faces:
                _draw_faces(left, mistake)
                _write_beside_faces(right, mistake)
            else:
                left.text(0, 0.5, _shortened(mistake.clip, 24), size=5.5, va="center")
                _write_row(right, mistake)
    return figure


def _draw_faces(axis: Axes, mistake: Mistake) -> None:
    if mistake.faces is None:
        axis.text(0.5, 0.5, "no face kept", color=FAINT_INK, ha="center", va="center")
        return
    strip = np.concatenate(list(mistake.faces), axis=1)  # (H, T * W, 3)
    axis.imshow(strip, aspect="equal", interpolation="antialiased")
    axis.set_anchor("W")


def _write_beside_faces(axis: Axes, mistake: Mistake) -> None:
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.text(
        0, 0.86, _shortened(mistake.clip, _LONGEST_NAME), size=4.5, color=FAINT_INK, va="center"
    )
    _write_class(axis, 0.56, "true", mistake.true, mistake.probability)
    _write_class(axis, 0.2, "pred.", mistake.predicted, mistake.confidence)


def _write_class(axis: Axes, height: float, title: str, name: str, share: float) -> None:
    axis.text(0, height, title, size=5.5, color=FAINT_INK, va="center")
    _write_patch(axis, 0.2, height, name)
    axis.text(1, height, f"{share:.0%}", size=6, va="center", ha="right")


def _write_row(axis: Axes, mistake: Mistake) -> None:
    axis.set(xlim=(0, 1), ylim=(0, 1))
    for title, name, share, start in (
        ("true", mistake.true, mistake.probability, 0.0),
        ("pred.", mistake.predicted, mistake.confidence, 0.52),
    ):
        axis.text(start, 0.5, title, size=5.5, color=FAINT_INK, va="center")
        _write_patch(axis, start + 0.125, 0.5, name)
        axis.text(start + 0.46, 0.5, f"{share:.0%}", size=6, va="center", ha="right")


def _write_patch(axis: Axes, left: float, height: float, name: str) -> None:
    colour = emotion_styles([name])[name].colour
    box = {"boxstyle": "round,pad=0.2", "facecolor": colour, "linewidth": 0}
    axis.text(left, height, name, size=5.5, color=text_colour(colour), va="center", bbox=box)


def _shortened(name: str, most: int) -> str:
    """Its end, which tells clips of a corpus apart."""
    return name if len(name) <= most else "…" + name[1 - most :]
