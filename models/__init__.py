"""Tensors to logits. Opens no file. An architecture's module is imported when it is asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.registry import (
        EmotionModel,
        accepted_arguments,
        all_parts,
        build_model,
        list_models,
        model_inputs,
        set_checkpointing,
        set_trainable,
    )
    from models.whisper_speech import WhisperSpeech

__all__ = [
    "EmotionModel",
    "WhisperSpeech",
    "accepted_arguments",
    "all_parts",
    "build_model",
    "list_models",
    "model_inputs",
    "set_checkpointing",
    "set_trainable",
]


def __getattr__(name: str) -> Any:
    """What `__all__` names, imported with torch at its first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "models.whisper_speech" if name == "WhisperSpeech" else "models.registry"
    return getattr(import_module(home), name)
