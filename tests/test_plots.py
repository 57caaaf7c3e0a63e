"""Figures hold every row, keep their parts apart, and can be told apart by every eye."""

from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from reports.plots import plot_confusion, plot_learning_curves, plot_timeline, write_figure
from reports.style import (
    EMOTION_COLOURS,
    EMOTION_HATCHES,
    EMOTION_LINES,
    EMOTION_MARKERS,
    emotion_styles,
)
from timeline import Timeline, TimelineRow

NAMES = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
}
SRGB_TO_XYZ = np.array(
    [[0.412456, 0.357576, 0.180438], [0.212673, 0.715152, 0.072175], [0.019334, 0.119192, 0.950304]]
)


def _seen_lab(colour: str, sight: np.ndarray) -> np.ndarray:
    """(3,) CIELAB of a colour as that sight has it (sRGB, D65)."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = SRGB_TO_XYZ @ np.clip(sight @ linear, 0, 1) / SRGB_TO_XYZ.sum(axis=1)
    x, y, z = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * 841 / 108 + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _timeline(
    duration: float,
    window: float = 1.0,
    hop: float = 1.0,
    faces: int = 0,
    gap: tuple[float, float] | None = None,
) -> Timeline:
    random = np.random.default_rng(0)
    starts = np.arange(0, max(hop, duration - window + hop), hop)
    rows = []
    for start in starts:
        empty = gap is not None and gap[0] <= start < gap[1]
        rows.append(
            TimelineRow(
                start=float(start),
                end=float(min(start + window, duration)),
                partial=bool(start + window > duration),
                face_id=None if empty else 0,
                face_share=0.0 if empty else 1.0,
                modalities="none" if empty else "audio+video",
                probabilities=None if empty else random.dirichlet(np.ones(len(NAMES))),
            )
        )
    picture = np.full((32, 32, 3), 128, dtype=np.uint8)
    times = np.linspace(0, duration, faces)
    thumbnails = tuple((float(time), picture) for time in times)
    checkpoint = {"name": "small", "sha256": "0123456789"}
    return Timeline(
        tuple(rows), NAMES, "dir/talk $1$.mp4", duration, window, hop, checkpoint, thumbnails
    )


def _texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


@pytest.mark.parametrize("sight", SIGHT)
def test_emotion_colours_are_told_apart_by_every_eye(sight: str) -> None:
    lab = {name: _seen_lab(colour, SIGHT[sight]) for name, colour in EMOTION_COLOURS.items()}
    distances = {
        pair: float(np.linalg.norm(lab[pair[0]] - lab[pair[1]])) for pair in combinations(lab, 2)
    }
    closest = min(distances, key=lambda pair: distances[pair])
    assert distances[closest] >= 18.0, f"{closest} are {distances[closest]:.1f} apart"


def test_emotions_differ_in_hatch_and_marker_too() -> None:
    for table in (EMOTION_HATCHES, EMOTION_MARKERS):
        assert set(table) == set(EMOTION_COLOURS)
        assert len(set(table.values())) == len(table)
    assert set(EMOTION_LINES) == set(EMOTION_COLOURS)


def test_unknown_labels_get_styles_of_their_own() -> None:
    styles = emotion_styles(("happy", "boredom", "awe", "Happiness"))
    assert styles["happy"].colour == styles["Happiness"].colour == EMOTION_COLOURS["happy"]
    assert styles["boredom"] != styles["awe"]
    assert {styles["boredom"].colour, styles["awe"].colour}.isdisjoint(EMOTION_COLOURS.values())


@pytest.mark.parametrize("style", ["stacked", "lines"])
@pytest.mark.parametrize(
    ("duration", "hop"), [(0.4, 1.0), (1.0, 1.0), (3.2, 1.0), (9.0, 0.25), (600.0, 1.0)]
)
def test_any_recording_gives_a_figure_over_its_whole_time(
    duration: float, hop: float, style: str
) -> None:
    figure = plot_timeline(_timeline(duration, hop=hop), style)  # type: ignore[arg-type]
    assert all(axis.get_xlim() == (0.0, duration) for axis in figure.axes)
    assert "talk $1$.mp4" in _texts(figure)
    foot = " ".join(_texts(figure))
    assert "small (01234567)" in foot
    assert "not inner state" in foot


def test_stacked_areas_hold_the_probabilities_of_each_window() -> None:
    timeline = _timeline(5.0)
    patches = plot_timeline(timeline).axes[1].patches
    tops = np.array([patch.get_data().values for patch in patches])  # type: ignore[attr-defined]
    np.testing.assert_allclose(np.diff(tops.T, prepend=0), timeline.probabilities(), atol=1e-12)
    edges = patches[0].get_data().edges  # type: ignore[attr-defined]
    np.testing.assert_allclose(edges, timeline.borders())


def test_nothing_is_drawn_as_a_probability_in_a_gap() -> None:
    figure = plot_timeline(_timeline(6.0, gap=(2.0, 4.0)))
    values = figure.axes[1].patches[0].get_data().values  # type: ignore[attr-defined]
    assert np.isnan(values).tolist() == [False, False, True, True, False, False]
    assert "nothing found" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_long_recording_is_averaged_and_the_figure_says_so() -> None:
    timeline = _timeline(1000.0)
    figure = plot_timeline(timeline)
    values = figure.axes[1].patches[0].get_data().values  # type: ignore[attr-defined]
    assert len(values) <= 400
    assert values[0] == pytest.approx(timeline.probabilities()[:3, 0].mean())
    assert any("mean of 3 windows" in text for text in _texts(figure))


@pytest.mark.parametrize("width_mm", [85.0, 180.0])
def test_faces_never_overlap_nor_leave_the_figure(width_mm: float) -> None:
    figure = plot_timeline(_timeline(30.0, faces=60), width_mm=width_mm)
    boxes = sorted(image.get_extent()[:2] for image in figure.axes[-1].images)
    assert len(boxes) >= 4
    assert boxes[0][0] >= -1e-9
    assert boxes[-1][1] <= 30.0 + 1e-9
    assert all(left[1] < right[0] for left, right in pairwise(boxes))


@pytest.mark.parametrize("duration", [62.3, 7200.0])
@pytest.mark.parametrize("width_mm", [85.0, 180.0])
def test_no_text_is_cut_off_and_the_legend_covers_no_panel(
    width_mm: float, duration: float
) -> None:
    figure = plot_timeline(_timeline(duration, gap=(10.0, 40.0)), width_mm=width_mm)
    legend = figure.legends[0].get_window_extent()
    assert not any(legend.overlaps(axis.get_window_extent()) for axis in figure.axes)
    inside = figure.bbox.padded(1)
    ticks = [label for axis in figure.axes for label in axis.get_xticklabels()]
    for artist in (figure.legends[0], *figure.texts, *ticks):
        box = artist.get_window_extent()
        assert inside.x0 <= box.x0
        assert box.x1 <= inside.x1


def test_what_cannot_be_drawn_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'pie'; choose from stacked, lines"):
        plot_timeline(_timeline(3.0), "pie")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no losses"):
        plot_learning_curves([{"epoch": 1}])
    with pytest.raises(ValueError, match=r"\(2, 2\) for 3 class names"):
        plot_confusion(np.eye(2), ["a", "b", "c"])


def test_learning_curves_show_the_keys_that_are_there_and_mark_the_best_epoch() -> None:
    log = [
        {"epoch": 1, "train_loss": 2.0, "val_uar": 0.3, "lr": 0.1},
        {"epoch": 2, "train_loss": 1.0, "val_uar": 0.5, "lr": 0.01},
        {"epoch": 3, "train_loss": 0.5, "val_uar": 0.4, "lr": 0.0, "val_loss": None},
    ]
    figure = plot_learning_curves(log)
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        "Loss",
        "Score",
        "Learning rate",
    ]
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), [2.0, 1.0, 0.5])
    assert figure.axes[1].lines[-1].get_xdata()[0] == 2
    assert len(plot_learning_curves([{"train_loss": 1.0}]).axes) == 1


def test_confusion_is_shared_out_by_row_and_states_its_scores() -> None:
    figure = plot_confusion(np.array([[3, 1, 0], [0, 8, 0], [0, 0, 0]]), ["a", "b", "c"])
    axis = figure.axes[0]
    np.testing.assert_allclose(axis.images[0].get_array()[0], [0.75, 0.25, 0.0])
    assert axis.texts[0].get_text() == "75%\n3"
    assert axis.texts[-1].get_text() == "–"
    assert axis.get_title(loc="left") == "n = 12   UAR 87.5%   WAR 91.7%"


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_a_figure_is_written_by_its_suffix_and_twice_the_same(tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / name / f"out{suffix}" for name in "ab"]
    for path in paths:
        write_figure(plot_timeline(_timeline(3.0, faces=2)), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert [file.name for file in paths[0].parent.iterdir()] == [f"out{suffix}"]
    assert b"CreationDate" not in paths[0].read_bytes()
    if suffix == ".png":
        assert Image.open(paths[0]).width == pytest.approx(180 / 25.4 * 200, abs=1)


def test_an_unknown_figure_format_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'\.bmp'; choose from \.png, \.pdf, \.svg"):
        write_figure(Figure(), tmp_path / "out.bmp")
    assert not list(tmp_path.iterdir())
