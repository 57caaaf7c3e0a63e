"""The mesh of a face: 478 points, 52 blendshapes and the head's pose.

These are the networks of MediaPipe's face landmarker (Google, Apache License 2.0; Kartynnik et al.,
Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs, 2019; Grishchenko et al.,
Attention Mesh, 2020), run without MediaPipe. What a network sees, and the order of what it gives,
follow MediaPipe's sources (face_landmarks_detector_graph.cc, face_blendshapes_graph.cc).
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from media.blendshapes import BLENDSHAPES
from media.errors import MediaError
from media.landmarks import LEFT_CORNERS, RIGHT_CORNERS
from media.video import warp

if TYPE_CHECKING:
    from media.landmarker import Landmarker

WEIGHTS = Path(__file__).parent / "weights" / "face_landmarker.task"
OFFSETS = WEIGHTS.with_name("landmark_offsets.csv")  # of the 68 points, in eye distances
WEIGHTS_SHA256 = "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"
MESH_POINTS = 478
SIDE = 256  # pixels of the square that the mesh network sees
REGION_SCALE = 1.5  # side of that square, of the longer side of the points' extent
BOX_LOWERED = 0.067  # its first centre, below that of a detector's box, of the longer side
BOX_LOOKS = 2  # from a box: the second sees the region of the first's points
# The same where a face fills a picture. Of 250 pictures of FER2013 one look finds 84 % and a third
# 91 %, at any start; from this one the scores settle soonest.
STILL_SCALE, STILL_LOWERED, STILL_LOOKS = 1.25, 0.05, 3
PRESENT = 0.5  # presence at and above which there is a face
LEFT_EYE, RIGHT_EYE = 33, 263  # outer corners, left and right in the frame: they are made level
# Points that the head's axes are drawn through: mirrored pairs, and ends of the midline.
SIDES = np.array([[33, 133, 127, 234, 54, 93], [263, 362, 356, 454, 284, 323]])
UPPER, LOWER = np.array([10, 67, 297, 54, 284]), np.array([2, 94, 93, 323])
# Radians from that line to the head's own: so that the median pitch of 114 people who are seen in
# press photographs is 0.
REST_TILT = -0.234
# Points that the blendshape network reads.
# fmt: off
BLENDSHAPE_POINTS = np.array([
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65,
    66, 67, 70, 78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136,
    144, 145, 146, 148, 149, 150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172,
    173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283,
    284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318, 321, 323, 324,
    332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385,
    386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472,
    473, 474, 475, 476, 477,
])
# Which of the 478 stand for the 68 points of `media.landmarks`: jaw, brows, nose, eyes, lips.
LANDMARKS = np.array([
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
])
# fmt: on


@dataclass(frozen=True)
class Region:
    """A square that may be rotated: its centre and side in pixels, clockwise angle in radians."""

    x: float
    y: float
    side: float
    angle: float = 0.0

    def turn(self) -> np.ndarray:
        """(2, 3), from pixel indices of the square as the network sees it to those of the frame."""
        step = self.side / SIDE
        cosine, sine = step * math.cos(self.angle), step * math.sin(self.angle)
        turned = np.array([[cosine, -sine], [sine, cosine]])
        corner = np.array([self.x, self.y]) - turned.sum(axis=1) * SIDE / 2
        return np.column_stack([turned, corner])


@dataclass(frozen=True)
class FaceMesh:
    """What is read in one face.

    Args:
        points: (478, 3) float32: x to the right and y down in pixels of the displayed frame, z away
            from the camera on the same scale.
        blendshapes: (52,) float32 scores from 0 to 1, in the order of `BLENDSHAPES`.
        head_pose: (3,) float32 radians; see `head_pose`.
        presence: 0 to 1, how sure the network is that there is a face.
    """

    points: np.ndarray
    blendshapes: np.ndarray
    head_pose: np.ndarray
    presence: float

    @property
    def landmarks(self) -> np.ndarray:
        """(68, 2) float32 in pixels: where dlib's predictor, as in published tracks, puts them.

        Those of the points that stand for iBUG's, and what the two differ by on average.
        """
        points = self.points[LANDMARKS, :2]
        eyes = (points[list(corners)].mean(axis=0) for corners in (LEFT_CORNERS, RIGHT_CORNERS))
        left, right = eyes
        along, down = right - left
        turned = np.array([[along, -down], [down, along]])
        return (points + _read_offsets() @ turned.T).astype(np.float32)


# Gives (side, side, 3) uint8 RGB of a rotated square, as `Picture.crop_turned` does.
Cut = Callable[[np.ndarray, int], np.ndarray]


class MeshReader:
    """Runs the networks, with one thread.

    Raises:
        MediaError: the weights are not those that this version knows.
    """

    def __init__(self, weights: Path = WEIGHTS) -> None:
        networks = _read_networks(weights)
        self._mesh = _Network(networks["face_landmarks_detector.tflite"])
        self._blendshapes = _Network(networks["face_blendshapes.tflite"])

    def locate(self, cut: Cut, box: np.ndarray) -> FaceMesh | None:
        """The face in a detector's box, None where there is none.

        Args:
            cut: of the frame.
            box: (4,) x1, y1, x2, y2 in pixels, from the hairline to the chin, as MTCNN draws it.
        """
        return self._refine(cut, region_of_box(box), BOX_LOOKS)

    def track(self, cut: Cut, region: Region) -> FaceMesh | None:
        """The face in a region known from an earlier mesh, None where there is none."""
        return self._refine(cut, region, 1)

    def read_still(self, face: np.ndarray) -> FaceMesh | None:
        """The face that fills a picture, as those of FER2013 do; None where there is none.

        Args:
            face: (H, W, 3) uint8 RGB of any size.
        """
        height, width = face.shape[:2]
        return self.locate_filled(partial(warp, face), width, height)

    def locate_filled(self, cut: Cut, width: int, height: int) -> FaceMesh | None:
        """The face that fills a frame of that size; None where there is none."""
        side = max(height, width)
        region = Region(width / 2, height / 2 + STILL_LOWERED * side, STILL_SCALE * side)
        return self._refine(cut, region, STILL_LOOKS)

    def _refine(self, cut: Cut, region: Region, looks: int) -> FaceMesh | None:
        """The mesh of the last of some looks, each in the region of the points before."""
        for _ in range(looks):
            points, presence = self._look(cut, region)
            region = region_of_points(points)
        if presence < PRESENT:
            return None
        scores = self._blendshapes.run(points[BLENDSHAPE_POINTS, :2])[0].reshape(len(BLENDSHAPES))
        return FaceMesh(points, scores, head_pose(points), presence)

    def _look(self, cut: Cut, region: Region) -> tuple[np.ndarray, float]:
        """(478, 3) points and presence, as the network sees them in one region."""
        turn = region.turn()
        seen = cut(turn, SIDE).astype(np.float32) / np.float32(255.0)
        coordinates, score = self._mesh.run(seen)[:2]
        presence = 1 / (1 + math.exp(-score.item()))
        found = coordinates.reshape(MESH_POINTS, 3)
        flat = found[:, :2] @ turn[:, :2].T + turn[:, 2]
        depth = found[:, 2:] * (region.side / SIDE)
        return np.hstack([flat, depth]).astype(np.float32), presence


@dataclass(frozen=True)
class MeshReading:
    """How the followed face is read beside its picture.

    Args:
        reader: of the mesh.
        landmarker: finds the 68 points; with None they are read off the mesh.
        filled: whether faces fill their frames, as those of cropped faces do.
    """

    reader: MeshReader
    landmarker: Landmarker | None = None
    filled: bool = False


def build_mesh_reading(filled: bool = False, landmarker: Landmarker | None = None) -> MeshReading:
    """With the networks that come with the project.

    Raises:
        MediaError: their weights cannot be read.
    """
    return MeshReading(MeshReader(), landmarker, filled)


def region_of_box(box: np.ndarray) -> Region:
    """Where to look first in a detector's box."""
    x1, y1, x2, y2 = (float(value) for value in box)
    longer = max(x2 - x1, y2 - y1)
    return Region((x1 + x2) / 2, (y1 + y2) / 2 + BOX_LOWERED * longer, REGION_SCALE * longer)


