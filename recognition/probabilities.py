"""What a checkpoint's logits mean: probabilities or values, and which of them are uncertain."""

from __future__ import annotations

from typing import get_args

import numpy as np
from torch import Tensor

from checkpoints.checkpoint import Checkpoint
from evaluation.calibration import ConformalRule
from timeline.row import Task

COVERAGE_TOLERANCE = 0.005  # between the coverage asked for and that of a checkpoint's rule


def probabilities_of(checkpoint: Checkpoint, logits: Tensor) -> np.ndarray:
    """(B, C) logits to probabilities, calibrated where the checkpoint is, or to values."""
    task = read_task(checkpoint)
    if task == "regression":
        return logits.double().cpu().numpy()
    if task == "multilabel":
        return logits.double().sigmoid().cpu().numpy()
    if checkpoint.calibration is not None:
        return checkpoint.calibration.apply(logits.double().cpu().numpy())
    return logits.float().softmax(dim=-1).cpu().double().numpy()


def pick_rule(checkpoint: Checkpoint, coverage: float) -> ConformalRule:
    """The rule for sets of classes of that coverage.

    Raises:
        ValueError: the checkpoint has no such rule.
    """
    name = checkpoint.source.get("name", "the checkpoint")
    if not checkpoint.conformal:
        raise ValueError(
            f"--uncertain needs a calibrated checkpoint, and {name} is not: score its run with "
            "--no_train --resume_path RUN_FOLDER, which calibrates it on validation"
        )
    rule = min(checkpoint.conformal, key=lambda rule: abs(rule.coverage - coverage))
    if abs(rule.coverage - coverage) > COVERAGE_TOLERANCE:
        there = ", ".join(f"{rule.coverage:g}" for rule in checkpoint.conformal)
        raise ValueError(f"--uncertain {coverage:g}: {name} was calibrated for {there}")
    return rule


def read_task(checkpoint: Checkpoint) -> Task:
    """The task as a timeline names it.

    Raises:
        ValueError: a task that timelines do not know.
    """
    for task in get_args(Task):
        if task == checkpoint.task:
            return task
    raise ValueError(f"{checkpoint.source.get('name')} was trained for '{checkpoint.task}'")
