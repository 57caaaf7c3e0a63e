"""The one loop: fit any model of any task, and resume to the very weights of a run never killed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
)
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from datasets.augment import drop_modalities, mix_up
from datasets.samples import ClipDataset
from files import replacing
from models import EmotionModel
from opts import TrainOptions
from validation import Predictions, evaluate, predict


@dataclass
class Fit:
    """What is fitted, and all the state that a resumed run needs.

    Args:
        model: in training.
        criterion: output dict and targets to named losses.
        optimizer, scheduler: schedules are stepped by batch (cosine, onecycle) or by epoch.
        scaler: of fp16's losses; does nothing for other precisions.
        average: averaged weights, where asked for.
        frozen: modules that stay as they are, also in their batch statistics.
        epoch: finished so far.
        best_uar: of validation, and how many epochs ago.
        log: one line an epoch.
    """

    model: EmotionModel
    criterion: nn.Module
    options: TrainOptions
    device: torch.device
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | ReduceLROnPlateau
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    frozen: list[nn.Module] = field(default_factory=list)
    epoch: int = 0
    best_uar: float = -1.0
    stale_epochs: int = 0
    log: list[dict[str, float]] = field(default_factory=list)

    @property
    def evaluated_model(self) -> EmotionModel:
        """The weights that are validated and kept: the average, where there is one."""
        if self.average is None:
            return self.model
        assert isinstance(self.average.module, EmotionModel)
        return self.average.module


def build_fit(
    model: EmotionModel,
    criterion: nn.Module,
    options: TrainOptions,
    device: torch.device,
    steps_per_epoch: int,
) -> Fit:
    """Optimizer, schedule, scaler and average for a model that is on its device."""
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ValueError("nothing to train: every parameter is frozen")
    optimizer = _build_optimizer(trained, options)
    scheduler = _build_scheduler(optimizer, options, steps_per_epoch)
    average = None
    if options.ema:
        average = AveragedModel(model, avg_fn=_averaging(options.ema), use_buffers=True)
    fit = Fit(
        model=model,
        criterion=criterion,
        options=options,
        device=device,
        optimizer=optimizer,
        scheduler=scheduler,
        scaler=torch.amp.GradScaler(device.type, enabled=options.amp == "fp16"),
        average=average,
        frozen=_frozen_modules(model),
        epoch=options.begin_epoch - 1,
    )
    for _ in range(fit.epoch * (steps_per_epoch if _is_by_batch(scheduler) else 1)):
        if not isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step()
    return fit


def _averaging(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential average with a short memory at first, so that it forgets the fresh weights."""

    def update(average: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
        if not average.is_floating_point():  # counters of batch normalisation
            return current
        done = int(steps)
        share = min(decay, (1 + done) / (10 + done))
        return torch.lerp(current, average, share)

    return update


def _build_optimizer(
    parameters: list[nn.Parameter], options: TrainOptions
) -> torch.optim.Optimizer:
    rate, decay = options.learning_rate, options.weight_decay
    if options.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, options.momentum, options.dampening, decay)
    if options.optimizer == "adam":
        return torch.optim.Adam(parameters, rate, weight_decay=decay)
    return torch.optim.AdamW(parameters, rate, weight_decay=decay)


def _build_scheduler(
    optimizer: torch.optim.Optimizer, options: TrainOptions, steps_per_epoch: int
) -> LRScheduler | ReduceLROnPlateau:
    steps = max(1, options.n_epochs * steps_per_epoch)
    if options.lr_schedule == "step":
        return MultiStepLR(optimizer, list(options.lr_steps), gamma=0.1)
    if options.lr_schedule == "plateau":
        return ReduceLROnPlateau(optimizer, patience=options.lr_patience)
    if options.lr_schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=steps)
    if options.lr_schedule == "onecycle":
        return OneCycleLR(optimizer, options.learning_rate, total_steps=steps + 1)
    return ConstantLR(optimizer, factor=1.0)


def _is_by_batch(scheduler: LRScheduler | ReduceLROnPlateau) -> bool:
    return isinstance(scheduler, (CosineAnnealingLR, OneCycleLR))


def _frozen_modules(model: nn.Module) -> list[nn.Module]:
    """Modules that have parameters of their own and train none of them."""
    return [
        module
        for module in model.modules()
        if (own := list(module.parameters(recurse=False))) and not any(p.requires_grad for p in own)
    ]


def fit(
    state: Fit,
    train_loader: DataLoader[dict[str, Any]],
    val_loader: DataLoader[dict[str, Any]] | None,
    folder: Path,
    save_best: Callable[[Fit, dict[str, Any]], None],
    say: Callable[[str], None],
) -> None:
    """Train until the last epoch, or until validation stops getting better.

    Args:
        state: fresh, or from `load_state`.
        val_loader: None to keep the last epoch's weights.
        folder: run folder; gets `log.jsonl`, `last.pt` and TensorBoard events after each epoch.
        save_best: called with the scores of each epoch that is the best so far.
        say: takes one line an epoch.
    """
    options = state.options
    writer = SummaryWriter(str(folder), purge_step=state.epoch + 1)
    try:
        while state.epoch < options.n_epochs and not _is_stale(state):
            line = {"epoch": state.epoch + 1, "lr": state.optimizer.param_groups[0]["lr"]}
            line |= train_one_epoch(state, train_loader)
            scores: dict[str, Any] = {}
            if val_loader is not None:
                scores = _validate(state, val_loader)
                line |= {"val_loss": scores["loss"], "val_acc": scores["accuracy"]}
                line |= {"val_uar": scores["uar"]}
            _step_by_epoch(state, line.get("val_loss", line["train_loss"]))
            _close_epoch(state, line, scores, save_best)
            _write_events(writer, line)
            save_state(state, folder)
            say(_describe(line, options.n_epochs, is_best=state.stale_epochs == 0))
    finally:
        writer.close()