def region_of_points(points: np.ndarray) -> Region:
    """Where MediaPipe looks for the face again: around its points, its eyes level."""
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    x, y = (low + high) / 2
    along = points[RIGHT_EYE] - points[LEFT_EYE]
    angle = math.atan2(along[1], along[0])
    return Region(float(x), float(y), REGION_SCALE * float((high - low).max()), angle)


def head_pose(points: np.ndarray) -> np.ndarray:
    """(3,) float32 radians of (..., 3) points: yaw, pitch and roll.

    Yaw is positive where the face looks to the right of the frame, pitch where it looks up, roll
    where the head leans clockwise as displayed. A head is turned by roll first, then pitch, then
    yaw. Its axes are the mean line between points that mirror each other, and, made square to it,
    the line from the forehead down to the base of the nose: parts that no expression moves much.
    """
    points = points.astype(np.float64)
    across = (points[SIDES[1]] - points[SIDES[0]]).sum(axis=0)
    across /= np.linalg.norm(across)
    down = points[LOWER].mean(axis=0) - points[UPPER].mean(axis=0)
    down -= (down @ across) * across
    down /= np.linalg.norm(down)
    away = np.cross(across, down)
    cosine, sine = math.cos(REST_TILT), math.sin(REST_TILT)
    down, away = cosine * down + sine * away, cosine * away - sine * down
    yaw = math.atan2(-away[0], away[2])
    pitch = math.asin(np.clip(away[1], -1.0, 1.0))
    roll = math.atan2(across[1], down[1])
    return np.array([yaw, pitch, roll], dtype=np.float32)


class _Network:
    """One TensorFlow Lite network."""

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert.interpreter import Interpreter  # here, as it is needed for meshes only

        with _without_notice():
            self._interpreter = Interpreter(model_content=content, num_threads=1)
            self._interpreter.allocate_tensors()
        self._input: dict[str, Any] = self._interpreter.get_input_details()[0]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]
        self._lock = Lock()  # the interpreter has one set of tensors for all who run it

    def run(self, values: np.ndarray) -> list[np.ndarray]:
        shaped = values.astype(np.float32).reshape(self._input["shape"])
        with self._lock:
            self._interpreter.set_tensor(self._input["index"], shaped)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(index) for index in self._outputs]


@contextmanager
def _without_notice() -> Iterator[None]:
    """Keep the runtime's line about its choice of kernels, which nothing turns off, off stderr."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@lru_cache(maxsize=1)
def _read_offsets() -> np.ndarray:
    """(68, 2): see `benchmarks/landmark_offsets.py`."""
    return np.loadtxt(OFFSETS, delimiter=",", skiprows=1)


def _read_networks(path: Path) -> dict[str, bytes]:
    """The files in the bundle, by name."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MediaError(f"{path}: the weights of the face mesh cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != WEIGHTS_SHA256:
        raise MediaError(
            f"{path}: not the weights of the face mesh that this version knows; "
            "get the file from the repository again"
        )
    with zipfile.ZipFile(io.BytesIO(content)) as bundle:
        return {name: bundle.read(name) for name in bundle.namelist()}
