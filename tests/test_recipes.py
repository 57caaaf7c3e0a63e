"""Every recipe is a command line that could run."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from opts import TRAIN, parse_options

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.toml"))
MISSION = {
    "resnet3d_lstm_ravdess_cremad",
    "fer2013_hybrid",
    "affdex_cnn_simple",
    "affdex_vit_scratch",
    "affdex_resnet50",
    "affdex_vit_b_16",
    "cremad_cnn_ae_lstm",
    "ravdess_concat",
    "ravdess_ia",
    "ravdess_it",
    "ravdess_lt",
    "ravdess_late",
    "ravdess_landmarks_speech",
}


def test_every_system_of_the_mission_has_a_recipe() -> None:
    assert {path.stem for path in RECIPES} >= MISSION


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_command_line(path: Path) -> None:
    options = parse_options(["--recipe", path.stem])
    assert options.mode == TRAIN
    values = tomllib.loads(path.read_text())
    saved = options.to_dict()
    assert values.pop("model_arg", {}) == saved["model_arg"]
    assert {name: saved[name] for name in values if not isinstance(values[name], str)} == {
        name: value for name, value in values.items() if not isinstance(value, str)
    }


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_where_it_comes_from_and_what_it_reached(path: Path) -> None:
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    text = " ".join(head)
    for word in ("Source:", "Command:", "Time:", "Score here:"):
        assert word in text, f"{path.name} does not say {word}"
    assert f"--recipe {path.stem}" in text


def test_an_override_is_stronger_than_the_recipe() -> None:
    options = parse_options(["--recipe", "ravdess_ia", "--n_epochs", "3"])
    assert options.train.n_epochs == 3
    assert options.model.fusion == "ia"
