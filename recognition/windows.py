"""How recordings are cut into windows for a checkpoint."""

from __future__ import annotations

from dataclasses import replace

from checkpoints.checkpoint import Checkpoint
from media.clip import ClipConfig
from models.efficientface import EfficientFace
from models.picture_model import PictureModel
from recognition.recogniser_options import RecognitionOptions


def window_config(checkpoint: Checkpoint, options: RecognitionOptions) -> ClipConfig:
    """The constants of preprocessing for recordings.

    Raises:
        ValueError: the checkpoint has no classes, or cannot be used frame by frame.
    """
    config = _recording_config(checkpoint, yunet=options.yunet_path is not None)
    if options.sample_rate is not None:
        _check_single(checkpoint, options, options.sample_rate)
        # So many windows a second, each of the one frame nearest to its middle.
        seconds = 1 / options.sample_rate
        return replace(config, window_seconds=seconds, pictures=1, picture_choice="even")
    if options.window_seconds is not None:
        return replace(config, window_seconds=options.window_seconds)
    return config


def _recording_config(checkpoint: Checkpoint, yunet: bool) -> ClipConfig:
    """The checkpoint's constants for recordings: faces are looked for in their frames.

    A model trained on cropped faces saw them whole; here they are cut out by MTCNN. Voice is not
    looked for where the model takes no speech.

    Raises:
        ValueError: a network to start training from, which has no classes.
    """
    if not checkpoint.class_names:
        name = checkpoint.source.get("name", checkpoint.model.name)
        raise ValueError(f"{name} has no classifier: train one from it, with --pretrain_path")
    config = checkpoint.clip_config
    if "speech" not in checkpoint.model.inputs:
        config = replace(config, voice_activity=0.0)
    if yunet:
        return replace(config, detector="yunet")
    return replace(config, detector="mtcnn") if config.detector == "whole" else config


def _check_single(checkpoint: Checkpoint, options: RecognitionOptions, rate: float) -> None:
    """Raise ValueError where a checkpoint cannot be used frame by frame at that rate."""
    model, name = checkpoint.model, checkpoint.source.get("name", "the checkpoint")
    if not rate > 0:
        raise ValueError(f"--sample_rate must be above 0, not {rate:g}")
    if options.window_seconds is not None or options.hop_seconds is not None:
        raise ValueError("--window_seconds and --hop_seconds have no effect with --sample_rate")
    single = (
        isinstance(model, (PictureModel, EfficientFace)) or checkpoint.clip_config.pictures == 1
    )
    if model.inputs != ("face",) or not single:
        kind = f"takes {' and '.join(model.inputs)}"
        if model.inputs == ("face",):
            kind = f"takes {checkpoint.clip_config.pictures} pictures in their order"
        raise ValueError(
            f"--sample_rate is for models of single pictures, and {name} is a {model.name} "
            f"that {kind}: leave it out"
        )
