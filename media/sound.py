"""The sound of a window: the window itself, or the blocks of the recording that it is heard from.

With context (`ClipConfig.speech_context_seconds`) the time line is tiled by blocks from time 0. A
block depends on the recording alone, not on the window that asks for it, so each has to be encoded
only once however many windows touch it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from media.clip import Window
    from media.configuration import ClipConfig

LEAST_SOUND_SECONDS = 0.1  # a window with less sound holds no speech


@dataclass(frozen=True)
class CutSound:
    """The sound that a window is recognised from.

    Args:
        waveform: (margin + K * block + margin,) float32, zeros outside the recording and in blocks
            that are not touched.
        block: index of the first block in the recording; None where the window is its own block.
        offset: samples of the first block before those that are recognised.
        samples: that are recognised: of the window and its context, inside the recording.
        audible: whether the window itself, without context, holds `LEAST_SOUND_SECONDS` of sound,
            some of it louder than silence.
    """

    waveform: np.ndarray
    block: int | None
    offset: int
    samples: int
    audible: bool


def cut_sound(
    waveform: np.ndarray, sound_start: int, window: Window, config: ClipConfig
) -> CutSound:
    """Cut from (N,) int16 samples, the first of which is the recording's `sound_start`-th."""
    if config.speech_context_seconds:
        return _cut_blocks(waveform, sound_start, window, config)
    start = round(window.start * config.sample_rate)
    held = min(config.window_samples, round(window.end * config.sample_rate) - start)
    margin = config.speech_context
    length = config.window_samples + 2 * margin
    out = _copy(waveform, sound_start, (start - margin, start + held + margin), length)
    inner = out[margin : len(out) - margin]
    audible = _holds_sound((start, start + held), sound_start, waveform, config)
    return CutSound(out, None, 0, held, audible and is_audible(inner, config))


def _cut_blocks(
    waveform: np.ndarray, sound_start: int, window: Window, config: ClipConfig
) -> CutSound:
    first, last = touched_blocks(window, config)
    start, stop = (round(time * config.sample_rate) for time in (window.start, window.end))
    context = round(config.speech_context_seconds * config.sample_rate)
    size, margin = config.block_samples, config.speech_context
    held = (first * size - margin, (last + 1) * size + margin)
    out = _copy(waveform, sound_start, held, config.speech_blocks * size + 2 * margin)
    low = max(0, start - context)
    high = min(stop + context, sound_start + len(waveform))
    inner = out[margin + start - first * size : margin + stop - first * size]
    audible = _holds_sound((start, stop), sound_start, waveform, config)
    audible = audible and is_audible(inner, config)
    return CutSound(out, first, low - first * size, max(0, high - low), audible)


def touched_blocks(window: Window, config: ClipConfig) -> tuple[int, int]:
    """First and last block that a window and its context lie in."""
    start, stop = (round(time * config.sample_rate) for time in (window.start, window.end))
    context = round(config.speech_context_seconds * config.sample_rate)
    first = max(0, start - context) // config.block_samples
    return first, max(first, (stop + context - 1) // config.block_samples)


def sound_span(window: Window, config: ClipConfig) -> tuple[float, float]:
    """From and until when (seconds) a window needs the recording's sound."""
    margin = (config.speech_context + 1) / config.sample_rate  # 1 sample for rounding
    if not config.speech_context_seconds:
        return window.start - margin, window.end + margin
    first, last = touched_blocks(window, config)
    length = config.block_samples / config.sample_rate
    return first * length - margin, (last + 1) * length + margin


def _copy(waveform: np.ndarray, sound_start: int, span: tuple[int, int], length: int) -> np.ndarray:
    """(length,) float32 that starts where the span does, zero beyond the span and the sound."""
    out = np.zeros(length, dtype=np.float32)
    first, last = span[0] - sound_start, span[1] - sound_start
    low, high = max(first, 0), min(last, len(waveform))
    if high > low:
        out[low - first : high - first] = waveform[low:high] / np.float32(32768.0)
    return out


def _holds_sound(
    span: tuple[int, int], sound_start: int, waveform: np.ndarray, config: ClipConfig
) -> bool:
    low, high = max(span[0], sound_start), min(span[1], sound_start + len(waveform))
    return high - low >= LEAST_SOUND_SECONDS * config.sample_rate


def is_audible(samples: np.ndarray, config: ClipConfig) -> bool:
    """Whether the loudest 25 ms of samples in [-1, 1] lie above `ClipConfig.silence_dbfs`."""
    frame = max(1, config.sample_rate // 40)
    frames = samples[: len(samples) // frame * frame].reshape(-1, frame)
    if not frames.size:
        return False
    loudest = float(np.sqrt((frames.astype(np.float64) ** 2).mean(axis=1).max()))
    return 20 * math.log10(loudest + 1e-12) > config.silence_dbfs
