"""The one loop: it learns, stops, resumes to the same weights, and writes its run folder."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from checkpoint import load_checkpoint, save_checkpoint
from losses import ClassificationLoss
from main import main
from models import build_model
from opts import TrainOptions
from tests.builders import make_checkpoint, make_corpus
from training import build_fit, train_one_epoch

ROOT = Path(__file__).parent.parent
QUICK = [
    "--sample_duration",
    "2",
    "--batch_size",
    "4",
    "--optimizer",
    "adamw",
    "--learning_rate",
    "3e-3",
]
MODELS: list[list[str]] = [
    ["--model", "efficientface"],
    ["--model", "face_cnn"],
    ["--model", "speech_cnn"],
    *(["--model", "multimodalcnn", "--fusion", fusion] for fusion in ("concat", "ia", "it", "lt")),
]


def _train(manifest: Path, folder: Path, *extra: str, name: str = "run") -> Path:
    arguments = ["--annotation_path", str(manifest), "--result_path", str(folder)]
    assert main([*arguments, "--run_name", name, *QUICK, *extra]) == 0
    return folder / name


@pytest.mark.parametrize("model", MODELS, ids=lambda m: "-".join(m[1::2]))
def test_any_model_overfits_four_clips_through_the_one_loop(
    tmp_path: Path, model: list[str]
) -> None:
    manifest = make_corpus(tmp_path / "data")
    schedule = ["--lr_schedule", "constant", "--no-augment", "--weight_decay", "0"]
    if model[1] == "multimodalcnn":
        schedule += ["--mask", "nodropout"]
    run = _train(manifest, tmp_path, *model, *schedule, "--n_epochs", "12", "--no_val")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert log[-1]["train_loss"] < 0.25 < log[0]["train_loss"]
    assert log[-1]["train_acc"] == 1.0


def test_a_run_folder_holds_all_that_is_promised(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "data")
    run = _train(manifest, tmp_path, "--model", "speech_cnn", "--n_epochs", "2", "--ema", "0.5")
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
        "learning_curves.png",
    } <= names
    rows = list(csv.DictReader((run / "predictions_testing.csv").open()))
    assert list(rows[0]) == ["clip", "speaker", "target", "p_happy", "p_sad"]
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
    run = _train(manifest, tmp_path, "--model", "speech_cnn", "--n_epochs", "1")
    first = (run / "metrics.json").read_text()
    (run / "metrics.json").unlink()
    assert main(["--no_train", "--resume_path", str(run)]) == 0
    assert (run / "metrics.json").read_text() == first


RESUMED = [
    "--model",
    "multimodalcnn",
    "--fusion",
    "concat",
    "--n_epochs",
    "5",
    "--ema",
    "0.9",
    "--dropout",
    "0.3",
]


def _weights(run: Path) -> dict[str, Any]:
    return torch.load(run / "last.pt", weights_only=True)


@pytest.mark.parametrize("schedule", ["onecycle", "plateau"])
def test_a_killed_run_resumes_to_the_weights_of_one_never_killed(
    tmp_path: Path, schedule: str
) -> None:
    manifest = make_corpus(tmp_path / "data", per_subset=8)
    options = [*RESUMED, "--lr_schedule", schedule]
    whole = _train(manifest, tmp_path, *options, name="whole")
    command = [sys.executable, "main.py", "--annotation_path", str(manifest), *QUICK, *options]
    command += ["--result_path", str(tmp_path), "--run_name", "killed"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env=environment)
    killed = tmp_path / "killed"
    while not (killed / "last.pt").exists():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert _weights(killed)["epoch"] < 5, "killed too late to show anything"
    assert main(["--resume_path", str(killed)]) == 0
    one, other = _weights(whole), _weights(killed)
    assert other["epoch"] == 5
    for part in ("model", "average"):
        for name, value in one[part].items():
            assert torch.equal(value, other[part][name]), f"{part} {name}"
    assert one["log"] == other["log"]


def test_early_stopping_ends_a_run_that_gets_no_better(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "data")
    slow = ["--learning_rate", "1e-9", "--early_stopping", "2", "--n_epochs", "50"]
    run = _train(manifest, tmp_path, "--model", "speech_cnn", *slow)
    assert len((run / "log.jsonl").read_text().splitlines()) < 50


def _batches(seed: int = 0) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "inputs": {"speech": torch.randn(4, 64, 100, generator=generator)},
            "target": torch.eye(2).repeat(2, 1),
        }
    ]


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.1, 0.1, 0.1]),
        ("step", [0.1, 0.01, 0.001]),
        ("cosine", [0.1, 0.075, 0.025]),
    ],
)
def test_schedules_are_really_stepped(schedule: str, rates: list[float]) -> None:
    options = TrainOptions(
        lr_schedule=schedule, lr_steps=[1, 2], learning_rate=0.1, n_epochs=3, clip_grad=1.0
    )
    model = build_model("speech_cnn", num_classes=2)
    state = build_fit(model, ClassificationLoss(), options, torch.device("cpu"), 1)
    seen = []
    for _ in range(3):
        seen.append(state.optimizer.param_groups[0]["lr"])
        train_one_epoch(state, _batches())  # type: ignore[arg-type]
        if schedule == "step":
            state.scheduler.step()  # type: ignore[call-arg]
        state.epoch += 1
    assert seen == pytest.approx(rates)


def test_a_plateau_lowers_the_rate(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "data")
    flat = ["--learning_rate", "1e-6", "--lr_schedule", "plateau", "--lr_patience", "1"]
    run = _train(manifest, tmp_path, "--model", "speech_cnn", *flat, "--n_epochs", "6")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert log[-1]["lr"] < log[0]["lr"]


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    options = TrainOptions(lr_schedule="constant", n_epochs=1)
    model = build_model("speech_cnn", num_classes=2)
    state = build_fit(model, ClassificationLoss(), options, torch.device("cpu"), 1)
    (batch,) = _batches()
    batch["inputs"]["speech"][0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="the loss became nan in epoch 1: lower --learning_rate"):
        train_one_epoch(state, [batch])  # type: ignore[arg-type]


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_trains_on_the_processor_too(amp: str) -> None:
    options = TrainOptions(lr_schedule="constant", amp=amp, optimizer="adamw", learning_rate=1e-3)
    model = build_model("speech_cnn", num_classes=2)
    state = build_fit(model, ClassificationLoss(), options, torch.device("cpu"), 1)
    before = model.classifier_1[1].weight.clone()
    assert train_one_epoch(state, _batches())["train_loss"] > 0  # type: ignore[arg-type]
    assert not torch.equal(before, model.classifier_1[1].weight)


def test_a_start_that_saw_other_colours_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(make_checkpoint("efficientface"), tmp_path / "face.safetensors")
    start = ["--pretrain_path", str(tmp_path / "face.safetensors"), "--n_epochs", "1"]
    manifest = make_corpus(tmp_path / "data")
    _train(manifest, tmp_path, "--model", "face_cnn", "--colour", "grey", *start)
    assert "colour is rgb here and grey there" in capsys.readouterr().out


def test_frozen_parts_stay_as_they_are(tmp_path: Path) -> None:

    manifest = make_corpus(tmp_path / "data")
    save_checkpoint(make_checkpoint("efficientface"), tmp_path / "face.safetensors")
    start = load_checkpoint(tmp_path / "face.safetensors").model.state_dict()
    frozen = ["--pretrain_path", str(tmp_path / "face.safetensors"), "--freeze_pretrained"]
    options = ["--model", "face_cnn", "--n_epochs", "2", "--lr_schedule", "constant", *frozen]
    run = _train(manifest, tmp_path, *options)
    trained = load_checkpoint(run / "model_best.safetensors").model.state_dict()
    for name, value in start.items():
        if not name.startswith("fc."):
            assert torch.equal(trained[name], value), name


def test_late_fusion_is_fitted_on_validation_and_scored(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "data")
    face = _train(manifest, tmp_path, "--model", "efficientface", "--n_epochs", "1", name="face")
    speech = _train(manifest, tmp_path, "--model", "speech_cnn", "--n_epochs", "1", name="speech")
    parts = ["--face_path", str(face / "model_best.safetensors")]
    parts += ["--speech_path", str(speech / "model_best.safetensors")]
    arguments = ["--annotation_path", str(manifest), "--result_path", str(tmp_path)]
    options = ["--run_name", "late", "--model", "late_fusion", "--late_method", "weighted"]
    assert main([*arguments, *options, *parts]) == 0
    loaded = load_checkpoint(tmp_path / "late" / "model_best.safetensors")
    assert loaded.model.weight.sum() == pytest.approx(1.0)
    assert (tmp_path / "late" / "predictions_testing.csv").exists()
