"""Start a model, or the part of it that fits, from the weights of another."""

from __future__ import annotations

from pathlib import Path

from checkpoints.checkpoint import load_checkpoint
from checkpoints.keys import KeyReport, compare_keys
from checkpoints.whisper_weights import WhisperWeights, describe_size, read_whisper
from models import EmotionModel
from system.errors import OptionError


def load_pretrained(model: EmotionModel, path: Path) -> KeyReport:
    """Start the fitting part of a model (all of it, or one branch) from trained weights.

    Heads may differ; every other tensor of that part must be there. Published weights of Whisper
    start the encoder of speech, wherever in the model it is.

    Raises:
        ValueError: no part of the model matches.
    """
    whisper = read_whisper(path)
    if whisper is not None:
        return _start_whisper(model, whisper, path)
    start = load_checkpoint(path).model
    weights = dict(start.state_dict())
    prefixes = ["", *(f"{name}." for name, _ in model.named_children())]
    reports = [compare_keys(model, weights, prefix) for prefix in prefixes]
    best = max(reports, key=lambda report: len(report.matched))
    lacking = [name for name in best.unexpected if name.split(".")[0] not in start.head]
    if lacking or not best.matched:
        raise ValueError(f"{path} does not match any part of {type(model).__name__}: {best}")
    part = model.get_submodule(best.prefix.rstrip(".")) if best.prefix else model
    part.load_state_dict({name: weights[name] for name in best.matched}, strict=False)
    return best


def _start_whisper(model: EmotionModel, whisper: WhisperWeights, path: Path) -> KeyReport:
    """The encoder of Whisper in a model; layers that it leaves out are not used."""
    part = model.block_encoder()
    if part is None:
        raise OptionError(
            f"{path} holds Whisper's weights, and {type(model).__name__} has no encoder of "
            "Whisper: train whisper_speech, by itself or as the speech branch of multimodalcnn",
            "model",
            "speech_model",
        )
    if part.size != whisper.size:
        raise OptionError(
            f"{path} holds Whisper {describe_size(whisper.size)}, and the model's encoder is "
            f"{describe_size(part.size)}: give another file or whisper_size",
            "model_arg",
        )
    prefix = next(n for n, module in model.named_modules() if module is part.encoder) + "."
    report = compare_keys(model, whisper.tensors, prefix)
    weights = {name: whisper.tensors[name] for name in report.matched}
    part.encoder.load_state_dict(weights, strict=False)
    return report
