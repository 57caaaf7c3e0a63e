"""What a run leaves behind once its model is trained."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from datasets.annotations import read_annotations
from datasets.samples import ClipDataset, SampleOptions, StoreSet, collate
from evaluation.calibration import COVERAGES
from experiments import scoring
from experiments.scoring import EvaluationJob, count_flops, write_scores
from models import build_model
from tests.builders import LABELS, SMALL, make_corpus
from validation import predict


def _scored(folder: Path, name: str, **arguments: object) -> EvaluationJob:
    manifest = make_corpus(folder / "data", per_subset=4)
    stores = StoreSet([manifest.parent / "clips"])
    torch.manual_seed(0)
    checkpoint = Checkpoint(build_model(name, num_classes=2, **arguments), LABELS, SMALL)
    path = folder / "run" / "model_best.safetensors"
    path.parent.mkdir()
    save_checkpoint(checkpoint, path)
    loaders = {}
    for subset in ("validation", "testing"):
        records = [r for r in read_annotations(manifest) if r.subset == subset]
        dataset = ClipDataset(
            records, stores, SMALL, LABELS, checkpoint.model.inputs, SampleOptions()
        )
        loaders[subset] = torch.utils.data.DataLoader(dataset, batch_size=3, collate_fn=collate)
    return EvaluationJob(checkpoint, path, torch.device("cpu"), loaders, (1.0, 2.0))


def _rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def test_a_fused_model_is_scored_with_and_without_each_modality(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(scoring, "FEWEST_TO_CALIBRATE", 4)
    monkeypatch.setattr(scoring, "_TIMED_SECONDS", 0.01)
    run = _scored(tmp_path, "multimodalcnn", fusion="concat")
    write_scores(run)
    folder = run.path.parent
    clips = _rows(folder / "predictions_testing.csv")
    windows = _rows(folder / "windows_testing.csv")
    assert len(clips) == 4
    assert len(windows) == 8, "1.5 s are two windows"
    assert [row["start"] for row in windows[:2]] == ["0.000", "1.000"]
    alone = _rows(folder / "predictions_testing_without_face.csv")
    assert [row["clip"] for row in alone] == [row["clip"] for row in clips]
    assert [row["p_happy"] for row in alone] != [row["p_happy"] for row in clips]
    features = np.load(folder / "embeddings_testing.npz")
    assert features["clip"].tolist() == [row["clip"] for row in clips]
    scores = json.loads((folder / "metrics.json").read_text())["testing"]
    assert set(scores["without"]) == {"face", "speech"}
    cost = json.loads((folder / "run.json").read_text())
    assert cost["parameters"] == sum(p.numel() for p in run.checkpoint.model.parameters())
    assert cost["flops"] > 0
    assert cost["file_bytes"] == run.path.stat().st_size
    assert json.loads((folder / "efficiency.json").read_text())["latency_ms_batch1"] > 0
    assert any(line.startswith("testing") for line in caplog.messages)


def test_the_checkpoint_keeps_its_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "FEWEST_TO_CALIBRATE", 4)
    run = _scored(tmp_path, "speech_cnn")
    before = load_checkpoint(run.path)
    assert before.calibration is None
    predictions = predict(run.checkpoint.model, run.loaders["validation"], run.device)
    calibrated = scoring._calibrated(run.checkpoint, predictions, run.path)
    again = load_checkpoint(run.path)
    assert again.calibration == calibrated.calibration
    assert [rule.coverage for rule in again.conformal] == list(COVERAGES)
    logits = predictions.outputs["logits"].double().numpy()
    right = np.arange(len(logits)), predictions.labels.numpy()
    fitted = again.calibration
    assert fitted is not None
    losses = [-np.log(p[right]).mean() for p in (fitted.apply(logits), _softmax(logits))]
    assert losses[0] <= losses[1] + 1e-9


def _softmax(logits: np.ndarray) -> np.ndarray:
    return torch.from_numpy(logits).softmax(dim=-1).numpy()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("cnn_simple", {}), ("cnn_ae_lstm", {}), ("landmark_tcn", {}), ("speech_duo", {})],
)
def test_the_features_of_any_model_are_one_row_a_clip(
    tmp_path: Path, name: str, arguments: dict[str, object]
) -> None:
    model = build_model(name, num_classes=2, **arguments)
    batch, modality = 2, model.inputs[0]
    shapes = {
        "face": (batch, 3, 3, 32, 32),
        "speech": (batch, 64, 50),
        "landmarks": (batch, 9, 70, 2),
    }
    steps = {"face": 3, "speech": 50, "landmarks": 9}[modality]
    batches = []
    for short in (0, 1):  # batches of different length
        mask = torch.ones(batch, steps - short, dtype=torch.bool)
        axis = 2 if modality == "speech" else 1
        x = torch.rand(shapes[modality]).narrow(axis, 0, steps - short)
        rest = {n: torch.zeros(batch) for n in ("start", "end")}
        ids = torch.arange(batch) + 2 * short
        inputs = {modality: x, f"{modality}_mask": mask}
        truth = {"target": torch.eye(2), "label": torch.arange(2), "record": ids}
        batches.append({"inputs": inputs, **truth, **rest})
    predictions = predict(model, batches, torch.device("cpu"))
    assert predictions.by_clip().shape == (4, 2)
    if name != "speech_duo":
        assert predictions.features is not None
        assert predictions.features.shape[0] == 4
        assert predictions.features.ndim == 2


def test_masking_a_modality_is_not_hearing_it(tmp_path: Path) -> None:
    run = _scored(tmp_path, "multimodalcnn", fusion="ia")
    model, loader = run.checkpoint.model, run.loaders["testing"]
    deaf = predict(model, loader, run.device, without="speech").outputs["logits"]
    with torch.inference_mode():
        first = next(iter(loader))["inputs"]
        first["speech"] = torch.randn_like(first["speech"])
        first["speech_mask"] = torch.zeros_like(first["speech_mask"])
        expected = model.eval()(**first)["logits"]
    assert torch.allclose(deaf[: len(expected)], expected, atol=1e-5)


def test_operations_are_counted_two_for_each_product() -> None:
    model = build_model("speech_cnn", num_classes=2)
    once = count_flops(model, {"speech": torch.zeros(1, 64, 100)})
    twice = count_flops(model, {"speech": torch.zeros(2, 64, 100)})
    assert twice == 2 * once
    first = 2 * 96 * 64 * 5 * 100  # the entry's first convolution
    assert first < once < 40 * first
