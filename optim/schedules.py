"""The learning rate over time: warm-up, then one of `SCHEDULES`, a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from optim.options import ScheduleOptions

# One cycle (Smith and Topin, 2019), in the shares that torch's OneCycleLR has as defaults.
_RISE, _START, _END = 0.3, 1 / 25, 1 / 25e4
_MOMENTA = (0.85, 0.95)  # at the highest and at the lowest rate
_LOWER = 0.1  # step and plateau: by which the rate is multiplied
_BETTER = 1e-4  # plateau: relative change below which a loss is no better


class Schedule:
    """Sets each group's learning rate to its base times a factor.

    Args:
        optimizer: its groups' rates are the bases.
        steps_per_epoch: of the optimizer, not batches: an accumulated gradient is one step.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, options: ScheduleOptions, steps_per_epoch: int
    ) -> None:
        self._optimizer, self._options = optimizer, options
        self._bases = [float(group["lr"]) for group in optimizer.param_groups]
        self._epoch_steps = max(1, steps_per_epoch)
        self._steps = (options.begin_epoch - 1) * self._epoch_steps
        self._scale, self._best, self._stale = 1.0, math.inf, 0
        self._apply()

    def step(self) -> None:
        """To be called after each step of the optimizer."""
        self._steps += 1
        self._apply()

    def end_epoch(self, loss: float) -> None:
        """To be called after each epoch, with the loss that `plateau` watches."""
        if self._options.lr_schedule != "plateau":
            return
        if loss < self._best * (1 - _BETTER):
            self._best, self._stale = loss, 0
        else:
            self._stale += 1
        if self._stale > self._options.lr_patience:
            self._scale, self._stale = self._scale * _LOWER, 0
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self._steps,
            "scale": self._scale,
            "best": self._best,
            "stale": self._stale,
        }

    def load_state_dict(self, values: dict[str, Any]) -> None:
        self._steps, self._scale = values["steps"], values["scale"]
        self._best, self._stale = values["best"], values["stale"]
        self._apply()

    def _apply(self) -> None:
        factor = self._scale * self._factor()
        for group, base in zip(self._optimizer.param_groups, self._bases, strict=True):
            group["lr"] = base * factor
        if self._options.lr_schedule == "onecycle":
            self._cycle_momentum()

    def _factor(self) -> float:
        warm = self._warm_steps
        if self._steps < warm:
            return (self._steps + 1) / (warm + 1)
        return SCHEDULES[self._options.lr_schedule](self._progress)

    @property
    def _warm_steps(self) -> int:
        return round(self._options.warmup_epochs * self._epoch_steps)

    @property
    def _progress(self) -> Progress:
        options, warm = self._options, self._warm_steps
        total = options.n_epochs * self._epoch_steps - warm
        return Progress(self._steps - warm, max(1, total), self._steps, self._epoch_steps, options)

    def _cycle_momentum(self) -> None:
        """Momentum falls where the rate rises."""
        low, high = _MOMENTA
        rise, down = _phases(self._progress)
        momentum = _between(high, low, rise) if down is None else _between(low, high, down)
        for group in self._optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum


@dataclass(frozen=True)
class Progress:
    """Where training stands.

    Args:
        done: steps since the warm-up's end.
        total: steps from there to the end of training.
        step: steps since the beginning.
        epoch_steps: steps of an epoch.
    """

    done: int
    total: int
    step: int
    epoch_steps: int
    options: ScheduleOptions


def _step_factor(progress: Progress) -> float:
    epochs = progress.step // progress.epoch_steps
    return _LOWER ** sum(epoch <= epochs for epoch in progress.options.lr_steps)


def _cosine_factor(progress: Progress) -> float:
    return _between(1.0, 0.0, min(1.0, progress.done / progress.total))


def _restart_factor(progress: Progress) -> float:
    """Cosine that starts again (Loshchilov and Hutter, SGDR, ICLR 2017), each time as long."""
    period = progress.options.restart_epochs * progress.epoch_steps
    return _between(1.0, 0.0, progress.done % period / period)


def _onecycle_factor(progress: Progress) -> float:
    rise, down = _phases(progress)
    return _between(_START, 1.0, rise) if down is None else _between(1.0, _END, down)


def _phases(progress: Progress) -> tuple[float, float | None]:
    """How far one cycle has risen, 0 to 1, and how far it has come down: None while it rises."""
    top = max(_RISE * (progress.total + 1) - 1, 1e-9)
    done = min(max(progress.done, 0), progress.total)
    return (done / top, None) if done <= top else (1.0, (done - top) / (progress.total - top))


def _between(first: float, last: float, share: float) -> float:
    """From `first` to `last` along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * share)) / 2


SCHEDULES: dict[str, Callable[[Progress], float]] = {
    "constant": lambda _: 1.0,
    "step": _step_factor,
    "plateau": lambda _: 1.0,
    "cosine": _cosine_factor,
    "warm_restarts": _restart_factor,
    "onecycle": _onecycle_factor,
}
