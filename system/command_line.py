"""Command lines whose mistakes are one line."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from tarfile import TarError
from typing import NoReturn

from system.errors import UserError

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
    try:
        return run()
    except (ValueError, UserError, OSError, TarError) as error:
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


def show_any_name() -> None:
    """Let the console show what it has no letters for, such as file names, by their codes."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
