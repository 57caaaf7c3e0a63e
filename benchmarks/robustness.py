"""How a checkpoint reads one face that is seen ever worse: a picture of what it fails at.

    python -m benchmarks.robustness results/pretrained/face.safetensors figure.png

The face is the public-domain portrait of the demonstration clip, smiling and at rest, for a second
under each condition; detection, cropping and all else are those of any recording. One face shows
which conditions matter. It measures nothing about people.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from datasets.demo_clip import (
    HEIGHT,
    NEUTRAL,
    PICTURES_PER_SECOND,
    SMILE,
    WIDTH,
    draw_portrait,
)
from inference import TrainingAlignedInference
from reports.plots import write_figure
from reports.style import FAINT_INK, MM, emotion_styles, paper_style
from system.command_line import OneLineParser, exit_status
from timeline.row import TimelineRow

FACE = (180, 70, 460, 370)  # left, top, right, bottom of the face in a picture of the portrait
MOUTH_TOP = 272  # a mask of cloth lies from here to the chin
CLOTH = (186, 204, 214)
CUT_OFF = "half in view"
SCENE_SECONDS = 1.0
LIKELIEST = 3  # classes that are shown
EXPRESSIONS = {"smile": SMILE, "at rest": NEUTRAL}
TALKING = {"smile": replace(SMILE, opening=9.0), "at rest": replace(NEUTRAL, opening=2.0)}
Change = Callable[[np.ndarray], np.ndarray]


def _small(picture: np.ndarray) -> np.ndarray:
    """The face is about 25 pixels high, as of somebody far away."""
    few = cv2.resize(picture, None, fx=0.1, fy=0.1, interpolation=cv2.INTER_AREA)
    return cv2.resize(few, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def _blurred(picture: np.ndarray) -> np.ndarray:
    """A hand that shakes: 25 pixels to the side."""
    return cv2.filter2D(picture, -1, np.full((1, 25), 1 / 25))


def _dark(picture: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(3).normal(0, 8, picture.shape)
    return np.clip(picture * 0.12 + noise, 0, 255).astype(np.uint8)


def _lit_from_the_side(picture: np.ndarray) -> np.ndarray:
    x = np.linspace(-1, 1, WIDTH)[None, :, None]
    return np.clip(picture * (0.1 + 1.5 / (1 + np.exp(-12 * x))), 0, 255).astype(np.uint8)


def _tilted(picture: np.ndarray) -> np.ndarray:
    turn = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), 40, 1)
    return cv2.warpAffine(picture, turn, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)


def _masked(picture: np.ndarray) -> np.ndarray:
    covered = picture.copy()
    middle, half = (FACE[0] + FACE[2]) // 2, 88
    outline = [(-half, MOUTH_TOP), (half, MOUTH_TOP), (60, FACE[3]), (-60, FACE[3])]
    corners = np.array([(middle + x, y) for x, y in outline], dtype=np.int32)
    cv2.fillPoly(covered, [corners], CLOTH, cv2.LINE_AA)
    return covered


def _cut_off(picture: np.ndarray) -> np.ndarray:
    """Half of the face lies beyond the edge of the picture."""
    shift = np.array([[1.0, 0, -WIDTH / 2], [0, 1.0, 0]])
    return cv2.warpAffine(picture, shift, (WIDTH, HEIGHT))


CONDITIONS: dict[str, Change | None] = {
    "as it is": lambda picture: picture,
    "mouth open": None,  # drawn so
    "far away": _small,
    "shaken": _blurred,
    "dark": _dark,
    "side light": _lit_from_the_side,
    "head tilted": _tilted,
    "mouth covered": _masked,
    CUT_OFF: _cut_off,
}


def draw_scene(expression: str, condition: str, time: float) -> np.ndarray:
    """(480, 640, 3) uint8 RGB."""
    change = CONDITIONS[condition]
    if change is None:
        return draw_portrait(TALKING[expression], time)
    return change(draw_portrait(EXPRESSIONS[expression], time))


def write_scenes(path: Path) -> list[tuple[str, str]]:
    """Every expression under every condition, a second each, without sound; their order."""
    scenes = [(expression, condition) for expression in EXPRESSIONS for condition in CONDITIONS]
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=PICTURES_PER_SECOND)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.bit_rate = 8_000_000
        for scene in scenes:
            for number in range(round(SCENE_SECONDS * PICTURES_PER_SECOND)):
                picture = draw_scene(*scene, number / PICTURES_PER_SECOND)
                container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())
    return scenes


def plot_conditions(
    scenes: Sequence[tuple[str, str]], rows: Sequence[TimelineRow], class_names: Sequence[str]
) -> Figure:
    """Each scene with the likeliest classes under it, an expression a row."""
    columns = len(CONDITIONS)
    with paper_style():
        figure = Figure(figsize=(178 * MM, 74 * MM))
        grid = figure.add_gridspec(
            2 * len(EXPRESSIONS),
            columns,
            height_ratios=(2.2, 1.3) * len(EXPRESSIONS),
            left=0.045,
            right=0.995,
            bottom=0.01,
            top=0.94,
            hspace=0.06,
            wspace=0.08,
        )
        for place, (scene, row) in enumerate(zip(scenes, rows, strict=True)):
            line, column = divmod(place, columns)
            axis = figure.add_subplot(grid[2 * line, column])
            axis.imshow(_excerpt(draw_scene(*scene, 0.5), scene[1]))
            _clear(axis)
            if line == 0:
                axis.set_title(scene[1], size=6.5, loc="center")
            if column == 0:
                axis.set_ylabel(scene[0], size=7, weight="bold")
            _draw_reading(figure.add_subplot(grid[2 * line + 1, column]), row, class_names)
    return figure


def _draw_reading(axis: Axes, row: TimelineRow, class_names: Sequence[str]) -> None:
    """A bar for each of the likeliest classes, with its name."""
    axis.set(xlim=(0, 1), ylim=(LIKELIEST, 0))
    _clear(axis)
    if row.probabilities is None:
        axis.text(0, 0.5, "no face found", size=6, color=FAINT_INK, va="center")
        return
    styles = emotion_styles(class_names)
    best = np.argsort(row.probabilities)[::-1][:LIKELIEST]
    for height, index in enumerate(best):
        name, share = class_names[index], float(row.probabilities[index])
        axis.barh(height + 0.5, share, height=0.84, color=styles[name].colour, alpha=0.6)
        axis.text(0.03, height + 0.5, f"{name} {share:.0%}", size=5.5, va="center_baseline")


def _clear(axis: Axes) -> None:
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


def _excerpt(picture: np.ndarray, condition: str) -> np.ndarray:
    """The face and some of what is around it."""
    left = 0 if condition == CUT_OFF else FACE[0] - 60
    return picture[FACE[1] - 50 : FACE[3] + 50, left : left + FACE[2] - FACE[0] + 120]


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's options."""
    parser = OneLineParser(
        prog="python -m benchmarks.robustness",
        description="Draw how a checkpoint reads one face that is seen ever worse.",
    )
    parser.add_argument("checkpoint", type=Path, help="that sees faces, such as face.safetensors")
    parser.add_argument("figure", type=Path, help="PNG, SVG or PDF to write")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 something the user can put right."""
    options = parse_options(arguments)
    return exit_status(lambda: _draw(options))


def _draw(options: argparse.Namespace) -> int:
    engine = TrainingAlignedInference(options.checkpoint, window_seconds=SCENE_SECONDS)
    if not {"face", "landmarks", "blendshapes"} & set(engine.checkpoint.model.inputs):
        raise ValueError(f"{options.checkpoint} sees no faces; give one that does")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scenes.mp4"
        scenes = write_scenes(path)
        rows = engine.run(path).rows
    figure = plot_conditions(scenes, rows, engine.checkpoint.class_names)
    write_figure(figure, options.figure)
    print(f"wrote {options.figure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
