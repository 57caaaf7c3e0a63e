"""Predict over a loader, score what was predicted, and tabulate it by window and by clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datasets.annotations import Record
from evaluation.metrics import classification_scores, multilabel_scores, regression_scores
from evaluation.predictions import PredictionTable
from labels.emotions import class_index
from media.adaptation import VOICE_SECONDS, Prior, Reference
from models import EmotionModel
from system.files import printable, replacing


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
    voice_offsets: Tensor | None = None,
) -> Predictions:
    """Run a model in evaluation mode over all batches of samples.

    A window that holds nothing the model takes is left out, as it has no probabilities in a
    timeline; but where a record has no other windows, they stay.

    Args:
        without: a modality that is masked, to see what the others do alone.
        voice_offsets: of each record, as `running_voices` gives them.

    Raises:
        ValueError: an output is not finite.
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
            if voice_offsets is not None:
                inputs["voice_offset"] = voice_offsets[batch["record"]].to(device)
            output = model(**inputs)
            heads = {k: v for k, v in output.items() if k == "logits" or k.endswith("_logits")}
            parts.append({name: value.float().cpu() for name, value in heads.items()})
            for name, values in fixed.items():
                values.append(batch[name])
    outputs = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    _check_finite(outputs["logits"])
    joined = {name: torch.cat(values) for name, values in fixed.items()}
    kept = _kept_windows(torch.cat(present), joined["record"])
    return Predictions(
        outputs={name: values[kept] for name, values in outputs.items()},
        targets=joined["target"][kept],
        labels=joined["label"][kept],
        records=joined["record"][kept],
        spans=torch.stack([joined["start"], joined["end"]], dim=1)[kept],
        features=torch.cat(features)[kept] if features else None,
        task=task,
    )


@torch.inference_mode()
def running_voices(
    model: EmotionModel,
    batches: Iterable[dict[str, Any]],
    device: torch.device,
    speakers: Sequence[str],
    seed: int,
) -> Tensor | None:
    """By how much each record's speaker sounds different from training, by what came before it.

    Records of a speaker come in an order drawn by seed, since a corpus lists them by emotion. No
    label is looked at. A record without a speaker is nobody's.

    Args:
        batches: of all records, in any order.
        speakers: of each record.

    Returns:
        (R, D), zero where not enough is known; None for models that hear no voice.
    """
    part = model.voice_part
    if part is None:
        return None
    model.eval()
    mean = part.mean_voice().cpu()
    totals, seconds = torch.zeros(len(speakers), len(mean)), torch.zeros(len(speakers))
    for batch in batches:
        mask = batch["inputs"]["speech_mask"]
        features = part.pooled(batch["inputs"]["speech"].to(device), mask.to(device)).float().cpu()
        weight = (batch["end"] - batch["start"]).float() * mask.flatten(1).any(dim=1)
        totals.index_add_(0, batch["record"], features * weight[:, None])
        seconds.index_add_(0, batch["record"], weight)
    offsets, rng = torch.zeros_like(totals), np.random.default_rng(seed)
    for speaker in sorted(set(speakers) - {""}):
        own = [index for index, name in enumerate(speakers) if name == speaker]
        reference = Reference(Prior(mean.numpy(), VOICE_SECONDS))
        for index in rng.permutation(own):
            offsets[index] = torch.from_numpy(reference.face - mean.numpy())
            if seconds[index] > 0:
                reference.add((totals[index] / seconds[index]).numpy(), float(seconds[index]))
    return offsets


def _check_finite(logits: Tensor) -> None:
    wrong = int((~logits.isfinite()).any(dim=1).sum())
    if wrong:
        raise ValueError(
            f"the outputs of the model for {wrong} of {len(logits)} windows are not finite (NaN or "
            "infinite): its training diverged; train with a lower learning rate"
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
    last = model.last_layer() if model.one_head else None
    if last is None:
        yield seen
        return
    handle = last.register_forward_pre_hook(
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


def clip_table(
    predictions: Predictions, records: Sequence[Record], class_names: tuple[str, ...], path: Path
) -> PredictionTable:
    """What `write_predictions` writes to `path`: a row for each clip that has predictions."""
    targets = predictions.mean_by_clip(predictions.targets).numpy()
    scores = predictions.by_clip()
    return _table(predictions.task, records, class_names, path, predictions.clips, targets, scores)


def window_table(
    predictions: Predictions, records: Sequence[Record], class_names: tuple[str, ...], path: Path
) -> PredictionTable:
    """As `clip_table`, with a row for each window and its span."""
    targets, scores = predictions.targets.numpy(), predictions.scores.numpy()
    rows = predictions.records.tolist()
    table = _table(predictions.task, records, class_names, path, rows, targets, scores)
    return replace(table, span=predictions.spans.numpy())


def _table(  # noqa: PLR0913 - what a table is made of
    task: str,
    records: Sequence[Record],
    class_names: tuple[str, ...],
    path: Path,
    rows: Sequence[int],
    targets: np.ndarray,
    scores: np.ndarray,
) -> PredictionTable:
    """Args: rows: the record of each row of `targets` and `scores`."""
    names = clip_names(records)
    used = [records[index] for index in rows]
    groups = {"dataset": np.array([record.dataset for record in used], dtype=str)}
    for name in _known_columns(records):
        groups[name] = np.array([record.extra.get(name, "") for record in used], dtype=str)
    single = task == "classification"
    if single:
        pairs = zip(used, targets, strict=True)
        labels = np.array([_label(r, target, class_names) for r, target in pairs], dtype=np.int64)
    return PredictionTable(
        path=path,
        task=task,
        class_names=class_names,
        clip=np.array([names[index] for index in rows], dtype=str),
        speaker=np.array([record.speaker for record in used], dtype=str),
        groups=groups,
        targets=labels if single else targets,
        scores=np.exp(scores) if single else scores,
        soft=targets if single and any(record.soft for record in records) else None,
    )


def _known_columns(records: Sequence[Record]) -> list[str]:
    """Those extra columns that any of the records has something in, but for truth and scores."""
    known = {name for record in records for name, value in record.extra.items() if value}
    return sorted(name for name in known if not name.startswith(("target_", "p_", "y_")))


def _label(record: Record, target: np.ndarray, class_names: tuple[str, ...]) -> int:
    """The class of the record's own label; the most probable target where that is no class."""
    index = class_index(record.label, class_names)
    return int(target.argmax()) if index is None else index


def write_features(predictions: Predictions, records: list[Record], path: Path) -> None:
    """`features` (R, D) float32 and `clip` (R,) of the predictions' clips, as an .npz file."""
    if predictions.features is None:
        return
    names = clip_names(records)
    features = predictions.mean_by_clip(predictions.features).numpy().astype(np.float32)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, features=features, clip=np.array([names[i] for i in predictions.clips]))
