"""One run: train and score, or score only, and leave all of it in a run folder."""

from __future__ import annotations

from pathlib import Path

import torch

from checkpoints.checkpoint import load_checkpoint
from experiments.experiment import BEST, Experiment, Resplit, build_experiment, run_folder
from experiments.fitting import train_model
from experiments.options import ExperimentOptions
from experiments.scoring import EvaluationJob, write_scores

_SUBSETS = {"val": "validation", "test": "testing"}


def run_experiment(options: ExperimentOptions, resplit: Resplit | None = None) -> Path:
    """Train and score, or score only. Returns the run folder.

    Args:
        resplit: gives the records other subsets than their annotation files do.

    Raises:
        ValueError: data, options and checkpoints that do not go together.
    """
    torch.manual_seed(options.train.manual_seed)
    folder = run_folder(options)
    experiment = build_experiment(options, folder, resplit)
    if not options.train.no_train:
        train_model(experiment)
    best = folder / BEST
    experiment.checkpoint = load_checkpoint(best)
    experiment.model.to(experiment.device)
    experiment.kept, experiment.fitted = None, True
    _report(experiment)
    return folder


def _report(experiment: Experiment) -> None:
    """Scores, predictions and figures of validation and of the subset asked for."""
    wanted = ["validation", _SUBSETS.get(experiment.options.train.test_subset, "")]
    subsets = [name for name in dict.fromkeys(wanted) if name and experiment.has(name)]
    loaders = {subset: experiment.loader(subset) for subset in subsets}
    if not loaders and experiment.options.train.no_train:
        raise ValueError(
            f"nothing to score: no record is for {' or '.join(filter(None, wanted))}; give some "
            "that subset in the annotation file"
        )
    if loaders:
        best = experiment.folder / BEST
        adapt = experiment.options.data.adapt == "recording"
        seed = experiment.options.train.manual_seed
        scored = EvaluationJob(
            experiment.checkpoint, best, experiment.device, loaders, adapt=adapt, seed=seed
        )
        write_scores(scored)
