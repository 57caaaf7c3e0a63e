"""The one loop: it learns, stops, resumes to the same weights, and writes its run folder."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import training
from checkpoint import load_checkpoint, save_checkpoint
from datasets.annotations import read_annotations, write_annotations
from flags import TrainOptions
from losses import LossOptions, build_criterion
from main import main
from models import EmotionModel, build_model, set_trainable
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


@pytest.fixture
def no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what follows training: its figures take longer than the training of a test."""
    monkeypatch.setattr("experiment.write_scores", lambda *_: None)


def _train(manifest: Path, folder: Path, *extra: str, name: str = "run") -> Path:
    arguments = ["--annotation_path", str(manifest), "--result_path", str(folder)]
    assert main([*arguments, "--run_name", name, *QUICK, *extra]) == 0
    return folder / name


@pytest.mark.parametrize("model", MODELS, ids=lambda m: "-".join(m[1::2]))
@pytest.mark.usefixtures("no_scores")
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
    run = _train(manifest, tmp_path, "--model", "speech_cnn", "--n_epochs", "1")
    first = (run / "metrics.json").read_text()
    (run / "metrics.json").unlink()
    assert main(["--no_train", "--resume_path", str(run)]) == 0
    assert (run / "metrics.json").read_text() == first


RESUMED = ["--n_epochs", "5", "--ema", "0.9", "--dropout", "0.3"]
CONCAT = ["--model", "multimodalcnn", "--fusion", "concat"]
RESTARTS = ["--model", "speech_cnn", "--lr_schedule", "warm_restarts", "--restart_epochs", "2"]
RESTARTS += ["--warmup_epochs", "1", "--accumulate", "2"]


def _weights(run: Path) -> dict[str, Any]:
    return torch.load(run / "last.pt", weights_only=True)


@pytest.mark.usefixtures("no_scores")
@pytest.mark.parametrize(
    ("clips", "chosen"),
    [
        (8, [*CONCAT, "--lr_schedule", "onecycle"]),
        (8, [*CONCAT, "--lr_schedule", "plateau"]),
        (12, RESTARTS),
    ],
    ids=["onecycle", "plateau", "warm_restarts"],
)
def test_a_killed_run_resumes_to_the_weights_of_one_never_killed(
    tmp_path: Path, clips: int, chosen: list[str]
) -> None:
    manifest = make_corpus(tmp_path / "data", per_subset=clips)
    options = [*RESUMED, *chosen]
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


@pytest.mark.usefixtures("no_scores")
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


class _Linear(EmotionModel):
    """A model without batch statistics, whose gradients of two batches can be added."""

    inputs = ("speech",)
    head = ("classifier",)
    name = "linear"

    def __init__(self) -> None:
        super().__init__()
        self.entry = torch.nn.Linear(64, 5)
        self.classifier = torch.nn.Linear(5, 2)

    def forward(self, speech: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.classifier(self.entry(speech.mean(dim=2)))}


def _linear() -> _Linear:
    torch.manual_seed(0)
    return _Linear()


def _one_epoch(batches: list[dict[str, Any]], **options: Any) -> training.Fit:
    train = TrainOptions(lr_schedule="constant", learning_rate=0.1, dampening=0.0, **options)
    criterion = build_criterion("classification")
    state = build_fit(_linear(), criterion, train, torch.device("cpu"), len(batches))
    train_one_epoch(state, batches)  # type: ignore[arg-type]
    return state


