"""The one error for all media trouble."""

from system.errors import UserError


class MediaError(UserError):
    """A media file cannot be used. The message is one line: the file, what is wrong, the remedy."""
