"""The mean face of each clip and speaker, from the landmarks of prepared records.

What makes a face somebody's own is in its mean; what it says is in how it departs from that. Used
to put a movement on another training speaker's face, and as the reference of speaker adaptation.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from datasets.annotations import Record
from media.adaptation import Prior, Reference
from media.landmarks import LandmarkTrack, normalise

FEW_CLIPS = (3, 25)  # that stand for a speaker in half of the draws: from, to below
SHARE_FEW, SHARE_NONE = 0.5, 0.1  # of draws with few clips, and with the prior alone


class MeanFaces:
    """Mean normalised points and seconds of face of each record.

    Args:
        records: of any subset.
        tracks: landmarks of each, in the same order; empty where there are none.
    """

    def __init__(self, records: Sequence[Record], tracks: Sequence[LandmarkTrack]) -> None:
        self.faces = [
            _mean_face(record, track) for record, track in zip(records, tracks, strict=True)
        ]
        self._clips: dict[str, list[int]] = defaultdict(list)
        for index, record in enumerate(records):
            if record.speaker and self.faces[index][1] > 0:
                self._clips[record.speaker].append(index)
        self._speakers = [record.speaker for record in records]

    def by_speaker(self) -> dict[str, np.ndarray]:
        """(68, 2) of each speaker that has any."""
        return {
            speaker: np.mean([self.faces[clip][0] for clip in clips], axis=0)
            for speaker, clips in self._clips.items()
        }

    def prior(self) -> Prior:
        """Where the reference of somebody new starts: the mean of the speakers here.

        Raises:
            ValueError: no record has both landmarks and a speaker.
        """
        means = self.by_speaker()
        if not means:
            raise ValueError("speaker adaptation needs records with landmarks and a speaker")
        return Prior(np.mean(list(means.values()), axis=0))

    def drawn(self, index: int, prior: Prior, rng: np.random.Generator) -> np.ndarray:
        """(68, 2): a reference as it may stand in a recording: few clips, many, or none yet."""
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
        """(68, 2) for each record: what is known of its speaker once it has been seen itself.

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


def _mean_face(record: Record, track: LandmarkTrack) -> tuple[np.ndarray, float]:
    """Mean points over a record, and how many seconds of face went into it."""
    end = np.inf if record.end is None else record.end
    inside = track.keep((track.times >= record.start) & (track.times < end))
    if len(inside.times) < 2:
        return np.zeros_like(inside.points, shape=inside.points.shape[1:]), 0.0
    points = normalise(inside.points, np.ones(len(inside.times), dtype=bool))
    step = float(np.median(np.diff(inside.times)))
    return points[:, : inside.points.shape[1]].mean(axis=0), step * len(points)
