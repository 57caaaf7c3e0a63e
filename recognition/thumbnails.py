"""Faces for figures, spread over a recording of unknown length."""

from __future__ import annotations

import numpy as np

from media.clip import Clip


class Thumbnails:
    """At most so many, each with its time.

    Every second one is dropped each time there are more.

    Args:
        most: how many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.kept: list[tuple[float, np.ndarray]] = []
        self._step, self._seen = 1, 0

    def add(self, clip: Clip) -> None:
        """Keep the clip's last face, if its turn has come."""
        if self._seen % self._step == 0 and clip.face_mask.any():
            middle = (clip.window.start + clip.window.end) / 2
            last = int(np.flatnonzero(clip.face_mask)[-1])
            self.kept.append((middle, clip.faces[last].copy()))
        self._seen += 1
        if len(self.kept) > self._most:
            self.kept, self._step = self.kept[::2], self._step * 2
