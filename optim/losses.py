"""Criteria: a model's output dict and targets to named losses, of which `loss` is minimised."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from optim.options import LOSSES, LossOptions
from system.errors import OptionError

TASKS = tuple(LOSSES)


class Criterion(nn.Module):
    """One loss over all heads of a model, and over what it restores.

    Args:
        task: of `TASKS`.
        measure: logits (B, C) and targets (B, C) to a loss.
    """

    def __init__(
        self, task: str, measure: nn.Module, auxiliary: float = 0.0, reconstruction: float = 0.0
    ) -> None:
        super().__init__()
        self.task, self.measure = task, measure
        self.auxiliary, self.reconstruction = auxiliary, reconstruction

    def forward(self, output: dict[str, Tensor], target: Tensor) -> dict[str, Tensor]:
        """Measure.

        Args:
            output: `logits` (B, C), perhaps `<part>_logits`, and `reconstruction` with
                `reconstruction_target` (B, T, D).
            target: (B, C) probabilities, marks of 0 and 1, or values.

        Returns:
            () losses: `loss`, and by name what it is made of.
        """
        losses = {"logits": self.measure(output["logits"].float(), target)}
        heads = _heads(output) if self.auxiliary else []
        for name in heads:
            losses[name] = self.measure(output[name].float(), target)
        share = self.auxiliary if heads else 0.0
        loss = (1 - share) * losses["logits"]
        for name in heads:
            loss = loss + share / len(heads) * losses[name]
        if self.reconstruction and "reconstruction" in output:
            losses["reconstruction"] = reconstruction_loss(
                output["reconstruction"], output["reconstruction_target"]
            )
            loss = loss + self.reconstruction * losses["reconstruction"]
        return {**losses, "loss": loss}

    def check(self, output: dict[str, Tensor]) -> None:
        """Refuse a part of the loss that a model's output has nothing for.

        Raises:
            ValueError: no heads of parts, or nothing restored, and a weight for it.
        """
        if self.auxiliary and not _heads(output):
            raise OptionError(
                "an auxiliary loss has no effect: the model's parts have no heads", "auxiliary"
            )
        if self.reconstruction and "reconstruction" not in output:
            raise OptionError(
                "a reconstruction loss has no effect: the model restores nothing", "reconstruction"
            )


def build_criterion(
    task: str,
    options: LossOptions | None = None,
    weights: Tensor | None = None,
    log_prior: Tensor | None = None,
) -> Criterion:
    """The criterion of a task.

    Args:
        weights: (C,) of classes, or (multilabel) of the positives of each label; None for ones.
        log_prior: (C,) added to the logits in the cross-entropy, see there; None for nothing.

    Raises:
        ValueError: an unknown task, or a loss that is not one of its own.
    """
    options = options or LossOptions()
    if task not in LOSSES:
        raise ValueError(f"unknown task {task!r}; choose from {', '.join(TASKS)}")
    name = options.loss or LOSSES[task][0]
    if name not in LOSSES[task]:
        raise ValueError(f"loss {name} is not of {task}; choose from {', '.join(LOSSES[task])}")
    measure = _MEASURES[name](options, weights, log_prior)
    return Criterion(task, measure, options.auxiliary, options.reconstruction)


class CrossEntropy(nn.Module):
    """Cross-entropy against class probabilities; each class may weigh otherwise.

    With `gamma` above 0 the focal loss (Lin et al., Focal loss for dense object detection, ICCV
    2017) in its form for soft targets: each class's term times (1 - p) ** gamma.

    With `log_prior`, the logarithm of how frequent each class is in training, the loss sees the
    logits plus it, so the logits themselves answer for classes that are equally frequent (Menon et
    al., Long-tail learning via logit adjustment, ICLR 2021).
    """

    weights: Tensor | None
    log_prior: Tensor | None

    def __init__(
        self,
        label_smoothing: float = 0.0,
        weights: Tensor | None = None,
        gamma: float = 0.0,
        log_prior: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.label_smoothing, self.gamma = label_smoothing, gamma
        self.register_buffer("weights", weights)
        self.register_buffer("log_prior", log_prior)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """(B, C), (B, C) probabilities -> ()."""
        if self.log_prior is not None:
            logits = logits + self.log_prior
        if not self.gamma:
            return functional.cross_entropy(
                logits, target, self.weights, label_smoothing=self.label_smoothing
            )
        target = (1 - self.label_smoothing) * target + self.label_smoothing / target.shape[1]
        log_p = logits.log_softmax(dim=1)
        terms = -target * (1 - log_p.exp()) ** self.gamma * log_p
        if self.weights is not None:
            terms = terms * self.weights
        return terms.sum(dim=1).mean()


class ConcordanceLoss(nn.Module):
    """1 minus the concordance correlation coefficient over the batch, mean over targets.

    Source: Lin, Biometrics 1989; as a loss: Trigeorgis et al., ICASSP 2016. In small batches it
    says little: a batch of one gives 1.
    """

    def forward(self, values: Tensor, target: Tensor) -> Tensor:
        """(B, C), (B, C) -> ()."""
        mean, wanted = values.mean(dim=0), target.mean(dim=0)
        covariance = ((values - mean) * (target - wanted)).mean(dim=0)
        spread = values.var(dim=0, correction=0) + target.var(dim=0, correction=0)
        return (1 - 2 * covariance / (spread + (mean - wanted) ** 2 + 1e-8)).mean()


def reconstruction_loss(restored: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over the steps that exist: those whose target is not all zero.

    Args:
        restored, target: (B, T, D).
    """
    exists = target.abs().sum(dim=-1) > 0  # (B, T)
    errors = ((restored.float() - target.float()) ** 2).mean(dim=-1)
    return (errors * exists).sum() / exists.sum().clamp(min=1)


