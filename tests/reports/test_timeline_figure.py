"""The figure of a timeline marks doubt, shows what modalities add, and respects the task."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.timeline_figure import plot_timeline
from timeline.row import Task, TimelineRow
from timeline.table import Timeline

NAMES = ("happy", "sad")
ADDS = {"contribution_face": 0.4, "contribution_speech": -0.15}
GATES = {"gate_face": 0.5, "gate_speech": 1.0}


def _timeline(task: Task = "classification", **columns: Any) -> Timeline:
    """6 s, happy, of which the third and fourth second are uncertain where that is asked for."""
    rows = []
    for second in range(6):
        rows.append(
            TimelineRow(
                start=float(second),
                end=second + 1.0,
                partial=False,
                face_id=0,
                face_share=1.0,
                modalities="audio+video",
                probabilities=np.array([0.9, 0.1]) * (1 if task != "regression" else 30),
                uncertain=second in (2, 3) if columns.get("uncertain") else None,
                measures=columns.get("measures", {}),
            )
        )
    identity = {"name": "a.safetensors", "conformal": {"coverage": 0.9}}
    return Timeline(tuple(rows), NAMES, "a.mp4", 6.0, 1.0, 1.0, identity, (), task)


def _rows_of(axis: Axes) -> list[str]:
    return [label.get_text() for label in axis.get_yticklabels()]


def _panel(figure: Figure, *names: str) -> Axes:
    return next(axis for axis in figure.axes if set(names) <= set(_rows_of(axis)))


def test_doubt_pales_the_band_and_has_a_row_of_its_own() -> None:
    figure = plot_timeline(_timeline(uncertain=True))
    sure, unsure, _ = (patch.get_facecolor() for patch in _panel(figure, "dominant").patches)
    assert sum(unsure[:3]) > sum(sure[:3]) + 0.3
    shares = _panel(figure, "uncertain").collections[1].get_array()
    assert shares is not None
    np.testing.assert_array_equal(np.ravel(shares), [0, 0, 1, 1, 0, 0])
    assert any("Uncertain at 90% coverage" in text.get_text() for text in figure.texts)
    plain = plot_timeline(_timeline())
    assert not any("uncertain" in _rows_of(axis) for axis in plain.axes)


def test_a_strip_shows_what_each_modality_adds_to_the_winner() -> None:
    figure = plot_timeline(_timeline(measures={**ADDS, **GATES}))
    strips = [axis for axis in figure.axes if axis.get_legend()]
    assert len(strips) == 2
    adds, gates = strips
    assert adds.get_position().y0 > gates.get_position().y1
    assert [text.get_text() for text in adds.get_legend().get_texts()] == ["face", "speech"]
    values = {patch.get_label(): patch.get_data().values for patch in adds.patches}  # type: ignore[attr-defined]
    np.testing.assert_allclose(values["face"], 0.4)
    np.testing.assert_allclose(values["speech"], -0.15)
    assert _rows_of(adds) == ["-0.2", "0", "+0.4"]
    assert _rows_of(gates) == ["0", "1"]


@pytest.mark.parametrize("width_mm", [85.0, 180.0])
def test_strips_overlap_nothing(width_mm: float) -> None:
    figure = plot_timeline(_timeline(uncertain=True, measures={**ADDS, **GATES}), width_mm=width_mm)
    boxes = [axis.get_window_extent() for axis in figure.axes]
    boxes += [legend.get_window_extent() for legend in map(Axes.get_legend, figure.axes) if legend]
    assert len(boxes) == 5 + 2
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_labels_and_values_are_lines_and_no_distribution() -> None:
    labels = plot_timeline(_timeline("multilabel"), "stacked")
    assert len(labels.axes[1].lines) == 2
    assert not labels.axes[1].patches
    assert _rows_of(labels.axes[0]) == ["strongest"]
    values = plot_timeline(_timeline("regression"))
    assert values.axes[0].get_ylabel() == "value"
    assert values.axes[0].get_ylim()[1] > 27
    assert not any(set(_rows_of(a)) & {"dominant", "strongest"} for a in values.axes)
