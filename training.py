"""The one loop: fit any model of any task, and resume to the very weights of a run never killed."""

from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Callable, Sized
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from checkpoints.keys import compare_keys
from datasets.augment import drop_modalities, mix_up
from datasets.samples import ClipDataset
from evaluation.metrics import confusion_matrix
from models import EmotionModel
from optim.losses import Criterion
from optim.optimizers import build_optimizer
from optim.options import FitOptions
from optim.schedules import Schedule
from reports.plots import confusion_epoch_path, plot_confusion_epoch, write_figure
from system.errors import OptionError
from system.files import replacing
from system.memory import explain_out_of_memory
from validation import evaluate, predict

_LOG = logging.getLogger(__name__)

# By which score of validation the best epoch is known, for each task.
SELECTION = {"classification": "uar", "multilabel": "macro_f1", "regression": "ccc"}


@dataclass
class TrainingState:
    """What is fitted, and all the state that a resumed run needs.

    Args:
        model: in training.
        criterion: output dict and targets to named losses, of a task.
        schedule: of the optimizer's learning rates.
        scaler: of fp16's losses; does nothing for other precisions.
        average: averaged weights, where asked for.
        frozen: modules that stay as they are, also in their batch statistics.
        epoch: finished so far.
        best_score: of validation, as `SELECTION` says, and how many epochs ago.
        log: one line an epoch.
    """

    model: EmotionModel
    criterion: Criterion
    options: FitOptions
    device: torch.device
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    frozen: list[nn.Module] = field(default_factory=list)
    epoch: int = 0
    best_score: float = -math.inf
    stale_epochs: int = 0
    log: list[dict[str, float]] = field(default_factory=list)

    @property
    def evaluated_model(self) -> EmotionModel:
        """The weights that are validated and kept: the average, where there is one."""
        if self.average is None:
            return self.model
        assert isinstance(self.average.module, EmotionModel)
        return self.average.module


def build_training_state(
    model: EmotionModel,
    criterion: Criterion,
    options: FitOptions,
    device: torch.device,
    batches: int,
) -> TrainingState:
    """Optimizer, schedule, scaler and average for a model that is on its device.

    Args:
        batches: of an epoch; `options.accumulate` of them make a step.
    """
    optimizer = build_optimizer(model, options)
    average = None
    if options.ema:
        average = AveragedModel(model, avg_fn=_averaging(options.ema), use_buffers=True)
    return TrainingState(
        model=model,
        criterion=criterion.to(device),
        options=options,
        device=device,
        optimizer=optimizer,
        schedule=Schedule(optimizer, options, math.ceil(batches / options.accumulate)),
        scaler=torch.amp.GradScaler(device.type, enabled=options.amp == "fp16"),
        average=average,
        frozen=_frozen_modules(model),
        epoch=options.begin_epoch - 1,
    )


