"""What is known of voice over time, and what follows for times and windows.

It needs no network: a store's recordings carry their track with them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

RATE = 16000  # Hz, of the sound that the detector hears
FRAME = 512  # samples that each probability is of
FRAMES_PER_SECOND = RATE / FRAME  # 31.25
SPREAD = 0.1  # seconds before and after speech that go with it, so that onsets stay whole
LEAST_SPEECH = 0.1  # seconds of speech without which a window has none


@dataclass(frozen=True, eq=False)
class VoiceTrack:
    """Probabilities of speech, 31.25 per second.

    Args:
        probabilities: (V,) float16 of consecutive frames.
        first: number of the first of them, counted from time 0 of the recording.
        origin: time of the recording, in seconds, from which this track's times are counted: 0, or
            the start of a window.
    """

    probabilities: np.ndarray
    first: int = 0
    origin: float = 0.0

    def voiced_at(self, times: np.ndarray, threshold: float, spread: float = SPREAD) -> np.ndarray:
        """(n,) bool: where speech is at most `spread` seconds away, at any spacing of the times.

        Args:
            times: (n,) seconds from the origin.
            threshold: probability from which a frame counts as speech.
            spread: 0 for exactly the frame in which a time lies.
        """
        counts = np.concatenate([[0], np.cumsum(self._is_speech(threshold))])
        last = len(self.probabilities)
        absolute = np.asarray(times, dtype=np.float64) + self.origin
        low = np.clip(self._frame_at(absolute - spread), 0, last)
        high = np.clip(self._frame_at(absolute + spread) + 1, 0, last)
        return counts[high] > counts[low]

    def speech_seconds(self, start: float, end: float, threshold: float) -> float:
        """Seconds of [start, end), counted from the origin, that hold speech."""
        low, high = start + self.origin, end + self.origin
        begins = (self.first + np.arange(len(self.probabilities))) / FRAMES_PER_SECOND
        ends = begins + 1 / FRAMES_PER_SECOND
        inside = np.clip(np.minimum(ends, high) - np.maximum(begins, low), 0.0, None)
        return float(inside[self._is_speech(threshold)].sum())

    def between(self, start: float, end: float) -> VoiceTrack:
        """The part in whose frames [start, end], counted from the origin, lies."""
        times = np.array([start, end]) + self.origin
        low, high = np.clip(self._frame_at(times), -1, len(self.probabilities) - 1).tolist()
        low, high = max(low, 0), high + 1
        return replace(self, probabilities=self.probabilities[low:high], first=self.first + low)

    def after(self, seconds: float) -> VoiceTrack:
        """Without the frames that end before a time, counted from the origin."""
        low = int(np.clip(self._frame_at(np.array(seconds + self.origin)), 0, None))
        kept = self.probabilities[low:].copy()  # a view would keep the whole alive
        return replace(
            self, probabilities=kept, first=self.first + len(self.probabilities) - len(kept)
        )

    def seen_from(self, origin: float) -> VoiceTrack:
        """The same with times that are counted from another time of the recording."""
        return replace(self, origin=origin)

    def followed_by(self, probabilities: list[np.ndarray]) -> VoiceTrack:
        """The track and the frames that come next."""
        return replace(self, probabilities=np.concatenate([self.probabilities, *probabilities]))

    def _is_speech(self, threshold: float) -> np.ndarray:
        return self.probabilities.astype(np.float32) >= np.float32(threshold)

    def _frame_at(self, times: np.ndarray) -> np.ndarray:
        """Number of the frame in which each time of the recording lies, counted from `first`."""
        return np.floor(times * FRAMES_PER_SECOND).astype(np.int64) - self.first


def empty_voice() -> VoiceTrack:
    return VoiceTrack(np.zeros(0, dtype=np.float16))
