"""The text of `--help`: groups of flags under titles, each flag with one line or a few."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import Field
from typing import Any

from system.flags import describe_flag, own_fields, show_flag

_COLUMN = 30  # where descriptions begin
_WIDEST = 100


class HelpAction(argparse.Action):
    """Prints the flags of all tasks, or of the one that is named, and ends the program.

    Args:
        show: name of a task, or None for all, to the text.
    """

    def __init__(
        self,
        option_strings: Sequence[str],
        dest: str,
        show: Callable[[str | None], str],
        choices: Collection[str],
        default: Any = argparse.SUPPRESS,
    ) -> None:
        super().__init__(option_strings, dest, nargs="?", choices=list(choices), default=default)
        self._show = show

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        sys.stdout.write(f"{self._show(values)}\n")
        parser.exit()


def format_sections(sections: Mapping[str, Sequence[type | str]], stage: str | None = None) -> str:
    """Flags by section, those without an effect at that stage left out.

    Args:
        sections: title to dataclasses, whose own fields it shows, and to names of single fields,
            which are then shown there and nowhere else.
        stage: None for all.
    """
    known = {
        entry.name: (cls, entry)
        for members in sections.values()
        for cls in members
        if isinstance(cls, type)
        for entry in own_fields(cls)
    }
    named = {name for members in sections.values() for name in members if isinstance(name, str)}
    parts = []
    for title, members in sections.items():
        names = [
            name
            for member in members
            for name in ([member] if isinstance(member, str) else _unnamed(member, named))
        ]
        shown = [known[name] for name in names]
        lines = [
            _format_flag(entry, typing.get_type_hints(cls)[entry.name])
            for cls, entry in shown
            if stage is None or stage in entry.metadata["stage"]
        ]
        if lines:
            parts.append("\n".join([f"{title}:", *lines]))
    return "\n\n".join(parts)


def _unnamed(cls: type, named: Collection[str]) -> list[str]:
    return [entry.name for entry in own_fields(cls) if entry.name not in named]


def _format_flag(entry: Field[Any], hint: Any) -> str:
    width = min(_WIDEST, shutil.get_terminal_size().columns)
    indent = " " * _COLUMN
    body = textwrap.fill(
        describe_flag(entry, hint),
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    flag = f"  {show_flag(entry, hint)}"
    return flag + body[len(flag) :] if len(flag) < _COLUMN - 1 else f"{flag}\n{body}"
