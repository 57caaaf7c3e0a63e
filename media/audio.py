"""Sound of a recording: mono int16 at one rate, each sample at its presentation time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import av
import numpy as np

from media.mixdown import Level, Mixdown, is_floating, read_channels

GAP_TOLERANCE = 0.02  # seconds that a frame's time may stray from the sample count
LEAST_RATE, MOST_RATE = 1_000, 1_000_000  # Hz; what is beyond is a damaged header
MOST_GAP = 6 * 3600.0  # seconds; a time that lies further ahead is not believed
_CHUNK_SECONDS = 10.0  # silence is given out in pieces of at most this length


class SoundTrack:
    """Places decoded frames on one time line of samples, starting at time 0.

    Channels are mixed, and what is above full scale is taken down, as `media.mixdown` says; it is
    floating point until it is at the rate asked for. Samples that are not finite are silence. A gap
    of more than `GAP_TOLERANCE` is filled with zeros, what overlaps
    with samples already given is dropped; smaller deviations are rounding in the container.

    Args:
        sample_rate: of what is given out, in Hz.
        origin: presentation time, in the file's seconds, that is time 0.
    """

    def __init__(self, sample_rate: int, origin: float) -> None:
        self.position = 0  # samples given out so far
        self._rate = sample_rate
        self._origin = origin
        self._level = Level()
        self._mixdowns: dict[tuple[str, str, int], Mixdown] = {}  # by layout
        self._mixdown: Mixdown | None = None  # of this segment
        self._resampler: av.AudioResampler | None = None  # none where the rate is right already
        self._absent = 0.0  # seconds that were not finite
        self._impossible = 0  # a rate that no sound has, in Hz
        self._layout: tuple[str, str, int] | None = None
        self._segment_start = 0.0  # seconds; a segment is a run of frames without gap
        self._segment_samples = 0  # taken in since then, at the file's rate
        self._skip = 0  # samples of this segment that are given out already

    @property
    def end(self) -> float:
        """Seconds of sound given out so far."""
        return self.position / self._rate

    @property
    def notes(self) -> list[str]:
        """Lines on what of the sound could not be used."""
        heard = {mixdown.cancelled for mixdown in self._mixdowns.values()}
        notes = [
            f"the channels of the sound cancel each other: channel {channel + 1} is used"
            for channel in sorted(channel for channel in heard if channel is not None)
        ]
        if self._impossible:
            notes.append(f"sound of {self._impossible} Hz is none: its header is damaged")
        if self._absent:
            notes.append(f"{self._absent:.3g} s of sound is not finite (NaN, infinite): silence")
        return notes

    def add(self, frame: av.AudioFrame) -> Iterator[np.ndarray]:
        """Take a frame in. Yields (N,) int16 pieces that follow on those before."""
        if not LEAST_RATE <= frame.sample_rate <= MOST_RATE:
            self._impossible = frame.sample_rate
            return
        expected = self._expected_time()
        time = expected
        if frame.pts is not None and frame.time_base is not None:
            time = float(frame.pts * frame.time_base) - self._origin
        if time - max(expected, self.end) > MOST_GAP:
            time = expected
        layout = (frame.format.name, frame.layout.name, frame.sample_rate)
        if layout != self._layout or abs(time - expected) > GAP_TOLERANCE:
            yield from self.finish()
            self._open(frame, layout)
            self._layout, self._segment_start, self._segment_samples = layout, time, 0
            start = round(time * self._rate)
            yield from self._silence(start)
            self._skip = max(0, self.position - start)
        self._segment_samples += frame.samples
        assert self._mixdown is not None
        yield from self._resample(self._mixdown.add(read_channels(frame)))

    def finish(self) -> Iterator[np.ndarray]:
        """What is still held back."""
        if self._mixdown is None:
            return
        assert self._layout is not None
        yield from self._resample(self._mixdown.finish())
        if self._resampler is not None:
            yield from self._cut(self._resampler.resample(None))
        self._absent += self._mixdown.lost / self._layout[2]
        self._mixdown.lost = 0
        self._mixdown = self._resampler = None

    def _open(self, frame: av.AudioFrame, layout: tuple[str, str, int]) -> None:
        """Begin a run of frames of one layout."""
        if layout not in self._mixdowns:
            channels = frame.layout.nb_channels
            holds = channels > 1 or is_floating(frame)
            self._mixdowns[layout] = Mixdown(layout[1], channels, layout[2], self._level, holds)
        self._mixdown = self._mixdowns[layout]
        if layout[2] != self._rate:
            self._resampler = av.AudioResampler(format="flt", layout="mono", rate=self._rate)

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

    def _resample(self, mono: np.ndarray) -> Iterator[np.ndarray]:
        """(N,) float32 at the file's rate to what can be given out of it."""
        if not len(mono) or self._layout is None:
            return
        if self._resampler is None:
            yield from self._place(mono)
            return
        frame = av.AudioFrame.from_ndarray(mono[None], format="flt", layout="mono")
        frame.sample_rate = self._layout[2]
        yield from self._cut(self._resampler.resample(frame))

    def _cut(self, frames: Sequence[av.AudioFrame | None]) -> Iterator[np.ndarray]:
        for frame in frames:
            if frame is not None:  # a resampler that has nothing to do gives the flush back
                yield from self._place(frame.to_ndarray().reshape(-1))

    def _place(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """As int16, without those that lie before what was given already."""
        kept = samples[self._skip :]
        self._skip -= len(samples) - len(kept)
        if len(kept):
            self.position += len(kept)
            yield np.clip(np.rint(kept * 32768.0), -32768, 32767).astype(np.int16)
