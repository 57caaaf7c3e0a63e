"""Errors of mistakes that a user can mend, whatever room finds them."""

from __future__ import annotations


class UserError(Exception):
    """The message is one line: the thing, what is wrong, the remedy."""


class OptionError(ValueError):
    """A value that does not go together with others.

    The message says in words what is wrong. A command line adds how its flags are called, a
    notebook needs no flags.

    Args:
        message: the thing, what is wrong with it, and the remedy.
        options: names of the options that the remedy is about, such as `clip_grad`.
    """

    def __init__(self, message: str, *options: str) -> None:
        super().__init__(message)
        self.options = options


def with_flags(error: Exception) -> str:
    """The message of an error, with the flags of the options that it is about."""
    if not isinstance(error, OptionError) or not error.options:
        return str(error)
    return f"{error} ({', '.join(f'--{name}' for name in error.options)})"
