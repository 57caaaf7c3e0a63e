"""Fit the model of an experiment: by training, or by combining classifiers that are trained."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from checkpoints.checkpoint import load_checkpoint, save_checkpoint
from checkpoints.combine import merge_provenance
from datasets.corpora import CORPORA
from datasets.sampler import draw_weights
from datasets.samples import ClipDataset, collate
from datasets.subsets import check_training_rows, find_gaps
from experiments.experiment import BEST, Experiment
from experiments.initialisation import own_paths, pretraining_data, recomputes_blocks, start_model
from experiments.options import AUTO_BATCH, TrainOptions
from models import EmotionModel
from optim.losses import Criterion, balanced_weights, build_criterion, class_log_prior
from reports.plots import plot_learning_curves, write_figure
from system.errors import OptionError
from system.memory import fits_in_memory, keep_freed_memory, largest_batch, runs_on_device
from training import (
    TrainingState,
    build_training_state,
    fit,
    load_state,
    train_on_batch,
    update_weights,
)
from validation import evaluate, predict

_LOG = logging.getLogger(__name__)


def train_model(experiment: Experiment) -> None:
    """Fit, keeping the best weights in the run folder."""
    if experiment.model.combines_classifiers:
        _fit_combination(experiment)
        return
    folder, model = experiment.folder, experiment.model
    check_training_rows(experiment.records)
    gaps = _tell_gaps(experiment)
    resumed = bool(experiment.options.train.resume_path) and (folder / "last.pt").exists()
    config = experiment.checkpoint.clip_config
    start_model(model, config, experiment.options.train, resumed)
    dataset = experiment.dataset("training", train=True)
    criterion = _build_criterion(experiment, dataset)
    _check_model(experiment, criterion, dataset)
    _settle_batch_size(experiment, criterion, dataset)
    train_loader = experiment.train_loader(dataset)
    keep_freed_memory()
    state = build_training_state(
        model, criterion, _fit_options(experiment), experiment.device, len(train_loader)
    )
    if resumed:
        load_state(state, folder)
    validate = experiment.has("validation") and not experiment.options.train.no_val
    val_loader = experiment.loader("validation") if validate else None
    _LOG.info(_describe(experiment, dataset))
    experiment.open_folder()
    if gaps:
        (folder / "notes.txt").write_text("\n".join(gaps) + "\n", encoding="utf-8")
    fit(
        state,
        train_loader,
        val_loader,
        folder,
        save_best=lambda s, scores: _save(experiment, s, scores),
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
        raise OptionError(
            "early stopping has no effect: no record is for validation; give some that subset, "
            "or leave it out",
            "early_stopping",
        )
    for gap in gaps:
        _LOG.info(f"note: {gap}")
    return gaps


def _build_criterion(experiment: Experiment, dataset: ClipDataset) -> Criterion:
    train, task = experiment.options.train, experiment.checkpoint.task
    weights = balanced_weights(task, dataset.targets) if train.class_weights != "none" else None
    log_prior = None
    if train.logit_adjustment:
        data, corpora = experiment.options.data, [r.dataset for r in dataset.records]
        drawn = draw_weights(dataset.labels, corpora, data.balance, data.balance_corpora)
        log_prior = class_log_prior(dataset.targets, drawn)
    return build_criterion(task, train, weights, log_prior)


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
        raise OptionError(f"{model.name} has no block to compute twice", "gradient_checkpointing")


def _settle_batch_size(experiment: Experiment, criterion: Criterion, dataset: ClipDataset) -> None:
    """Where it is `auto`, the largest power of two that fits, which is kept for a resumed run."""
    options, device = experiment.options, experiment.device
    if options.run.batch_size != AUTO_BATCH:
        return

    def step(size: int) -> None:
        """On a copy, so that neither weights nor random draws of the run are touched."""
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            model = copy.deepcopy(experiment.model)
            state = build_training_state(model, criterion, _fit_options(experiment), device, 1)
            model.train()
            train_on_batch(state, collate([dataset[i % min(8, len(dataset))] for i in range(size)]))
            update_weights(state)

    if device.type == "cuda":
        fits, how = runs_on_device(step, device), "tried"
    else:
        fits, how = fits_in_memory(experiment.model, step), "estimated for half of free memory"
    size = largest_batch(fits, len(dataset))
    experiment.options = replace(options, run=replace(options.run, batch_size=size))
    _LOG.info(f"batch size {size}, the largest power of two that fits ({how})")


def _fit_options(experiment: Experiment) -> TrainOptions:
    """Options of training with the precision that `auto` stands for."""
    train = experiment.options.train
    return replace(train, amp=_precision(train.amp, experiment.device))


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
    experiment.open_folder()
    experiment.model.cpu().fit_combination(predictions.outputs, predictions.targets)
    scores = evaluate(predictions, experiment.checkpoint.class_names)
    _write_best(experiment, experiment.model, {"validation": scores})


def _save(experiment: Experiment, state: TrainingState, scores: dict[str, Any]) -> None:
    _write_best(
        experiment, state.evaluated_model, {"epoch": state.epoch, "validation": scores or None}
    )


def _write_best(experiment: Experiment, model: EmotionModel, info: dict[str, Any]) -> None:
    info = {**_provenance(experiment), **info}
    checkpoint = replace(experiment.checkpoint, model=model, info=info)
    save_checkpoint(checkpoint, experiment.folder / BEST)


def _provenance(experiment: Experiment) -> dict[str, Any]:
    """What the weights saw: the records of training, and all that pretrained parts saw."""
    train, model = experiment.options.train, experiment.model
    used = [r for r in [*experiment.records, *experiment.pairing] if r.subset == "training"]
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
