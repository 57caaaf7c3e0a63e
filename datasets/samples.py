"""Records and their store to the samples that a model trains on and is scored on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.annotations import Record
from datasets.augment import AugmentOptions, augment_clip, mask_spectrogram
from datasets.labels import place
from datasets.store import ClipStore
from media.clip import STORED, Clip, ClipConfig, Window, preprocess, tile_windows

MODALITY_ARRAYS = {"face": "faces", "speech": "waveform"}


class StoreSet:
    """Several stores read as one; each holds the recordings of one annotation file.

    Raises:
        ValueError: the stores were prepared with different constants.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._stores = [ClipStore(folder) for folder in folders]
        self.config = self._stores[0].config
        for store in self._stores[1:]:
            differences = self.config.differences(store.config, STORED)
            if differences:
                raise ValueError(f"{self._stores[0].folder} and {store.folder}: {differences[0]}")

    def holds(self, key: str) -> bool:
        return any(key in store for store in self._stores)

    def of(self, key: str) -> ClipStore:
        """The store that holds a recording. Raises KeyError where none does."""
        for store in self._stores:
            if key in store:
                return store
        raise KeyError(key)

    def has(self, key: str, modality: str) -> bool:
        """Whether a recording has any `face` or `speech`."""
        return self.of(key).count(key, MODALITY_ARRAYS[modality]) > 0


@dataclass(frozen=True)
class SampleOptions:
    """How samples are drawn.

    Args:
        train: one randomly placed window a record, with `augment`; else all windows of each.
        augment: changes in training, None for none.
        lenders: where a record lacks a modality that the model takes, one of these of the same
            label and subset lends its own, drawn anew for each sample in training.
        seed: of every draw, with the epoch and the record.
    """

    train: bool = False
    augment: AugmentOptions | None = None
    lenders: Sequence[Record] = ()
    seed: int = 1


class ClipDataset(Dataset[dict[str, Any]]):
    """Samples `{"inputs", "target" (C,) probabilities, "label", "record"}` of labelled records.

    Records whose label has no place among the classes, or that hold nothing the model takes, are
    left out.

    Raises:
        ValueError: no record is left.
    """

    def __init__(
        self,
        records: Sequence[Record],
        stores: StoreSet,
        config: ClipConfig,
        class_names: tuple[str, ...],
        modalities: tuple[str, ...],
        options: SampleOptions,
    ) -> None:
        self.records = [
            record
            for record in records
            if place(record.label, class_names) is not None
            and any(stores.has(record.key, modality) for modality in modalities)
        ]
        if not self.records:
            raise ValueError(
                f"none of {len(records)} records has one of the labels {', '.join(class_names)} "
                f"and the {' or '.join(modalities)} that the model takes"
            )
        self._stores, self.config, self.class_names = stores, config, class_names
        self._modalities, self._options = modalities, options
        self.epoch = 0
        self._lenders = self._group_lenders()
        self._items = self._list_items()

    def set_epoch(self, epoch: int) -> None:
        """Every epoch draws other windows, partners and changes; the same again when resumed."""
        self.epoch = epoch

    @property
    def labels(self) -> list[int]:
        """Class index of each record."""
        return [place(record.label, self.class_names) or 0 for record in self.records]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, item: int) -> dict[str, Any]:
        index, window = self._items[item]
        record = self.records[index]
        epoch = self.epoch if self._options.train else 0
        rng = np.random.default_rng((self._options.seed, epoch, item))
        clip = self._cut(record, window, rng)
        for modality in self._modalities if self._lenders else ():
            if not self._stores.has(record.key, modality):
                clip = self._lend(clip, record, modality, rng)
        inputs = self._to_inputs(clip, rng)
        target = soft_target(record, self.class_names)
        return {
            "inputs": inputs,
            "target": torch.from_numpy(target),
            "label": place(record.label, self.class_names),
            "record": index,
        }

    def _to_inputs(self, clip: Clip, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        augment = self._options.augment if self._options.train else None
        if augment is not None:
            clip = augment_clip(clip, augment, rng)
        inputs = preprocess(clip, self.config, self._modalities)
        if augment is not None and "speech" in inputs and clip.has_speech:
            inputs = mask_spectrogram(inputs, augment, rng)
        return inputs

    def _list_items(self) -> list[tuple[int, Window | None]]:
        if self._options.train:
            return [(index, None) for index in range(len(self.records))]
        return [
            (index, window)
            for index, record in enumerate(self.records)
            for window in self._windows(record)
        ]

    def _windows(self, record: Record) -> list[Window]:
        """Windows side by side over the record; a tail below half a window joins none."""
        start, end = self._span(record)
        length = self.config.window_seconds
        tiles = tile_windows(end - start, length, length)
        if len(tiles) > 1 and tiles[-1].end - tiles[-1].start < length / 2:
            tiles.pop()
        return [Window(start + w.start, start + w.end, w.partial) for w in tiles]

    def _span(self, record: Record) -> tuple[float, float]:
        duration = self._stores.of(record.key).recording(record.key).duration
        end = duration if record.end is None else min(record.end, duration)
        return record.start, max(end, record.start + 1e-3)

    def _cut(self, record: Record, window: Window | None, rng: np.random.Generator) -> Clip:
        recording = self._stores.of(record.key).recording(record.key)
        return recording.cut(window or self._random_window(record, rng), self.config)

    def _random_window(self, record: Record, rng: np.random.Generator) -> Window:
        start, end = self._span(record)
        length = self.config.window_seconds
        if end - start > length:
            start += rng.uniform(0.0, end - start - length)
            return Window(start, start + length)
        return Window(start, end, partial=True)

    def _group_lenders(self) -> dict[tuple[str, str, int | None], list[Record]]:
        """Records that can lend a modality, by (modality, subset, class)."""
        groups: dict[tuple[str, str, int | None], list[Record]] = defaultdict(list)
        for record in self._options.lenders:
            for modality in self._modalities:
                if self._stores.has(record.key, modality):
                    label = place(record.label, self.class_names)
                    groups[modality, record.subset, label].append(record)
        return groups

    def _lend(self, clip: Clip, record: Record, modality: str, rng: np.random.Generator) -> Clip:
        """The clip with the modality of a record of the same label; unchanged where there is none.

        A still lends its picture to the whole window.
        """
        label = place(record.label, self.class_names)
        lenders = self._lenders.get((modality, record.subset, label))
        if not lenders:
            return clip
        lender = lenders[rng.integers(len(lenders))]
        other = self._cut(lender, None, rng)
        if modality == "speech":
            return replace(clip, waveform=other.waveform, has_speech=other.has_speech)
        faces, mask = other.faces, other.face_mask
        if self._stores.of(lender.key).count(lender.key, "faces") == 1:
            faces = np.repeat(faces[mask.argmax()][None], len(faces), axis=0)
            mask = np.ones_like(mask)
        return replace(clip, faces=faces, face_mask=mask, face_id=other.face_id)


def soft_target(record: Record, class_names: tuple[str, ...]) -> np.ndarray:
    """(C,) float32 probabilities: vote shares among the classes, or 1 for the label."""
    target = np.zeros(len(class_names), dtype=np.float32)
    for name, share in record.soft.items():
        index = place(name, class_names)
        if index is not None:
            target[index] += share
    if target.sum() <= 0:
        target[place(record.label, class_names) or 0] = 1.0
    return target / target.sum()
