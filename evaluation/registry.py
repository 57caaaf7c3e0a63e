"""Names to metrics, by task: a new one is a function with `@register_metric`, in any module.

`evaluation.metrics` holds those of the project.

Each registered metric is in `metrics.json` and in what validation gives; those of `interval` have
an interval over speakers and a score for each group of speakers too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

TASKS = ("classification", "multilabel", "regression")
Measure = Callable[[np.ndarray, np.ndarray], float | None]


@dataclass(frozen=True)
class Metric:
    """A score of predictions against truth.

    Args:
        name: in `metrics.json`.
        task: one of `TASKS`.
        measure: of (N, C) scores (probabilities, in regression values) and their targets: (N,)
            class indices in classification, else (N, C). None where it is not defined.
        interval: whether it is given with an interval over speakers, and by group.
        limits: lowest and highest possible value, to which intervals are cut.
        lower_is_better: as of an error.
        counts_clips: whether it is a fraction of clips, each right or wrong.
    """

    name: str
    task: str
    measure: Measure
    interval: bool = False
    limits: tuple[float, float] = (-np.inf, np.inf)
    lower_is_better: bool = False
    counts_clips: bool = False


_METRICS: dict[tuple[str, str], Metric] = {}


def register_metric(
    name: str,
    task: str = "classification",
    *,
    interval: bool = False,
    limits: tuple[float, float] = (-np.inf, np.inf),
    lower_is_better: bool = False,
    counts_clips: bool = False,
) -> Callable[[Measure], Measure]:
    """Function decorator that makes a measure known by name. The arguments are `Metric`'s.

    Raises:
        ValueError: the name is taken, or the task is unknown.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; choose from {', '.join(TASKS)}")

    def register(measure: Measure) -> Measure:
        if (task, name) in _METRICS:
            raise ValueError(f"a metric of {task} called {name!r} is there already")
        _METRICS[task, name] = Metric(
            name, task, measure, interval, limits, lower_is_better, counts_clips
        )
        return measure

    return register


def metrics_of(task: str) -> dict[str, Metric]:
    """The metrics of a task by name, in the order in which they were registered."""
    return {metric.name: metric for metric in _METRICS.values() if metric.task == task}


def measure_all(task: str, scores: np.ndarray, targets: np.ndarray) -> dict[str, float | None]:
    """Every metric of a task by name. Args: as `Metric.measure` takes them."""
    return {name: metric.measure(scores, targets) for name, metric in metrics_of(task).items()}
