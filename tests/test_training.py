"""The one loop: it learns, stops, and resumes to the same weights as a run never killed."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import training
from main import main
from models import EmotionModel, build_model, set_trainable
from optim.losses import build_criterion
from optim.options import FitOptions, LossOptions
from tests.builders import make_corpus
from tests.runs import QUICK, no_scores, train, weights_of
from training import build_training_state, train_one_epoch

__all__ = ["no_scores"]
ROOT = Path(__file__).parent.parent
PLAIN = ["--dropout", "0"]
MODELS: list[list[str]] = [
    ["--model", "efficientface"],
    ["--model", "face_cnn"],
    ["--model", "speech_cnn"],
    ["--model", "speech_crnn"],
    ["--model", "speech_duo"],
    ["--model", "landmark_tcn"],
    ["--model", "landmark_tcn", "--adapt", "recording"],
    ["--model", "multimodalcnn", "--fusion", "it", "--face_model", "landmark_tcn"],
    ["--model", "cnn_simple", *PLAIN],
    ["--model", "cnn_ae_lstm", *PLAIN],
    ["--model", "cnn_ae_lstm", "--model_variant", "3dcnn", "--reconstruction", "0.1", *PLAIN],
    *(["--model", "multimodalcnn", "--fusion", fusion] for fusion in ("concat", "ia", "it", "lt")),
]
LARGE_MODELS: dict[str, list[str]] = {
    "resnet3d_lstm": [],
    "resnet50": [],
    "vit_scratch": [],
    "cnn_temporal": [],
    "vit_b_16": ["--learning_rate", "1e-4"],
    "resnet_vit_hybrid": ["--learning_rate", "1e-4", "--lr_schedule", "cosine", "--n_epochs", "25"],
}


@pytest.mark.usefixtures("no_scores")
@pytest.mark.parametrize("model", MODELS, ids=lambda m: "-".join(m[1::2]))
def test_any_model_overfits_four_clips_through_the_one_loop(
    tmp_path: Path, model: list[str]
) -> None:
    manifest = make_corpus(tmp_path / "data")
    schedule = ["--lr_schedule", "constant", "--no-augment", "--weight_decay", "0"]
    schedule += ["--n_epochs", "12"]
    if model[1] == "multimodalcnn":
        schedule += ["--mask", "nodropout"]
    run = train(manifest, tmp_path, *schedule, *model, "--no_val")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert log[-1]["train_loss"] < 0.25 < log[0]["train_loss"]
    assert log[-1]["train_acc"] == 1.0


@pytest.mark.slow
@pytest.mark.usefixtures("no_scores")
@pytest.mark.parametrize("model", LARGE_MODELS)
def test_a_large_model_overfits_four_clips_too(tmp_path: Path, model: str) -> None:
    arguments = ["--model", model, *PLAIN, "--pretrained", "none", "--learning_rate", "1e-3"]
    arguments += LARGE_MODELS[model]
    test_any_model_overfits_four_clips_through_the_one_loop(tmp_path, arguments)


RESUMED = ["--n_epochs", "5", "--ema", "0.9", "--dropout", "0.3"]
CONCAT = ["--model", "multimodalcnn", "--fusion", "concat"]
RESTARTS = ["--model", "speech_cnn", "--lr_schedule", "warm_restarts", "--restart_epochs", "2"]
RESTARTS += ["--warmup_epochs", "1", "--accumulate", "2"]


KILLED_AFTER_AN_EPOCH = """
import os, signal, sys
import training
from main import main
save = training.save_state
def save_and_die(*state):
    save(*state)
    os.kill(os.getpid(), signal.SIGKILL)
