"""What training starts from: an architecture with its classes and constants, and its weights."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from checkpoints.checkpoint import Checkpoint, load_checkpoint
from checkpoints.combine import combine_checkpoints
from checkpoints.pretrained import load_pretrained
from checkpoints.torchvision_weights import DEFAULT, load_torchvision
from checkpoints.whisper_weights import is_whisper
from datasets.annotations import Record
from datasets.targets import resolve_targets
from experiments.options import ExperimentOptions, StartOptions
from labels.emotions import resolve_classes
from media.configuration import ENTRIES, STORED, ClipConfig
from models import (
    EmotionModel,
    accepted_arguments,
    all_parts,
    build_model,
    model_inputs,
    set_checkpointing,
    set_trainable,
)
from models.late_fusion import DEFAULT_METHOD
from models.options import ModelOptions
from models.summary import example_arguments
from system.errors import OptionError

_LOG = logging.getLogger(__name__)

OURS = ".safetensors"
_DATA_OF_WEIGHTS = {"IMAGENET": "ImageNet-1k", "KINETICS": "Kinetics-400"}


def build_checkpoint(
    options: ExperimentOptions, records: Sequence[Record], stored: ClipConfig
) -> Checkpoint:
    """A fresh model, or one combined of trained parts, with its class names and constants.

    Args:
        stored: constants of the store.

    Raises:
        ValueError: classes, targets or parts that do not go together.
    """
    names = _class_names(options, records)
    accepted = accepted_arguments(options.model.model)
    known = {"num_classes": len(names), "image_size": stored.face_size}
    arguments = {name: value for name, value in known.items() if name in accepted}
    arguments |= options.model.arguments(accepted)
    members = [name for name in model_inputs(options.model.model) if name in accepted]
    if members:
        paths = {name: getattr(options.model, f"{name}_path") for name in members}
        parts = {name: _read_part(path, names) for name, path in paths.items() if path}
        if len(parts) < 2:
            raise OptionError(
                f"give two or more trained classifiers to combine, of {', '.join(members)}",
                *(f"{name}_path" for name in members),
            )
        return combine_checkpoints(
            parts, options.model.model_arg.get("late_method", DEFAULT_METHOD)
        )
    model = build_model(options.model.model, **arguments)
    return Checkpoint(model, names, _clip_config(options, model, stored), options.data.task)


def default_face_size(options: ModelOptions) -> int:
    """Side of the face pictures that an architecture takes, where nothing else is asked for."""
    arguments = example_arguments(options.model)
    if "face_model" in accepted_arguments(options.model):
        arguments["face_model"] = options.face_model
    with torch.device("meta"):
        built = build_model(options.model, **arguments)
    return int(built.clip_defaults.get("face_size", ClipConfig().face_size))


def _class_names(options: ExperimentOptions, records: Sequence[Record]) -> tuple[str, ...]:
    data = options.data
    if data.task == "classification":
        names = resolve_classes(data.classes, (record.label for record in records))
    else:
        names = resolve_targets(data.targets, records)
    if data.n_classes not in (None, len(names)):
        raise OptionError(
            f"{data.n_classes} classes expected, but there are {len(names)}: {', '.join(names)}",
            "n_classes",
        )
    return names


def _read_part(path: str, names: tuple[str, ...]) -> Checkpoint:
    part = load_checkpoint(Path(path))
    if part.class_names != names:
        raise ValueError(
            f"{path} knows {', '.join(part.class_names)}; this run has {', '.join(names)}"
        )
    return part


def _clip_config(options: ExperimentOptions, model: EmotionModel, stored: ClipConfig) -> ClipConfig:
    """The store's constants, with those that are applied when a clip is cut from it.

    Those come from the flags, then from the architecture, then from the store.
    """
    data = options.data
    defaults = {k: v for k, v in model.clip_defaults.items() if k not in STORED}
    n_mels = _n_mels(options.model, model, stored)
    asked: dict[str, Any] = {
        "pictures": data.sample_duration,
        "picture_choice": data.picture_choice,
        "window_seconds": data.window_seconds,
        "voice_activity": data.voice_activity,
        "colour": data.colour,
        "n_mels": n_mels,
        "speech_context_seconds": data.speech_context_seconds,
        "speech_block_seconds": data.speech_block_seconds,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    config = replace(stored, **{**defaults, **given})
    if data.video_norm_value is not None:
        scale = data.video_norm_value / 255.0
        config = replace(config, face_mean=(0.0,) * 3, face_std=(scale,) * 3)
    return config


def _n_mels(options: ModelOptions, model: EmotionModel, stored: ClipConfig) -> int:
    """Rows of the speech input: as the architecture needs them, then as asked for."""
    needed = model.clip_defaults.get("n_mels")
    if needed is not None:
        if options.n_mels not in (None, needed):
            raise OptionError(
                f"n_mels must be {needed} for {model.name}, not {options.n_mels}", "n_mels"
            )
        return int(needed)
    given = model.arguments.get("n_mels")
    if given is not None:
        return int(given)
    parameter = inspect.signature(type(model)).parameters.get("n_mels")
    return stored.n_mels if parameter is None else int(parameter.default)


def start_model(
    model: EmotionModel,
    config: ClipConfig,
    options: StartOptions,
    resumed: bool = False,
) -> None:
    """Load the weights that training starts from, and choose what is trained.

    Args:
        config: what the model will see and hear.
        resumed: torchvision's weights are not read, for the run's own come after.

    Raises:
        ValueError: weights that cannot be had or do not fit, or blocks that are not there.
    """
    made_for = model.clip_defaults.get("face_size", config.face_size)
    if "face" in model.inputs and made_for != config.face_size:
        _LOG.info(
            f"note: {model.name} is made for faces of {made_for} pixels, not {config.face_size}"
        )
    from_torchvision = _torchvision_start(model, options)
    if from_torchvision and not resumed:
        for report in load_torchvision(model, from_torchvision):
            _LOG.info(f"{', '.join(model.torchvision_weights.values())}: {report}")
    if options.trainable is not None:
        set_trainable(model, [] if options.trainable == ["all"] else options.trainable)
    elif from_torchvision or starts_whisper(model, options):
        set_trainable(model, model.default_trainable)
    for path in [*whisper_paths(model, options), *own_paths(model, options)]:
        _start_from_checkpoint(model, config, path, options.freeze_pretrained)
    if options.gradient_checkpointing:
        set_checkpointing(model, True)


def starts_whisper(model: EmotionModel, options: StartOptions) -> bool:
    """Whether a file holds trained weights of Whisper for an encoder in the model."""
    if model.block_encoder() is None:
        return False
    own = (load_checkpoint(Path(path)).model for path in own_paths(model, options))
    return bool(whisper_paths(model, options)) or any(start.block_encoder() for start in own)


def whisper_paths(model: EmotionModel, options: StartOptions) -> list[str]:
    """Of a model with Whisper's encoder, those of `pretrain_path` that hold published weights."""
    if model.block_encoder() is None:
        return []
    return [path for path in options.pretrain_path if is_whisper(Path(path))]


