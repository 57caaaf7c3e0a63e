"""Faces of a recording: detectors behind one interface, and the tracker that follows one person.

Boxes inside the tracker are relative to the displayed picture (0 to 1), so that they stay
comparable where a file changes its resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch

from media.clip import ClipConfig
from media.landmarker import Landmarker, locate_points
from media.mesh import FaceMesh, MeshReading
from media.mesh_tracker import MeshTracker
from media.mtcnn import Mtcnn
from media.people import Face, People, close_gap, has_face, match_between
from media.video import Picture, Square

RETRY_KEYS = 8  # misses in a row after which small faces are looked for at every 8th only
BATCH_KEYS = 4  # key pictures given to the detector at once
BATCH_BYTES = 96 * 2**20  # of pictures that wait for their faces
BATCH_SECONDS = 10.0  # that pictures wait at most
DETECTORS = ("mtcnn", "yunet", "whole")


class Detector(Protocol):
    """Finds faces in a batch of pictures of one size."""

    def detect(self, pictures: np.ndarray) -> list[np.ndarray]:
        """(B, H, W, 3) uint8 RGB -> for each an (F, 5) float32: x1, y1, x2, y2, score in pixels."""
        ...


def build_detector(name: str, device: str = "cpu", yunet_path: Path | None = None) -> Detector:
    """The detector of that name.

    Raises:
        ValueError: the name is unknown, or `yunet` has no model file.
    """
    if name == "mtcnn":
        return MtcnnDetector(device)
    if name == "yunet":
        return YunetDetector(yunet_path)
    if name == "whole":
        return WholeDetector()
    raise ValueError(f"unknown detector '{name}'; choose from {', '.join(DETECTORS)}")


class MtcnnDetector:
    """MTCNN (Zhang et al., 2016), see `media.mtcnn`."""

    def __init__(self, device: str = "cpu") -> None:
        self._cascade = Mtcnn(device)

    def detect(self, pictures: np.ndarray) -> list[np.ndarray]:
        height, width = pictures.shape[1:3]
        with _one_thread():
            found = self._cascade.find(pictures)
        return [_clamp(faces.boxes, width, height) for faces in found]


@contextmanager
def _one_thread() -> Iterator[None]:
    """MTCNN's steps are too small to share: on a busy machine threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class YunetDetector:
    """YuNet (Wu et al., 2023) by OpenCV; its model is a file that the user brings."""

    def __init__(self, path: Path | None) -> None:
        if path is None or not path.is_file():
            where = "no path was given" if path is None else f"{path} is not there"
            raise ValueError(
                f"detector 'yunet' needs its model file and {where}: get "
                "face_detection_yunet_2023mar.onnx from the OpenCV model zoo, or use 'mtcnn'"
            )
        try:
            self._network = cv2.FaceDetectorYN.create(str(path), "", (320, 320), 0.7)
        except cv2.error as error:
            raise ValueError(f"{path} is not a YuNet model that OpenCV can read") from error

    def detect(self, pictures: np.ndarray) -> list[np.ndarray]:
        height, width = pictures.shape[1:3]
        self._network.setInputSize((width, height))
        return [self._detect_one(picture, width, height) for picture in pictures]

    def _detect_one(self, picture: np.ndarray, width: int, height: int) -> np.ndarray:
        _, rows = self._network.detect(np.ascontiguousarray(picture[..., ::-1]))  # wants BGR
        if rows is None:
            return np.zeros((0, 5), np.float32)
        corner, extent, score = rows[:, :2], rows[:, 2:4], rows[:, 14:]
        return _clamp(np.hstack([corner, corner + extent, score]), width, height)


class WholeDetector:
    """For pictures that are cropped faces already: the box is the whole picture."""

    def detect(self, pictures: np.ndarray) -> list[np.ndarray]:
        height, width = pictures.shape[1:3]
        return [np.array([[0, 0, width, height, 1]], np.float32) for _ in pictures]