training.save_state = save_and_die
main(sys.argv[1:])
"""


@pytest.mark.usefixtures("no_scores")
@pytest.mark.parametrize(
    ("clips", "chosen"),
    [
        (8, [*CONCAT, "--lr_schedule", "onecycle"]),
        pytest.param(8, [*CONCAT, "--lr_schedule", "plateau"], marks=pytest.mark.slow),
        pytest.param(12, RESTARTS, marks=pytest.mark.slow),
    ],
    ids=["onecycle", "plateau", "warm_restarts"],
)
def test_a_killed_run_resumes_to_the_weights_of_one_never_killed(
    tmp_path: Path, clips: int, chosen: list[str]
) -> None:
    manifest = make_corpus(tmp_path / "data", per_subset=clips)
    options = [*RESUMED, *chosen]
    whole = train(manifest, tmp_path, *options, name="whole")
    killed = tmp_path / "killed"
    arguments = ["--annotation_path", str(manifest), *QUICK, *options]
    arguments += ["--result_path", str(tmp_path), "--run_name", "killed"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_AFTER_AN_EPOCH, *arguments],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
        env=environment,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert weights_of(killed)["epoch"] == 1
    assert main(["--resume_path", str(killed)]) == 0
    one, other = weights_of(whole), weights_of(killed)
    assert other["epoch"] == 5
    for part in ("model", "average"):
        for name, value in one[part].items():
            assert torch.equal(value, other[part][name]), f"{part} {name}"
    assert one["log"] == other["log"]


@pytest.mark.usefixtures("no_scores")
def test_early_stopping_ends_a_run_that_gets_no_better(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "data")
    slow = ["--learning_rate", "1e-9", "--early_stopping", "2", "--n_epochs", "50"]
    run = train(manifest, tmp_path, "--model", "speech_cnn", *slow)
    assert len((run / "log.jsonl").read_text().splitlines()) < 50


@pytest.mark.usefixtures("no_scores")
def test_a_plateau_lowers_the_rate(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "data")
    flat = ["--learning_rate", "1e-6", "--lr_schedule", "plateau", "--lr_patience", "1"]
    run = train(manifest, tmp_path, "--model", "speech_cnn", *flat, "--n_epochs", "6")
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert log[-1]["lr"] < log[0]["lr"]


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
    assert line.startswith("error: out of memory: take smaller batches")
    assert "--accumulate" in line
    assert "--gradient_checkpointing" in line


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
    train = FitOptions(lr_schedule="constant", learning_rate=0.1, dampening=0.0, **options)
    criterion = build_criterion("classification")
    state = build_training_state(_linear(), criterion, train, torch.device("cpu"), len(batches))
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
    options = FitOptions(lr_schedule="cosine", learning_rate=0.1, n_epochs=2, accumulate=2)
    batches = [_batches(seed)[0] for seed in range(3)]
    state = build_training_state(
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
    options = FitOptions(lr_schedule="constant", lr_backbone=1e-3, lr_head=1e-2)
    state = build_training_state(
        model, build_criterion("classification"), options, torch.device("cpu"), 1
    )
    backbone, head = state.optimizer.param_groups
    assert {id(p) for p in head["params"]} == {id(p) for p in model.classifier.parameters()}
    assert (backbone["lr"], head["lr"]) == (1e-3, 1e-2)
    set_trainable(model, ["head"])
    with pytest.raises(ValueError, match="learning rate of the backbone has no effect"):
        build_training_state(
            model, build_criterion("classification"), options, torch.device("cpu"), 1
        )
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train: every parameter is frozen"):
        build_training_state(
            model, build_criterion("classification"), options, torch.device("cpu"), 1
        )


def test_every_loss_trains_an_epoch() -> None:
    for task, name in (("classification", "focal"), ("multilabel", "bce"), ("regression", "ccc")):
        criterion = build_criterion(task, LossOptions(loss=name))
        options = FitOptions(lr_schedule="constant", n_epochs=1, learning_rate=1e-3)
        state = build_training_state(_linear(), criterion, options, torch.device("cpu"), 1)
        assert math.isfinite(train_one_epoch(state, _batches())["train_loss"])  # type: ignore[arg-type]


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    options = FitOptions(lr_schedule="constant", n_epochs=1)
    model = build_model("speech_cnn", num_classes=2)
    state = build_training_state(
        model, build_criterion("classification"), options, torch.device("cpu"), 1
    )
    (batch,) = _batches()
    batch["inputs"]["speech"][0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="the loss became nan in epoch 1: lower the learning rate"):
        train_one_epoch(state, [batch])  # type: ignore[arg-type]


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision_trains_on_the_processor_too(amp: str) -> None:
    options = FitOptions(lr_schedule="constant", amp=amp, optimizer="adamw", learning_rate=1e-3)
    model = build_model("speech_cnn", num_classes=2)
    state = build_training_state(
        model, build_criterion("classification"), options, torch.device("cpu"), 1
    )
    before = model.classifier_1[1].weight.clone()
    assert train_one_epoch(state, _batches())["train_loss"] > 0  # type: ignore[arg-type]
    assert not torch.equal(before, model.classifier_1[1].weight)


@pytest.mark.usefixtures("no_scores")
def test_a_full_disk_is_one_line_and_the_run_goes_on_from_its_last_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_corpus(tmp_path / "data")
    options = ["--model", "speech_cnn", "--n_epochs", "3", "--no_val"]
    whole = train(manifest, tmp_path, *options, name="whole")
    write, written = Path.write_bytes, []

    def fill(path: Path, content: bytes) -> int:
        written.append(path)
        if path.suffix == ".pt" and sum(p.suffix == ".pt" for p in written) == 2:
            write(path, content[:100])
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fill)
    arguments = ["--annotation_path", str(manifest), "--result_path", str(tmp_path)]
    capsys.readouterr()
    assert main([*arguments, "--run_name", "full", *QUICK, *options]) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert error.startswith("error: [Errno 28] No space left on device")
    assert error.endswith("last.pt'")
    monkeypatch.setattr(Path, "write_bytes", write)
    full = tmp_path / "full"
    assert weights_of(full)["epoch"] == 1
    assert main(["--resume_path", str(full)]) == 0
    one, other = weights_of(whole), weights_of(full)
    for name, value in one["model"].items():
        assert torch.equal(value, other["model"][name]), name
