"""Fingerprints of sound and faces that survive a codec, and the search for those that agree.

The search never compares all pairs: fingerprints fall into buckets by hashes that copies are
likely to share, and only what shares a bucket on two sides of a split is compared.

Sound is fingerprinted as by Haitsma and Kalker, A highly robust audio fingerprinting system, ISMIR
2002: the signs of energy differences across time and band, one 32-bit word each 16 ms. Faces are
small grey pictures, hashed by random hyperplanes (Charikar, STOC 2002).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

# Sound. All sample rates in use carry the bands, and lossy codecs keep them.
_SOUND_RATE = 4000  # Hz
_FRAME, _HOP = 512, 64  # samples at _SOUND_RATE: 128 ms and 16 ms
_SUMMED = 24  # frames (384 ms) whose energies are summed
_BANDS, _LOWEST, _HIGHEST = 33, 300.0, 1900.0  # Hz
_SILENCE_DBFS = -60.0  # a loudest frame below this holds no sound
_LOUD_DB = 25.0  # frames this far below the loudest are not looked up
_MIN_OVERLAP = 20  # loud words (a third of a second) that two recordings must share
_LONG_OVERLAP = 40  # words from which `_MAX_ERROR` is allowed; fewer prove less
_MAX_ERROR = 0.2  # share of differing bits: lossy copies up to 0.15, other takes from 0.23
_FRAME_CHUNK = 4096  # frames transformed at a time, which bounds the memory of long recordings
_NEARBY = range(-36, 37, 6)  # words around a hit that are compared before all are

# Faces.
_SIDE = 16  # pixels of the grey picture
_MIN_CONTRAST = 4.0  # grey levels: a flatter picture shows no face
FACES_PER_RECORD = 5
MIN_SIMILARITY = 0.95  # correlation of two grey pictures; in FER2013 all pairs above are copies
_MIN_SHARE = 0.5  # of the faces of the recording with fewer
_TABLES = 24  # hashes of a picture
_SPARE_PLANES = 2  # hyperplanes of a hash beyond those that n pictures would fill evenly
_ENOUGH_FOR_MEAN = 1000  # pictures from which a mean face is taken out before hashing

_CHUNK = 65536  # pairs compared at a time
_ROWS = 512  # fingerprints compared with all others at a time
_NEIGHBOURS = 48  # how many others in a bucket each member is compared with


@dataclass(frozen=True)
class SoundPrint:
    """The words of one sound, (L,) uint32, and which of them are loud, (L,) bool."""

    words: np.ndarray
    loud: np.ndarray


@dataclass(frozen=True)
class Match:
    """Two records, by index, with the share of bits or of faces on which they agree."""

    first: int
    second: int
    agreement: float


def read_sound_print(waveform: np.ndarray, sample_rate: int) -> SoundPrint:
    """Fingerprint of (N,) int16 sound. Empty where it is silent or below 0.6 s.

    Sounds below about a second have too few words to be found with certainty.
    """
    from scipy.signal import resample_poly  # takes seconds to import

    divisor = np.gcd(_SOUND_RATE, sample_rate)
    signal = waveform.astype(np.float32) / 32768
    signal = resample_poly(signal, _SOUND_RATE // divisor, sample_rate // divisor)
    nothing = SoundPrint(np.zeros(0, np.uint32), np.zeros(0, bool))
    if len(signal) < _FRAME + _HOP * (_SUMMED + 1):
        return nothing
    energy, level = _read_energy(signal)
    if level.max() < _SILENCE_DBFS:
        return nothing
    total = np.cumsum(np.vstack([np.zeros(_BANDS), energy]), axis=0)
    summed = total[_SUMMED:] - total[:-_SUMMED]
    slope = summed[:, :-1] - summed[:, 1:]
    bits = slope[1:] > slope[:-1]
    words = np.packbits(bits, axis=1).view(">u4").ravel().astype(np.uint32)
    near = np.lib.stride_tricks.sliding_window_view(level, _SUMMED)[1:].max(axis=1)
    ones = bits.sum(axis=1)
    loud = (near > level.max() - _LOUD_DB) & (ones > 6) & (ones < 26)
    return SoundPrint(words, loud)


def _read_energy(signal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each frame, the energy in each band, (frames, bands), and the level in dBFS."""
    frames = np.lib.stride_tricks.sliding_window_view(signal, _FRAME)[::_HOP]
    shape = np.hanning(_FRAME).astype(np.float32)
    energies, levels = [], []
    for begin in range(0, len(frames), _FRAME_CHUNK):
        chunk = frames[begin : begin + _FRAME_CHUNK]
        energies.append(np.abs(np.fft.rfft(chunk * shape)) ** 2 @ _band_matrix())
        levels.append(10 * np.log10(np.maximum((chunk**2).mean(axis=1), 1e-12)))
    return np.concatenate(energies), np.concatenate(levels)


