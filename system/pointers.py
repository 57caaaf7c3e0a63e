"""Files that stand for another: what Git LFS leaves where a large file was not fetched."""

from __future__ import annotations

from pathlib import Path

_LFS = b"version https://git-lfs.github.com/spec/"
LFS_REMEDY = "is a Git LFS pointer, not the file itself; fetch that with `git lfs pull`"


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file only says where its content lies.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(len(_LFS)) == _LFS
