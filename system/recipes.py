"""Recipes: options that lie in a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any


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
