"""The one error for all media trouble."""


class MediaError(Exception):
    """A media file cannot be used. The message is one line: the file, what is wrong, the remedy."""
