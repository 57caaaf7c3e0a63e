"""How a model is fitted: optimizer, learning rate, loss, and the loop around them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from datasets.options import MODALITY_DROPOUTS
from system.errors import OptionError
from system.flags import COMBINE, FIT, option

# Losses of each task, the default first.
LOSSES = {
    "classification": ("cross_entropy", "focal"),
    "multilabel": ("bce",),
    "regression": ("smooth_l1", "ccc"),
}
LR_SCHEDULES = ("constant", "step", "plateau", "cosine", "warm_restarts", "onecycle")
_fit_option = partial(option, stage=(FIT,))


@dataclass(frozen=True)
class OptimizerOptions:
    """Which optimizer, and its constants."""

    optimizer: str = _fit_option("sgd", "how weights are updated", choices=("sgd", "adam", "adamw"))
    learning_rate: float = _fit_option(
        0.04, "highest learning rate; SGD's dampening of 0.9 makes it 10 times smaller", least=0
    )
    lr_backbone: float | None = _fit_option(
        None, "learning rate of everything but the head (default: --learning_rate)", least=0
    )
    lr_head: float | None = _fit_option(
        None, "learning rate of the head (default: --learning_rate)", least=0
    )
    weight_decay: float = _fit_option(1e-3, "decay of the weights", least=0)
    momentum: float = _fit_option(0.9, "momentum of SGD", when=("optimizer", ("sgd",)))
    dampening: float = _fit_option(0.9, "dampening of SGD", when=("optimizer", ("sgd",)))
    clip_grad: float = _fit_option(0.0, "largest norm of the gradient; 0: no limit", least=0)
    accumulate: int = _fit_option(
        1, "number of batches whose gradients are averaged into one step", least=1
    )


@dataclass(frozen=True)
class ScheduleOptions:
    """How the learning rate changes over the epochs."""

    n_epochs: int = _fit_option(100, "number of epochs", least=1)
    begin_epoch: int = _fit_option(
        1, "number of the first epoch, at which the schedule of a new run begins", least=1
    )
    lr_schedule: str = _fit_option("plateau", "learning rate over time", choices=LR_SCHEDULES)
    warmup_epochs: float = _fit_option(
        0.0, "epochs in which the learning rate rises linearly, before the schedule", least=0
    )
    lr_steps: list[int] = _fit_option(
        [40, 55, 65, 70, 200, 250],
        "step: epochs after which the learning rate is divided by 10",
        when=("lr_schedule", ("step",)),
    )
    lr_patience: int = _fit_option(
        10,
        "plateau: epochs without a lower loss before the learning rate is divided by 10",
        when=("lr_schedule", ("plateau",)),
    )
    restart_epochs: int = _fit_option(
        10,
        "warm_restarts: epochs from one restart to the next",
        when=("lr_schedule", ("warm_restarts",)),
        least=1,
    )


@dataclass(frozen=True)
class LossOptions:
    """Which loss, of `LOSSES`, and how it is weighted.

    Raises:
        ValueError: a number out of range.
    """

    loss: str | None = _fit_option(
        None,
        "; ".join(f"{task}: {', '.join(found)}" for task, found in LOSSES.items())
        + " (default: the first of the task)",
        choices=tuple(name for found in LOSSES.values() for name in found),
        metavar="NAME",
    )
    class_weights: str = _fit_option(
        "none",
        "balanced: rare classes, or the positives of rare labels, weigh as much as frequent ones",
        choices=("none", "balanced"),
        when=("task", ("classification", "multilabel")),
    )
    logit_adjustment: bool = _fit_option(
        False,
        "train for equally frequent classes: the logarithm of each class's frequency in training "
        "is added to the logits in the loss",
        when=("task", ("classification",)),
    )
    label_smoothing: float = _fit_option(
        0.0,
        "fraction of each target that is spread over all classes",
        when=("task", ("classification",)),
        least=0,
    )
    focal_gamma: float = _fit_option(
        2.0, "gamma of the focal loss", when=("loss", ("focal",)), least=0
    )
    auxiliary: float = _fit_option(
        0.0,
        "fraction of the loss that comes from the classifiers of the model's parts, 0 to 1",
        least=0,
    )
    reconstruction: float = _fit_option(
        0.0, "weight of an autoencoder's reconstruction error, added to the loss", least=0
    )

    def __post_init__(self) -> None:
        for name in ("label_smoothing", "auxiliary"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise OptionError(f"{name} must be in [0, 1], not {value:g}", name)
        for name in ("focal_gamma", "reconstruction"):
            value = getattr(self, name)
            if not value >= 0:
                raise OptionError(f"{name} must be 0 or more, not {value:g}", name)


@dataclass(frozen=True)
class LoopOptions:
    """What the training loop does with each batch and each epoch."""

    early_stopping: int = _fit_option(
        0, "stop after this number of epochs without a better validation score; 0: never"
    )
    mask: str = _fit_option(
        "softhard",
        "modality dropout: how training hides one modality from a fused model",
        choices=MODALITY_DROPOUTS,
    )
    mixup: float = _fit_option(0.0, "alpha of MixUp; 0: no MixUp", least=0)
    ema: float = _fit_option(
        0.0, "decay of the averaged weights, which are then validated and kept; 0: no average"
    )
    amp: str = _fit_option(
        "auto",
        "mixed precision; auto: bf16 on a GPU",
        choices=("auto", "off", "bf16", "fp16"),
    )
    confusion_every: int = _fit_option(
        0,
        "draw the validation confusion matrix every N epochs; 0: only at the end",
        when=("task", ("classification",)),
        least=0,
    )
    manual_seed: int = option(1, "seed of every random number", stage=(FIT, COMBINE))


@dataclass(frozen=True)
class FitOptions(OptimizerOptions, ScheduleOptions, LoopOptions):
    """All that the training loop takes, but the loss."""
