"""68 points of a face over time (iBUG's order: Sagonas et al., 300 Faces in-the-Wild, 2013).

Two sources: the archive of RAVDESS's landmarks (differences between pictures, 29.97 a second) and
CSVs of OpenFace 2 (Baltrusaitis et al., FG 2018). `normalise` takes away where the face is, how
large, and how it is tilted, by the outer corners of the eyes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

POINTS = 68
RAVDESS_FPS = 30000 / 1001
LEFT_CORNER, RIGHT_CORNER = 36, 45  # outer corners of the eyes, left and right in the picture


@dataclass(frozen=True)
class LandmarkTrack:
    """Points of one face.

    Args:
        points: (T, 68, 2) float32, x to the right and y down.
        times: (T,) float64 rising seconds; a picture without a face has no entry.
    """

    points: np.ndarray
    times: np.ndarray


def read_ravdess_archive(path: Path) -> dict[str, LandmarkTrack]:
    """Tracks in pixels of 1280x720 pictures by file name, such as `02-01-06-01-02-01-12`.

    The archive holds `delta` (sum over pictures gives x, y), `names` and `offsets`.

    Raises:
        ValueError: the file is no such archive.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            points = np.cumsum(archive["delta"], axis=0, dtype=np.int16)
            names, offsets = archive["names"], archive["offsets"]
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no archive of delta, names, offsets: {error}") from error
    tracks = {}
    for name, start, end in zip(names.tolist(), offsets[:-1], offsets[1:], strict=True):
        times = np.arange(end - start) / RAVDESS_FPS
        tracks[str(name)] = LandmarkTrack(points[start:end].astype(np.float32), times)
    return tracks


def read_openface(path: Path, min_confidence: float = 0.8) -> LandmarkTrack:
    """Track in pixels from an OpenFace 2 CSV, of the face that is seen in the most pictures.

    Args:
        path: CSV with columns timestamp, confidence, success, x_0..x_67, y_0..y_67, in whose
            header blanks may stand before the names, and face_id where several faces were sought.
        min_confidence: pictures below it, or not marked a success, are left out.

    Raises:
        ValueError: a column is missing, or no picture is left.
    """
    try:
        table = pd.read_csv(path, skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path} as OpenFace's table: {error}") from error
    xs, ys = ([f"{axis}_{i}" for i in range(POINTS)] for axis in "xy")
    missing = [n for n in ("timestamp", "confidence", "success", *xs, *ys) if n not in table]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]}; expected OpenFace 2's 2D landmarks")
    table = table[(table["success"] == 1) & (table["confidence"] >= min_confidence)]
    if not len(table):
        raise ValueError(f"{path}: no picture is a success of confidence {min_confidence} or more")
    if "face_id" in table:
        table = table[table["face_id"] == table["face_id"].mode()[0]]
    points = np.stack([table[xs].to_numpy(), table[ys].to_numpy()], axis=-1)
    return LandmarkTrack(points.astype(np.float32), table["timestamp"].to_numpy(np.float64))


def normalise(points: np.ndarray) -> np.ndarray:
    """Points relative to the eyes, picture by picture.

    The middle between the outer eye corners becomes the origin, their distance 1, and the line
    through them level. Turning and nodding of the head (yaw, pitch) stay in.

    Args:
        points: (T, 68, 2), in any unit.

    Returns:
        (T, 68, 2) float32.

    Raises:
        ValueError: another shape, or eye corners that coincide.
    """
    if points.ndim != 3 or points.shape[1:] != (POINTS, 2):
        raise ValueError(f"expected points of shape (T, {POINTS}, 2), not {points.shape}")
    values = points[..., 0].astype(np.float64) + 1j * points[..., 1]  # (T, 68), y as imaginary
    left, right = values[:, LEFT_CORNER, None], values[:, RIGHT_CORNER, None]
    if np.any(left == right):
        raise ValueError(f"eye corners coincide in picture {int(np.argmax(left == right))}")
    # Dividing by the complex line between the corners scales and turns at once.
    values = (values - (left + right) / 2) / (right - left)
    return np.stack([values.real, values.imag], axis=-1).astype(np.float32)


def sample_track(
    track: LandmarkTrack, times: np.ndarray, max_gap: float = 0.1
) -> tuple[np.ndarray, np.ndarray]:
    """Points at the pictures of a clip, linear between neighbours in time.

    Args:
        track: of the whole recording.
        times: (S,) seconds.
        max_gap: seconds; neighbours further apart, or a time as far outside the track, give none.

    Returns:
        (S, 68, 2) float32, 0 where there are none, and (S,) bool that says where there are.
    """
    if not len(track.times):
        return np.zeros((len(times), POINTS, 2), np.float32), np.zeros(len(times), bool)
    right = np.searchsorted(track.times, times)
    before = np.clip(right - 1, 0, len(track.times) - 1)
    after = np.clip(right, 0, len(track.times) - 1)
    gap = track.times[after] - track.times[before]
    known = gap <= max_gap
    known &= (times >= track.times[0] - max_gap) & (times <= track.times[-1] + max_gap)
    share = np.divide(times - track.times[before], gap, out=np.zeros(len(times)), where=gap > 0)
    share = share.astype(np.float32)[:, None, None]
    points = track.points[before] * (1 - share) + track.points[after] * share
    points[~known] = 0.0
    return points, known
