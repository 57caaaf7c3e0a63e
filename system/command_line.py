"""Command lines whose mistakes are one line."""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from tarfile import TarError
from typing import NoReturn

from media.errors import MediaError

ROOT = Path(__file__).parents[1]
INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage of all flags, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} ({self.prog} --help lists all flags)\n")


def exit_status(run: Callable[[], int], interrupted: str = "interrupted") -> int:
    """What `run` returns; a user's mistake is one line on stderr, and 2.

    Args:
        interrupted: what to say after Ctrl-C.
    """
    show_any_name()
    show_notes()
    try:
        return run()
    except (ValueError, MediaError, OSError, TarError) as error:
        print_error(error)
        return 2
    except KeyboardInterrupt:
        sys.stderr.write(f"{interrupted}\n")
        return INTERRUPTED


def describe_unexpected(error: Exception) -> str:
    """A fault of ours in one line, with where it is, for runs that must go on to other files."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}:{place.lineno}"
    return f"unexpected {type(error).__name__} ({error}) at {where}; please report it"


def print_error(error: Exception | str, kind: str = "error") -> None:
    """One line on stderr."""
    text = " ".join(str(error).splitlines())
    sys.stderr.write(f"{kind}: {text}\n")


class _Notes(logging.Handler):
    """Prints messages as they are: warnings on stderr, progress and notes on stdout."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        stream.write(f"{record.getMessage()}\n")
        stream.flush()


def show_notes() -> None:
    """Print what our modules log, from `INFO` on; of other libraries their warnings."""
    root = logging.getLogger()
    if not any(isinstance(handler, _Notes) for handler in root.handlers):
        root.addHandler(_Notes())
    rooms = [path.parent for path in ROOT.glob("*/__init__.py")]
    for name in ("__main__", *(path.stem for path in (*ROOT.glob("*.py"), *rooms))):
        logging.getLogger(name).setLevel(logging.INFO)


def show_any_name() -> None:
    """Let the console show what it has no letters for, such as file names, by their codes."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
