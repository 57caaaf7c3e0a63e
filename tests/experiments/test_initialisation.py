"""What training starts from: constants of the architecture, weights, and what is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from checkpoints.checkpoint import save_checkpoint
from datasets.annotations import Record
from experiments import initialisation
from experiments.initialisation import build_checkpoint, default_face_size, own_paths, start_model
from experiments.options import StartOptions
from media.configuration import ClipConfig
from models import EmotionModel
from models.options import ModelOptions
from opts import parse_options
from tests.builders import SMALL, make_checkpoint

RECORDS = [Record("a.mp4", "", "happy"), Record("b.mp4", "", "sad")]


class _Pretrained(EmotionModel):
    """Two blocks and a head, made for torchvision's weights."""

    inputs = ("face",)
    head = ("classifier",)
    name = "pretrained"
    default_trainable = ("late", "head")

    def __init__(self) -> None:
        super().__init__()
        self.early, self.late = nn.Linear(2, 2), nn.Linear(2, 2)
        self.classifier = nn.Linear(2, 2)

    @property
    def torchvision_weights(self) -> dict[str, str]:
        return {"early": "ResNet18_Weights.IMAGENET1K_V1"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was asked of torchvision, in place of reading it."""
    found: list[Any] = []
    monkeypatch.setattr(
        initialisation, "load_torchvision", lambda _, which: found.append(which) or []
    )
    return found


def _trained(model: nn.Module) -> set[str]:
    return {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}


def _start(resumed: bool = False, **options: Any) -> _Pretrained:
    model = _Pretrained()
    start_model(model, SMALL, StartOptions(**options), resumed)
    return model


def test_with_weights_of_torchvision_the_architecture_chooses_what_is_trained(
    asked: list[Any],
) -> None:
    assert _trained(_start()) == {"late", "classifier"}
    assert _trained(_start(pretrained="none")) == {"early", "late", "classifier"}
    assert _trained(_start(trainable=["head"])) == {"classifier"}
    assert _trained(_start(trainable=["all"])) == {"early", "late", "classifier"}
    assert asked == ["default"] * 3


def test_a_resumed_run_freezes_again_and_reads_nothing(asked: list[Any]) -> None:
    assert _trained(_start(resumed=True)) == {"late", "classifier"}
    assert asked == []


def test_a_file_of_torchvision_is_told_from_a_checkpoint(asked: list[Any]) -> None:
    assert _trained(_start(pretrain_path=["resnet18.pth"])) == {"late", "classifier"}
    assert asked == [Path("resnet18.pth")]
    both = StartOptions(pretrain_path=["resnet18.pth", "ours.safetensors"])
    assert own_paths(_Pretrained(), both) == ["ours.safetensors"]
    with pytest.raises(ValueError, match=r"one file of torchvision's weights, not a\.pth, b\.pth"):
        _start(pretrain_path=["a.pth", "b.pth"])


def test_a_checkpoint_of_ours_takes_the_place_of_torchvision(
    asked: list[Any], tmp_path: Path
) -> None:
    save_checkpoint(make_checkpoint("cnn_simple"), tmp_path / "ours.safetensors")
    with pytest.raises(ValueError, match="does not match any part of _Pretrained"):
        _start(pretrain_path=[str(tmp_path / "ours.safetensors")])
    assert asked == []


def _build(*flags: str, stored: ClipConfig = SMALL) -> tuple[ClipConfig, EmotionModel]:
    options = parse_options(["--annotation_path", "a.csv", *flags])
    checkpoint = build_checkpoint(options, RECORDS, stored)
    return checkpoint.clip_config, checkpoint.model


def test_clips_are_cut_as_the_architecture_wants_unless_a_flag_says_otherwise() -> None:
    config, _ = _build("--model", "resnet3d_lstm")
    assert (config.pictures, config.picture_choice, config.face_size) == (48, "even", 32)
    assert config.face_mean[0] == pytest.approx(0.43216), "of Kinetics-400"
    config, _ = _build("--model", "resnet3d_lstm", "--sample_duration", "8")
    assert (config.pictures, config.picture_choice) == (8, "even")
    config, _ = _build("--model", "speech_cnn", stored=ClipConfig())
    assert (config.pictures, config.picture_choice, config.n_mels) == (15, "last", 64)
    config, model = _build("--model", "speech_cnn", "--n_mels", "40")
    assert (config.n_mels, model.arguments["n_mels"]) == (40, 40)


def test_what_is_not_asked_for_is_left_to_the_architecture() -> None:
    _, model = _build("--model", "speech_duo")
    assert set(model.arguments) == {"num_classes"}
    _, model = _build("--model", "speech_duo", "--recurrent_width", "16")
    assert model.arguments["recurrent_width"] == 16
    _, model = _build("--model", "vit_scratch", "--num_layers", "1")
    assert model.arguments["image_size"] == SMALL.face_size, "the store's"


def test_faces_are_prepared_in_the_size_the_architecture_takes() -> None:
    assert default_face_size(ModelOptions(model="resnet50")) == 224
    assert default_face_size(ModelOptions(model="speech_cnn")) == ClipConfig().face_size
    assert default_face_size(ModelOptions(model="late_fusion")) == ClipConfig().face_size
    assert default_face_size(ModelOptions(face_model="resnet50")) == 224


def test_a_fusion_takes_over_what_its_branches_are_made_for() -> None:
    options = parse_options(
        ["--annotation_path", "a.csv", "--face_model", "resnet3d_lstm", "--fusion", "lt"]
    )
    config = build_checkpoint(options, RECORDS, SMALL).clip_config
    assert (config.pictures, config.picture_choice) == (48, "even")
    assert config.face_mean == pytest.approx((0.43216, 0.394666, 0.37645))
