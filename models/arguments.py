"""What an architecture's constructor takes, and values for it that were written as text."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from typing import Any

import torch

from models.registry import accepted_arguments, build_model, find_model, model_inputs

# Not chosen by anybody: the classes and the size of the stored faces decide.
_OF_DATA = ("num_classes", "image_size")
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}
_SWITCHES = {"true": True, "false": False}


def read_arguments(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of an architecture's own arguments, as its constructor declares their types.

    Args:
        name: of the architecture.
        values: text of each, such as `{"encoder_layers": "3"}`; `none` where None is allowed.

    Raises:
        ValueError: an argument that it does not take, or a value of another type.
    """
    hints = _own_arguments(name)
    read = {}
    for key, value in values.items():
        if key not in hints:
            raise ValueError(f"model {name} takes no argument {key}; {describe_arguments(name)}")
        try:
            read[key] = _read_value(hints[key], str(value))
        except ValueError:
            wanted = " or ".join(_KINDS[kind] for kind in _kinds(hints[key]))
            raise ValueError(
                f"argument {key} of model {name} must be {wanted}, not {value!s}; "
                f"{describe_arguments(name)}"
            ) from None
    return read


def check_arguments(name: str, values: Mapping[str, Any]) -> None:
    """Build an architecture without memory behind its tensors, to see what it refuses.

    Those that are made of trained parts are left.

    Raises:
        ValueError: values that do not go together.
    """
    accepted = accepted_arguments(name)
    if set(accepted) & set(model_inputs(name)):
        return
    try:
        with torch.device("meta"):
            build_model(name, **values)
    except ValueError:
        if "image_size" not in accepted:  # else the size of the data decides
            raise
    except (ArithmeticError, AssertionError, RuntimeError, TypeError) as error:  # torch's own
        told = ", ".join(f"{key}={value}" for key, value in values.items())
        reason = " ".join(str(error).split())
        raise ValueError(f"model {name} cannot be built with {told}: {reason}") from error


def describe_arguments(name: str) -> str:
    """The arguments that an architecture takes, with their defaults, in one line."""
    parameters = inspect.signature(find_model(name)).parameters
    taken = [f"{key} ({parameters[key].default})" for key in _own_arguments(name)]
    return f"it takes {', '.join(taken)}" if taken else "it takes none"


def _own_arguments(name: str) -> dict[str, Any]:
    """The types of the arguments that are numbers, names or switches, and not of the data."""
    hints = typing.get_type_hints(find_model(name).__init__)
    return {
        key: hints[key]
        for key in accepted_arguments(name)
        if key not in _OF_DATA and _kinds(hints[key])
    }


def _kinds(hint: Any) -> list[type]:
    """`int | None` -> [int]; nothing for what text cannot give, such as a dict."""
    members = typing.get_args(hint) or (hint,)
    return [kind for kind in members if kind in _KINDS]


def _read_value(hint: Any, text: str) -> Any:
    if text.lower() == "none" and type(None) in typing.get_args(hint):
        return None
    kind = _kinds(hint)[0]
    if kind is bool:
        if text.lower() not in _SWITCHES:
            raise ValueError(text)
        return _SWITCHES[text.lower()]
    value = kind(text)
    if kind is not str and not value >= 0:  # none of the sizes, counts and probabilities is
        raise ValueError(text)
    return value
