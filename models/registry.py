"""Names to architectures. A model declares its `inputs` and returns a dict with `logits`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from torch import nn


class EmotionModel(nn.Module):
    """What every architecture declares, and what `build_model` notes of each one it builds.

    Args:
        inputs: modalities that `forward` takes by name, each with an optional `<name>_mask`.
        head: names of the parts that depend on the classes.
        name, arguments: what with the weights makes a checkpoint.
    """

    inputs: ClassVar[tuple[str, ...]] = ()
    head: ClassVar[tuple[str, ...]] = ()
    name: str
    arguments: dict[str, Any]


_MODELS: dict[str, type[EmotionModel]] = {}
ModelClass = TypeVar("ModelClass", bound=type[EmotionModel])


def register_model(name: str) -> Callable[[ModelClass], ModelClass]:
    """Class decorator that makes an architecture known by name.

    Raises:
        ValueError: the name is taken, or the class does not declare its `inputs`.
    """

    def register(cls: ModelClass) -> ModelClass:
        if name in _MODELS:
            raise ValueError(f"model name {name!r} is taken by {_MODELS[name].__qualname__}")
        if not cls.inputs:
            raise ValueError(
                f"{cls.__qualname__} must declare `inputs`, such as ('face', 'speech')"
            )
        _MODELS[name] = cls
        return cls

    return register


def list_models() -> list[str]:
    """Names of all architectures, sorted."""
    return sorted(_MODELS)


def build_model(name: str, **arguments: Any) -> EmotionModel:
    """An architecture with fresh weights. Touches no disk.

    Raises:
        ValueError: unknown name or arguments.
    """
    unknown = sorted(set(arguments) - set(accepted_arguments(name)))
    if unknown:
        raise ValueError(f"model {name!r} takes no argument {', '.join(unknown)}")
    model = _MODELS[name](**arguments)
    model.name, model.arguments = name, arguments
    return model


def accepted_arguments(name: str) -> list[str]:
    """Names of the arguments that an architecture takes.

    Raises:
        ValueError: unknown architecture.
    """
    return list(inspect.signature(_class_of(name)).parameters)


def model_inputs(name: str) -> tuple[str, ...]:
    """The modalities that an architecture takes, such as ("face", "speech").

    Raises:
        ValueError: unknown architecture.
    """
    return _class_of(name).inputs


def _class_of(name: str) -> type[EmotionModel]:
    if name not in _MODELS:
        raise ValueError(f"unknown model {name!r}; choose from {', '.join(list_models())}")
    return _MODELS[name]
