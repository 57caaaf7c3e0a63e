"""Predict over a loader, score what was predicted, and write it by window and by clip."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datasets.annotations import Record
from evaluation.metrics import classification_scores, multilabel_scores, regression_scores
from labels.emotions import place
from models import EmotionModel
from system.files import printable, replacing

_SCORE_PREFIX = {"classification": "p_", "multilabel": "p_", "regression": "y_"}


@dataclass(frozen=True)
class Predictions:
    """What a model says of every window of a set of records.

    Args:
        outputs: (W, C) of each head: `logits`, and such as `face_logits`; on the CPU.
        targets: (W, C) probabilities, marks or values.
        labels: (W,) class indices; 0 where there are no classes.
        records: (W,) index of the record that a window belongs to.
        spans: (W, 2) start and end of each window in its recording, in seconds.
        features: (W, D), what the last layer sees; None for models that have none.
        task: `classification`, `multilabel` or `regression`.
    """

    outputs: dict[str, Tensor]
    targets: Tensor
    labels: Tensor
    records: Tensor
    spans: Tensor
    features: Tensor | None = None
    task: str = "classification"

    @property
    def scores(self) -> Tensor:
        """(W, C) log-probabilities, probabilities of each label, or values, by task."""
        logits = self.outputs["logits"].float()
        if self.task == "classification":
            return logits.log_softmax(dim=-1)
        return logits.sigmoid() if self.task == "multilabel" else logits

    @property
    def loss(self) -> float:
        """Mean over windows: cross-entropy, binary cross-entropy, or squared error."""
        measure: Any = {
            "classification": nn.functional.cross_entropy,
            "multilabel": nn.functional.binary_cross_entropy_with_logits,
            "regression": nn.functional.mse_loss,
        }[self.task]
        return float(measure(self.outputs["logits"].float(), self.targets))

    @property
    def clips(self) -> list[int]:
        """The records that have predictions, ascending."""
        return self.records.unique().tolist()

    def mean_by_clip(self, values: Tensor) -> Tensor:
        """(W, K) -> (R, K), over the windows of each record, in the order of `clips`."""
        indices, place, counts = self.records.unique(return_inverse=True, return_counts=True)
        sums = torch.zeros(len(indices), values.shape[1]).index_add_(0, place, values.float())
        return sums / counts.unsqueeze(1)

    def by_clip(self) -> np.ndarray:
        """(R, C) means of `scores`; log-probabilities are normalised again."""
        mean = self.mean_by_clip(self.scores)
        return (mean.log_softmax(dim=-1) if self.task == "classification" else mean).numpy()

    def labels_by_clip(self) -> np.ndarray:
        """(R,) class indices."""
        return self.mean_by_clip(self.labels.unsqueeze(1)).round().long().squeeze(1).numpy()


@torch.inference_mode()
def predict(
    model: EmotionModel,
    batches: Iterable[dict[str, Any]],
    device: torch.device,
    task: str = "classification",
    without: str | None = None,
) -> Predictions:
    """Run a model in evaluation mode over all batches of samples.

    A window that holds nothing the model takes is left out, as it has no probabilities in a
    timeline; but where a record has no other windows, they stay.

    Args:
        without: a modality that is masked, to see what the others do alone.
    """
    model.eval()
    parts: list[dict[str, Tensor]] = []
    present: list[Tensor] = []
    fixed: dict[str, list[Tensor]] = {n: [] for n in ("target", "label", "record", "start", "end")}
    with _watching_features(model) as features:
        for batch in batches:
            inputs = {name: value.to(device) for name, value in batch["inputs"].items()}
            if without:
                for name in (without, f"{without}_mask"):
                    inputs[name] = torch.zeros_like(inputs[name])
            present.append(_present(batch["inputs"], len(batch["record"])))
            output = model(**inputs)
            heads = {k: v for k, v in output.items() if k == "logits" or k.endswith("_logits")}
            parts.append({name: value.float().cpu() for name, value in heads.items()})
            for name, values in fixed.items():
                values.append(batch[name])
    joined = {name: torch.cat(values) for name, values in fixed.items()}
    kept = _kept_windows(torch.cat(present), joined["record"])
    return Predictions(
        outputs={name: torch.cat([part[name] for part in parts])[kept] for name in parts[0]},
        targets=joined["target"][kept],
        labels=joined["label"][kept],
        records=joined["record"][kept],
        spans=torch.stack([joined["start"], joined["end"]], dim=1)[kept],
        features=torch.cat(features)[kept] if features else None,
        task=task,
    )


def _present(inputs: dict[str, Tensor], count: int) -> Tensor:
    """(B,) bool: which samples hold any modality; all where there are no masks."""
    masks = [value for name, value in inputs.items() if name.endswith("_mask")]
    if not masks:
        return torch.ones(count, dtype=torch.bool)
    return torch.stack([mask.flatten(1).any(dim=1) for mask in masks]).any(dim=0)


def _kept_windows(present: Tensor, records: Tensor) -> Tensor:
    """(W,) bool: windows that hold something, and all of records none of whose windows does."""
    return present | ~torch.isin(records, records[present])


@contextmanager
def _watching_features(model: EmotionModel) -> Iterator[list[Tensor]]:
    """What the last layer is given in each call, where a model has one such layer."""
    seen: list[Tensor] = []
    layers = [
        module
        for part in model.head
        if hasattr(model, part)
        for module in model.get_submodule(part).modules()
        if isinstance(module, nn.Linear)
    ]
    if not layers or not model.one_head:
        yield seen
        return
    handle = layers[-1].register_forward_pre_hook(
        lambda _, given: seen.append(_pooled(given[0].detach().float().cpu()))
    )
    try:
        yield seen
    finally:
        handle.remove()


def _pooled(features: Tensor) -> Tensor:
    """(B, D), or (B, T, D) of pictures, zero where there is none -> (B, D)."""
    if features.ndim == 2:
        return features
    seen = (features != 0).any(dim=-1).sum(dim=1, keepdim=True)
    return features.sum(dim=1) / seen.clamp(min=1)


def evaluate(predictions: Predictions, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Scores by clip of any task, with the `loss` over windows; in classification by window too."""
    by_clip = predictions.by_clip()
    if predictions.task == "classification":
        windows = classification_scores(
            predictions.scores.numpy(), predictions.labels.numpy(), class_names
        )
        windows["windows"] = windows.pop("clips")
        scores = classification_scores(by_clip, predictions.labels_by_clip(), class_names)
        return {"loss": predictions.loss, **scores, "windows": windows}
    measure = multilabel_scores if predictions.task == "multilabel" else regression_scores
    targets = predictions.mean_by_clip(predictions.targets).numpy()
    return {"loss": predictions.loss, **measure(by_clip, targets, class_names)}


