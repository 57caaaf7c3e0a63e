"""What modules tell through `logging`, as the lines that a command prints."""

from __future__ import annotations

import logging
import sys


class _Printer(logging.Handler):
    """Prints to what is standard output at that moment. What goes wrong there is raised."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(f"{record.getMessage()}\n")


_PRINTER = _Printer()


def print_notes(room: str) -> None:
    """From now on print what the modules of a room tell; a second call changes nothing."""
    logger = logging.getLogger(room)
    logger.setLevel(logging.INFO)
    logger.addHandler(_PRINTER)
