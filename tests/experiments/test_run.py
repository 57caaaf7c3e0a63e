"""A run from the command line: its folder, its start, its tasks and what it leaves behind."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from checkpoints.checkpoint import load_checkpoint, save_checkpoint
from main import main
from models import build_model
from tests.builders import make_checkpoint, make_corpus
from tests.runs import no_scores, train, weights_of, with_targets

__all__ = ["no_scores"]


def test_a_run_folder_holds_all_that_is_promised(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "data")
    flags = ["--n_epochs", "2", "--ema", "0.5", "--confusion_every", "2"]
    run = train(manifest, tmp_path, "--model", "speech_cnn", *flags)
    names = {path.name for path in run.iterdir()}
    assert {
        "opts.json",
        "log.jsonl",
        "metrics.json",
        "model_best.safetensors",
        "last.pt",
        "predictions_validation.csv",
        "predictions_testing.csv",
        "confusion_testing.png",
        "confusion_matrix_epoch002.png",
        "learning_curves.png",
    } <= names
    assert "confusion_matrix_epoch001.png" not in names
    rows = list(csv.DictReader((run / "predictions_testing.csv").open()))
    assert list(rows[0]) == ["clip", "speaker", "target", "dataset", "p_happy", "p_sad"]
    assert {row["speaker"] for row in rows} == {f"speaker-2{i}" for i in range(4)}
    assert float(rows[0]["p_happy"]) + float(rows[0]["p_sad"]) == pytest.approx(1, abs=1e-5)
    events = EventAccumulator(str(run)).Reload()
    tags = {"train/loss", "train/acc", "val/loss", "val/acc", "val/uar", "lr"}
    assert tags <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("val/uar")] == [1, 2]
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics) == {"validation", "testing"}
    info = load_checkpoint(run / "model_best.safetensors").info
    assert info["training_speakers"] == [f"speaker-0{i}" for i in range(4)]


def test_scoring_again_gives_the_same_numbers(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "data")
    run = train(manifest, tmp_path, "--model", "speech_cnn", "--n_epochs", "1")
    first = (run / "metrics.json").read_text()
    (run / "metrics.json").unlink()
    assert main(["--no_train", "--resume_path", str(run)]) == 0
    assert (run / "metrics.json").read_text() == first


@pytest.mark.usefixtures("no_scores")
def test_only_the_blocks_that_are_named_are_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_corpus(tmp_path / "data")
    options = ["--model", "cnn_simple", "--n_epochs", "2", "--lr_schedule", "constant"]
    run = train(manifest, tmp_path, *options, "--trainable", "block4,head")
    first = build_model("cnn_simple", num_classes=2)
    moved = {
        name.split(".")[0]
        for name, value in load_checkpoint(run / "model_best.safetensors").model.named_buffers()
        if name.endswith("running_mean") and value.any()
    }
    assert moved == {"block4"}, "frozen blocks keep their statistics too"
    trained = sum(p.numel() for b in ("block4", "head") for p in first.blocks()[b].parameters())
    assert f"{trained:,} trained" in capsys.readouterr().out
    arguments = ["--annotation_path", str(manifest), *options, "--trainable", "layer9"]
    assert main(arguments) == 2
    assert "cnn_simple has no block layer9 to train; choose from" in capsys.readouterr().err


@pytest.mark.usefixtures("no_scores")
def test_blocks_that_are_computed_twice_learn_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_corpus(tmp_path / "data")
    options = ["--model", "cnn_simple", "--n_epochs", "1", "--lr_schedule", "constant", "--no_val"]
    whole = train(manifest, tmp_path, *options, name="whole")
    twice = train(manifest, tmp_path, *options, "--gradient_checkpointing", name="twice")
    one, other = weights_of(whole)["model"], weights_of(twice)["model"]
    for name in one:
        if name.endswith(("weight", "bias")):
            assert torch.allclose(one[name], other[name], atol=1e-6), name
    arguments = ["--annotation_path", str(manifest), "--model", "speech_cnn"]
    assert main([*arguments, "--gradient_checkpointing"]) == 2
    assert "speech_cnn has no block to compute twice" in capsys.readouterr().err


@pytest.mark.usefixtures("no_scores")
def test_the_batch_that_fits_is_found_and_kept_for_a_resumed_run(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "data", per_subset=6)
    options = ["--model", "speech_cnn", "--n_epochs", "1", "--batch_size", "auto"]
    run = train(manifest, tmp_path, *options)
    assert json.loads((run / "opts.json").read_text())["batch_size"] == 4, "of six records"
    again = train(manifest, tmp_path, *options[:-1], "4", name="again")
    one, other = weights_of(run)["model"], weights_of(again)["model"]
    assert all(torch.equal(one[name], other[name]) for name in one), "the search left no trace"


@pytest.mark.parametrize(
    ("task", "score", "columns"),
    [
        ("multilabel", "macro_f1", {"smile": ("1", "0"), "tears": ("0", "1")}),
        ("regression", "ccc", {"valence": ("0.9", "0.1"), "arousal": ("0.6", "0.2")}),
    ],
)
@pytest.mark.usefixtures("no_scores")
def test_labels_and_values_are_learned_and_selected_by_their_score(
    tmp_path: Path, task: str, score: str, columns: dict[str, tuple[str, str]]
) -> None:
    manifest = with_targets(make_corpus(tmp_path / "data"), columns)
    options = ["--task", task, "--model", "speech_cnn", "--lr_schedule", "constant"]
    options += ["--class_weights", "balanced"] if task == "multilabel" else []
    run = train(manifest, tmp_path, *options, "--n_epochs", "8", "--no-augment")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert log[-1]["train_loss"] < log[0]["train_loss"]
    assert "train_acc" not in log[0]
    best = max(line[f"val_{score}"] for line in log)
    assert best > 0.8
    assert weights_of(run)["best_score"] == best
    loaded = load_checkpoint(run / "model_best.safetensors")
    assert (loaded.task, loaded.class_names) == (task, tuple(sorted(columns)))
    assert loaded.info["validation"][score] == best


def test_a_score_of_validation_that_is_undefined_stops_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = with_targets(make_corpus(tmp_path / "data"), {"smile": ("0", "0")})
    arguments = ["--annotation_path", str(manifest), "--result_path", str(tmp_path)]
    options = ["--task", "multilabel", "--model", "speech_cnn", "--n_epochs", "1"]
    assert main([*arguments, *options]) == 2
    assert "macro_f1 of validation is undefined: its targets do not" in capsys.readouterr().err


def test_a_target_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"valence": ("0.9", "0.1"), "arousal": ("0.6", "0.2")}
    manifest = with_targets(make_corpus(tmp_path / "data"), columns)
    options = ["--task", "regression", "--targets", "valence", "--loss", "ccc"]
    run = train(manifest, tmp_path, "--model", "speech_cnn", "--n_epochs", "1", *options)
    assert load_checkpoint(run / "model_best.safetensors").class_names == ("valence",)
    constant = with_targets(manifest, {"valence": ("0.5", "0.5")})
    arguments = ["--annotation_path", str(constant), "--task", "multilabel", "--targets", "joy"]
    assert main(arguments) == 2
    assert "no column target_happy; there are targets valence" in capsys.readouterr().err


@pytest.mark.usefixtures("no_scores")
def test_weights_of_torchvision_are_loaded_unless_none_are_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        "experiments.initialisation.load_torchvision", lambda _, which: asked.append(which) or []
    )
    manifest = make_corpus(tmp_path / "data", per_subset=2)
    options = ["--model", "cnn_temporal", "--temporal", "mean", "--n_epochs", "1"]
    run = train(manifest, tmp_path, *options)
    assert asked == ["default"]
    assert "ImageNet-1k" in load_checkpoint(run / "model_best.safetensors").info["corpora"]
    scratch = train(manifest, tmp_path, *options, "--pretrained", "none", name="scratch")
    assert asked == ["default"]
    assert load_checkpoint(scratch / "model_best.safetensors").info["corpora"] == ["made"]


@pytest.mark.usefixtures("no_scores")
def test_a_start_that_saw_other_colours_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(make_checkpoint("efficientface"), tmp_path / "face.safetensors")
    start = ["--pretrain_path", str(tmp_path / "face.safetensors"), "--n_epochs", "1"]
    manifest = make_corpus(tmp_path / "data")
    train(manifest, tmp_path, "--model", "face_cnn", "--colour", "grey", *start)
    assert "colour is rgb here and grey there" in capsys.readouterr().out


@pytest.mark.usefixtures("no_scores")
def test_frozen_parts_stay_as_they_are(tmp_path: Path) -> None:

    manifest = make_corpus(tmp_path / "data")
    save_checkpoint(make_checkpoint("efficientface"), tmp_path / "face.safetensors")
    start = load_checkpoint(tmp_path / "face.safetensors").model.state_dict()
    frozen = ["--pretrain_path", str(tmp_path / "face.safetensors"), "--freeze_pretrained"]
    options = ["--model", "face_cnn", "--n_epochs", "2", "--lr_schedule", "constant", *frozen]
    run = train(manifest, tmp_path, *options)
    trained = load_checkpoint(run / "model_best.safetensors").model.state_dict()
    for name, value in start.items():
        if not name.startswith("fc."):
            assert torch.equal(trained[name], value), name


def test_late_fusion_is_fitted_on_validation_and_scored(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "data")
    face = train(manifest, tmp_path, "--model", "efficientface", "--n_epochs", "1", name="face")
    speech = train(manifest, tmp_path, "--model", "speech_cnn", "--n_epochs", "1", name="speech")
    parts = ["--face_path", str(face / "model_best.safetensors")]
    parts += ["--speech_path", str(speech / "model_best.safetensors")]
    arguments = ["--annotation_path", str(manifest), "--result_path", str(tmp_path)]
    options = ["--run_name", "late", "--model", "late_fusion", "--late_method", "weighted"]
    assert main([*arguments, *options, *parts]) == 0
    loaded = load_checkpoint(tmp_path / "late" / "model_best.safetensors")
    assert loaded.model.weight.sum() == pytest.approx(1.0)
    assert (tmp_path / "late" / "predictions_testing.csv").exists()
