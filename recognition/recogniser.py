"""A loaded checkpoint with what it needs to read recordings. It holds nothing of any recording."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from checkpoints.checkpoint import Checkpoint
from evaluation.calibration import ConformalRule
from media.clip import Clip, check_hop
from media.configuration import ClipConfig
from media.faces import Detector, build_detector
from media.mesh import MeshReading, build_mesh_reading
from media.reading import stream_clips
from models import EmotionModel
from recognition.contributions import Inputs, fused_modalities
from recognition.probabilities import pick_rule
from recognition.recogniser_options import RecognitionOptions
from recognition.windows import window_config
from system.errors import OptionError

MESH_INPUTS = {"landmarks", "blendshapes"}


@dataclass(frozen=True, eq=False)
class Recogniser:
    """What `build_recogniser` made ready. It never changes, so any number of threads may share it.

    Args:
        checkpoint: the model in evaluation mode on `device`, with its class names.
        options: what was asked for.
        device: where the model is.
        config: the constants of preprocessing, as the options change them.
        hop_seconds: from window to window.
        rule: by which rows are marked uncertain.
        fused: the modalities whose contributions are given; none where they are not asked for.
        detector: finds faces, for models and columns that need them.
        meshes: reads the followed face's mesh, for models and columns that need it.
    """

    checkpoint: Checkpoint
    options: RecognitionOptions
    device: torch.device
    config: ClipConfig
    hop_seconds: float
    rule: ConformalRule | None = None
    fused: tuple[str, ...] = ()
    detector: Detector | None = None
    meshes: MeshReading | None = None

    @property
    def model(self) -> EmotionModel:
        """The model of the checkpoint."""
        return self.checkpoint.model

    def read_clips(
        self,
        media_path: Path,
        progress: Callable[[float], None] | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> Iterator[Clip]:
        """Clips of the windows that tile a recording, as it is decoded.

        Args:
            progress: called with the fraction done, 0 to 1.
            tell: is told, line by line, what of the file could not be used.

        Raises:
            MediaError: the file cannot be used (when the first clip is asked for).
        """
        return stream_clips(
            media_path, self.config, self.detector, self.hop_seconds, progress, self.meshes, tell
        )

    def predict(self, inputs: Inputs) -> dict[str, Tensor]:
        """What the model makes of a batch."""
        return self.model(**inputs)

    def identity(self) -> dict[str, Any]:
        """What a reader of a timeline must know to repeat it."""
        rule = {} if self.rule is None else {"conformal": self.rule.to_dict()}
        return {
            **self.checkpoint.source,
            "architecture": self.model.name,
            "task": self.checkpoint.task,
            "adapts": self.options.adapt,
            "contributions": bool(self.fused),
            "face_measures": self.options.face_measures,
            "calibrated": self.checkpoint.calibration is not None,
            **rule,
            "clip_config": self.config.to_dict(),
        }


def build_recogniser(
    checkpoint: Checkpoint, device: torch.device, options: RecognitionOptions | None = None
) -> Recogniser:
    """Make a checkpoint ready for recordings. Its model is moved to the device.

    Args:
        options: None for the checkpoint's own windows and no further columns.

    Raises:
        ValueError: the checkpoint cannot do what is asked, or an impossible hop.
    """
    options = RecognitionOptions() if options is None else options
    config = window_config(checkpoint, options)
    hop_seconds = config.window_seconds if options.hop_seconds is None else options.hop_seconds
    check_hop(config.window_seconds, hop_seconds)
    rule = None if options.uncertain is None else pick_rule(checkpoint, options.uncertain)
    if options.adapt and not checkpoint.priors and checkpoint.model.voice_part is None:
        name = checkpoint.source["name"]
        raise OptionError(
            f"adapting to faces needs a model that was trained with it, and {name} is not", "adapt"
        )
    model = checkpoint.model.to(device).eval()
    fused = fused_modalities(checkpoint) if options.contributions else ()
    if options.contributions:
        model.keep_gates = True
    needs_mesh = options.face_measures or bool(MESH_INPUTS & set(model.inputs))
    needs_face = needs_mesh or "face" in model.inputs
    return Recogniser(
        checkpoint=checkpoint,
        options=options,
        device=device,
        config=config,
        hop_seconds=hop_seconds,
        rule=rule,
        fused=fused,
        detector=_SharedDetector(config, device, options.yunet_path) if needs_face else None,
        meshes=build_mesh_reading() if needs_mesh else None,
    )


class _SharedDetector:
    """A detector for recordings that are read at once: detectors hold buffers of their own."""

    def __init__(self, config: ClipConfig, device: torch.device, yunet_path: Path | None) -> None:
        self._detector = build_detector(config.detector, str(device), yunet_path)
        self._lock = Lock()

    def detect(self, pictures: np.ndarray) -> list[np.ndarray]:
        """As `Detector.detect`, for one caller after the other."""
        with self._lock:
            return self._detector.detect(pictures)
