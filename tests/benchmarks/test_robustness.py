"""One face under made conditions: the figure of what a checkpoint fails at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from benchmarks import robustness
from benchmarks.robustness import CONDITIONS, EXPRESSIONS, draw_scene, main, write_scenes
from checkpoints.shipped import DEFAULT_CHECKPOINT

SCENES = [(expression, condition) for expression in EXPRESSIONS for condition in CONDITIONS]


@pytest.mark.parametrize("scene", SCENES)
def test_each_condition_changes_the_picture(scene: tuple[str, str]) -> None:
    expression, condition = scene
    plain, changed = draw_scene(expression, "as it is", 0.5), draw_scene(*scene, 0.5)
    assert changed.shape == plain.shape
    assert changed.dtype == np.uint8
    assert np.array_equal(changed, plain) == (condition == "as it is")


def test_a_figure_of_every_scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = tmp_path / "figure.png"
    assert main([str(DEFAULT_CHECKPOINT.with_name("face.safetensors")), str(figure)]) == 0
    assert "wrote" in capsys.readouterr().out
    assert imread(figure).std() > 0.1


def test_a_second_for_each_scene(tmp_path: Path) -> None:
    path = tmp_path / "scenes.mp4"
    assert write_scenes(path) == SCENES
    with robustness.av.open(str(path)) as container:
        assert float(container.duration / robustness.av.time_base) == len(SCENES)


@pytest.mark.parametrize(
    ("name", "message"),
    [("none", "none.safetensors"), ("speech", "speech.safetensors sees no faces")],
)
def test_a_checkpoint_that_cannot_be_drawn_is_one_line(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = DEFAULT_CHECKPOINT.with_name(f"{name}.safetensors")
    assert main([str(checkpoint), str(tmp_path / "figure.png")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())
