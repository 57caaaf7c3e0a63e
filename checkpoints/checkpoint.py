"""A trained model: weights, architecture, class names, ClipConfig, task and what it was trained on.

Ours is one `.safetensors` file whose metadata holds the rest as JSON. `checkpoints.published` reads
the formats of others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor

from checkpoints.keys import load_strictly
from checkpoints.published import read_published
from checkpoints.torch_files import without_module
from checkpoints.whisper_weights import is_whisper
from evaluation.calibration import (
    COVERAGES,
    Calibration,
    ConformalRule,
    fit_conformal,
    fit_temperature,
)
from media.adaptation import Prior
from media.configuration import ClipConfig
from models import EmotionModel, build_model
from system.checkpoint_metadata import KEY, read_metadata
from system.errors import OptionError
from system.files import replacing

VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A model with all that is needed to use it.

    Args:
        model: in evaluation mode, on the CPU.
        class_names: of its logits, in order.
        clip_config: of its inputs.
        task: `classification`.
        info: corpora, licence and speakers that it was trained on, scores: for people.
        calibration: of its probabilities, fitted on validation speakers; None where it has none.
        conformal: rules for sets of classes, by coverage.
        priors: of `landmarks` and `blendshapes`, for models with speaker adaptation: the mean that
            they are seen against until a speaker's own is known.
        source: file it was read from, and its SHA-256.
    """

    model: EmotionModel
    class_names: tuple[str, ...]
    clip_config: ClipConfig
    task: str = "classification"
    info: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    conformal: tuple[ConformalRule, ...] = ()
    priors: Mapping[str, Prior] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)

    @property
    def architecture(self) -> dict[str, Any]:
        return {"name": self.model.name, "arguments": self.model.arguments}

    def part(self, modality: str) -> Checkpoint:
        """The `face` or `speech` classifier of a late fusion, as a checkpoint of its own."""
        member = self.model.parts()[modality]
        priors = {name: prior for name, prior in self.priors.items() if name == modality}
        return replace(self, model=member, calibration=None, conformal=(), priors=priors)

    def calibrated(self, logits: np.ndarray, labels: np.ndarray) -> Checkpoint:
        """With the temperature that suits records not trained on, and a conformal rule a coverage.

        Args:
            logits: (N, C) logits or log-probabilities.
            labels: (N,) true class indices.
        """
        calibration = fit_temperature(logits, labels)
        probabilities = calibration.apply(logits)
        rules = tuple(fit_conformal(probabilities, labels, coverage) for coverage in COVERAGES)
        return replace(self, calibration=calibration, conformal=rules)


def save_checkpoint(checkpoint: Checkpoint, path: Path, half: bool = False) -> None:
    """Write the file whole, or not at all. `half` stores float weights in 16 bits."""
    metadata = {
        "version": VERSION,
        "architecture": checkpoint.architecture,
        "class_names": list(checkpoint.class_names),
        "task": checkpoint.task,
        "clip_config": checkpoint.clip_config.to_dict(),
        "info": checkpoint.info,
        "calibration": checkpoint.calibration.to_dict() if checkpoint.calibration else None,
        "conformal": [rule.to_dict() for rule in checkpoint.conformal],
        "priors": {name: prior.to_dict() for name, prior in checkpoint.priors.items()},
    }
    weights = {
        name: (value.half() if half and value.dtype == torch.float32 else value).contiguous()
        for name, value in checkpoint.model.state_dict().items()
    }
    with replacing(path) as temporary:
        temporary.write_bytes(serialise(weights, {KEY: json.dumps(metadata)}))


def load_checkpoint(path: Path, num_heads: int = 1) -> Checkpoint:
    """Read a checkpoint in our format, or one published by others.

    Args:
        path: `.safetensors`, `.pth`, `.pth.tar`, or HSE FaceRes's `.json` (without classifier).
        num_heads: attention heads of a published fusion model, which its keys do not tell.

    Raises:
        ValueError: not a checkpoint, another architecture, or keys that do not match.
    """
    if not path.is_file():
        raise ValueError(f"no checkpoint at {path}")
    if is_whisper(path):
        raise OptionError(
            f"{path} holds Whisper's encoder, which knows no emotions: train whisper_speech from "
            "it",
            "pretrain_path",
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    source = {"name": path.name, "sha256": digest}
    if path.suffix == ".safetensors":
        return replace(_load_own(path), source=source)
    found = read_published(path, num_heads)
    return Checkpoint(
        found.model, found.class_names, found.clip_config, info=found.info, source=source
    )


def _load_own(path: Path) -> Checkpoint:
    metadata = read_metadata(path)
    try:
        weights = load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    try:
        return _build_own(metadata, weights, path)
    except (KeyError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise ValueError(
            f"{path} holds a configuration that cannot be used ({_first_line(error)}): it is "
            "damaged; copy or train it again"
        ) from error
    except ValueError as error:
        if path.name in str(error):
            raise
        raise ValueError(f"{path}: {error}") from error


def _build_own(metadata: dict[str, Any], weights: dict[str, Tensor], path: Path) -> Checkpoint:
    if metadata["version"] != VERSION:
        raise ValueError(f"{path} has version {metadata['version']}; this code reads {VERSION}")
    architecture = metadata["architecture"]
    model = build_model(architecture["name"], **architecture["arguments"])
    load_strictly(model, without_module(weights), path)
    return Checkpoint(
        model=model.eval(),
        class_names=tuple(metadata["class_names"]),
        clip_config=ClipConfig.from_dict(metadata["clip_config"]),
        task=metadata["task"],
        info=metadata["info"],
        calibration=_read_calibration(metadata),
        conformal=tuple(ConformalRule.from_dict(rule) for rule in metadata.get("conformal", ())),
        priors=_read_priors(metadata),
    )


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def _read_priors(metadata: dict[str, Any]) -> dict[str, Prior]:
    """By modality; older files hold one, of landmarks."""
    found = dict(metadata.get("priors", {}))
    if metadata.get("prior"):
        found["landmarks"] = metadata["prior"]
    return {name: Prior.from_dict(values) for name, values in found.items()}


def _read_calibration(metadata: dict[str, Any]) -> Calibration | None:
    values = metadata.get("calibration")
    return Calibration.from_dict(values) if values else None
