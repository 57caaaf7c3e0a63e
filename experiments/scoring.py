"""What a trained model leaves in its run folder: predictions, calibration, cost and scores."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from checkpoints.checkpoint import Checkpoint, save_checkpoint
from datasets.samples import ClipDataset
from evaluation.predictions import write_predictions
from models import EmotionModel
from reports.gallery import MOST_MISTAKES
from reports.run import write_run_report
from system.files import replacing, write_json
from validation import (
    Predictions,
    clip_names,
    clip_table,
    predict,
    running_voices,
    window_table,
    write_features,
)

FEWEST_TO_CALIBRATE = 50  # windows of validation
STRIP = 5  # face pictures that stand for a clip
_TIMED_BATCH, _TIMED_SECONDS = 16, 1.0

Loader = DataLoader[dict[str, Any]]


@dataclass(frozen=True)
class EvaluationJob:
    """A model and the records that it is scored on.

    Args:
        checkpoint: its model on the device.
        path: of the checkpoint's file, which is written anew where it is calibrated.
        loaders: by subset, `validation` first.
        seconds: that each epoch took.
        adapt: hear each voice against the speaker's own, as far as earlier records taught it.
        seed: of the order in which a speaker's records come then.
    """

    checkpoint: Checkpoint
    path: Path
    device: torch.device
    loaders: Mapping[str, Loader]
    seconds: tuple[float, ...] = ()
    adapt: bool = False
    seed: int = 0


def write_scores(run: EvaluationJob) -> None:
    """Predict every subset, calibrate on validation, and write tables, scores and figures."""
    folder, checkpoint = run.path.parent, run.checkpoint
    model, task = checkpoint.model, checkpoint.task
    for subset, loader in run.loaders.items():
        dataset = _dataset(loader)
        voices = _voices(run, loader)
        predictions = predict(model, loader, run.device, task, voice_offsets=voices)
        if subset == "validation" and task == "classification":
            checkpoint = _calibrated(checkpoint, predictions, run.path)
        known = (dataset.records, checkpoint.class_names)
        write_predictions(clip_table(predictions, *known, folder / f"predictions_{subset}.csv"))
        write_predictions(window_table(predictions, *known, folder / f"windows_{subset}.csv"))
        write_features(predictions, dataset.records, folder / f"embeddings_{subset}.npz")
        for modality in model.inputs if len(model.inputs) > 1 else ():
            alone = predict(model, loader, run.device, task, modality, voices)
            name = f"predictions_{subset}_without_{modality}.csv"
            write_predictions(clip_table(alone, *known, folder / name))
        if "face" in model.inputs and task == "classification":
            _write_mistakes(predictions, dataset, folder / f"faces_{subset}.npz")
    sample = next(iter(next(iter(run.loaders.values()))))["inputs"]
    _write_cost(replace(run, checkpoint=checkpoint), sample)
    write_run_report(folder)


def _voices(run: EvaluationJob, loader: Loader) -> Tensor | None:
    if not run.adapt:
        return None
    speakers = [record.speaker for record in _dataset(loader).records]
    return running_voices(run.checkpoint.model, loader, run.device, speakers, run.seed)


def _dataset(loader: Loader) -> ClipDataset:
    dataset = loader.dataset
    assert isinstance(dataset, ClipDataset)
    return dataset


def _calibrated(checkpoint: Checkpoint, validation: Predictions, path: Path) -> Checkpoint:
    """With the temperature that suits validation's windows, and conformal rules; saved again."""
    logits, labels = validation.outputs["logits"].double().numpy(), validation.labels.numpy()
    if len(labels) < FEWEST_TO_CALIBRATE:
        return checkpoint
    calibrated = checkpoint.calibrated(logits, labels)
    save_checkpoint(calibrated, path)
    return calibrated


def _write_mistakes(predictions: Predictions, dataset: ClipDataset, path: Path) -> None:
    """Faces of the clips that were most confidently mistaken: `faces` (K, 5, H, W, 3), `clip`."""
    log_p, labels = predictions.by_clip(), predictions.labels_by_clip()
    wrong = np.flatnonzero(log_p.argmax(axis=1) != labels)
    names, clips = clip_names(dataset.records), predictions.clips
    strips: list[np.ndarray] = []
    kept: list[str] = []
    for place in wrong[np.argsort(-log_p[wrong].max(axis=1))].tolist():
        faces = dataset.faces(clips[place])
        if len(faces) and len(strips) < MOST_MISTAKES:
            strips.append(faces[np.linspace(0, len(faces) - 1, STRIP).round().astype(int)])
            kept.append(names[clips[place]])
    if strips:
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, faces=np.stack(strips), clip=np.array(kept))


def _write_cost(run: EvaluationJob, sample: dict[str, Tensor]) -> None:
    """`run.json`: what the model is; `efficiency.json`: how fast it is on this device."""
    checkpoint, model = run.checkpoint, run.checkpoint.model
    inputs = {name: value.to(run.device) for name, value in sample.items()}
    one = {name: value[:1] for name, value in inputs.items()}
    values = {
        "model": model.name,
        "task": checkpoint.task,
        "class_names": list(checkpoint.class_names),
        "inputs": list(model.inputs),
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "flops": count_flops(model, one),
        "file_bytes": run.path.stat().st_size,
        "calibration": checkpoint.calibration.to_dict() if checkpoint.calibration else None,
        "epoch_seconds": list(run.seconds),
    }
    write_json(values, run.path.parent / "run.json")
    write_json(_measure(model, inputs, one, run.device), run.path.parent / "efficiency.json")


@torch.inference_mode()
def count_flops(model: EmotionModel, inputs: dict[str, Tensor]) -> int:
    """Operations of one call, two for each multiplication with addition."""
    model.eval()
    with FlopCounterMode(display=False) as counter:
        model(**inputs)
    return int(counter.get_total_flops())


@torch.inference_mode()
def _measure(
    model: EmotionModel, inputs: dict[str, Tensor], one: dict[str, Tensor], device: torch.device
) -> dict[str, Any]:
    """Latency of one window and throughput of a batch, and the process's largest memory so far."""
    model.eval()
    batch = {name: value[:_TIMED_BATCH] for name, value in inputs.items()}
    count = len(next(iter(batch.values())))
    return {
        "latency_ms_batch1": 1000 * _median_seconds(model, one, device),
        "throughput_windows_per_s": count / _median_seconds(model, batch, device),
        "peak_memory_mb": _peak_memory_mb(device),
        "device": f"{device.type}, {torch.get_num_threads()} threads",
    }


def _median_seconds(model: EmotionModel, inputs: dict[str, Tensor], device: torch.device) -> float:
    model(**inputs)
    times: list[float] = []
    while sum(times) < _TIMED_SECONDS and len(times) < 50:
        start = time.perf_counter()
        model(**inputs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _peak_memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 2**20 if sys.platform == "darwin" else used / 1024