def balanced_weights(task: str, targets: Tensor) -> Tensor:
    """(C,) weights that make rare classes, or the positives of rare labels, count as much.

    Classes: N / (C n), of mean 1 over the records; a class that does not occur weighs 0. Labels:
    the negatives by the positives, 1 where either is absent.

    Args:
        targets: (N, C) probabilities or marks of the records of training.
    """
    counts, total = targets.double().sum(dim=0), len(targets)
    if task == "multilabel":
        negatives = total - counts
        ratio = negatives / counts.clamp(min=1e-9)
        return torch.where((counts > 0) & (negatives > 0), ratio, 1.0).float()
    present = counts > 0
    weights = total / (int(present.sum()) * counts.clamp(min=1e-9))
    return torch.where(present, weights, 0.0).float()


def class_log_prior(targets: Tensor, drawn: Tensor | None = None) -> Tensor:
    """(C,) logarithm of how frequent each class is among what training draws.

    Args:
        targets: (N, C) probabilities of the records of training.
        drawn: (N,) relative frequencies with which they are drawn; None where all are alike.

    Raises:
        ValueError: a class that does not occur, of which the logits would learn nothing.
    """
    weights = torch.ones(len(targets)) if drawn is None else drawn
    frequency = (weights.double()[:, None] * targets.double()).sum(dim=0) / weights.double().sum()
    if not bool((frequency > 0).all()):
        raise OptionError(
            "logit adjustment needs training records of every class: name only classes that occur",
            "logit_adjustment",
            "classes",
        )
    return frequency.log().float()


_MEASURES: dict[str, Callable[[LossOptions, Tensor | None, Tensor | None], nn.Module]] = {
    "cross_entropy": lambda o, weights, prior: CrossEntropy(o.label_smoothing, weights, 0.0, prior),
    "focal": lambda o, weights, prior: CrossEntropy(
        o.label_smoothing, weights, o.focal_gamma, prior
    ),
    "bce": lambda o, weights, prior: nn.BCEWithLogitsLoss(pos_weight=weights),
    "smooth_l1": lambda o, weights, prior: nn.SmoothL1Loss(),
    "ccc": lambda o, weights, prior: ConcordanceLoss(),
}


def _heads(output: dict[str, Tensor]) -> list[str]:
    return [name for name in output if name.endswith("_logits")]
