"""Synthetic sounds at 16 kHz, (N,) float32 in [-1, 1]: what talks and what does not."""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

RATE = 16000
SYLLABLE = 3520  # samples
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480))  # formants, Hz


def talk(seconds: float, seed: int = 0) -> np.ndarray:
    """Syllables: a glottal source through formants that move from vowel to vowel."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    t = np.arange(count + SYLLABLE) / RATE
    pitch = 120 * (1 + 0.15 * np.sin(2 * np.pi * 0.7 * t) + 0.05 * np.sin(2 * np.pi * 2.3 * t))
    pulses = np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0)
    source = lfilter([1], [1, -0.95], pulses) + 0.01 * rng.standard_normal(len(t))
    envelope = np.clip(1.6 * np.sin(np.pi * np.arange(SYLLABLE) / SYLLABLE), 0, 1)
    out = np.zeros(len(t))
    for start in range(0, count, SYLLABLE):
        first, second = (
            np.array(VOWELS[i], dtype=float) for i in rng.integers(len(VOWELS), size=2)
        )
        vowel = _glide(source[start : start + SYLLABLE], first, second)
        out[start : start + SYLLABLE] = 0.3 * envelope * vowel / np.abs(vowel).max()
    return out[:count].astype(np.float32)


def _glide(source: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    states = [np.zeros(2) for _ in first]
    parts = []
    for start in range(0, len(source), 80):
        part = source[start : start + 80]
        for i, formant in enumerate(first + (second - first) * start / len(source)):
            radius = np.exp(-np.pi * (60 + 40 * i) / RATE)
            poles = [1, -2 * radius * np.cos(2 * np.pi * formant / RATE), radius**2]
            part, states[i] = lfilter([sum(poles)], poles, part, zi=states[i])
        parts.append(part)
    return np.concatenate(parts)


def play(seconds: float) -> np.ndarray:
    """Music: four chords of decaying notes, two a second, over a bass and a drum."""
    t = np.arange(round(seconds * RATE)) / RATE
    beat = (2 * t).astype(int)
    since = t - beat / 2
    steps = np.array([(0, 4, 7), (5, 9, 12), (7, 11, 14), (0, 3, 7)])[beat % 4]  # (N, 3) semitones
    notes = 220 * 2 ** (steps / 12)
    chord = sum(np.sin(2 * np.pi * h * notes * since[:, None]) / h for h in range(1, 7)).sum(axis=1)
    bass = np.sin(2 * np.pi * 55 * t)
    drum = np.exp(-25 * since) * np.sin(2 * np.pi * 60 * since)
    mixed = np.exp(-3 * since) * np.minimum(1, since / 0.01) * chord + bass + 2 * drum
    return (0.5 * mixed / np.abs(mixed).max()).astype(np.float32)


def hiss(seconds: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (0.1 * noise).astype(np.float32)


def tone(seconds: float, hertz: float = 440.0) -> np.ndarray:
    t = np.arange(round(seconds * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * hertz * t)).astype(np.float32)


def to_samples(sound: np.ndarray) -> np.ndarray:
    """(N,) int16."""
    return np.round(np.clip(sound, -1, 1) * 32767).astype(np.int16)
