"""The error of a mistake that a user can mend, whatever room finds it."""


class UserError(Exception):
    """The message is one line: the thing, what is wrong, the remedy."""