def _averaging(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """Exponential average with a short memory at first, so that it forgets the fresh weights."""

    def update(average: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
        if not average.is_floating_point():  # counters of batch normalisation
            return current
        done = int(steps)
        share = min(decay, (1 + done) / (10 + done))
        return torch.lerp(current, average, share)

    return update


def _frozen_modules(model: nn.Module) -> list[nn.Module]:
    """Modules that have parameters of their own and train none of them."""
    return [
        module
        for module in model.modules()
        if (own := list(module.parameters(recurse=False))) and not any(p.requires_grad for p in own)
    ]


def fit(
    state: TrainingState,
    train_loader: DataLoader[dict[str, Any]],
    val_loader: DataLoader[dict[str, Any]] | None,
    folder: Path,
    save_best: Callable[[TrainingState, dict[str, Any]], None],
) -> None:
    """Train until the last epoch, or until validation stops getting better.

    Args:
        state: fresh, or from `load_state`.
        val_loader: None to keep the last epoch's weights.
        folder: run folder; gets `log.jsonl`, `last.pt` and TensorBoard events after each epoch.
        save_best: called with the scores of each epoch that is the best so far.
    """
    options = state.options
    writer = SummaryWriter(str(folder), purge_step=state.epoch + 1)
    try:
        while state.epoch < options.n_epochs and not _is_stale(state):
            line: dict[str, float] = {"epoch": state.epoch + 1, **_rates(state)}
            with explain_out_of_memory():
                line |= train_one_epoch(state, train_loader)
                scores = {} if val_loader is None else _validate(state, val_loader, folder)
            line |= _logged(scores, state.criterion.task)
            state.schedule.end_epoch(line.get("val_loss", line["train_loss"]))
            _close_epoch(state, line, scores, save_best)
            _write_events(writer, line)
            save_state(state, folder)
            is_best = bool(scores) and state.stale_epochs == 0
            _LOG.info(_describe(line, options.n_epochs, is_best))
    finally:
        writer.close()


def train_one_epoch(state: TrainingState, loader: DataLoader[dict[str, Any]]) -> dict[str, float]:
    """One pass over the loader. Returns `train_loss`, and `train_acc` where there are classes.

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
    for number, batch in enumerate(bar):
        joined, is_last = _joined_batches(number, loader, options.accumulate)
        loss, logits, target = train_on_batch(state, batch, joined)
        if not math.isfinite(loss):
            raise OptionError(
                f"the loss became {loss} in epoch {epoch}: lower the learning rate or limit the "
                "gradient",
                "learning_rate",
                "clip_grad",
            )
        if is_last:
            update_weights(state)
        total, seen = total + loss * len(target), seen + len(target)
        right += int((logits.argmax(dim=1) == target.argmax(dim=1)).sum())
        bar.set_postfix(loss=f"{total / seen:.3f}")
    accuracy = {"train_acc": right / seen} if state.criterion.task == "classification" else {}
    return {"train_loss": total / seen, **accuracy}


def _joined_batches(number: int, loader: Sized, accumulate: int) -> tuple[int, bool]:
    """How many batches the step of that batch joins, and whether it is the last of them.

    The last step of an epoch joins what is left.
    """
    count = len(loader)
    first = number - number % accumulate
    joined = min(accumulate, count - first)
    return joined, number == first + joined - 1


def train_on_batch(
    state: TrainingState, batch: dict[str, Any], joined: int = 1
) -> tuple[float, Tensor, Tensor]:
    """Add a batch's gradient.

    Args:
        joined: batches whose mean gradient makes a step.

    Returns:
        The batch's loss, and its (B, C) logits and targets with all copies that were made of it.
    """
    options = state.options
    inputs = {name: value.to(state.device) for name, value in batch["inputs"].items()}
    inputs, target = drop_modalities(inputs, batch["target"].to(state.device), options.mask)
    if options.mixup:
        inputs, target = mix_up(inputs, target, options.mixup)
    precision = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(options.amp)
    with torch.autocast(state.device.type, precision, enabled=precision is not None):
        output = state.model(**inputs)
    loss = state.criterion(output, target)["loss"]
    state.scaler.scale(loss / joined).backward()
    return float(loss.detach()), output["logits"].detach(), target


def update_weights(state: TrainingState) -> None:
    """One step of the optimizer with the gradient that was added up, and of the schedule."""
    if state.options.clip_grad:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), state.options.clip_grad)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    state.schedule.step()
    if state.average is not None:
        state.average.update_parameters(state.model)


def _validate(
    state: TrainingState, loader: DataLoader[dict[str, Any]], folder: Path
) -> dict[str, Any]:
    predictions = predict(state.evaluated_model, loader, state.device, state.criterion.task)
    dataset = loader.dataset
    assert isinstance(dataset, ClipDataset)
    scores = evaluate(predictions, dataset.class_names)
    every = state.options.confusion_every
    if every and (state.epoch + 1) % every == 0:
        matrix = confusion_matrix(predictions.by_clip(), predictions.labels_by_clip())
        figure = plot_confusion_epoch(matrix, dataset.class_names, state.epoch + 1)
        write_figure(figure, confusion_epoch_path(folder, state.epoch + 1))
    name = SELECTION[state.criterion.task]
    if scores[name] is None:
        raise OptionError(
            f"{name} of validation is undefined: its targets do not vary; give it other records, "
            "or train without validation",
            "no_val",
        )
    return scores


def _rates(state: TrainingState) -> dict[str, float]:
    """`lr`, and `lr_head` where the head has its own."""
    rates = [group["lr"] for group in state.optimizer.param_groups]
    return dict(zip(("lr", "lr_head"), rates, strict=False))


def _logged(scores: dict[str, Any], task: str) -> dict[str, float]:
    """What the log keeps of validation: `val_loss`, `val_acc` of classes, and the task's score."""
    names = {"loss": "val_loss", "accuracy": "val_acc", SELECTION[task]: f"val_{SELECTION[task]}"}
    return {logged: scores[name] for name, logged in names.items() if name in scores}


def _close_epoch(
    state: TrainingState,
    line: dict[str, float],
    scores: dict[str, Any],
    save_best: Callable[[TrainingState, dict[str, Any]], None],
) -> None:
    state.epoch += 1
    state.log.append(line)
    score = scores.get(SELECTION[state.criterion.task], state.best_score)
    if scores and score <= state.best_score:
        state.stale_epochs += 1
        return
    state.stale_epochs, state.best_score = 0, score
    save_best(state, scores)


def _is_stale(state: TrainingState) -> bool:
    return 0 < state.options.early_stopping <= state.stale_epochs


def _describe(line: dict[str, float], epochs: int, is_best: bool) -> str:
    values = [f"{k.replace('_', ' ')} {v:.4g}" for k, v in line.items() if k != "epoch"]
    return f"epoch {line['epoch']}/{epochs}: {', '.join(values)}{' (best)' if is_best else ''}"


def _write_events(writer: SummaryWriter, line: dict[str, float]) -> None:
    """Tags such as `train/loss val/loss val/acc val/uar lr`; a step is an epoch."""
    for name, value in line.items():
        if name != "epoch":
            writer.add_scalar(name.replace("_", "/", 1), value, int(line["epoch"]))
    writer.flush()


def save_state(state: TrainingState, folder: Path) -> None:
    """Write `last.pt`, then `log.jsonl`, each whole or not at all."""
    values = {
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict(),
        "scaler": state.scaler.state_dict(),
        "average": None if state.average is None else state.average.state_dict(),
        "epoch": state.epoch,
        "best_score": state.best_score,
        "stale_epochs": state.stale_epochs,
        "log": state.log,
    }
    content = io.BytesIO()  # torch's own writing of files hides that a disk is full
    torch.save(values, content)
    with replacing(folder / "last.pt") as temporary:
        temporary.write_bytes(content.getbuffer())
    with replacing(folder / "log.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in state.log))


def _read_state(path: Path, device: torch.device) -> dict[str, Any]:
    """What `save_state` wrote. Raises ValueError where a file is anything else."""
    try:
        values = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path} cannot be read: it is damaged; delete it to begin the run anew"
        ) from error
    if not isinstance(values, dict) or not set(values) >= _STATE:
        raise ValueError(f"{path} is no state of a run; delete it to begin the run anew")
    return values


_STATE = {"model", "optimizer", "schedule", "scaler", "average", "epoch", "best_score", "log"}


def load_state(state: TrainingState, folder: Path) -> None:
    """Continue from `last.pt`. A run killed before its first epoch ended starts anew.

    Raises:
        ValueError: the saved state is of another model or optimizer.
    """
    path = folder / "last.pt"
    if not path.exists():
        return
    values = _read_state(path, state.device)
    differences = compare_keys(state.model, values["model"])
    if differences.missing or differences.unexpected:
        raise OptionError(
            f"{path} is of another model: {differences}; give the run's own model and its "
            "options, or another folder",
            "model",
            "result_path",
        )
    try:
        state.model.load_state_dict(values["model"])
        state.optimizer.load_state_dict(values["optimizer"])
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} does not fit the run's options: {reason}") from error
    state.schedule.load_state_dict(values["schedule"])
    state.scaler.load_state_dict(values["scaler"])
    if state.average is not None and values["average"] is not None:
        state.average.load_state_dict(values["average"])
    state.epoch, state.log = values["epoch"], values["log"]
    state.best_score, state.stale_epochs = values["best_score"], values["stale_epochs"]
