"""Files that are written whole, or not at all, and names that can be shown."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, of the same suffix, renamed to it when the block succeeds.

    Its name is hidden and short, so that a name of any legal length can be written.

    Raises:
        OSError: it cannot be written; `path` is named.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]
    temporary = path.with_name(f".{digest}.{os.getpid()}{path.suffix}")
    try:
        with naming(path, temporary):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Errors of the system that name no file (such as a full disk), or its temporary, name `path`.

    Args:
        temporary: what is written in place of `path`.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error


def printable(path: Path | str) -> str:
    """A path for people and for files in UTF-8: bytes that are none are written as `\\xe9`."""
    try:
        return os.fsencode(path).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # text that is no name of a file
        return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def write_json(values: Any, path: Path) -> None:
    """Write values as JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1), encoding="utf-8")
