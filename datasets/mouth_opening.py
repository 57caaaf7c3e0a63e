"""Pictures of faces with the mouth opened as speech opens it, for models that will see people talk.

In photographs an open mouth mostly means surprise, and a model trained on them says so of whoever
talks. A copy of each training picture with the mouth opened, under the same label, teaches it to
look at the rest of the face. Lower lip and jaw go down by a warp around the face's 68 points.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from datasets.annotations import Record
from datasets.parallel import spread_work
from datasets.store import ClipStore
from media.landmarker import Landmarker, build_landmarker, locate_in_face
from system.files import replacing

CORNERS, INNER_UPPER, INNER_LOWER = (48, 54), (60, 61, 62, 63, 64), (60, 67, 66, 65, 64)
CHIN = 8
# What is drawn for each picture. Lengths are in halves of the mouth's width.
OPENING = (0.1, 1.0)  # by how much the lips go apart
NARROWING = (
    -0.15,
    0.5,
)  # by how much the mouth gets narrower, as in a rounded vowel; below 0 wider
SHADE = (0.35, 1.1)  # brightness of what opens, of the darkest tenth of the mouth's
DARKEST = 10.0  # percent
CHEEKS = 0.9  # how far beyond the mouth the jaw reaches


@dataclass(frozen=True)
class Mouth:
    """How a mouth is changed; see the constants above."""

    opening: float
    narrowing: float
    shade: float


def draw_mouth(rng: np.random.Generator) -> Mouth:
    """A random one."""
    return Mouth(*(float(rng.uniform(*limits)) for limits in (OPENING, NARROWING, SHADE)))


def open_mouth(face: np.ndarray, points: np.ndarray, mouth: Mouth) -> np.ndarray:
    """The face with its mouth opened further.

    Args:
        face: (H, H, 3) uint8.
        points: (68, 2), as shares of its sides.
        mouth: what is wanted.

    Returns:
        (H, H, 3) uint8; what lies above the lips is as it was.
    """
    side = face.shape[0]
    points = points * side - 0.5
    left, right = (points[corner] for corner in CORNERS)
    middle, half = (left + right) / 2, max(1.5, float(np.hypot(*(right - left))) / 2)
    axes = np.stack([right - left, [left[1] - right[1], right[0] - left[0]]]) / (2 * half)

    def to_mouth(place: np.ndarray) -> np.ndarray:
        """Pixels to along and across the mouth, in halves of its width."""
        return (place - middle) @ axes.T / half

    y, x = np.mgrid[0:side, 0:side]
    u, v = np.moveaxis(to_mouth(np.stack([x, y], axis=-1).astype(np.float32)), -1, 0)
    near = np.exp(-((u / 1.6) ** 4) - ((v - 0.2) / 1.4) ** 4)
    source_u = u * (1 + mouth.narrowing * near)
    lower_lip = to_mouth(points[list(INNER_LOWER)])
    upper = _edge(to_mouth(points[list(INNER_UPPER)]), source_u)
    lower = np.maximum(_edge(lower_lip, source_u), upper)
    width = max(0.6, min(abs(lower_lip[0, 0]), abs(lower_lip[-1, 0])))

    inside = np.maximum(0, 1 - (source_u / width) ** 2)
    moved = lower + mouth.opening * inside**0.75  # where the lower lip goes
    jaw = np.maximum(0, 1 - (source_u / (width + CHEEKS * smoothstep((v - lower) / 1.2))) ** 2)
    chin = to_mouth(points[CHIN])[1]
    reach = max(1.2, 1.6 * chin) + mouth.opening / 2
    drop = np.minimum(mouth.opening * jaw, v - lower) * smoothstep(1 - (v - moved) / reach)
    gap = (v > lower) & (v < moved)
    source_v = np.where(v >= moved, v - drop, np.where(gap, lower, v))

    place = middle + half * np.stack([source_u, source_v], axis=-1) @ axes
    columns, rows = np.moveaxis(place.astype(np.float32), -1, 0)
    skin = cv2.remap(face, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    around = (np.abs(u) <= 1) & (np.abs(v) <= 1)
    dark = np.percentile(face[around], DARKEST, axis=0) * mouth.shade if around.any() else 0.0
    share = np.clip(np.minimum(v - lower, moved - v) * half / 0.7, 0, 1) * gap
    mixed = skin + (dark - skin) * share[..., None]
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)


def write_mouth_openings(
    records: Sequence[Record], store: Path, folder: Path, workers: int = 1
) -> list[Record]:
    """A copy of each training record with its mouth opened, in a way drawn by its name.

    Args:
        records: of pictures that a face fills; those of other subsets get no copy.
        store: folder of the store in which they are prepared.
        folder: where the copies are written, as PNG; one no older than its picture stays.
        workers: processes.

    Returns:
        The copies, `talking` set in `extra`; none of a picture in which no points are found.

    Raises:
        ValueError: the extra `landmarks` is not installed.
    """
    wanted = [record for record in records if record.subset == "training"]
    work = partial(_write_copy, store=store, folder=folder)
    copies = spread_work(work, wanted, workers)
    bar = tqdm(copies, total=len(wanted), unit="face", desc="opening mouths", disable=None)
    return [copy for copy in bar if copy is not None]


def _write_copy(record: Record, store: Path, folder: Path) -> Record | None:
    digest = hashlib.sha256(record.name.encode()).digest()
    path = folder / f"{Path(record.video).stem}.png"
    copy = replace(record, video=str(path), extra={**record.extra, "talking": "1"})
    if path.exists() and path.stat().st_mtime_ns >= Path(record.video).stat().st_mtime_ns:
        return copy
    face = _store(store).recording(record.key).faces[0]
    points = locate_in_face(load_landmarker(), face)
    if points is None:
        return None
    mouth = draw_mouth(np.random.default_rng(int.from_bytes(digest[:8], "big")))
    with replacing(path) as temporary:
        cv2.imwrite(str(temporary), open_mouth(face, points, mouth)[..., ::-1])
    return copy


@lru_cache(maxsize=1)
def load_landmarker() -> Landmarker:
    """What finds the points, loaded once a process.

    Raises:
        ValueError: the extra `landmarks` is not installed.
    """
    return build_landmarker("opening mouths")


@lru_cache(maxsize=1)
def _store(folder: Path) -> ClipStore:
    return ClipStore(folder)


def _edge(lip: np.ndarray, u: np.ndarray) -> np.ndarray:
    """How far across the mouth a lip's (5, 2) points lie at each place along it."""
    order = np.argsort(lip[:, 0])
    return np.interp(u, lip[order, 0], lip[order, 1])


def smoothstep(share: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, and smooth between."""
    held = np.clip(share, 0.0, 1.0)
    return held * held * (3 - 2 * held)
