"""Recipes: options that lie in a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from system.errors import OptionError


def read_recipe(path: Path) -> dict[str, Any]:
    """The table of a file.

    Raises:
        ValueError: there is no such file, which names those beside it, or it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        beside = sorted(found.stem for found in path.parent.glob("*.toml"))
        known = ", ".join(beside) or "none is here"
        raise ValueError(f"no recipe {path}; choose from {known}, or give a .toml file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"cannot read recipe {path}: {error}") from error
    except RecursionError as error:
        raise ValueError(f"cannot read recipe {path}: its values are nested too deeply") from error


@contextmanager
def naming_recipe(name: str | None) -> Iterator[None]:
    """Add the recipe, where there is one, to what is wrong with options that it took part in."""
    try:
        yield
    except ValueError as error:
        if name is None or Path(name).stem in str(error):
            raise
        options = error.options if isinstance(error, OptionError) else ()
        raise OptionError(f"{error} (with the recipe {name})", *options) from error
