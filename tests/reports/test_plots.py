"""Figures hold every row, keep their parts apart, and every eye can distinguish them."""

from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from PIL import Image

from reports.bars import MOST_BARS, Bar, plot_score_bars
from reports.curves import Reliability, plot_agreement, plot_ranking_curves, plot_reliability
from reports.embeddings import MOST_POINTS, plot_embeddings
from reports.gallery import Mistake, plot_mistakes
from reports.plots import (
    confusion_epoch_path,
    plot_confusion,
    plot_confusion_epoch,
    plot_learning_curves,
    plot_timeline,
    write_figure,
)
from reports.style import (
    EMOTION_COLOURS,
    EMOTION_HATCHES,
    EMOTION_LINES,
    EMOTION_MARKERS,
    GROUP_COLOURS,
    emotion_styles,
    group_styles,
    paper_style,
    short_names,
)
from timeline.row import TimelineRow
from timeline.table import Timeline

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


@pytest.mark.parametrize("sight", SIGHT)
def test_group_colours_are_told_apart_by_every_eye(sight: str) -> None:
    lab = [_seen_lab(colour, SIGHT[sight]) for colour in GROUP_COLOURS]
    closest = min(float(np.linalg.norm(a - b)) for a, b in combinations(lab, 2))
    assert closest >= 10.0


def test_groups_differ_in_colour_or_marker() -> None:
    styles = group_styles([f"speaker {number}" for number in range(56)]).values()
    assert len({(style.colour, style.marker) for style in styles}) == 56
    assert short_names(["RAVDESS/01", "RAVDESS/02"]) == ["01", "02"]
    assert short_names(["RAVDESS/01", "CREMA-D/01"]) == ["RAVDESS/01", "CREMA-D/01"]


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


def _report_figures() -> dict[str, Figure]:
    random = np.random.default_rng(0)
    labels = random.integers(0, 8, 60)
    probabilities = random.dirichlet(np.ones(8), 60)
    faces = random.integers(0, 255, (5, 8, 8, 3)).astype(np.uint8)
    mistakes = [Mistake(f"03-01-0{i}-02-01-01-12.mp4", "sad", "surprised", 1.0, 0.0) for i in "12"]
    with_faces = [Mistake("one.mp4", "fearful", "surprised", 0.9, 0.1, faces), *mistakes]
    bars = [Bar(f"RAVDESS/Actor_{i}", 60, 0.9, 0.9, (0.8, 1.0)) for i in range(3)]
    speakers = [f"RAVDESS/Actor_{i:02d}" for i in random.integers(0, 6, 60)]
    tables = [Reliability(unit, probabilities, probabilities, labels) for unit in "ab"]
    names = [NAMES[label] for label in labels]
    return {
        "ranking": plot_ranking_curves(probabilities, np.eye(8)[labels], NAMES),
        "few classes": plot_ranking_curves(probabilities[:, :2], np.eye(8)[labels, :2], NAMES[:2]),
        "reliability": plot_reliability(tables),
        "one table": plot_reliability(tables[:1]),
        "agreement": plot_agreement(probabilities[:, :3], probabilities[:, 3:6], ["a", "b", "c"]),
        "bars": plot_score_bars({"gender": bars[:2], "intensity": bars}),
        "embeddings": plot_embeddings(probabilities, names, speakers),
        "no speakers": plot_embeddings(probabilities, names, [""] * 60),
        "mistakes": plot_mistakes(mistakes, 2, 60),
        "faces": plot_mistakes(with_faces, 3, 60),
        "epoch": plot_confusion_epoch(1000 * np.eye(8, dtype=int), NAMES, 100),
    }


def test_figures_of_a_report_cut_off_nothing_and_no_texts_overlap() -> None:
    for name, figure in _report_figures().items():
        with paper_style():
            figure.canvas.draw()
        edge = figure.bbox.padded(1)
        drawn = figure.get_tightbbox().transformed(figure.dpi_scale_trans)
        legends = [legend for legend in figure.findobj(Legend) if isinstance(legend, Legend)]
        for box in (drawn, *(legend.get_window_extent() for legend in legends)):
            assert (edge.x0, edge.y0) <= (box.x0, box.y0), name
            assert box.x1 <= edge.x1, name
            assert box.y1 <= edge.y1, name
        titles = [getattr(axis, "_left_title") for axis in figure.axes]  # noqa: B009
        texts = [text for axis in figure.axes for text in axis.texts]
        texts += titles + figure.texts + [t for legend in legends for t in legend.get_texts()]
        boxes = [(t.get_text(), t.get_window_extent()) for t in texts if t.get_text()]
        for (left, one), (right, other) in combinations(boxes, 2):
            assert not one.overlaps(other), (name, left, right)


