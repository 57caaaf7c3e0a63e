"""An experiment: a model with the data it is trained or scored on, and its run folder."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from checkpoints.checkpoint import Checkpoint, load_checkpoint, merge_provenance, save_checkpoint
from datasets.annotations import Record
from datasets.augment import AugmentOptions
from datasets.corpora import CORPORA
from datasets.kept_blocks import KeptBlocks
from datasets.labels import describe_unplaced
from datasets.sampler import EpochSampler, draw_weights
from datasets.samples import ClipDataset, SampleOptions, StoreSet, collate, measure_faces
from datasets.subsets import check_training_rows, find_gaps
from experiments.data import read_data
from experiments.initialisation import (
    build_checkpoint,
    own_paths,
    pretraining_data,
    recomputes_blocks,
    start_model,
)
from experiments.scoring import Scored, write_scores
from media.adaptation import REFERRED, Prior
from media.clip import Clip, ClipConfig
from models import EmotionModel, find_block_encoder
from optim.losses import Criterion, LossOptions, balanced_weights, build_criterion, class_log_prior
from opts import AUTO_BATCH, EVALUATE, DataOptions, Options, TrainOptions, run_folder_of
from reports.plots import plot_learning_curves, write_figure
from system.device import pick_device
from system.files import write_json
from system.memory import fits_in_memory, keep_freed_memory, largest_batch, runs_on_device
from training import Fit, build_fit, fit, load_state, train_on_batch, update_weights
from validation import evaluate, predict

_SUBSETS = {"val": "validation", "test": "testing"}
_DEFAULT_BATCH = 32
ENCODED = "encoded"  # folder in a store: what frozen encoders made of its sound


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
                augment=_changes(data),
                whole=data.whole_clips,
                priors=self.checkpoint.priors,
                adapt=data.adapt == "recording",
                lenders=self.lenders,
                seed=self.options.train.manual_seed,
                task=self.checkpoint.task,
                encode=self._encode(train),
            ),
        )

    def _encode(self, train: bool) -> Callable[[str, Clip, ClipConfig], dict[str, Tensor]] | None:
        """Keeps what a frozen encoder makes of the sound, where that is not augmented or lent."""
        encoder = find_block_encoder(self.model)
        context = self.checkpoint.clip_config.speech_context_seconds
        if encoder is None or not context or self.lenders:
            return None
        changes = _changes(self.options.data) if train else None
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
    experiment.kept, experiment.fitted = None, True
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
    records, lenders, stores = read_data(options, say)
    records = resplit(records) if resplit else records
    device = pick_device(options.run.device)
    if options.mode == EVALUATE:
        checkpoint = load_checkpoint(folder / "model_best.safetensors")
    else:
        checkpoint = build_checkpoint(options, records, stores.config)
        if options.data.adapt == "recording":
            found = _find_priors(checkpoint, records, stores)
            checkpoint = replace(checkpoint, priors={**found, **checkpoint.priors})
    unplaced = describe_unplaced((r.label for r in records), checkpoint.class_names)
    if checkpoint.task == "classification" and unplaced:
        say(f"left out: {unplaced}, which are not among the classes")
    checkpoint.model.to(device)
    return Experiment(options, folder, device, records, lenders, stores, checkpoint, say)


def _find_priors(
    checkpoint: Checkpoint, records: list[Record], stores: StoreSet
) -> dict[str, Prior]:
    """Of each modality that is adapted and lacks one, the mean of the training speakers."""
    inputs = checkpoint.model.inputs
    adapted = [name for name in REFERRED if name in inputs]
    if not adapted:
        raise ValueError(
            f"--adapt recording: {checkpoint.model.name} takes neither landmarks nor blendshapes"
        )
    used = [record for record in records if record.subset == "training"]
    wanted = [name for name in adapted if name not in checkpoint.priors]
    return {name: measure_faces(used, stores, name).prior() for name in wanted}


def _train(experiment: Experiment) -> None:
    """Fit, keeping the best weights in the run folder."""
    if hasattr(experiment.model, "fit_combination"):
        _fit_combination(experiment)
        return
    folder, model = experiment.folder, experiment.model
    check_training_rows(experiment.records)
    gaps = _tell_gaps(experiment)
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
    if gaps:
        (folder / "notes.txt").write_text("\n".join(gaps) + "\n", encoding="utf-8")
    fit(
        state,
        train_loader,
        val_loader,
        folder,
        save_best=lambda s, scores: _save(experiment, s, scores),
        say=experiment.say,
    )
    write_figure(plot_learning_curves(state.log), folder / "learning_curves.png")


def _tell_gaps(experiment: Experiment) -> list[str]:
    """Lines on what the subsets lack, which the user is told too."""
    train, checkpoint = experiment.options.train, experiment.checkpoint
    scored = [] if train.no_val else ["validation"]
    scored += ["testing"] if train.test_subset == "test" else []
    names = checkpoint.class_names if checkpoint.task == "classification" else ()
    gaps = find_gaps(experiment.records, names, scored)
    if train.early_stopping and not experiment.has("validation"):
        raise ValueError(
            "--early_stopping has no effect: no record is for validation; give some that subset, "
            "or leave it out"
        )
    for gap in gaps:
        experiment.say(f"note: {gap}")
    return gaps


def _build_criterion(experiment: Experiment, dataset: ClipDataset) -> Criterion:
    train, task = experiment.options.train, experiment.checkpoint.task
    weights = balanced_weights(task, dataset.targets) if train.class_weights != "none" else None
    log_prior = None
    if train.logit_adjustment:
        data, corpora = experiment.options.data, [r.dataset for r in dataset.records]
        drawn = draw_weights(dataset.labels, corpora, data.balance, data.balance_corpora)
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
    corpora = {record.dataset or "own" for record in used} | set(pretraining_data(model, train))
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
    if not loaders and experiment.options.mode == EVALUATE:
        raise ValueError(
            f"nothing to score: no record is for {' or '.join(filter(None, wanted))}; give some "
            "that subset in the annotation file"
        )
    if loaders:
        best = experiment.folder / "model_best.safetensors"
        scored = Scored(experiment.checkpoint, best, experiment.device, loaders)
        write_scores(scored, experiment.say)
