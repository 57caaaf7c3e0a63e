"""A speaker's own face as the reference that expressions are seen against, without labels.

People's faces differ at rest as much as by expression. What a face does is clearer once its own
mean is taken away. The mean is learned as the recording goes on, from what has been seen of the
same person so far; before `LEAST_SECONDS` of it, the mean face of the training speakers stands in,
since the mean of a few seconds is mostly the expression itself, and from then on it fades. This
assumes that the person shows a mix of expressions: for somebody who is angry throughout, anger
becomes the reference and reads as neutral.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from media.landmarks import POINTS

LEAST_SECONDS = 5.0  # of a face, before which rows do not count as adapted


@dataclass(frozen=True)
class Prior:
    """Where a reference starts.

    Args:
        face: (68, 2) mean of normalised points over the training speakers.
        seconds: how much of a speaker weighs as much as it.
    """

    face: np.ndarray
    seconds: float = LEAST_SECONDS

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint's metadata."""
        return {"face": np.round(self.face, 5).tolist(), "seconds": self.seconds}

    @staticmethod
    def from_dict(values: dict[str, Any]) -> Prior:
        """What `to_dict` gave.

        Raises:
            ValueError: it is not that.
        """
        try:
            face = np.array(values["face"], dtype=np.float32)
            seconds = float(values["seconds"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no prior of face and seconds: {error}") from error
        if face.shape != (POINTS, 2):
            raise ValueError(f"a mean face of shape {face.shape}, not ({POINTS}, 2)")
        return Prior(face, seconds)


@dataclass
class Reference:
    """The mean face of one person, as far as it is known.

    Args:
        prior: where it starts.
        seconds: of this person's face that went into it.
    """

    prior: Prior
    seconds: float = 0.0
    _total: np.ndarray = field(default_factory=lambda: np.zeros((POINTS, 2)))

    def add(self, mean_face: np.ndarray, seconds: float) -> None:
        """Take in the (68, 2) mean of so many seconds of normalised points."""
        self._total = self._total + mean_face * seconds
        self.seconds += seconds

    @property
    def face(self) -> np.ndarray:
        """(68, 2): the prior, or with enough evidence both, each by its weight in seconds."""
        if not self.is_adapted:
            return self.prior.face
        weight = self.prior.seconds
        return (self.prior.face * weight + self._total) / (weight + self.seconds)

    @property
    def is_adapted(self) -> bool:
        """Whether enough was seen to call it this person's."""
        return self.seconds >= LEAST_SECONDS


def relative_to(landmarks: np.ndarray, mask: np.ndarray, face: np.ndarray) -> np.ndarray:
    """(S, 70, 2) normalised points less a (68, 2) face, where `mask` (S,) says there are any."""
    out = landmarks.copy()
    out[mask, :POINTS] -= face.astype(np.float32)
    return out
