"""68 points of a face over time (iBUG's order: Sagonas et al., 300 Faces in-the-Wild, 2013).

A model sees them where the eyes put them: `normalise` takes away where the face is, how large, and
how it is tilted, and gives that motion of the head apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

POINTS = 68
ROWS = POINTS + 2  # with the two rows of head motion
ANYBODY = -1  # identity of points that belong to whoever is followed
LEFT_CORNERS, RIGHT_CORNERS = (36, 39), (42, 45)  # of the eyes, left and right in the picture
SMOOTHING = 5  # steps of the moving average
MAX_GAP = 0.1  # seconds between neighbours that are interpolated
# The index of each point's partner in a mirrored face: jaw, brows, nose, eyes, mouth.
MIRRORED = np.array(
    [
        *range(16, -1, -1),
        *range(26, 16, -1),
        *range(27, 31),
        *range(35, 30, -1),
        *(45, 44, 43, 42, 47, 46),
        *(39, 38, 37, 36, 41, 40),
        *range(54, 47, -1),
        *range(59, 54, -1),
        *range(64, 59, -1),
        *(67, 66, 65),
    ]
)


@dataclass(frozen=True)
class LandmarkTrack:
    """Points of faces.

    Args:
        points: (M, 68, 2) float32 in pixels, x to the right and y down.
        times: (M,) float64 rising seconds; a picture without a face has no entry.
        ids: (M,) int32, whose they are, as `Recording.face_ids`; `ANYBODY` goes with everybody.
        max_gap: seconds between neighbours that are interpolated.
    """

    points: np.ndarray
    times: np.ndarray
    ids: np.ndarray
    max_gap: float = MAX_GAP

    def of(self, face_id: int | None) -> LandmarkTrack:
        """The entries of one face; all where none is named."""
        if face_id is None:
            return self
        return self.keep((self.ids == face_id) | (self.ids == ANYBODY))

    def keep(self, which: np.ndarray) -> LandmarkTrack:
        """The entries that an (M,) bool array marks."""
        kept = self.points[which], self.times[which], self.ids[which]
        return LandmarkTrack(*kept, self.max_gap)


def empty_track() -> LandmarkTrack:
    """No points at all."""
    return build_track(np.zeros((0, POINTS, 2)), np.zeros(0))


def build_track(points: np.ndarray, times: np.ndarray, face_id: int = ANYBODY) -> LandmarkTrack:
    """A track of one face from (M, 68, 2) points and (M,) seconds."""
    ids = np.full(len(times), face_id, dtype=np.int32)
    return LandmarkTrack(points.astype(np.float32), times.astype(np.float64), ids)


def sample_track(track: LandmarkTrack, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(S, 68, 2) float32 points of one face at (S,) seconds, and (S,) bool: where there are."""
    return interpolate(track.points, track.times, times, track.max_gap)


def interpolate(
    values: np.ndarray, known_times: np.ndarray, times: np.ndarray, max_gap: float
) -> tuple[np.ndarray, np.ndarray]:
    """Values at given times, linear between the neighbours in time.

    Only neighbours within `max_gap` count, so that a stretch of a track gives what the whole gives
    wherever it holds as much on both sides.

    Args:
        values: (M, ...) float32.
        known_times: (M,) rising seconds of each.
        times: (S,) seconds.
        max_gap: seconds; a time with one neighbour as near has that one's values, with none none.

    Returns:
        (S, ...) float32, 0 where there are none, and (S,) bool that says where there are.
    """
    if not len(known_times):
        return np.zeros((len(times), *values.shape[1:]), np.float32), np.zeros(len(times), bool)
    after = np.searchsorted(known_times, times)
    padded = np.concatenate([[-np.inf], known_times, [np.inf]])
    has_before = times - padded[after] <= max_gap
    has_after = padded[after + 1] - times <= max_gap
    known = has_before | has_after
    before = np.where(has_before, after - 1, after)
    after = np.where(has_after, after, before)
    before, after = (np.where(known, index, 0) for index in (before, after))
    gap = known_times[after] - known_times[before]
    share = np.divide(times - known_times[before], gap, out=np.zeros(len(times)), where=gap > 0)
    share = share.astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    found = values[before] * (1 - share) + values[after] * share
    found[~known] = 0.0
    return found, known


def normalise(points: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Points relative to the eyes, and how the head moves.

    An eye is the middle of its two corners. In each picture the middle between the eyes becomes
    the origin and the line through them level; the unit is the median distance of the eyes over
    all pictures, so that a nod or a turn, which shortens that line, stays visible. Before, points
    are averaged over `SMOOTHING` steps.

    Args:
        points: (S, 68, 2), in any unit.
        mask: (S,) bool, which of them exist.

    Returns:
        (S, 70, 2) float32, zeros where none exist: the points; the middle between the eyes
        relative to its median; the roll in radians and the logarithm of the eyes' distance over
        its median.

    Raises:
        ValueError: another shape, or eyes that coincide.
    """
    if points.ndim != 3 or points.shape[1:] != (POINTS, 2):
        raise ValueError(f"expected points of shape (S, {POINTS}, 2), not {points.shape}")
    out = np.zeros((len(points), ROWS, 2), dtype=np.float32)
    if not mask.any():
        return out
    values = points[..., 0].astype(np.float64) + 1j * points[..., 1]  # (S, 68), y as imaginary
    values = _smooth(values, mask)[mask]
    left = values[:, LEFT_CORNERS].mean(axis=1, keepdims=True)
    right = values[:, RIGHT_CORNERS].mean(axis=1, keepdims=True)
    line, middle = right - left, (left + right) / 2
    distance = np.abs(line)
    if (distance == 0).any():
        raise ValueError(f"the eyes coincide in step {np.flatnonzero(mask)[distance.argmin()]}")
    unit = np.median(distance)
    levelled = (values - middle) * (distance / line) / unit  # turned by the line, scaled by unit
    centre = complex(np.median(middle.real), np.median(middle.imag))
    moved = (middle - centre) / unit
    turned = np.angle(line) + 1j * np.log(distance / unit)
    rows = np.concatenate([levelled, moved, turned], axis=1)
    out[mask] = np.stack([rows.real, rows.imag], axis=-1)
    return out


def _smooth(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Moving average over the steps that exist."""
    kept = mask.astype(np.float64)[:, None]
    reach = ((SMOOTHING // 2, SMOOTHING // 2), (0, 0))
    sums, counts = (
        np.lib.stride_tricks.sliding_window_view(np.pad(x, reach), SMOOTHING, axis=0).sum(axis=-1)
        for x in (values * kept, kept)
    )
    return sums / np.maximum(counts, 1.0)
