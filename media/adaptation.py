"""A speaker's own mean as the reference that expressions are seen against, without labels.

People's faces differ at rest as much as by expression. What a face does is clearer once its own
mean is taken away. The mean is learned as the recording goes on, from what has been seen of the
same person so far; before `LEAST_SECONDS` of it, the mean face of the training speakers stands in,
since the mean of a few seconds is mostly the expression itself, and from then on it fades. This
assumes that the person shows a mix of expressions: for somebody who is angry throughout, anger
becomes the reference and reads as neutral.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from media.blendshapes import VALUES
from media.landmarks import POINTS

LEAST_SECONDS = 5.0  # of a face or voice, before which rows do not count as adapted
VOICE_SECONDS = 25.0  # of speech that weigh as much as the mean voice of training
# Modalities that are seen against a person's mean, and the shape of that.
REFERRED = {"landmarks": (POINTS, 2), "blendshapes": (VALUES,)}


@dataclass(frozen=True)
class Prior:
    """Where a reference starts.

    Args:
        face: mean over the training speakers: (68, 2) of normalised points, (55,) of blendshapes.
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
        if face.shape not in REFERRED.values():
            told = " or ".join(map(str, REFERRED.values()))
            raise ValueError(f"a mean face of shape {face.shape}, not {told}")
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
    _total: np.ndarray | float = 0.0

    def add(self, mean_face: np.ndarray, seconds: float) -> None:
        """Take in the mean, of the prior's shape, of so many seconds."""
        self._total = self._total + mean_face * seconds
        self.seconds += seconds

    @property
    def face(self) -> np.ndarray:
        """The prior, or with enough evidence both, each by its weight in seconds."""
        if not self.is_adapted:
            return self.prior.face
        weight = self.prior.seconds
        return (self.prior.face * weight + self._total) / (weight + self.seconds)

    @property
    def is_adapted(self) -> bool:
        """Whether enough was seen to call it this person's."""
        return self.seconds >= LEAST_SECONDS


def relative_to(values: np.ndarray, mask: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Values of steps less a mean face, where `mask` (S,) says there are any.

    Args:
        values: (S, 70, 2) normalised points, or (S, 55) blendshapes and head pose.
        mask: (S,) bool.
        face: (68, 2), so that the motion of the head stays; or (55,).
    """
    out = values.copy()
    out[mask, : len(face)] -= face.astype(np.float32)
    return out


class KnownFaces:
    """What is known of the faces of one recording.

    Args:
        priors: where references start, by modality.
        speakers: what is known of speakers over several recordings, by modality and name; what
            this recording teaches of its own is added.
        speaker: whose the first face of the recording is, None where nobody says.
    """

    def __init__(
        self,
        priors: Mapping[str, Prior],
        speakers: dict[tuple[str, str], Reference],
        speaker: str | None = None,
    ) -> None:
        self._priors = priors
        self._faces: dict[tuple[str, int | None], Reference] = {}
        self._speakers, self._speaker = speakers, speaker

    def reference(self, modality: str, face_id: int | None, seen: bool) -> Reference:
        """Of one face; the first that is seen in the recording is the speaker's.

        Args:
            modality: one of `priors`.
            face_id: whose, None for nobody.
            seen: whether there is any of the face now; otherwise it is not noted.
        """
        key = (modality, face_id)
        if key not in self._faces and seen:
            reference = Reference(self._priors[modality])
            known = any(name == modality for name, _ in self._faces)
            if self._speaker is not None and not known:
                reference = self._speakers.setdefault((modality, self._speaker), reference)
            self._faces[key] = reference
        return self._faces.get(key, Reference(self._priors[modality]))