def train_one_epoch(state: Fit, loader: DataLoader[dict[str, Any]]) -> dict[str, float]:
    """One pass over the loader. Returns `train_loss` and `train_acc`.

    Raises:
        ValueError: the loss is not finite.
    """
    options, epoch = state.options, state.epoch + 1
    torch.manual_seed(options.manual_seed * 100_003 + epoch)
    dataset = getattr(loader, "dataset", None)
    if isinstance(dataset, ClipDataset):
        dataset.set_epoch(epoch)
    state.model.train()
    for module in state.frozen:
        module.eval()
    total, right, seen = 0.0, 0, 0
    bar = tqdm(
        loader, desc=f"epoch {epoch}/{options.n_epochs}", unit="batch", leave=False, disable=None
    )
    for batch in bar:
        inputs = {name: value.to(state.device) for name, value in batch["inputs"].items()}
        inputs, target = drop_modalities(inputs, batch["target"].to(state.device), options.mask)
        if options.mixup:
            inputs, target = mix_up(inputs, target, options.mixup)
        loss, logits = _step(state, inputs, target)
        if not math.isfinite(loss):
            raise ValueError(
                f"the loss became {loss} in epoch {epoch}: lower --learning_rate or set --clip_grad"
            )
        total, seen = total + loss * len(target), seen + len(target)
        right += int((logits.argmax(dim=1) == target.argmax(dim=1)).sum())
        bar.set_postfix(loss=f"{total / seen:.3f}", acc=f"{right / seen:.3f}")
    return {"train_loss": total / seen, "train_acc": right / seen}


def _step(state: Fit, inputs: dict[str, Tensor], target: Tensor) -> tuple[float, Tensor]:
    options = state.options
    precision = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(options.amp)
    with torch.autocast(state.device.type, precision, enabled=precision is not None):
        output = state.model(**inputs)
    loss = state.criterion(output, target)["loss"]
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()
    if options.clip_grad:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), options.clip_grad)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if isinstance(state.scheduler, LRScheduler) and _is_by_batch(state.scheduler):
        state.scheduler.step()
    if state.average is not None:
        state.average.update_parameters(state.model)
    return float(loss.detach()), output["logits"].detach()


def _validate(state: Fit, loader: DataLoader[dict[str, Any]]) -> dict[str, Any]:
    predictions: Predictions = predict(state.evaluated_model, loader, state.device)
    dataset = loader.dataset
    assert isinstance(dataset, ClipDataset)
    return evaluate(predictions, dataset.class_names)


def _step_by_epoch(state: Fit, loss: float) -> None:
    if isinstance(state.scheduler, ReduceLROnPlateau):
        state.scheduler.step(loss)
    elif not _is_by_batch(state.scheduler):
        state.scheduler.step()


def _close_epoch(
    state: Fit,
    line: dict[str, float],
    scores: dict[str, Any],
    save_best: Callable[[Fit, dict[str, Any]], None],
) -> None:
    state.epoch += 1
    state.log.append(line)
    if scores and scores["uar"] <= state.best_uar:
        state.stale_epochs += 1
        return
    state.stale_epochs, state.best_uar = 0, scores.get("uar", state.best_uar)
    save_best(state, scores)


def _is_stale(state: Fit) -> bool:
    return 0 < state.options.early_stopping <= state.stale_epochs


def _describe(line: dict[str, float], epochs: int, is_best: bool) -> str:
    values = [f"{k.replace('_', ' ')} {v:.4g}" for k, v in line.items() if k != "epoch"]
    return f"epoch {line['epoch']}/{epochs}: {', '.join(values)}{' (best)' if is_best else ''}"


def _write_events(writer: SummaryWriter, line: dict[str, float]) -> None:
    """Tags `train/loss train/acc val/loss val/acc val/uar lr`; a step is an epoch."""
    for name, value in line.items():
        if name != "epoch":
            writer.add_scalar(name.replace("_", "/", 1), value, int(line["epoch"]))
    writer.flush()


def save_state(state: Fit, folder: Path) -> None:
    """Write `last.pt`, then `log.jsonl`, each whole or not at all."""
    values = {
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scheduler": state.scheduler.state_dict(),
        "scaler": state.scaler.state_dict(),
        "average": None if state.average is None else state.average.state_dict(),
        "epoch": state.epoch,
        "best_uar": state.best_uar,
        "stale_epochs": state.stale_epochs,
        "log": state.log,
    }
    with replacing(folder / "last.pt") as temporary:
        torch.save(values, temporary)
    with replacing(folder / "log.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in state.log))


def load_state(state: Fit, folder: Path) -> None:
    """Continue from `last.pt`. A run killed before its first epoch ended starts anew.

    Raises:
        ValueError: the saved state is of another model or optimizer.
    """
    path = folder / "last.pt"
    if not path.exists():
        return
    values = torch.load(path, map_location=state.device, weights_only=True)
    try:
        state.model.load_state_dict(values["model"])
        state.optimizer.load_state_dict(values["optimizer"])
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is of another model: {str(error).splitlines()[0]}") from error
    state.scheduler.load_state_dict(values["scheduler"])
    state.scaler.load_state_dict(values["scaler"])
    if state.average is not None and values["average"] is not None:
        state.average.load_state_dict(values["average"])
    state.epoch, state.log = values["epoch"], values["log"]
    state.best_uar, state.stale_epochs = values["best_uar"], values["stale_epochs"]