def _joined(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    speech = torch.cat([first["inputs"]["speech"], second["inputs"]["speech"]])
    return {
        "inputs": {"speech": speech},
        "target": torch.cat([first["target"], second["target"]]),
    }


def test_accumulated_batches_make_the_step_of_one_large_batch() -> None:
    first, second, third = (_batches(seed)[0] for seed in range(3))
    apart = _one_epoch([first, second, third], accumulate=2).model.state_dict()
    whole = _one_epoch([_joined(first, second), third]).model.state_dict()
    for name, value in whole.items():
        assert torch.allclose(apart[name], value, atol=1e-6), name
    other = _one_epoch([first, second, third]).model.state_dict()
    assert not torch.allclose(other["classifier.weight"], whole["classifier.weight"], atol=1e-6)


def test_a_schedule_counts_steps_and_not_batches() -> None:
    options = TrainOptions(lr_schedule="cosine", learning_rate=0.1, n_epochs=2, accumulate=2)
    batches = [_batches(seed)[0] for seed in range(3)]
    state = build_fit(
        _linear(), build_criterion("classification"), options, torch.device("cpu"), len(batches)
    )
    train_one_epoch(state, batches)  # type: ignore[arg-type]
    assert state.optimizer.param_groups[0]["lr"] == pytest.approx(0.05), "half of four steps"


def test_the_gradient_is_clipped_once_it_is_complete() -> None:
    batches = [_batches(seed)[0] for seed in range(2)]
    state = _one_epoch(batches, accumulate=2, clip_grad=1e-3, weight_decay=0.0)
    moved = [
        (new - old).flatten()
        for new, old in zip(state.model.parameters(), _linear().parameters(), strict=True)
    ]
    assert torch.cat(moved).detach().norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-2)


def test_the_head_may_learn_at_a_rate_of_its_own() -> None:
    model = _linear()
    options = TrainOptions(lr_schedule="constant", lr_backbone=1e-3, lr_head=1e-2)
    state = build_fit(model, build_criterion("classification"), options, torch.device("cpu"), 1)
    backbone, head = state.optimizer.param_groups
    assert {id(p) for p in head["params"]} == {id(p) for p in model.classifier.parameters()}
    assert (backbone["lr"], head["lr"]) == (1e-3, 1e-2)
    set_trainable(model, ["head"])
    with pytest.raises(ValueError, match="--lr_backbone has no effect: nothing of the backbone"):
        build_fit(model, build_criterion("classification"), options, torch.device("cpu"), 1)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train: every parameter is frozen"):
        build_fit(model, build_criterion("classification"), options, torch.device("cpu"), 1)


@pytest.mark.usefixtures("no_scores")
def test_only_the_blocks_that_are_named_are_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_corpus(tmp_path / "data")
    options = ["--model", "cnn_simple", "--n_epochs", "2", "--lr_schedule", "constant"]
    run = _train(manifest, tmp_path, *options, "--trainable", "block4,head")
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
    whole = _train(manifest, tmp_path, *options, name="whole")
    twice = _train(manifest, tmp_path, *options, "--gradient_checkpointing", name="twice")
    one, other = _weights(whole)["model"], _weights(twice)["model"]
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
    run = _train(manifest, tmp_path, *options)
    assert json.loads((run / "opts.json").read_text())["batch_size"] == 4, "of six records"
    again = _train(manifest, tmp_path, *options[:-1], "4", name="again")
    one, other = _weights(run)["model"], _weights(again)["model"]
    assert all(torch.equal(one[name], other[name]) for name in one), "the search left no trace"


