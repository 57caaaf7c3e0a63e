"""A recording at fewer frames a second.

A frame is passed over where it comes before its turn on a grid of the rate: at 30, of 60 a second
every second one is taken, of 50 three in five, and of 30 or fewer every one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from media.recording import Recording

_EARLY = 0.25  # of the grid's step: so much before its turn a frame may come


def limit_pictures(recording: Recording, fps: float) -> Recording:
    """The recording with at most so many frames a second, and the faces in them."""
    kept = recording.picture_times[choose_pictures(recording.picture_times, fps)]
    shown = np.isin(recording.face_times, kept)
    return replace(
        recording,
        faces=recording.faces[shown],
        face_times=recording.face_times[shown],
        face_ids=recording.face_ids[shown],
        picture_times=kept,
    )


def choose_pictures(times: np.ndarray, fps: float) -> np.ndarray:
    """Which of (Q,) rising times to take, (Q,) bool: each in its turn on a grid of `fps`.

    A frame may come a quarter of a step early. After a pause the grid starts anew.
    """
    step = 1.0 / fps
    chosen = np.zeros(len(times), dtype=bool)
    due = -np.inf
    for index, time in enumerate(times):
        if time >= due - _EARLY * step:
            chosen[index] = True
            due = (due if time <= due + step else time) + step
    return chosen
