"""Records and their store to the samples that a model trains on and is scored on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from datasets.annotations import Record
from datasets.augment import (
    AugmentOptions,
    augment_clip,
    mask_spectrogram,
    mirror_face,
    swap_identity,
)
from datasets.mean_faces import MeanFaces
from datasets.mouth_blendshapes import talk
from datasets.store import ClipStore, lacks_voice
from datasets.targets import target_of
from labels.emotions import class_index
from media.adaptation import REFERRED, Prior, relative_to
from media.clip import SOUND_FIELDS, Clip, Window, tile_windows
from media.configuration import STORED, ClipConfig
from media.preprocess import preprocess
from system.errors import OptionError

MODALITY_ARRAYS = {"face": "faces", "landmarks": "landmarks", "speech": "waveform"}
MODALITY_ARRAYS |= {"blendshapes": "blendshapes"}


DRAWS = 8  # of a training window, until one holds something


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

    @property
    def folder(self) -> Path:
        """Of the first of them."""
        return self._stores[0].folder

    def holds(self, key: str) -> bool:
        return any(key in store for store in self._stores)

    def check_voice(self) -> None:
        """Raise ValueError, naming the store, where it is not known what sound holds speech."""
        for store in self._stores:
            if lacks_voice(store.folder):
                raise OptionError(
                    f"store {store.folder} was prepared without voice detection: prepare into "
                    "another folder, or let all sound count",
                    "voice_activity",
                )

    def of(self, key: str) -> ClipStore:
        """The store that holds a recording. Raises KeyError where none does."""
        for store in self._stores:
            if key in store:
                return store
        raise KeyError(key)

    def has(self, key: str, modality: str) -> bool:
        """Whether a recording has any `face`, `landmarks`, `blendshapes` or `speech`."""
        return self.of(key).count(key, MODALITY_ARRAYS[modality]) > 0


@dataclass(frozen=True)
class SampleOptions:
    """How samples are drawn.

    Args:
        train: one randomly placed window a record, with `augment`; else all windows of each.
        whole: in place of windows, each record in one piece; samples then differ in length.
        augment: changes in training, None for none.
        priors: of models with speaker adaptation, by modality: the mean that stands for somebody
            new.
        adapt: in scoring, learn each speaker's own face as the records go by.
        pairing: records of which one of the same label and subset gives its own where a record
            lacks a modality that the model takes, drawn anew for each sample in training.
        seed: of every draw, with the epoch and the record.
        task: what `target` is, see `datasets.targets`.
        encode: gives the inputs of speech for a recording's key and a clip of it, in the place of
            `preprocess`, where an encoder's output is kept; the sound is then not augmented.
    """

    train: bool = False
    whole: bool = False
    augment: AugmentOptions | None = None
    priors: Mapping[str, Prior] = field(default_factory=dict)
    adapt: bool = False
    pairing: Sequence[Record] = ()
    seed: int = 1
    task: str = "classification"
    encode: Callable[[str, Clip, ClipConfig], dict[str, torch.Tensor]] | None = None


class ClipDataset(Dataset[dict[str, Any]]):
    """Samples of labelled records: `inputs`, `target` (C,), `label`, `record`, and `start` and
    `end` of the window in seconds.

    A training window lies anywhere in its record, anew in each epoch: so the sound is shifted in
    time. `label` is the class index, 0 in tasks without classes. Records whose label has no place
    among the classes, that lack a target, or that hold nothing the model takes are left out.

    Raises:
        ValueError: no record is left, a target cannot be read, or the configuration asks for voice
            activity and a store does not know it.
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
        if config.voice_activity and "speech" in modalities:
            stores.check_voice()
        self.task = options.task
        self.records: list[Record] = []
        self.labels: list[int] = []  # class index of each record
        self._targets: list[np.ndarray] = []
        for record in records:
            target = target_of(record, options.task, class_names)
            if target is not None and any(stores.has(record.key, m) for m in modalities):
                self.records.append(record)
                self.labels.append(class_index(record.label, class_names) or 0)
                self._targets.append(target)
        if not self.records:
            wanted = "one of the labels" if self.task == "classification" else "all the targets"
            raise ValueError(
                f"none of {len(records)} records has {wanted} {', '.join(class_names)} "
                f"and the {' or '.join(modalities)} that the model takes"
            )
        self._stores, self.config, self.class_names = stores, config, class_names
        self._modalities, self._options = modalities, options
        self.epoch = 0
        self._pairing = self._group_pairing_records()
        self._items = self._list_items()
        self._mean_faces = self._measure_faces()
        landmarks = self._mean_faces.get("landmarks")
        self._by_speaker = landmarks.by_speaker() if landmarks else {}
        self._references = self._running_references()

    def set_epoch(self, epoch: int) -> None:
        """Every epoch draws other windows, partners and changes; the same again when resumed."""
        self.epoch = epoch

    @property
    def targets(self) -> torch.Tensor:
        """(R, C) of all records."""
        return torch.from_numpy(np.stack(self._targets))

    def faces(self, index: int) -> np.ndarray:
        """(P, H, W, 3) uint8 face pictures of a record, as stored."""
        record = self.records[index]
        recording = self._stores.of(record.key).recording(record.key)
        start, end = self._span(record)
        times = recording.face_times
        return recording.faces[(times >= start) & (times < end)]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, item: int) -> dict[str, Any]:
        index, window = self._items[item]
        record = self.records[index]
        epoch = self.epoch if self._options.train else 0
        rng = np.random.default_rng((self._options.seed, epoch, item))
        if window is None:
            window, clip = self._draw_window(record, rng)
            config = self.config
        else:
            length = round(window.end - window.start, 2)
            config = self.config.over(length) if self._whole else self.config
            clip = self._cut(record, window, config)
        for modality in self._modalities if self._pairing else ():
            if not self._stores.has(record.key, modality):
                clip = self._pair(clip, record, modality, rng)
        inputs = self._to_inputs(clip, config, record, rng)
        inputs = self._mirror(self._refer(inputs, index, rng), rng)
        return {
            "inputs": inputs,
            "target": torch.from_numpy(self._targets[index]),
            "label": self.labels[index],
            "record": index,
            "start": window.start,
            "end": window.end,
        }

    def _to_inputs(
        self, clip: Clip, config: ClipConfig, record: Record, rng: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        augment = self._options.augment if self._options.train else None
        encode = self._options.encode if "speech" in self._modalities else None
        modalities = [m for m in self._modalities if m != "speech" or encode is None]
        if augment is not None:
            clip = augment_clip(clip, augment, rng, modalities)
        inputs = preprocess(clip, config, modalities)
        if encode is not None:
            inputs |= encode(record.key, clip, config)
        if augment is None:
            return inputs
        if "speech" in modalities and clip.has_speech:
            inputs = mask_spectrogram(inputs, augment, rng)
        if "blendshapes" in inputs:
            inputs = talk(inputs, augment.talk, rng)
        known = record.speaker in self._by_speaker
        if "landmarks" in inputs and known and "landmarks" not in self._options.priors:
            inputs = swap_identity(inputs, record.speaker, self._by_speaker, augment.swap, rng)
        return inputs

    @property
    def _whole(self) -> bool:
        return self._options.whole and not self._options.train

    def _measure_faces(self) -> dict[str, MeanFaces]:
        """Mean faces of the records by modality, where swapped or the reference of adaptation."""
        options = self._options
        wanted = {name for name in options.priors if name in self._modalities}
        swaps = options.train and options.augment is not None and options.augment.swap > 0
        if swaps and "landmarks" in self._modalities:
            wanted.add("landmarks")
        return {name: measure_faces(self.records, self._stores, name) for name in sorted(wanted)}

    def _running_references(self) -> dict[str, list[np.ndarray]]:
        """For each record what its face is seen against in scoring; nothing without adaptation."""
        options = self._options
        if options.train:
            return {}
        return {
            name: self._mean_faces[name].running(prior, options.seed)
            if options.adapt
            else [prior.face] * len(self.records)
            for name, prior in options.priors.items()
            if name in self._mean_faces
        }

    def _refer(
        self, inputs: dict[str, torch.Tensor], index: int, rng: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        """Landmarks and blendshapes less the mean that they are seen against."""
        referred = dict(inputs)
        for name, prior in self._options.priors.items():
            if name not in inputs:
                continue
            if self._options.train:
                face = self._mean_faces[name].drawn(index, prior, rng)
            else:
                face = self._references[name][index]
            values, mask = inputs[name].numpy(), inputs[f"{name}_mask"].numpy()
            referred[name] = torch.from_numpy(relative_to(values, mask, face))
        return referred

    def _mirror(
        self, inputs: dict[str, torch.Tensor], rng: np.random.Generator
    ) -> dict[str, torch.Tensor]:
        """After the reference was taken away, which is of the face as it is."""
        augment = self._options.augment if self._options.train else None
        if augment is None or not set(REFERRED) & set(inputs):
            return inputs
        return mirror_face(inputs, augment.flip, rng)

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
        if self._whole:
            return [Window(start, end)]
        length = self.config.window_seconds
        tiles = tile_windows(end - start, length, length)
        if len(tiles) > 1 and tiles[-1].end - tiles[-1].start < length / 2:
            tiles.pop()
        return [Window(start + w.start, start + w.end, w.partial) for w in tiles]

    def _span(self, record: Record) -> tuple[float, float]:
        duration = self._stores.of(record.key).recording(record.key).duration
        end = duration if record.end is None else min(record.end, duration)
        return record.start, max(end, record.start + 1e-3)

    def _cut(self, record: Record, window: Window, config: ClipConfig) -> Clip:
        return self._stores.of(record.key).recording(record.key).cut(window, config)

    def _draw_window(self, record: Record, rng: np.random.Generator) -> tuple[Window, Clip]:
        """A random window that holds something the model takes, where a few draws find one."""
        for _ in range(DRAWS):
            window = self._random_window(record, rng)
            clip = self._cut(record, window, self.config)
            if any(_holds(clip, modality) for modality in self._modalities):
                break
        return window, clip

    def _random_window(self, record: Record, rng: np.random.Generator) -> Window:
        start, end = self._span(record)
        length = self.config.window_seconds
        if end - start > length:
            start += rng.uniform(0.0, end - start - length)
            return Window(start, start + length)
        return Window(start, end, partial=True)

    def _group_pairing_records(self) -> dict[tuple[str, str, int | None], list[Record]]:
        """Records that can give a modality, by (modality, subset, class)."""
        groups: dict[tuple[str, str, int | None], list[Record]] = defaultdict(list)
        for record in self._options.pairing:
            for modality in self._modalities:
                if self._stores.has(record.key, modality):
                    label = class_index(record.label, self.class_names)
                    groups[modality, record.subset, label].append(record)
        return groups

    def _pair(self, clip: Clip, record: Record, modality: str, rng: np.random.Generator) -> Clip:
        """The clip with the modality of a record of the same label; unchanged where there is none.

        A still gives its picture to the whole window.
        """
        label = class_index(record.label, self.class_names)
        pairing = self._pairing.get((modality, record.subset, label))
        if not pairing:
            return clip
        partner = pairing[rng.integers(len(pairing))]
        other = self._cut(partner, self._random_window(partner, rng), self.config)
        if modality == "speech":
            return replace(clip, **{name: getattr(other, name) for name in SOUND_FIELDS})
        if modality == "landmarks":
            return replace(clip, points=other.points, points_mask=other.points_mask)
        if modality == "blendshapes":
            values, known = other.blendshapes, other.blendshapes_mask
            return replace(clip, blendshapes=values, blendshapes_mask=known)
        faces, mask = other.faces, other.face_mask
        if self._stores.of(partner.key).count(partner.key, "faces") == 1:
            faces = np.repeat(faces[mask.argmax()][None], len(faces), axis=0)
            mask = np.ones_like(mask)
        return replace(clip, faces=faces, face_mask=mask, face_id=other.face_id)


def measure_faces(records: Sequence[Record], stores: StoreSet, modality: str) -> MeanFaces:
    """Mean faces of prepared records, of their `landmarks` or `blendshapes`."""
    name = {"landmarks": "landmarks", "blendshapes": "meshes"}[modality]
    tracks = [getattr(stores.of(record.key).recording(record.key), name) for record in records]
    return MeanFaces(records, tracks)


def _holds(clip: Clip, modality: str) -> bool:
    masks = {
        "face": clip.face_mask,
        "landmarks": clip.points_mask,
        "blendshapes": clip.blendshapes_mask,
    }
    return clip.has_speech if modality == "speech" else bool(masks[modality].any())


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch; samples of different length are padded at the end, where their masks are false."""
    inputs = {}
    for name in samples[0]["inputs"]:
        values = [sample["inputs"][name] for sample in samples]
        shape = tuple(max(sizes) for sizes in zip(*(v.shape for v in values), strict=True))
        inputs[name] = torch.stack([_pad(value, shape) for value in values])
    rest = [{name: v for name, v in sample.items() if name != "inputs"} for sample in samples]
    return {"inputs": inputs, **default_collate(rest)}


def _pad(value: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Zeros after what is there: more steps, or more blocks of sound."""
    if value.shape == shape:
        return value
    padded = value.new_zeros(shape)
    padded[tuple(slice(size) for size in value.shape)] = value
    return padded