def test_an_end_of_memory_is_one_line_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exhaust(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(training, "train_on_batch", exhaust)
    manifest = make_corpus(tmp_path / "data")
    arguments = ["--annotation_path", str(manifest), "--result_path", str(tmp_path)]
    assert main([*arguments, "--model", "speech_cnn"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: out of memory: give a smaller --batch_size")
    assert "--accumulate" in line
    assert "--gradient_checkpointing" in line


def _with_targets(manifest: Path, columns: dict[str, tuple[str, str]]) -> Path:
    """The manifest with target columns: a value for happy and one for sad records."""
    records = [
        replace(
            record,
            extra={f"target_{n}": v[record.label == "sad"] for n, v in columns.items()},
        )
        for record in read_annotations(manifest)
    ]
    write_annotations(records, manifest)
    return manifest


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
    manifest = _with_targets(make_corpus(tmp_path / "data"), columns)
    options = ["--task", task, "--model", "speech_cnn", "--lr_schedule", "constant"]
    run = _train(manifest, tmp_path, *options, "--n_epochs", "8", "--no-augment")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert log[-1]["train_loss"] < log[0]["train_loss"]
    assert "train_acc" not in log[0]
    best = max(line[f"val_{score}"] for line in log)
    assert best > 0.8
    assert _weights(run)["best_score"] == best
    loaded = load_checkpoint(run / "model_best.safetensors")
    assert (loaded.task, loaded.class_names) == (task, tuple(sorted(columns)))
    assert loaded.info["validation"][score] == best


def test_a_target_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"valence": ("0.9", "0.1"), "arousal": ("0.6", "0.2")}
    manifest = _with_targets(make_corpus(tmp_path / "data"), columns)
    options = ["--task", "regression", "--targets", "valence", "--loss", "ccc"]
    run = _train(manifest, tmp_path, "--model", "speech_cnn", "--n_epochs", "1", *options)
    assert load_checkpoint(run / "model_best.safetensors").class_names == ("valence",)
    constant = _with_targets(manifest, {"valence": ("0.5", "0.5")})
    arguments = ["--annotation_path", str(constant), "--task", "multilabel", "--targets", "joy"]
    assert main(arguments) == 2
    assert "no column target_happy; there are targets valence" in capsys.readouterr().err


def test_every_loss_trains_an_epoch() -> None:
    for task, name in (("classification", "focal"), ("multilabel", "bce"), ("regression", "ccc")):
        criterion = build_criterion(task, LossOptions(name=name))
        options = TrainOptions(lr_schedule="constant", n_epochs=1, learning_rate=1e-3)
        state = build_fit(_linear(), criterion, options, torch.device("cpu"), 1)
        assert math.isfinite(train_one_epoch(state, _batches())["train_loss"])  # type: ignore[arg-type]


@pytest.mark.usefixtures("no_scores")
def test_weights_of_torchvision_are_loaded_by_default_and_freeze_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        "initialisation.load_torchvision", lambda _, which: asked.append(which) or []
    )
    manifest = make_corpus(tmp_path / "data", per_subset=2)
    options = ["--model", "cnn_temporal", "--temporal", "mean", "--n_epochs", "1"]
    run = _train(manifest, tmp_path, *options)
    assert asked == ["default"]
    assert "ImageNet-1k" in load_checkpoint(run / "model_best.safetensors").info["corpora"]
    scratch = _train(manifest, tmp_path, *options, "--pretrained", "none", name="scratch")
    assert asked == ["default"]
    assert load_checkpoint(scratch / "model_best.safetensors").info["corpora"] == ["made"]


@pytest.mark.usefixtures("no_scores")
def test_a_plateau_lowers_the_rate(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "data")
    flat = ["--learning_rate", "1e-6", "--lr_schedule", "plateau", "--lr_patience", "1"]
    run = _train(manifest, tmp_path, "--model", "speech_cnn", *flat, "--n_epochs", "6")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert log[-1]["lr"] < log[0]["lr"]


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    options = TrainOptions(lr_schedule="constant", n_epochs=1)
    model = build_model("speech_cnn", num_classes=2)
    state = build_fit(model, build_criterion("classification"), options, torch.device("cpu"), 1)
    (batch,) = _batches()
    batch["inputs"]["speech"][0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="the loss became nan in epoch 1: lower --learning_rate"):
        train_one_epoch(state, [batch])  # type: ignore[arg-type]


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_trains_on_the_processor_too(amp: str) -> None:
    options = TrainOptions(lr_schedule="constant", amp=amp, optimizer="adamw", learning_rate=1e-3)
    model = build_model("speech_cnn", num_classes=2)
    state = build_fit(model, build_criterion("classification"), options, torch.device("cpu"), 1)
    before = model.classifier_1[1].weight.clone()
    assert train_one_epoch(state, _batches())["train_loss"] > 0  # type: ignore[arg-type]
    assert not torch.equal(before, model.classifier_1[1].weight)


@pytest.mark.usefixtures("no_scores")
def test_a_start_that_saw_other_colours_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(make_checkpoint("efficientface"), tmp_path / "face.safetensors")
    start = ["--pretrain_path", str(tmp_path / "face.safetensors"), "--n_epochs", "1"]
    manifest = make_corpus(tmp_path / "data")
    _train(manifest, tmp_path, "--model", "face_cnn", "--colour", "grey", *start)
    assert "colour is rgb here and grey there" in capsys.readouterr().out


@pytest.mark.usefixtures("no_scores")
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