@lru_cache(maxsize=1)
def _band_matrix() -> np.ndarray:
    """(bins, bands) float32: sums spectrum bins into bands of equal width in log frequency."""
    edges = np.geomspace(_LOWEST, _HIGHEST, _BANDS + 1)
    bins = np.fft.rfftfreq(_FRAME, 1 / _SOUND_RATE)
    step = bins[1]
    low, high = edges[:-1], edges[1:]
    inside = np.minimum(bins[:, None] + step / 2, high) - np.maximum(bins[:, None] - step / 2, low)
    return np.maximum(inside / step, 0).astype(np.float32)


def find_sound_matches(prints: Sequence[SoundPrint], sides: np.ndarray) -> list[Match]:
    """Pairs of the same sound, perhaps shifted, on two sides of a split.

    Args:
        prints: of each record; an empty one matches nothing.
        sides: (R,) int, the side each record stands on.
    """
    lengths = np.array([len(sound.words) for sound in prints], dtype=np.int64)
    if not lengths.sum():
        return []
    words = np.concatenate([sound.words for sound in prints])
    loud = np.flatnonzero(np.concatenate([sound.loud for sound in prints]))
    owner = np.repeat(np.arange(len(prints)), lengths)
    start = np.cumsum(lengths) - lengths
    hits = []
    for a, b in _bucket_pairs(words[loud], sides[owner[loud]], seed=0):
        a, b = loud[a], loud[b]
        a, b = np.where(owner[a] < owner[b], (a, b), (b, a))
        good = _nearby_error(words, owner, a, b) <= 1.7 * _MAX_ERROR
        a, b = a[good], b[good]
        shift = (b - start[owner[b]]) - (a - start[owner[a]])
        hits.append(np.stack([owner[a], owner[b], shift], axis=1))
    return _verify_sounds(prints, np.concatenate(hits)) if hits else []