def _clamp(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """(F, 5) float32 inside the picture; boxes of which nothing lies inside are left out."""
    boxes = np.array(boxes, dtype=np.float32).reshape(-1, 5)
    boxes[:, [0, 2]] = boxes[:, [0, 2]].clip(0, width)
    boxes[:, [1, 3]] = boxes[:, [1, 3]].clip(0, height)
    return boxes[(boxes[:, 2] - boxes[:, 0] >= 1) & (boxes[:, 3] - boxes[:, 1] >= 1)]


def face_square(box: np.ndarray, margin: float, width: int, height: int) -> Square:
    """The square that is cut for a face: the one place that says how.

    Its side is the box's longer side and the margin, around the box's centre. Where it leaves the
    picture it is shifted inside; if it is larger than the picture, it reaches beyond on both sides.

    Args:
        box: (4,) relative x1, y1, x2, y2.
        margin: added to the longer side, as a share of it.
        width, height: of the displayed picture.
    """
    x1, y1, x2, y2 = np.asarray(box, dtype=np.float64) * (width, height, width, height)
    side = max(2, round(max(x2 - x1, y2 - y1) * (1.0 + margin)))
    left = _shift_inside(round((x1 + x2 - side) / 2), side, width)
    top = _shift_inside(round((y1 + y2 - side) / 2), side, height)
    return Square(left, top, side)


def _shift_inside(start: int, side: int, length: int) -> int:
    return min(max(start, min(0, length - side)), max(0, length - side))


@dataclass(frozen=True)
class FacePicture:
    """What became of one picture: (S, S, 3) uint8 RGB of the followed face, or None.

    `points` are its (68, 2) landmarks in pixels of the picture as displayed, where asked for, and
    `mesh` what was read of its mesh, where its turn was.
    """

    time: float
    face: np.ndarray | None
    face_id: int = -1
    points: np.ndarray | None = None
    mesh: FaceMesh | None = None


class FaceTracker:
    """Follows one face through pictures that come in presentation order.

    The detector sees every `detector_stride`-th picture, reduced to `detector_side`. Between two
    such key pictures a box is interpolated if both show the same face in nearly the same place;
    otherwise pictures between are looked at, down to neighbours. No box outlives its sighting.

    Args:
        detector: finds boxes.
        config: the constants.
        landmarker: finds points in the followed face's box, or reads its mesh; with None neither.
    """

    def __init__(
        self,
        detector: Detector,
        config: ClipConfig,
        landmarker: Landmarker | MeshReading | None = None,
    ) -> None:
        self._config = config
        self._detector = detector
        self._meshes: MeshTracker | None = None
        if isinstance(landmarker, MeshReading):
            self._meshes = MeshTracker(landmarker, config.mesh_rate)
            landmarker = landmarker.landmarker
        self._landmarker = landmarker
        self._people = People()
        self._anchor: tuple[Picture, Face | None] | None = None  # the last key picture
        self._pending: list[Picture] = []
        self._misses = 0

    def push(self, picture: Picture) -> list[FacePicture]:
        """Take a picture in. Returns those whose faces are now settled, in order."""
        done: list[FacePicture] = []
        if self._pending and picture.time - self._pending[0].time > BATCH_SECONDS:
            done = self.flush()
        self._pending.append(picture)
        stride = self._config.detector_stride
        strides = min(BATCH_KEYS, max(1, BATCH_BYTES // (picture.memory * stride)))
        waiting = len(self._pending) - (self._anchor is None)
        if waiting >= strides * stride:
            done += self.flush()
        return done

    def flush(self) -> list[FacePicture]:
        """Settle all pictures taken in so far, the last of them as a key picture."""
        if not self._pending:
            return []
        known = 0 if self._anchor is None else 1
        pictures = self._pending if self._anchor is None else [self._anchor[0], *self._pending]
        faces: list[Face | None] = [None] * len(pictures)
        if self._anchor is not None:
            faces[0] = self._anchor[1]
        keys = self._key_positions(len(pictures))
        self._follow_keys(pictures, faces, keys[known:])
        self._fill_between(pictures, faces, keys)
        self._anchor = (pictures[-1], faces[-1])
        self._pending = []
        return [self._crop(*pair) for pair in zip(pictures[known:], faces[known:], strict=True)]

    def _key_positions(self, count: int) -> list[int]:
        keys = list(range(0, count, self._config.detector_stride))
        return keys if keys[-1] == count - 1 else [*keys, count - 1]

    def _follow_keys(
        self, pictures: list[Picture], faces: list[Face | None], keys: list[int]
    ) -> None:
        found = self._look([pictures[key] for key in keys], self._retry_rule())
        for key, boxes in zip(keys, found, strict=True):
            faces[key] = self._people.follow(pictures[key].time, boxes)
            if has_face(boxes):
                self._misses = 0

    def _retry_rule(self) -> Callable[[], bool]:
        """Asked at each key picture without a face: is a small one looked for?

        Always, unless there was none for long; then only at every 8th.
        """
        eager = self._misses < RETRY_KEYS

        def may_retry() -> bool:
            self._misses += 1
            return eager or self._misses % RETRY_KEYS == 0

        return may_retry

    def _look(
        self, pictures: list[Picture], may_retry: Callable[[], bool] = lambda: True
    ) -> list[np.ndarray]:
        """(F, 5) relative boxes for each picture; where none, once more at twice the side."""
        side = self._config.detector_side
        found = self._detect(pictures, side)
        again = [
            index
            for index, boxes in enumerate(found)
            if not has_face(boxes) and max(pictures[index].size) > side and may_retry()
        ]
        closer = self._detect([pictures[index] for index in again], 2 * side)
        for index, boxes in zip(again, closer, strict=True):
            found[index] = boxes if has_face(boxes) else found[index]
        return found

    def _detect(self, pictures: list[Picture], side: int) -> list[np.ndarray]:
        reduced = [picture.reduce(side) for picture in pictures]
        found: list[np.ndarray] = []
        start = 0
        while start < len(reduced):  # runs of pictures of one size
            shape = reduced[start].shape
            end = start + 1
            while end < len(reduced) and reduced[end].shape == shape:
                end += 1
            scale = np.array([shape[1], shape[0], shape[1], shape[0], 1], np.float32)
            found += [
                boxes / scale for boxes in self._detector.detect(np.stack(reduced[start:end]))
            ]
            start = end
        return found

    def _fill_between(
        self, pictures: list[Picture], faces: list[Face | None], keys: list[int]
    ) -> None:
        """Faces of the pictures between keys: interpolated, or looked for by bisection."""
        gaps = list(pairwise(keys))
        times = [picture.time for picture in pictures]
        while gaps:
            open_gaps = [gap for gap in gaps if not close_gap(times, faces, *gap)]
            middles = [(left + right) // 2 for left, right in open_gaps]
            found = self._look([pictures[middle] for middle in middles])
            gaps = []
            for (left, right), middle, boxes in zip(open_gaps, middles, found, strict=True):
                faces[middle] = match_between(boxes, faces[left], faces[right])
                gaps += [(left, middle), (middle, right)]

    def _crop(self, picture: Picture, face: Face | None) -> FacePicture:
        if face is None:
            return FacePicture(picture.time, None)
        square = face_square(face.box, self._config.face_margin, *picture.size)
        cropped = picture.crop(square, self._config.face_size)
        mesh = None if self._meshes is None else self._meshes.read(picture, face)
        points = None if mesh is None else mesh.landmarks
        if self._landmarker is not None:
            points = locate_points(self._landmarker, picture, face.box)
        return FacePicture(picture.time, cropped, face.face_id, points, mesh)
