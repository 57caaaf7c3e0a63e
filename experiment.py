"""An experiment: a model with the data it is trained or scored on, and its run folder."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from checkpoint import Checkpoint, load_checkpoint, merge_provenance, save_checkpoint
from datasets.annotations import Record, read_annotations
from datasets.augment import AugmentOptions
from datasets.corpora import CORPORA
from datasets.mean_faces import MeanFaces
from datasets.prepare import STORE_NAME, prepare_records
from datasets.sampler import EpochSampler, draw_weights
from datasets.samples import ClipDataset, SampleOptions, StoreSet, collate
from datasets.splits import check_speakers
from device import pick_device
from files import write_json
from initialisation import (
    build_checkpoint,
    default_face_size,
    own_paths,
    recomputes_blocks,
    start_model,
    torchvision_data,
)
from losses import Criterion, LossOptions, balanced_weights, build_criterion, class_log_prior
from media.adaptation import Prior
from media.clip import ClipConfig
from memory import fits_in_memory, keep_freed_memory, largest_batch, runs_on_device
from models import EmotionModel
from opts import AUTO_BATCH, EVALUATE, DataOptions, Options, TrainOptions, run_folder_of
from reports.plots import plot_learning_curves, write_figure
from scoring import Scored, write_scores
from training import Fit, build_fit, fit, load_state, train_on_batch, update_weights
from validation import evaluate, predict

_SUBSETS = {"val": "validation", "test": "testing"}
_DEFAULT_BATCH = 32


@dataclass
class Experiment:
    """A model with the data it is trained or scored on."""

    options: Options
    folder: Path
    device: torch.device
    records: list[Record]
    lenders: list[Record]
    stores: StoreSet
    checkpoint: Checkpoint
    say: Callable[[str], None]

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
                augment=_changes(data),
                whole=data.whole_clips,
                prior=self.checkpoint.prior,
                adapt=data.adapt == "recording",
                lenders=self.lenders,
                seed=self.options.train.manual_seed,
                task=self.checkpoint.task,
            ),
        )

    def loader(self, subset: str) -> DataLoader[dict[str, Any]]:
        """Batches of a subset in its order, all of it.

        Raises:
            ValueError: the subset has no usable record.
        """
        return self._batches(self.dataset(subset))

    def train_loader(self, dataset: ClipDataset) -> DataLoader[dict[str, Any]]:
        """Batches in random order, the same for a seed and an epoch; what makes none is left."""
        sampler = EpochSampler(dataset, self.options.train.manual_seed, self.options.data.balance)
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


def _changes(data: DataOptions) -> AugmentOptions | None:
    """The random changes in training."""
    if not data.augment:
        return None
    changes = AugmentOptions()
    if data.augment_only is not None:
        changes = changes.only(data.augment_only)
    return changes.scaled(data.augment_strength)


Resplit = Callable[[list[Record]], list[Record]]


def run_experiment(
    options: Options, say: Callable[[str], None], resplit: Resplit | None = None
) -> Path:
    """Train and score, or score only. Returns the run folder.

    Args:
        say: takes each line for the user.
        resplit: gives the records other subsets than their annotation files do.

    Raises:
        ValueError: data, options and checkpoints that do not go together.
    """
    torch.manual_seed(options.train.manual_seed)
    folder = _run_folder(options)
    experiment = _build_experiment(options, folder, say, resplit)
    if options.mode != EVALUATE:
        _train(experiment)
    best = folder / "model_best.safetensors"
    experiment.checkpoint = load_checkpoint(best)
    experiment.model.to(experiment.device)
    _report(experiment)
    return folder


def _run_folder(options: Options) -> Path:
    train = options.train
    if train.resume_path:
        return run_folder_of(train.resume_path)
    folder = new_run_folder(options)
    if (folder / "opts.json").exists():
        raise ValueError(f"{folder} holds a run: give --resume_path {folder} or another --run_name")
    return folder


def new_run_folder(options: Options) -> Path:
    """Where a run that is not resumed goes."""
    train = options.train
    name = train.run_name or f"{options.model.model}-{time.strftime('%Y%m%d-%H%M%S')}"
    return Path(train.result_path) / name


def _build_experiment(
    options: Options, folder: Path, say: Callable[[str], None], resplit: Resplit | None
) -> Experiment:
    records, lenders, stores = _read_data(options, say)
    records = resplit(records) if resplit else records
    device = pick_device(options.run.device)
    if options.mode == EVALUATE:
        checkpoint = load_checkpoint(folder / "model_best.safetensors")
    else:
        checkpoint = build_checkpoint(options, records, stores.config)
        if options.data.adapt == "recording" and checkpoint.prior is None:
            checkpoint = replace(checkpoint, prior=_find_prior(checkpoint, records, stores))
    checkpoint.model.to(device)
    return Experiment(options, folder, device, records, lenders, stores, checkpoint, say)


def _find_prior(checkpoint: Checkpoint, records: list[Record], stores: StoreSet) -> Prior:
    """The mean face of the training speakers."""
    if "landmarks" not in checkpoint.model.inputs:
        raise ValueError(f"--adapt recording: {checkpoint.model.name} takes no landmarks")
    used = [record for record in records if record.subset == "training"]
    tracks = [stores.of(record.key).recording(record.key).landmarks for record in used]
    return MeanFaces(used, tracks).prior()


def _read_data(
    all_options: Options, say: Callable[[str], None]
) -> tuple[list[Record], list[Record], StoreSet]:
    """Records, those that only lend, and the stores of both, prepared here where they were not."""
    options = all_options.data
    face_size = options.sample_size or default_face_size(all_options.model)
    records: list[Record] = []
    lenders: list[Record] = []
    folders = []
    for group, paths in ((records, options.annotation_path), (lenders, options.pair_with)):
        for path in map(Path, paths):
            found, folder = _read_annotated(path, face_size, say)
            group += found
            folders.append(folder)
    records = [record for record in records if options.dataset in (None, record.dataset)]
    if not records:
        raise ValueError(f"no records of dataset {options.dataset} in {options.annotation_path}")
    check_speakers([*records, *lenders])
    stores = StoreSet(folders)
    if options.sample_size not in (None, stores.config.face_size):
        raise ValueError(
            f"--sample_size {options.sample_size}, but the store holds faces of "
            f"{stores.config.face_size} pixels: prepare it with --face_size {options.sample_size}"
        )
    return _held(records, stores, say), _held(lenders, stores, say), stores


def _read_annotated(
    path: Path, face_size: int, say: Callable[[str], None]
) -> tuple[list[Record], Path]:
    """Records of a file and the store beside it, made here if the file was not prepared."""
    records = read_annotations(path)
    folder = path.parent / STORE_NAME
    if (folder / "store.json").exists():
        return records, folder
    folder = path.with_name(f"{path.stem}.{STORE_NAME}")
    failures = prepare_records(records, folder, ClipConfig(face_size=face_size))
    for reason in failures.values():
        say(f"left out: {reason}")
    return [record for record in records if record.key not in failures], folder


def _held(records: list[Record], stores: StoreSet, say: Callable[[str], None]) -> list[Record]:
    held = [record for record in records if stores.holds(record.key)]
    if len(held) < len(records):
        say(f"left out: {len(records) - len(held)} records that no store holds; prepare again")
    if records and not held:
        raise ValueError("none of the records is in a store: prepare the corpus again")
    return held


def _train(experiment: Experiment) -> None:
    """Fit, keeping the best weights in the run folder."""
    if hasattr(experiment.model, "fit_combination"):
        _fit_combination(experiment)
        return
    folder, model = experiment.folder, experiment.model
    resumed = bool(experiment.options.train.resume_path) and (folder / "last.pt").exists()
    config = experiment.checkpoint.clip_config
    start_model(model, config, experiment.options.train, experiment.say, resumed)
    dataset = experiment.dataset("training", train=True)
    criterion = _build_criterion(experiment, dataset)
    _check_model(experiment, criterion, dataset)
    _settle_batch_size(experiment, criterion, dataset)
    train_loader = experiment.train_loader(dataset)
    keep_freed_memory()
    state = build_fit(
        model, criterion, _fit_options(experiment), experiment.device, len(train_loader)
    )
    if resumed:
        load_state(state, folder)
    validate = experiment.has("validation") and not experiment.options.train.no_val
    val_loader = experiment.loader("validation") if validate else None
    experiment.say(_describe(experiment, dataset))
    _open_folder(experiment)
    fit(
        state,
        train_loader,
        val_loader,
        folder,
        save_best=lambda s, scores: _save(experiment, s, scores),
        say=experiment.say,
    )
    write_figure(plot_learning_curves(state.log), folder / "learning_curves.png")


def _build_criterion(experiment: Experiment, dataset: ClipDataset) -> Criterion:
    train, task = experiment.options.train, experiment.checkpoint.task
    weights = balanced_weights(task, dataset.targets) if train.class_weights != "none" else None
    log_prior = None
    if train.logit_adjustment:
        drawn = draw_weights(dataset.labels, experiment.options.data.balance)
        log_prior = class_log_prior(dataset.targets, drawn)
    options = LossOptions(
        name=train.loss,
        label_smoothing=train.label_smoothing,
        focal_gamma=train.focal_gamma,
        weights=weights,
        log_prior=log_prior,
        auxiliary=train.auxiliary,
        reconstruction=train.reconstruction,
    )
    return build_criterion(task, options)


def _check_model(experiment: Experiment, criterion: Criterion, dataset: ClipDataset) -> None:
    """One sample through the model: refuse what it does not take, and flags without effect."""
    model, output = experiment.model.eval(), {}
    batch = collate([dataset[0]])["inputs"]

    def run() -> None:
        with torch.inference_mode():
            output.update(model(**{n: v.to(experiment.device) for n, v in batch.items()}))

    recomputes = recomputes_blocks(model, run)
    criterion.check(output)
    if experiment.options.train.gradient_checkpointing and not recomputes:
        raise ValueError(
            f"--gradient_checkpointing has no effect: {model.name} has no block to compute twice"
        )


def _settle_batch_size(experiment: Experiment, criterion: Criterion, dataset: ClipDataset) -> None:
    """Where it is `auto`, the largest power of two that fits, which is kept for a resumed run."""
    options, device = experiment.options, experiment.device
    if options.run.batch_size != AUTO_BATCH:
        return

    def step(size: int) -> None:
        """On a copy, so that neither weights nor random draws of the run are touched."""
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            model = copy.deepcopy(experiment.model)
            state = build_fit(model, criterion, _fit_options(experiment), device, 1)
            model.train()
            train_on_batch(state, collate([dataset[i % min(8, len(dataset))] for i in range(size)]))
            update_weights(state)

    if device.type == "cuda":
        fits, how = runs_on_device(step, device), "tried"
    else:
        fits, how = fits_in_memory(experiment.model, step), "estimated for half of free memory"
    size = largest_batch(fits, len(dataset))
    experiment.options = replace(options, run=replace(options.run, batch_size=size))
    experiment.say(f"batch size {size}, the largest power of two that fits ({how})")


def _fit_options(experiment: Experiment) -> TrainOptions:
    """Options of training with the precision that `auto` stands for."""
    train = experiment.options.train
    return replace(train, amp=_precision(train.amp, experiment.device))


def _open_folder(experiment: Experiment) -> None:
    """Made once data and model are known to go together, so a mistake leaves nothing behind."""
    experiment.folder.mkdir(parents=True, exist_ok=True)
    write_json(experiment.options.to_dict(), experiment.folder / "opts.json")


def _precision(wanted: str, device: torch.device) -> str:
    """On the processor 16 bits are slower than 32 for these models, so `auto` leaves them off."""
    if wanted == "auto":
        return "bf16" if device.type == "cuda" else "off"
    return wanted


def _describe(experiment: Experiment, dataset: ClipDataset) -> str:
    model, train = experiment.model, experiment.options.train
    count = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    names = ", ".join(experiment.checkpoint.class_names)
    return (
        f"{experiment.options.model.model}: {count:,} parameters, {trained:,} trained, on "
        f"{len(dataset.records)} records ({names}), {train.n_epochs} epochs on {experiment.device}"
    )


def _fit_combination(experiment: Experiment) -> None:
    """Parts that are trained already: what joins them is fitted on validation predictions."""
    if not experiment.has("validation"):
        raise ValueError("the weights of a late fusion are fitted on records of validation")
    predictions = predict(experiment.model, experiment.loader("validation"), experiment.device)
    _open_folder(experiment)
    experiment.model.cpu().fit_combination(predictions.outputs, predictions.targets)  # type: ignore[operator]
    scores = evaluate(predictions, experiment.checkpoint.class_names)
    _write_best(experiment, experiment.model, {"validation": scores})


def _save(experiment: Experiment, state: Fit, scores: dict[str, Any]) -> None:
    _write_best(
        experiment, state.evaluated_model, {"epoch": state.epoch, "validation": scores or None}
    )


def _write_best(experiment: Experiment, model: EmotionModel, info: dict[str, Any]) -> None:
    info = {**_provenance(experiment), **info}
    checkpoint = replace(experiment.checkpoint, model=model, info=info)
    save_checkpoint(checkpoint, experiment.folder / "model_best.safetensors")


def _provenance(experiment: Experiment) -> dict[str, Any]:
    """What the weights saw: the records of training, and all that pretrained parts saw."""
    train, model = experiment.options.train, experiment.model
    used = [r for r in [*experiment.records, *experiment.lenders] if r.subset == "training"]
    corpora = {record.dataset or "own" for record in used} | set(torchvision_data(model, train))
    own = {
        "corpora": corpora,
        "licence": [f"{name}: {_licence_of(name)}" for name in corpora],
        "training_speakers": {record.speaker for record in used if record.speaker},
    }
    started_from = [load_checkpoint(Path(p)).info for p in own_paths(model, train)]
    return merge_provenance([own, experiment.checkpoint.info, *started_from])


def _licence_of(corpus: str) -> str:
    return CORPORA[corpus].licence if corpus in CORPORA else "not stated"


def _report(experiment: Experiment) -> None:
    """Scores, predictions and figures of validation and of the subset asked for."""
    wanted = ["validation", _SUBSETS.get(experiment.options.train.test_subset, "")]
    subsets = [name for name in dict.fromkeys(wanted) if name and experiment.has(name)]
    loaders = {subset: experiment.loader(subset) for subset in subsets}
    if loaders:
        best = experiment.folder / "model_best.safetensors"
        scored = Scored(experiment.checkpoint, best, experiment.device, loaders)
        write_scores(scored, experiment.say)