def _nearby_error(words: np.ndarray, owner: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share of differing bits around each pair of equal words, 1 where too few surround it."""
    errors, compared = np.zeros(len(a)), np.zeros(len(a))
    for step in _NEARBY:
        x, y = (np.clip(i + step, 0, len(words) - 1) for i in (a, b))
        inside = (owner[x] == owner[a]) & (owner[y] == owner[b]) & (step != 0)
        errors += np.where(inside, np.bitwise_count(words[x] ^ words[y]), 0)
        compared += inside
    return np.where(compared > 2, errors / np.maximum(compared, 1) / 32, 1.0)


def _verify_sounds(prints: Sequence[SoundPrint], hits: np.ndarray) -> list[Match]:
    """Matches among hits, rows of (first record, second record, shift in words)."""
    rows, counts = np.unique(hits, axis=0, return_counts=True)
    best: dict[tuple[int, int], float] = {}
    for first, second, shift in rows[np.argsort(-counts, kind="stable")].tolist():
        if (first, second) not in best:
            error, compared = _error_at(prints[first], prints[second], shift)
            if error <= _MAX_ERROR * min(1.0, compared / _LONG_OVERLAP):
                best[first, second] = 1 - error
    return [Match(first, second, share) for (first, second), share in sorted(best.items())]


def _error_at(first: SoundPrint, second: SoundPrint, shift: int) -> tuple[float, int]:
    """Share of bits that differ in what is loud in either, 1 where too little is; words of it."""
    begin, end = max(0, -shift), min(len(first.words), len(second.words) - shift)
    a, b = slice(begin, end), slice(begin + shift, end + shift)
    loud = first.loud[a] | second.loud[b]
    compared = int(loud.sum())
    if compared < _MIN_OVERLAP:
        return 1.0, compared
    errors = np.bitwise_count(first.words[a] ^ second.words[b])[loud]
    return float(errors.mean() / 32), compared


def read_face_prints(faces: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Fingerprints of some of (n, S, S, 3) uint8 pictures: (k, D) float32, mean 0 and length 1.

    Up to `FACES_PER_RECORD` are taken, evenly spread over the indices `usable`; flat ones (black,
    no face) have none.
    """
    parts = np.array_split(usable, min(FACES_PER_RECORD, max(1, len(usable))))
    chosen = [part[len(part) // 2] for part in parts if len(part)]
    grey = [cv2.cvtColor(np.ascontiguousarray(faces[i]), cv2.COLOR_RGB2GRAY) for i in chosen]
    return np.concatenate([np.zeros((0, _SIDE * _SIDE), np.float32), *read_grey_prints(grey)])


def read_grey_prints(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The fingerprint of each (S, S) uint8 grey picture, (1, D) float32; (0, D) of a flat one."""
    if not pictures:
        return []
    size = (_SIDE, _SIDE)
    small = np.stack([cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in pictures])
    vectors = small.reshape(len(small), -1).astype(np.float32)
    contrast = vectors.std(axis=1)
    vectors -= vectors.mean(axis=1, keepdims=True)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return [vectors[i : i + int(contrast[i] >= _MIN_CONTRAST)] for i in range(len(vectors))]


def find_all_similar(ones: np.ndarray, others: np.ndarray, least: float) -> np.ndarray:
    """Every pair of fingerprints that are alike, compared one by one; for thousands, not more.

    Args:
        ones, others: (n, D) and (m, D) float32.
        least: correlation from which two are alike.

    Returns:
        (k, 2) int64, rows of `ones` and of `others`.
    """
    found = [np.zeros((0, 2), dtype=np.int64)]
    for begin in range(0, len(ones), _ROWS):
        alike = np.argwhere(ones[begin : begin + _ROWS] @ others.T >= least)
        found.append(alike + np.array([begin, 0]))
    return np.concatenate(found)


def find_face_matches(prints: Sequence[np.ndarray], sides: np.ndarray) -> list[Match]:
    """Pairs of records on two sides that share at least half of the faces of the one with fewer.

    Args:
        prints: of each record, from `read_face_prints`; an empty one matches nothing.
        sides: (R,) int, the side each record stands on.
    """
    counts = np.array([len(vectors) for vectors in prints], dtype=np.int64)
    if not counts.sum():
        return []
    vectors = np.concatenate(list(prints))
    owner = np.repeat(np.arange(len(prints)), counts)
    found = np.zeros((0, 2), dtype=np.int64)
    for table, codes in enumerate(_hash_faces(vectors)):
        pairs = list(_bucket_pairs(codes, sides[owner], seed=table))
        alike = [_similar(vectors, a, b) for a, b in pairs]
        found = np.unique(np.concatenate([found, *alike]), axis=0)
    return _group_faces(found, prints, owner)


def _hash_faces(vectors: np.ndarray) -> Iterator[np.ndarray]:
    """One (n,) int64 code a table: on which side of random hyperplanes the vectors lie.

    What all faces have in common is taken out first, or they would crowd into few buckets.
    """
    if len(vectors) >= _ENOUGH_FOR_MEAN:
        vectors = vectors - vectors.mean(axis=0)
    rng = np.random.default_rng(0)
    powers = 1 << np.arange(len(vectors).bit_length() + _SPARE_PLANES, dtype=np.int64)
    for _ in range(_TABLES):
        planes = rng.standard_normal((vectors.shape[1], len(powers))).astype(np.float32)
        yield (vectors @ planes > 0) @ powers


def _similar(vectors: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(m, 2) rows of those pairs that are alike, the lower index first."""
    alike = [np.zeros((0, 2), dtype=np.int64)]
    for begin in range(0, len(a), _CHUNK):
        x, y = a[begin : begin + _CHUNK], b[begin : begin + _CHUNK]
        good = np.einsum("nd,nd->n", vectors[x], vectors[y]) >= MIN_SIMILARITY
        alike.append(np.sort(np.stack([x[good], y[good]], axis=1), axis=1))
    return np.concatenate(alike)


def _group_faces(found: np.ndarray, prints: Sequence[np.ndarray], owner: np.ndarray) -> list[Match]:
    """Matches of records from rows of two faces that are alike."""
    faces: dict[tuple[int, int], tuple[set[int], set[int]]] = defaultdict(lambda: (set(), set()))
    for i, j in found.tolist():
        ours, theirs = faces[int(owner[i]), int(owner[j])]
        ours.add(i)
        theirs.add(j)
    matches = []
    for (first, second), sets in sorted(faces.items()):
        share = min(map(len, sets)) / min(len(prints[first]), len(prints[second]))
        if share >= _MIN_SHARE:
            matches.append(Match(first, second, share))
    return matches


def _bucket_pairs(
    codes: np.ndarray, sides: np.ndarray, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Indices of pairs with one code and two sides; of large buckets a random part of the pairs."""
    order = np.random.default_rng(seed).permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    codes, sides = codes[order], sides[order]
    for step in range(1, _NEIGHBOURS + 1):
        same = codes[step:] == codes[:-step]
        if not same.any():
            return
        hits = np.flatnonzero(same & (sides[step:] != sides[:-step]))
        yield order[hits], order[hits + step]
