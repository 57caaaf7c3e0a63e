"""Decoded channels to one: which of them count, and at what level.

Both are chosen once for a recording, from the first `HELD_SECONDS` after its first sound above
`SILENCE`. These, and as much of the silence before, are held back until then, so a stream and a
whole file give the same samples.

- Channels are mixed with libswresample's ITU-R BS.775 weights (the mean of both for stereo).
  Channels that are silent against the loudest do not count in the weights' sum.
- Where the mix holds less than a quarter of the energy that independent channels would give it,
  the channels cancel each other (one was recorded with the wrong polarity): the one of most energy
  is heard alone.
- Sound above full scale, which only floating-point samples can hold, is not clipped. Above
  `INTEGER_PEAK` times full scale the samples are integers that were saved as floating point, of 16,
  24 or 32 bits; below it, a power of two takes the peak down. Louder sound later lowers the gain
  from there on.
"""

from __future__ import annotations

import math
from functools import lru_cache

import av
import numpy as np

HELD_SECONDS = 5.0
SILENCE = 1e-3  # root mean square, full scale being 1: -60 dBFS
DEAD = 1e-6  # energy of a channel against the loudest: -60 dB
CANCELLED = 0.25  # energy of the mix against that of independent channels: -6 dB
INTEGER_PEAK = 8.0  # 18 dB above full scale: no recorder is driven so far
_INTEGER_BITS = (15, 23, 31)  # of magnitude
_ABSURD = 2.0**32  # no sample format has such values; damaged ones may
_OUTLIERS, _OUTLIER_RATIO = 16, 32.0  # so few samples that stand so far out are damage
_MOST_PLANES = 8  # that PyAV reads of a frame
_SCALES = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "flt": 1.0, "dbl": 1.0}


def read_channels(frame: av.AudioFrame) -> np.ndarray:
    """(C, N) float32 of a frame of any sample format, full scale being 1."""
    kind = frame.format.name.removesuffix("p")
    crowded = frame.format.is_planar and frame.layout.nb_channels > _MOST_PLANES
    if kind not in _SCALES or crowded:
        resampler = av.AudioResampler(format="dbl", layout=frame.layout, rate=frame.sample_rate)
        frame, kind = resampler.resample(frame)[0], "dbl"
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if kind == "u8":
        values = values.astype(np.float32) - 128.0
    with np.errstate(over="ignore"):  # what float32 cannot hold is no sound
        return values.astype(np.float32) / np.float32(_SCALES[kind])


def is_floating(frame: av.AudioFrame) -> bool:
    return frame.format.name.startswith(("flt", "dbl"))


class Level:
    """The gain of a recording: 1, and less where its sound is above full scale."""

    def __init__(self) -> None:
        self.gain = 1.0

    def apply(self, mono: np.ndarray) -> np.ndarray:
        """Samples within full scale; lowers the gain where they are louder than any before."""
        peak = _peak(mono)
        if peak * self.gain > 1.0:
            self.gain = _gain_for(peak)
        return mono * np.float32(self.gain)


def _gain_for(peak: float) -> float:
    """A power of two that takes the peak to full scale or below."""
    bits = math.ceil(math.log2(peak))
    if peak > INTEGER_PEAK:
        bits = next((b for b in _INTEGER_BITS if b >= bits), bits)
    return 2.0**-bits


def _peak(samples: np.ndarray) -> float:
    """The largest magnitude, but for a few samples that stand far above all others."""
    magnitudes = np.abs(samples)
    largest = float(magnitudes.max(initial=0.0))
    if largest <= 1.0 or len(samples) <= _OUTLIERS:
        return largest
    common = np.partition(magnitudes, -_OUTLIERS)[-_OUTLIERS]
    return float(magnitudes[magnitudes <= _OUTLIER_RATIO * common].max(initial=0.0))


