"""Which of the face pictures in a window a model sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from media.clip import Window
    from media.configuration import ClipConfig


def last_at_rate(chosen: np.ndarray, times: np.ndarray, config: ClipConfig) -> np.ndarray:
    """The last T face pictures, none nearer to the next than nine tenths of a step."""
    nearest = 0.9 / config.picture_rate  # so that times that jitter are not passed over
    kept: list[int] = []
    for index in chosen[::-1]:
        if len(kept) == config.pictures:
            break
        if not kept or times[kept[-1]] - times[index] >= nearest:
            kept.append(int(index))
    return np.array(kept[::-1], dtype=int)


def even_slots(
    chosen: np.ndarray, times: np.ndarray, window: Window, config: ClipConfig
) -> tuple[np.ndarray, np.ndarray]:
    """For each of T equal parts of a full window, the nearest face picture not a part away."""
    part = config.window_seconds / config.pictures
    middles = window.start + (np.arange(config.pictures) + 0.5) * part
    if not len(chosen):
        return chosen, np.zeros(0, dtype=int)
    shown = np.maximum(times[chosen], window.start)  # a picture from before is still there
    distance = np.abs(shown[None, :] - middles[:, None])
    slots = np.flatnonzero(distance.min(axis=1) < part)
    return chosen[distance.argmin(axis=1)[slots]], slots
