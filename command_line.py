"""Command lines whose mistakes are one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage of all flags, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} ({self.prog} --help lists all flags)\n")


def exit_status(run: Callable[[], int]) -> int:
    """What `run` returns; a user's mistake is one line on stderr, and 2."""
    try:
        return run()
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