class Mixdown:
    """Frames of one layout to mono. What is held back comes out with later frames, or at the end.

    Args:
        layout: as FFmpeg names it.
        channels: how many it has.
        rate: samples per second.
        level: of the recording.
        holds: whether the choices need a look ahead; not for one channel of integer samples.
    """

    def __init__(self, layout: str, channels: int, rate: int, level: Level, holds: bool) -> None:
        self.lost = 0  # samples that were not finite
        self.cancelled: int | None = None  # the channel that is heard alone, counted from 0
        self._weights = mix_weights(layout, channels)
        self._level = level
        self._hold = round(HELD_SECONDS * rate) if holds else 0
        self._held: list[np.ndarray] = []
        self._is_loud, self._since = False, 0  # whether there was sound, and samples from there

    def add(self, channels: np.ndarray) -> np.ndarray:
        """(C, N) samples to the (M,) that can be given out, those held before them first."""
        absent = ~(np.abs(channels) < _ABSURD)
        if absent.any():
            channels = np.where(absent, np.float32(0), channels)
            self.lost += int(absent.any(axis=0).sum())
        if not self._hold:
            return self._mix(channels)
        self._held.append(channels)
        self._is_loud = self._is_loud or _is_loud(channels)
        if not self._is_loud:
            return self._release()
        self._since += channels.shape[1]
        return self.finish() if self._since >= self._hold else np.zeros(0, dtype=np.float32)

    def _release(self) -> np.ndarray:
        """What of held silence is older than need be."""
        length = sum(piece.shape[1] for piece in self._held)
        old = []
        while length - self._held[0].shape[1] >= self._hold:
            length -= self._held[0].shape[1]
            old.append(self._mix(self._held.pop(0)))
        return np.concatenate([np.zeros(0, dtype=np.float32), *old])

    def finish(self) -> np.ndarray:
        """(M,) of what is held, by the choices that it leads to.

        Choices from less than `HELD_SECONDS`, before a gap or the end, are for what is held alone.
        """
        if not self._held:
            return np.zeros(0, dtype=np.float32)
        held, before = np.concatenate(self._held, axis=1), self._weights
        is_settled = self._since >= self._hold
        if self._is_loud:
            self._choose(held)
        mono = self._mix(held)
        self._held, self._is_loud, self._since = [], False, 0
        if is_settled:
            self._hold = 0
        else:
            self._weights = before
        return mono

    def _mix(self, channels: np.ndarray) -> np.ndarray:
        return self._level.apply(self._weights @ channels)

    def _choose(self, held: np.ndarray) -> None:
        """New weights. Channels that are silent so far stay in the mix: they may speak later."""
        energies = (held.astype(np.float64) ** 2).mean(axis=1)
        live = energies > DEAD * energies.max()
        counted = float(self._weights[live].sum())
        if counted <= 0:
            return
        weights = self._weights / np.float32(counted)
        mixed = float(((weights @ held).astype(np.float64) ** 2).mean())
        independent = float((weights.astype(np.float64) ** 2 * energies).sum())
        if mixed < CANCELLED * independent:
            self.cancelled = int(np.argmax(energies * (weights > 0)))
            weights = np.eye(len(weights), dtype=np.float32)[self.cancelled]
        self._weights = weights


def _is_loud(channels: np.ndarray) -> bool:
    return bool((channels.astype(np.float64) ** 2).mean(axis=1).max(initial=0.0) > SILENCE**2)


@lru_cache(maxsize=16)
def mix_weights(layout: str, channels: int) -> np.ndarray:
    """(C,) weights of channels in the mono mix, which sum to 1 so that it cannot clip.

    They are those of libswresample; layouts that it cannot mix, such as nine channels without
    names, count evenly.
    """
    even = np.full(channels, 1.0 / channels, dtype=np.float32)
    if channels <= 2:
        return even
    try:
        weights = np.array([_probe(layout, channels, index) for index in range(channels)])
    except (av.FFmpegError, ValueError):
        return even
    total = float(weights.sum())
    return (weights / total).astype(np.float32) if total > 0 and (weights >= 0).all() else even


def _probe(layout: str, channels: int, index: int) -> float:
    """What libswresample makes of 1 in one channel."""
    samples = np.zeros((64, channels), dtype=np.float32)
    samples[:, index] = 1.0
    frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=layout)
    frame.sample_rate = 48000
    mixed = av.AudioResampler(format="fltp", layout="mono", rate=48000).resample(frame)
    return float(mixed[0].to_ndarray()[0, 32])