def test_curves_are_those_of_the_scores() -> None:
    scores = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    figure = plot_ranking_curves(scores, np.eye(2)[[0, 0, 1, 1]], ["happy", "awe"])
    roc, precision = figure.axes
    happy = roc.lines[1]
    points = set(zip(happy.get_xdata(), happy.get_ydata(), strict=True))
    assert {(0.0, 0.5), (0.5, 0.5), (0.5, 1.0), (1.0, 1.0)} <= points
    assert precision.lines[0].get_drawstyle() == "steps-post"
    assert figure.legends[0].get_texts()[0].get_text() == "happy  .75 / .83"


def test_a_class_that_does_not_occur_has_no_curve_and_says_so() -> None:
    scores = np.array([[0.9, 0.1], [0.6, 0.4]])
    figure = plot_ranking_curves(scores, np.array([[1, 0], [0, 0]]), ["happy", "awe"])
    assert len(figure.axes[1].lines) == 1
    assert figure.legends[0].get_texts()[1].get_text() == "awe  – / –"


def test_reliability_shows_accuracy_by_confidence() -> None:
    before = np.array([[0.95, 0.05]] * 4)
    after = np.array([[0.55, 0.45]] * 4)
    figure = plot_reliability([Reliability("clips", before, after, np.array([0, 0, 1, 1]))])
    for axis, confidence in zip(figure.axes, (0.95, 0.55), strict=True):
        line = axis.lines[-1]
        assert (line.get_xdata()[0], line.get_ydata()[0]) == (confidence, 0.5)
    assert figure.axes[0].texts[0].get_text() == "ECE 0.450"


def test_of_many_speakers_the_lowest_are_shown_and_the_title_says_so() -> None:
    bars = [Bar(f"CREMA-D/{i}", 80, 0.5, i / 100) for i in range(MOST_BARS + 20)]
    axis = plot_score_bars({"speaker": bars}).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        str(i) for i in range(MOST_BARS)
    ]
    assert axis.get_title(loc="left") == "speaker: the 40 lowest of 60"


def test_of_many_embeddings_some_are_drawn_and_the_figure_says_so() -> None:
    count = MOST_POINTS + 10
    features = np.zeros((count, 1))
    features[:, 0] = np.arange(count) % 7
    figure = plot_embeddings(features[:20], ["happy"] * 20, ["a"] * 20)
    assert sum(len(line.get_xdata()) for line in figure.axes[0].lines) == 20
    with pytest.raises(ValueError, match="too few to draw"):
        plot_embeddings(features[:4], ["happy"] * 4, ["a"] * 4)
    with pytest.raises(ValueError, match="20 embeddings, 1 emotions"):
        plot_embeddings(features[:20], ["happy"], ["a"] * 20)


def test_the_most_confident_mistakes_come_first() -> None:
    mistakes = [Mistake(f"{i}.mp4", "sad", "happy", i / 20, 0.0) for i in range(20)]
    figure = plot_mistakes(mistakes, 20, 100)
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert [text for text in texts if text.endswith(".mp4")] == [
        f"{i}.mp4" for i in range(19, 7, -1)
    ]
    assert _texts(figure) == ["12 most confident of 20 mistakes in 100 clips"]
    with pytest.raises(ValueError, match="no mistakes"):
        plot_mistakes([], 0, 10)


def test_a_confusion_of_an_epoch_is_named_by_it(tmp_path: Path) -> None:
    assert confusion_epoch_path(tmp_path, 7).name == "confusion_matrix_epoch007.png"
    title = plot_confusion_epoch(np.eye(2, dtype=int), ["a", "b"], 7).axes[0].get_title(loc="left")
    assert title == "epoch 7   n = 2   UAR 100.0%   WAR 100.0%"
