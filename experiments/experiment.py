"""An experiment: a model with the data it is trained or scored on, and its run folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from checkpoints.checkpoint import Checkpoint, load_checkpoint
from datasets.annotations import Record
from datasets.kept_blocks import KeptBlocks
from datasets.sampler import EpochSampler
from datasets.samples import ClipDataset, SampleOptions, StoreSet, collate, measure_faces
from experiments.data import read_data
from experiments.initialisation import build_checkpoint
from experiments.options import ExperimentOptions, run_folder_of
from labels.emotions import describe_unplaced
from media.adaptation import REFERRED, Prior
from media.clip import Clip
from media.configuration import ClipConfig
from models import EmotionModel
from system.device import pick_device
from system.errors import OptionError
from system.files import write_json

_LOG = logging.getLogger(__name__)

_DEFAULT_BATCH = 32
ENCODED = "encoded"  # folder in a store: what frozen encoders made of its sound
BEST = "model_best.safetensors"  # in a run folder
Resplit = Callable[[list[Record]], list[Record]]


@dataclass
class Experiment:
    """A model with the data it is trained or scored on."""

    options: ExperimentOptions
    folder: Path
    device: torch.device
    records: list[Record]
    pairing: list[Record]
    stores: StoreSet
    checkpoint: Checkpoint
    kept: KeptBlocks | None = None
    fitted: bool = False  # the weights stay as they are from now on

    @property
    def model(self) -> EmotionModel:
        return self.checkpoint.model

    def has(self, subset: str) -> bool:
        return any(record.subset == subset for record in self.records)

    def dataset(self, subset: str, train: bool = False) -> ClipDataset:
        """Samples of a subset.

        Raises:
            ValueError: the subset has no usable record.
        """
        data = self.options.data
        return ClipDataset(
            [record for record in self.records if record.subset == subset],
            self.stores,
            self.checkpoint.clip_config,
            self.checkpoint.class_names,
            self.model.inputs,
            SampleOptions(
                train=train,
                augment=data.build(),
                whole=data.whole_clips,
                priors=self.checkpoint.priors,
                adapt=data.adapt == "recording",
                pairing=self.pairing,
                seed=self.options.train.manual_seed,
                task=self.checkpoint.task,
                encode=self._encode(train),
            ),
        )

    def _encode(self, train: bool) -> Callable[[str, Clip, ClipConfig], dict[str, Tensor]] | None:
        """Keeps what a frozen encoder makes of sound that is neither augmented nor paired."""
        encoder = self.model.block_encoder()
        context = self.checkpoint.clip_config.speech_context_seconds
        if encoder is None or not context or self.pairing:
            return None
        changes = self.options.data.build() if train else None
        trained = any(parameter.requires_grad for parameter in encoder.encoder.parameters())
        if (trained and not self.fitted) or (changes is not None and changes.changes_sound):
            return None
        if self.kept is None:
            folder = self.stores.folder / ENCODED
            self.kept = KeptBlocks(encoder, self.checkpoint.clip_config, self.device, folder)
        return self.kept.inputs

    def loader(self, subset: str) -> DataLoader[dict[str, Any]]:
        """Batches of a subset in its order, all of it.

        Raises:
            ValueError: the subset has no usable record.
        """
        return self._batches(self.dataset(subset))

    def train_loader(self, dataset: ClipDataset) -> DataLoader[dict[str, Any]]:
        """Batches in random order, the same for a seed and an epoch; what makes none is left."""
        data, seed = self.options.data, self.options.train.manual_seed
        sampler = EpochSampler(dataset, seed, data.balance, data.balance_corpora)
        return self._batches(dataset, sampler)

    def _batches(
        self, dataset: ClipDataset, sampler: EpochSampler | None = None
    ) -> DataLoader[dict[str, Any]]:
        size = self.options.run.batch_size or _DEFAULT_BATCH
        return DataLoader(
            dataset,
            batch_size=size,
            sampler=sampler,
            num_workers=self.options.data.n_threads,
            collate_fn=collate,
            drop_last=sampler is not None and len(dataset) > size,
        )

    def open_folder(self) -> None:
        """Make the run folder, once data and model are known to go together.

        So a mistake leaves nothing behind.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.options.to_dict(), self.folder / "opts.json")


def run_folder(options: ExperimentOptions) -> Path:
    """Where a run goes: the folder that it is resumed from, or a new one.

    Raises:
        ValueError: the new folder holds a run already.
    """
    train = options.train
    if train.resume_path:
        return run_folder_of(train.resume_path)
    folder = new_run_folder(options)
    if (folder / "opts.json").exists():
        raise OptionError(
            f"{folder} holds a run: resume it, or give another name", "resume_path", "run_name"
        )
    return folder


def new_run_folder(options: ExperimentOptions) -> Path:
    """Where a run that is not resumed goes."""
    train = options.train
    name = train.run_name or f"{options.model.model}-{time.strftime('%Y%m%d-%H%M%S')}"
    return Path(train.result_path) / name


def build_experiment(
    options: ExperimentOptions, folder: Path, resplit: Resplit | None
) -> Experiment:
    """Data, checkpoint and device of a run.

    Args:
        resplit: gives the records other subsets than their annotation files do.

    Raises:
        ValueError: data, options and checkpoints that do not go together.
    """
    records, pairing, stores = read_data(options)
    records = resplit(records) if resplit else records
    device = pick_device(options.run.device)
    if options.train.no_train:
        checkpoint = load_checkpoint(folder / BEST)
    else:
        checkpoint = build_checkpoint(options, records, stores.config)
        if options.data.adapt == "recording":
            found = _find_priors(checkpoint, records, stores)
            checkpoint = replace(checkpoint, priors={**found, **checkpoint.priors})
    unplaced = describe_unplaced((r.label for r in records), checkpoint.class_names)
    if checkpoint.task == "classification" and unplaced:
        _LOG.info(f"left out: {unplaced}, which are not among the classes")
    checkpoint.model.to(device)
    return Experiment(options, folder, device, records, pairing, stores, checkpoint)


def _find_priors(
    checkpoint: Checkpoint, records: list[Record], stores: StoreSet
) -> dict[str, Prior]:
    """Of each modality that is adapted and lacks one, the mean of the training speakers."""
    inputs = checkpoint.model.inputs
    adapted = [name for name in REFERRED if name in inputs]
    if not adapted and checkpoint.model.voice_part is None:
        raise OptionError(
            f"nothing to adapt: {checkpoint.model.name} takes neither landmarks nor blendshapes, "
            "nor does it hear a voice as `whisper_speech` does",
            "adapt",
        )
    used = [record for record in records if record.subset == "training"]
    wanted = [name for name in adapted if name not in checkpoint.priors]
    return {name: measure_faces(used, stores, name).prior() for name in wanted}
