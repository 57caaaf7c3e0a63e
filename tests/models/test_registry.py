"""Names of architectures: known without torch, one class for each, also from outside."""

from __future__ import annotations

import pytest

from models.names import ARCHITECTURES
from models.registry import EmotionModel, find_model, list_models, register_model
from opts import parse_options


class _Other(EmotionModel):
    inputs = ("face",)


def test_every_architecture_is_in_the_module_that_is_listed_for_it() -> None:
    for name, module in ARCHITECTURES.items():
        assert find_model(name).__module__ == module, name


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="model name 'resnet50' is taken by"):
        register_model("resnet50")(_Other)


def test_an_architecture_from_outside_is_listed_and_accepted_by_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    added: dict[str, type[EmotionModel]] = {}
    monkeypatch.setattr("models.registry._MODELS", added)
    monkeypatch.setitem(ARCHITECTURES, "other", __name__)
    register_model("other")(_Other)
    assert added == {"other": _Other}
    assert "other" in list_models()
    options = parse_options(["--annotation_path", "a.csv", "--model", "other"])
    assert options.model.model == "other"