def clip_names(records: Sequence[Record]) -> list[str]:
    """A name for each record that no other has: its file, and its start where that repeats."""
    files = [printable(record.name) for record in records]
    counts = Counter(files)
    names = [
        name if counts[name] == 1 else f"{name}@{record.start:g}"
        for name, record in zip(files, records, strict=True)
    ]
    taken: Counter[str] = Counter()
    for index, name in enumerate(names):
        taken[name] += 1
        if taken[name] > 1:
            names[index] = f"{name}#{taken[name]}"
    return names


def write_predictions(
    predictions: Predictions, records: list[Record], class_names: tuple[str, ...], path: Path
) -> None:
    """One row a clip: clip, speaker, truth, what else is known of it, and `p_` or `y_` columns."""
    scores = predictions.by_clip()
    targets = predictions.mean_by_clip(predictions.targets).numpy()
    table = _Table(records, class_names, predictions.task)
    rows = [
        table.row(index, targets[place], scores[place])
        for place, index in enumerate(predictions.clips)
    ]
    _write_rows(table.header, rows, path)


def write_windows(
    predictions: Predictions, records: list[Record], class_names: tuple[str, ...], path: Path
) -> None:
    """One row a window: as `write_predictions`, with start and end in seconds."""
    table = _Table(records, class_names, predictions.task)
    scores, targets = predictions.scores.numpy(), predictions.targets.numpy()
    rows = [
        [*table.row(int(record), target, score), f"{start:.3f}", f"{end:.3f}"]
        for record, target, score, (start, end) in zip(
            predictions.records, targets, scores, predictions.spans.tolist(), strict=True
        )
    ]
    _write_rows([*table.header, "start", "end"], rows, path)


class _Table:
    """Columns of predictions: those that any of the records has something in."""

    def __init__(self, records: list[Record], class_names: tuple[str, ...], task: str) -> None:
        self._records, self._names, self._task = records, clip_names(records), task
        extra = sorted(
            {name for record in records for name, value in record.extra.items() if value}
        )
        self._extra = [name for name in extra if not name.startswith(("target_", "p_", "y_"))]
        prefix = _SCORE_PREFIX[task]
        single = task == "classification"
        truth = ["target"] if single else [f"target_{name}" for name in class_names]
        self._classes = class_names
        self._has_votes = single and any(record.soft for record in records)
        soft = [f"soft_{name}" for name in class_names] if self._has_votes else []
        self.header = ["clip", "speaker", *truth, "dataset", *self._extra, *soft]
        self.header += [f"{prefix}{name}" for name in class_names]

    def row(self, index: int, target: np.ndarray, scores: np.ndarray) -> list[str]:
        record = self._records[index]
        if self._task == "classification":
            truth, scores = [self._classes[self._label(record, target)]], np.exp(scores)
        else:
            truth = [f"{value:g}" for value in target]
        soft = [f"{share:.4f}" for share in target] if self._has_votes else []
        known = [record.dataset, *(record.extra.get(name, "") for name in self._extra)]
        values = [f"{value:.6f}" for value in scores]
        return [self._names[index], record.speaker, *truth, *known, *soft, *values]

    def _label(self, record: Record, target: np.ndarray) -> int:
        index = place(record.label, self._classes)
        return int(target.argmax()) if index is None else index


def _write_rows(header: list[str], rows: Iterable[list[str]], path: Path) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def write_features(predictions: Predictions, records: list[Record], path: Path) -> None:
    """`features` (R, D) float32 and `clip` (R,) of the predictions' clips, as an .npz file."""
    if predictions.features is None:
        return
    names = clip_names(records)
    features = predictions.mean_by_clip(predictions.features).numpy().astype(np.float32)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, features=features, clip=np.array([names[i] for i in predictions.clips]))
