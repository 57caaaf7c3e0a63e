"""Fields of dataclasses that describe themselves as command-line flags.

A field's metadata holds its help text, its limits, and the modes in which it has an effect. Nothing
here knows what the options are for.
"""

from __future__ import annotations

import argparse
import inspect
import os
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, Field, field, fields
from pathlib import Path
from typing import Any

FIT, COMBINE, EVALUATE, INFER = "fit", "combine", "evaluate", "infer"
_LONGEST_CHOICES = 40  # characters; more are listed in the help text


def option(  # noqa: PLR0913 - each says one thing of a flag
    default: Any,
    text: str,
    *,
    stage: Sequence[str],
    choices: Sequence[str] | Callable[[], Sequence[str]] = (),
    when: tuple[str, tuple[Any, ...]] | None = None,
    least: float | None = None,
    read: Callable[[str], Any] | None = None,
    metavar: str | None = None,
    in_recipes: bool = True,
) -> Any:
    """A field that becomes a flag.

    Args:
        default: its value where it is not given; a list or dict is copied for each instance.
        text: help, without the default, which is added.
        stage: modes in which it has an effect, of `FIT`, `COMBINE`, `EVALUATE` and `INFER`.
        choices: values allowed, or what lists them.
        when: (other option, its values) under which this one has an effect.
        least: smallest value allowed.
        read: text of the command line to a value, where the type alone does not say how.
        metavar: what the help shows in place of the value.
        in_recipes: whether a recipe may hold it.
    """
    metadata = {
        "help": text,
        "stage": tuple(stage),
        "choices": choices,
        "when": when,
        "least": least,
        "read": read,
        "metavar": metavar,
        "in_recipes": in_recipes,
    }
    if isinstance(default, list | dict):
        return field(default_factory=lambda: default.copy(), metadata=metadata)
    return field(default=default, metadata=metadata)


def comma_separated(text: str) -> list[str]:
    """Names between commas."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise ValueError(text)
    return found


def default_of(entry: Field[Any]) -> Any:
    """What a field holds where it is not given."""
    if entry.default_factory is not MISSING:
        return entry.default_factory()
    return entry.default


def own_fields(cls: type) -> list[Field[Any]]:
    """The fields that a dataclass declares itself, without those of its bases."""
    return [entry for entry in fields(cls) if entry.name in inspect.get_annotations(cls)]


def add_flags(parser: argparse.ArgumentParser, classes: Iterable[type]) -> None:
    """One flag for each field of the dataclasses, in snake case and in kebab case."""
    for cls in classes:
        hints = typing.get_type_hints(cls)
        for entry in fields(cls):
            _add_flag(parser, entry, hints[entry.name])


def spellings_of(name: str) -> list[str]:
    """The flag in snake case and in kebab case."""
    return list(dict.fromkeys((f"--{name}", f"--{name.replace('_', '-')}")))


def _read_pair(text: str) -> tuple[str, str]:
    """`encoder-layers=3` -> ("encoder_layers", "3")."""
    name, sign, value = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, not {text!r}")
    return name.strip().replace("-", "_"), value.strip()


def _add_flag(parser: argparse.ArgumentParser, entry: Field[Any], hint: Any) -> None:
    names = spellings_of(entry.name)
    read = entry.metadata["read"]
    if typing.get_origin(hint) is dict:
        parser.add_argument(*names, action="append", type=_read_pair)
    elif hint is bool and default_of(entry) is True:
        parser.add_argument(*names, action=argparse.BooleanOptionalAction)
    elif hint is bool:
        parser.add_argument(*names, action="store_true")
    elif read:
        parser.add_argument(*names, type=read)
    else:
        many = {"nargs": "+"} if typing.get_origin(hint) is list else {}
        choices = allowed_values(entry, hint) or None
        kind = str if choices else _base_type(hint)
        parser.add_argument(*names, type=kind, choices=choices, **many)  # type: ignore[arg-type]


def as_arguments(entry: Field[Any], hint: Any, value: Any) -> list[str]:
    """A value as the command line has it."""
    name = entry.name
    if isinstance(value, bool):
        if hint is not bool:
            return [f"--{name}={str(value).lower()}"]  # for the parser to refuse
        negated = [f"--no-{name}"] if default_of(entry) is True else []
        return [f"--{name}"] if value else negated
    if isinstance(value, list):
        texts = [str(item) for item in value]
        one = typing.get_origin(hint) is not list
        return [f"--{name}={','.join(texts)}"] if one else [f"--{name}", *texts]
    return [f"--{name}={value}"]


def allowed_values(entry: Field[Any], hint: Any) -> tuple[str, ...]:
    """The values that a field is limited to; empty where it is not."""
    base = _base_type(hint)
    if typing.get_origin(base) is typing.Literal:
        return typing.get_args(base)
    choices = entry.metadata["choices"]
    return tuple(choices() if callable(choices) else choices)


def _base_type(hint: Any) -> Any:
    """`list[int]` -> int, `str | None` -> str; others, such as a Literal, as they are."""
    if typing.get_origin(hint) in (list, types.UnionType, typing.Union):
        return typing.get_args(hint)[0]
    return hint


def show_flag(entry: Field[Any], hint: Any) -> str:
    """A flag and its value as the help shows them: `--fusion {concat,ia,it,lt,late}`."""
    if hint is bool:
        return f"--no-{entry.name}" if default_of(entry) is True else f"--{entry.name}"
    choices = allowed_values(entry, hint)
    listed = f"{{{','.join(choices)}}}"
    if entry.metadata["metavar"]:
        value = entry.metadata["metavar"]
    elif choices and len(listed) <= _LONGEST_CHOICES:
        value = listed
    else:
        value = {int: "N", float: "X"}.get(_base_type(hint), "NAME")
    more = " ..." if typing.get_origin(hint) is list and not entry.metadata["read"] else ""
    return f"--{entry.name} {value}{more}"


def describe_flag(entry: Field[Any], hint: Any) -> str:
    """The help text of a flag, with its choices and its default where these say something."""
    text, default = entry.metadata["help"], default_of(entry)
    choices = allowed_values(entry, hint)
    if choices and len(",".join(choices)) + 2 > _LONGEST_CHOICES:
        text += f"; one of {', '.join(choices)}"
    if default in (None, "", [], {}) or isinstance(default, bool):
        return text
    return f"{text} (default: {_show_value(default)})"


def _show_value(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_show_value, value))
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).removeprefix(f"{Path.cwd()}{os.sep}")
