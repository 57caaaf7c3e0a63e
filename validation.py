"""Predict over a loader, and score what was predicted by window and by clip."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datasets.annotations import Record
from files import replacing
from metrics import classification_scores


@dataclass(frozen=True)
class Predictions:
    """What a model says of every window of a set of records.

    Args:
        outputs: each (W, C) tensor of the model's output dict, on the CPU.
        targets: (W, C) probabilities.
        labels: (W,) class indices.
        records: (W,) index of the record that a window belongs to.
        loss: mean cross-entropy over windows.
    """

    outputs: dict[str, Tensor]
    targets: Tensor
    labels: Tensor
    records: Tensor
    loss: float

    def by_clip(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean log-probabilities over the windows of each record, normalised.

        Returns:
            (R, C) log-probabilities, (R,) labels, (R,) record indices, ascending.
        """
        log_p = self.outputs["logits"].float().log_softmax(dim=-1)
        indices, place, counts = self.records.unique(return_inverse=True, return_counts=True)
        sums = torch.zeros(len(indices), log_p.shape[1]).index_add_(0, place, log_p)
        labels = torch.zeros(len(indices), dtype=self.labels.dtype)
        labels[place] = self.labels
        mean = (sums / counts.unsqueeze(1)).log_softmax(dim=-1)
        return mean.numpy(), labels.numpy(), indices.numpy()


@torch.inference_mode()
def predict(
    model: nn.Module, batches: Iterable[dict[str, Any]], device: torch.device
) -> Predictions:
    """Run a model in evaluation mode over all batches of samples."""
    model.eval()
    parts: list[dict[str, Tensor]] = []
    fixed: dict[str, list[Tensor]] = {"target": [], "label": [], "record": []}
    for batch in batches:
        output = model(**{name: value.to(device) for name, value in batch["inputs"].items()})
        parts.append({name: value.float().cpu() for name, value in output.items()})
        for name, values in fixed.items():
            values.append(batch[name])
    outputs = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    targets = torch.cat(fixed["target"])
    loss = nn.functional.cross_entropy(outputs["logits"], targets)
    return Predictions(
        outputs, targets, torch.cat(fixed["label"]), torch.cat(fixed["record"]), float(loss)
    )


def evaluate(predictions: Predictions, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Scores by clip, and by window under `windows`."""
    log_p, labels, _ = predictions.by_clip()
    window_scores = classification_scores(
        predictions.outputs["logits"].numpy(), predictions.labels.numpy(), class_names
    )
    window_scores["windows"] = window_scores.pop("clips")
    scores = classification_scores(log_p, labels, class_names)
    return {"loss": predictions.loss, **scores, "windows": window_scores}


def write_predictions(
    predictions: Predictions, records: list[Record], class_names: tuple[str, ...], path: Path
) -> None:
    """One row a clip: clip, speaker, target, p_<class>."""
    log_p, labels, indices = predictions.by_clip()
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "speaker", "target", *(f"p_{name}" for name in class_names)])
        for row, label, index in zip(np.exp(log_p), labels, indices, strict=True):
            record = records[index]
            probabilities = [f"{p:.6f}" for p in row]
            writer.writerow([record.name, record.speaker, class_names[label], *probabilities])
