"""Whisper's log-mel spectrogram of one block of sound.

Source: Radford et al., ICML 2023 (`log_mel_spectrogram` of the published code); mel scale: Slaney,
Auditory toolbox, 1998, with filters of equal area. It differs from Whisper's own in two respects:
at the ends of a block the true samples beside it are used where Whisper mirrors, and the level is
taken out, so that a louder recording gives the same values.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from media.configuration import ClipConfig

RANGE = 8.0  # decades of power that are kept below the loudest value of a block
LOUDEST = 1.0  # decades: what the loudest value becomes; that of a normal recording in Whisper
# Power in a mel band of white noise of power 1: the squared Hann window adds up to 150 over 400
# samples, a filter of equal area to 1 / 40 over bins 40 Hz apart.
_NOISE_POWER = 150.0 / 40.0


def whisper_mel(waveform: torch.Tensor, config: ClipConfig) -> torch.Tensor:
    """Normalised spectrogram of (margin + N + margin,) samples: (n_mels, N / hop) float32.

    Frame i is centred on sample i * hop of the N. Values are the logarithms of power, moved so that
    the largest becomes `LOUDEST`, cut off `RANGE` below it, and scaled to about -0.75 to 1.25. A
    block in which nothing is louder than noise at `silence_dbfs` is moved as that noise is, so that
    silence stays silence.
    """
    window = _hann(config.win_length)
    spectrum = torch.stft(
        waveform,
        config.n_fft,
        config.hop_length,
        config.win_length,
        window,
        center=False,
        return_complex=True,
    )[:, :-1]
    power = _filters(
        config.sample_rate, config.n_fft, config.n_mels, config.f_min, config.f_max
    ) @ (spectrum.real**2 + spectrum.imag**2)
    levels = power.clamp(min=1e-10).log10()
    quietest = config.silence_dbfs / 10 + math.log10(_NOISE_POWER)
    moved = levels + (LOUDEST - levels.max().clamp(min=quietest))
    return (moved.clamp(min=LOUDEST - RANGE) + 4.0) / 4.0


@lru_cache(maxsize=4)
def _hann(length: int) -> torch.Tensor:
    return torch.hann_window(length)


@lru_cache(maxsize=4)
def _filters(rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> torch.Tensor:
    return torch.from_numpy(mel_filters(rate, n_fft, n_mels, f_min, f_max))


def mel_filters(rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float) -> np.ndarray:
    """(n_mels, n_fft / 2 + 1) float32 triangles, equally wide on Slaney's scale, of equal area."""
    bins = np.arange(n_fft // 2 + 1) * (rate / n_fft)  # Hz
    edges = _to_hertz(np.linspace(_to_mel(f_min), _to_mel(f_max), n_mels + 2))
    width = np.diff(edges)
    slopes = edges[:, None] - bins[None, :]
    rising, falling = -slopes[:-2] / width[:-1, None], slopes[2:] / width[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    area = 2.0 / (edges[2:] - edges[:-2])
    return (triangles * area[:, None]).astype(np.float32)


# Slaney's scale: linear below 1000 Hz (15 mel), logarithmic above (27 mel for each factor of 6.4).
_LINEAR_STEP, _BREAK, _LOG_STEP = 200.0 / 3.0, 1000.0, math.log(6.4) / 27.0


def _to_mel(hertz: float) -> float:
    if hertz < _BREAK:
        return hertz / _LINEAR_STEP
    return _BREAK / _LINEAR_STEP + math.log(hertz / _BREAK) / _LOG_STEP


def _to_hertz(mel: np.ndarray) -> np.ndarray:
    turn = _BREAK / _LINEAR_STEP
    return np.where(
        mel < turn, mel * _LINEAR_STEP, _BREAK * np.exp(_LOG_STEP * np.maximum(mel - turn, 0.0))
    )
