"""The mean face of each clip and speaker, from the landmarks or meshes of prepared records.

What makes a face somebody's own is in its mean; what it says is in how it departs from that. Used
to put a movement on another training speaker's face, and as the reference of speaker adaptation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from datasets.annotations import Record
from media.adaptation import Prior, Reference
from media.blendshapes import STILL_GAP, MeshTrack
from media.landmarks import POINTS, LandmarkTrack, normalise

FEW_CLIPS = (3, 25)  # that stand for a speaker in half of the draws: from, to below
SHARE_FEW, SHARE_NONE = 0.5, 0.1  # of draws with few clips, and with the prior alone


class MeanFaces:
    """Mean normalised points, or blendshapes, and seconds of face of each record.

    Args:
        records: of any subset.
        tracks: landmarks, or else meshes, of each, in the same order; empty where there are none.
    """

    def __init__(
        self, records: Sequence[Record], tracks: Sequence[LandmarkTrack | MeshTrack]
    ) -> None:
        self.faces = [
            _mean_face(record, track) for record, track in zip(records, tracks, strict=True)
        ]
        self._clips: dict[str, list[int]] = defaultdict(list)
        for index, record in enumerate(records):
            if record.speaker and self.faces[index][1] > 0:
                self._clips[record.speaker].append(index)
        self._speakers = [record.speaker for record in records]

    def by_speaker(self) -> dict[str, np.ndarray]:
        """The mean of each speaker that has any."""
        return {
            speaker: np.mean([self.faces[clip][0] for clip in clips], axis=0)
            for speaker, clips in self._clips.items()
        }

    def prior(self) -> Prior:
        """Where the reference of somebody new starts: the mean of the speakers here.

        Of blendshapes a record without a speaker, such as a still, counts as a speaker of its own.

        Raises:
            ValueError: no record has what it takes.
        """
        means = list(self.by_speaker().values())
        for (face, seconds), speaker in zip(self.faces, self._speakers, strict=True):
            if seconds > 0 and not speaker and face.ndim == 1:
                means.append(face)
        if not means:
            raise ValueError(
                "speaker adaptation needs records with landmarks and a speaker, or with blendshapes"
            )
        return Prior(np.mean(means, axis=0))

    def drawn(self, index: int, prior: Prior, rng: np.random.Generator) -> np.ndarray:
        """A reference as it may stand in a recording: few clips, many, or none yet."""
        clips = self._clips.get(self._speakers[index], [])
        reference = Reference(prior)
        if not clips or rng.random() < SHARE_NONE:
            return reference.face
        count = len(clips)
        if rng.random() < SHARE_FEW:
            count = min(count, int(rng.integers(*FEW_CLIPS)))
        for clip in rng.choice(clips, count, replace=False):
            reference.add(*self.faces[clip])
        return reference.face

    def running(self, prior: Prior, seed: int) -> list[np.ndarray]:
        """For each record, what is known of its speaker once it has been seen itself.

        Clips of a speaker come in an order drawn by seed, since a corpus lists them by emotion.
        """
        found = [prior.face for _ in self.faces]
        rng = np.random.default_rng(seed)
        for speaker in sorted(self._clips):
            reference = Reference(prior)
            for clip in rng.permutation(self._clips[speaker]):
                reference.add(*self.faces[clip])
                found[clip] = reference.face
        return found


def _mean_face(record: Record, track: LandmarkTrack | MeshTrack) -> tuple[np.ndarray, float]:
    """Mean values over a record, and how many seconds of face went into it."""
    end = np.inf if record.end is None else record.end
    inside = track.keep((track.times >= record.start) & (track.times < end))
    if isinstance(inside, MeshTrack):
        return _mean_blendshapes(inside)
    if len(inside.times) < 2:
        return np.zeros((POINTS, 2), inside.points.dtype), 0.0
    points = normalise(inside.points, np.ones(len(inside.times), dtype=bool))
    step = float(np.median(np.diff(inside.times)))
    return points[:, :POINTS].mean(axis=0), step * len(points)


def _mean_blendshapes(track: MeshTrack) -> tuple[np.ndarray, float]:
    """Of one record. A still weighs as much as a second."""
    values = track.values
    if not len(values):
        return np.zeros(values.shape[1], np.float32), 0.0
    if len(values) == 1:
        return values[0], 1.0 if track.max_gap >= STILL_GAP else 0.0
    return values.mean(axis=0), float(np.median(np.diff(track.times))) * len(values)
