"""Sound of a recording: mono int16 at one rate, each sample at its presentation time."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np

GAP_TOLERANCE = 0.02  # seconds that a frame's time may stray from the sample count
_CHUNK_SECONDS = 10.0  # silence is given out in pieces of at most this length


class SoundTrack:
    """Places decoded frames on one time line of samples, starting at time 0.

    Channels are mixed with libswresample's ITU-R BS.775 matrix, scaled so that it cannot clip: the
    mean of both for stereo. A gap of more than `GAP_TOLERANCE` is filled with zeros, what overlaps
    with samples already given is dropped; smaller deviations are rounding in the container.

    Args:
        sample_rate: of what is given out, in Hz.
        origin: presentation time, in the file's seconds, that is time 0.
    """

    def __init__(self, sample_rate: int, origin: float) -> None:
        self.position = 0  # samples given out so far
        self._rate = sample_rate
        self._origin = origin
        self._resampler: av.AudioResampler | None = None
        self._layout: tuple[str, str, int] | None = None
        self._segment_start = 0.0  # seconds; a segment is a run of frames without gap
        self._segment_samples = 0  # taken in since then, at the file's rate
        self._skip = 0  # samples of this segment that are given out already

    @property
    def end(self) -> float:
        """Seconds of sound given out so far."""
        return self.position / self._rate

    def add(self, frame: av.AudioFrame) -> Iterator[np.ndarray]:
        """Take a frame in. Yields (N,) int16 pieces that follow on those before."""
        expected = self._expected_time()
        time = expected
        if frame.pts is not None and frame.time_base is not None:
            time = float(frame.pts * frame.time_base) - self._origin
        layout = (frame.format.name, frame.layout.name, frame.sample_rate)
        if layout != self._layout or abs(time - expected) > GAP_TOLERANCE:
            yield from self.finish()
            self._resampler = av.AudioResampler(format="s16", layout="mono", rate=self._rate)
            self._layout, self._segment_start, self._segment_samples = layout, time, 0
            start = round(time * self._rate)
            yield from self._silence(start)
            self._skip = max(0, self.position - start)
        self._segment_samples += frame.samples
        yield from self._resample(frame)

    def finish(self) -> Iterator[np.ndarray]:
        """What the resampler still holds."""
        yield from self._resample(None)
        self._resampler = None

    def fill_until(self, seconds: float) -> Iterator[np.ndarray]:
        """Silence up to a time before which no more sound is waited for."""
        start = round(seconds * self._rate)
        if start > self.position:
            yield from self.finish()
            self._layout = None
            yield from self._silence(start)

    def _expected_time(self) -> float:
        if self._layout is None:
            return self.end
        return self._segment_start + self._segment_samples / self._layout[2]

    def _silence(self, until: int) -> Iterator[np.ndarray]:
        chunk = round(_CHUNK_SECONDS * self._rate)
        while self.position < until:
            length = min(chunk, until - self.position)
            self.position += length
            yield np.zeros(length, dtype=np.int16)

    def _resample(self, frame: av.AudioFrame | None) -> Iterator[np.ndarray]:
        if self._resampler is None:
            return
        for resampled in self._resampler.resample(frame):
            if resampled is None:  # a resampler that has nothing to do gives the flush back
                continue
            samples = resampled.to_ndarray().reshape(-1)
            kept = samples[self._skip :]
            self._skip -= len(samples) - len(kept)
            if len(kept):
                self.position += len(kept)
                yield kept