def own_paths(model: EmotionModel, options: StartOptions) -> list[str]:
    """Those of `pretrain_path` that are checkpoints, not published weights."""
    others = {*_torchvision_paths(model, options), *whisper_paths(model, options)}
    return [path for path in options.pretrain_path if path not in others]


def pretraining_data(model: EmotionModel, options: StartOptions) -> list[str]:
    """Corpora that the start from torchvision or Whisper saw, as `ImageNet-1k`."""
    if starts_whisper(model, options):
        return ["Whisper's web speech"]
    if not _torchvision_start(model, options):
        return []
    names = model.torchvision_weights.values()
    return [data for key, data in _DATA_OF_WEIGHTS.items() if any(key in name for name in names)]


def _torchvision_paths(model: EmotionModel, options: StartOptions) -> list[str]:
    """Of a model with torchvision's parts, the files that are not checkpoints of ours."""
    if not model.torchvision_weights:
        return []
    return [path for path in options.pretrain_path if Path(path).suffix != OURS]


def _torchvision_start(model: EmotionModel, options: StartOptions) -> str | Path | None:
    """What `load_torchvision` is to read; None for nothing."""
    paths = _torchvision_paths(model, options)
    if len(paths) > 1:
        raise ValueError(f"give one file of torchvision's weights, not {', '.join(paths)}")
    if paths:
        return Path(paths[0])
    by_itself = model.torchvision_weights and not options.pretrain_path
    if options.pretrained == DEFAULT or (options.pretrained is None and by_itself):
        return DEFAULT
    return None


def _start_from_checkpoint(
    model: EmotionModel,
    config: ClipConfig,
    path: str,
    freeze: bool,
) -> None:
    report = load_pretrained(model, Path(path))
    _LOG.info(f"{path}: {report}")
    if not is_whisper(Path(path)):
        start = load_checkpoint(Path(path))
        names = tuple(name for modality in start.model.inputs for name in ENTRIES[modality])
        for difference in start.clip_config.differences(config, names):
            _LOG.info(f"note: {path} was trained otherwise: {difference}")
    if freeze:
        part = model.get_submodule(report.prefix.rstrip("."))
        for name, parameter in part.named_parameters():
            parameter.requires_grad &= name not in report.matched


def recomputes_blocks(model: EmotionModel, run: Callable[[], object]) -> bool:
    """Whether a model hands any of its blocks to `run_block` while `run` calls it."""
    called = False

    def note(block: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        nonlocal called
        called = True
        return block(x)

    parts = all_parts(model)
    for part in parts:
        part.run_block = note  # type: ignore[method-assign]
    try:
        run()
    finally:
        for part in parts:
            del part.run_block
    return called
