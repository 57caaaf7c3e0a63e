"""Optimizers over a model's trained parameters, its head perhaps at a rate of its own."""

from __future__ import annotations

from typing import Any

import torch

from models import EmotionModel
from optim.options import OptimizerOptions
from system.errors import OptionError


def build_optimizer(model: EmotionModel, options: OptimizerOptions) -> torch.optim.Optimizer:
    """One group of parameters, or two where backbone or head has a learning rate of its own.

    Raises:
        ValueError: nothing is trained, or nothing that one of the two rates is for.
    """
    groups = _groups(model, options)
    decay = options.weight_decay
    if options.optimizer == "sgd":
        return torch.optim.SGD(
            groups,
            momentum=options.momentum,
            dampening=options.dampening,
            weight_decay=decay,
            lr=options.learning_rate,
        )
    kind = torch.optim.Adam if options.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=options.learning_rate, weight_decay=decay)


def _groups(model: EmotionModel, options: OptimizerOptions) -> list[dict[str, Any]]:
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ValueError("nothing to train: every parameter is frozen")
    if options.lr_backbone is None and options.lr_head is None:
        return [{"params": trained, "lr": options.learning_rate}]
    of_head = {id(p) for p in model.blocks()["head"].parameters()}
    parts = {
        "lr_backbone": [p for p in trained if id(p) not in of_head],
        "lr_head": [p for p in trained if id(p) in of_head],
    }
    groups = []
    for name, parameters in parts.items():
        rate = getattr(options, name)
        if parameters:
            rate = options.learning_rate if rate is None else rate
            groups.append({"params": parameters, "lr": rate})
        elif rate is not None:
            part = name.removeprefix("lr_")
            raise OptionError(
                f"a learning rate of the {part} has no effect: nothing of the {part} is trained",
                name,
            )
    return groups
