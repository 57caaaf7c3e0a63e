"""Faces of a recording: detectors behind one interface, and the tracker that follows one person.

Boxes inside the tracker are relative to the displayed picture (0 to 1), so that they stay
comparable where a file changes its resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from facenet_pytorch import MTCNN
from facenet_pytorch.models.utils.detect_face import detect_face

from media.clip import ClipConfig
from media.video import Picture, Square

SAME_BOX_IOU = 0.6  # key pictures whose boxes overlap less are not interpolated but bisected
LINK_IOU = 0.3  # detections that overlap as much are the same face
FORGET_SECONDS = 1.0  # a face not seen for so long gets a new identity
START_SCORE = 0.9  # a new face must be this sure; one that is followed may be less
SWITCH_RATIO = 1.5  # another face must weigh this much more to be followed instead
TAKE_OVER_AREA = 0.25  # size of a new face, against the lost one's, that takes over at once
WEIGHT_SECONDS = 3.0  # time constant of area x time
RETRY_KEYS = 8  # misses after which small faces are looked for at every 8th key picture only
BATCH_KEYS = 8  # key pictures given to the detector at once
BATCH_BYTES = 96 * 2**20  # of pictures that wait for their faces
BATCH_SECONDS = 10.0  # that pictures wait at most
MTCNN_THRESHOLDS = (0.6, 0.7, 0.7)
MTCNN_PYRAMID_FACTOR = 0.709
MTCNN_SMALLEST_FACE = 20  # pixels of the reduced picture
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
    """MTCNN (Zhang et al., 2016), weights from facenet-pytorch."""

    def __init__(self, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._networks = MTCNN(device=self._device)

    @torch.inference_mode()
    def detect(self, pictures: np.ndarray) -> list[np.ndarray]:
        height, width = pictures.shape[1:3]
        if min(height, width) <= MTCNN_SMALLEST_FACE:
            return [np.zeros((0, 5), np.float32) for _ in pictures]
        try:
            found = self._detect_faces(pictures)
        except (RuntimeError, ValueError) as error:
            if "non-empty list" not in str(error):
                raise
            if len(pictures) == 1:  # upstream's way to say that no candidate is left
                return [np.zeros((0, 5), np.float32)]
            return [self.detect(picture[None])[0] for picture in pictures]
        return [_clamp(boxes, width, height) for boxes in found]

    def _detect_faces(self, pictures: np.ndarray) -> np.ndarray:
        networks = self._networks
        boxes, _ = detect_face(
            pictures,
            MTCNN_SMALLEST_FACE,
            networks.pnet,
            networks.rnet,
            networks.onet,
            MTCNN_THRESHOLDS,
            MTCNN_PYRAMID_FACTOR,
            self._device,
        )
        return boxes


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
        boxes = rows[:, [0, 1, 2, 3, 14]]  # x, y, width, height, score
        boxes[:, 2:4] += boxes[:, :2]
        return _clamp(boxes, width, height)


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
class Face:
    """A face in one picture: (4,) relative box, and who it is."""

    box: np.ndarray
    face_id: int


@dataclass(frozen=True)
class FacePicture:
    """What became of one picture: (S, S, 3) uint8 RGB of the followed face, or None."""

    time: float
    face: np.ndarray | None
    face_id: int = -1


class FaceTracker:
    """Follows one face through pictures that come in presentation order.

    The detector sees every `detector_stride`-th picture, reduced to `detector_side`. Between two
    such key pictures a box is interpolated if both show the same face in nearly the same place;
    otherwise pictures between are looked at, down to neighbours. No box outlives its sighting.
    """

    def __init__(self, detector: Detector, config: ClipConfig) -> None:
        self._config = config
        self._detector = detector
        self._people = _People()
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
        found = self._look([pictures[key] for key in keys], self._may_retry)
        for key, boxes in zip(keys, found, strict=True):
            faces[key] = self._people.follow(pictures[key].time, boxes)
            if _has_face(boxes):
                self._misses = 0

    def _may_retry(self) -> bool:
        """Called for each key picture without a face: small ones are looked for ever more rarely."""
        self._misses += 1
        return self._misses <= RETRY_KEYS or self._misses % RETRY_KEYS == 0

    def _look(
        self, pictures: list[Picture], may_retry: Callable[[], bool] = lambda: True
    ) -> list[np.ndarray]:
        """(F, 5) relative boxes for each picture; where none, once more at twice the side."""
        side = self._config.detector_side
        found = self._detect(pictures, side)
        again = [
            index
            for index, boxes in enumerate(found)
            if not _has_face(boxes) and max(pictures[index].size) > side and may_retry()
        ]
        closer = self._detect([pictures[index] for index in again], 2 * side)
        for index, boxes in zip(again, closer, strict=True):
            found[index] = boxes if _has_face(boxes) else found[index]
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
        gaps = list(zip(keys, keys[1:], strict=False))
        while gaps:
            open_gaps = [gap for gap in gaps if not _close_gap(pictures, faces, *gap)]
            middles = [(left + right) // 2 for left, right in open_gaps]
            found = self._look([pictures[middle] for middle in middles])
            gaps = []
            for (left, right), middle, boxes in zip(open_gaps, middles, found, strict=True):
                faces[middle] = _match(boxes, faces[left], faces[right])
                gaps += [(left, middle), (middle, right)]

    def _crop(self, picture: Picture, face: Face | None) -> FacePicture:
        if face is None:
            return FacePicture(picture.time, None)
        square = face_square(face.box, self._config.face_margin, *picture.size)
        cropped = picture.crop(square, self._config.face_size)
        return FacePicture(picture.time, cropped, face.face_id)


def _has_face(boxes: np.ndarray) -> bool:
    return bool((boxes[:, 4] >= START_SCORE).any())


def _close_gap(pictures: list[Picture], faces: list[Face | None], left: int, right: int) -> bool:
    """Settle the pictures between two that are known; false where another look is needed."""
    first, last = faces[left], faces[right]
    if right - left < 2 or (first is None and last is None):
        return True
    if first is None or last is None or first.face_id != last.face_id:
        return False
    if _iou(first.box[None], last.box[None])[0, 0] < SAME_BOX_IOU:
        return False
    span = pictures[right].time - pictures[left].time
    for index in range(left + 1, right):
        share = (pictures[index].time - pictures[left].time) / span
        box = first.box + np.float32(share) * (last.box - first.box)
        faces[index] = Face(box, first.face_id)
    return True


def _match(boxes: np.ndarray, first: Face | None, last: Face | None) -> Face | None:
    """Of the boxes in a middle picture, the one that is the face before, or the face after it."""
    around = [face for face in (first, last) if face is not None]
    if first is not None and last is not None and first.face_id == last.face_id:
        around.append(Face((first.box + last.box) / 2, first.face_id))
    if not len(boxes):
        return None
    overlap = _iou(boxes[:, :4], np.stack([face.box for face in around]))
    found, side = np.unravel_index(overlap.argmax(), overlap.shape)
    if overlap[found, side] < LINK_IOU:
        return None
    return Face(boxes[found, :4], around[side].face_id)


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(F, 4) and (G, 4) boxes -> (F, G) intersection over union."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    return shared / (_areas(a)[:, None] + _areas(b)[None] - shared).clip(1e-12)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:4] - boxes[:, :2]).clip(0).prod(axis=1)


@dataclass(eq=False)
class _Person:
    """A face seen over time. `weight` is its area x time, of late."""

    face_id: int
    box: np.ndarray
    first_seen: float
    last_seen: float
    weight: float = 0.0

    @property
    def area(self) -> float:
        return float(_areas(self.box[None])[0])


class _People:
    """Links detections into identities and chooses which of them is followed."""

    def __init__(self) -> None:
        self._known: list[_Person] = []
        self._followed: _Person | None = None
        self._next_id = 0
        self._time = 0.0

    def follow(self, time: float, boxes: np.ndarray) -> Face | None:
        """Take the detections of a key picture in; the face to follow, or None."""
        elapsed = min(FORGET_SECONDS, max(time - self._time, 0.04))
        self._time = time
        self._known = [p for p in self._known if time - p.last_seen <= FORGET_SECONDS]
        visible = self._link(time, boxes)
        for person in self._known:
            person.weight *= float(np.exp(-elapsed / WEIGHT_SECONDS))
        for person in visible:
            person.weight += person.area * elapsed
        chosen = self._choose(visible)
        if chosen is None:
            return None
        self._followed = chosen
        return Face(chosen.box, chosen.face_id)

    def _link(self, time: float, boxes: np.ndarray) -> list[_Person]:
        """Persons seen in this picture: the best overlaps first, then new ones."""
        visible: list[_Person] = []
        free = set(range(len(boxes)))
        if self._known and len(boxes):
            overlap = _iou(boxes[:, :4], np.stack([person.box for person in self._known]))
            for flat in np.argsort(-overlap, axis=None, kind="stable"):
                index, place = np.unravel_index(flat, overlap.shape)
                person = self._known[place]
                if overlap[index, place] < LINK_IOU:
                    break
                if index in free and person not in visible:
                    free.remove(int(index))
                    person.box, person.last_seen = boxes[index, :4], time
                    visible.append(person)
        new = [boxes[index] for index in sorted(free) if boxes[index, 4] >= START_SCORE]
        return visible + [self._meet(time, box[:4]) for box in new]

    def _meet(self, time: float, box: np.ndarray) -> _Person:
        person = _Person(self._next_id, box, first_seen=time, last_seen=time)
        self._next_id += 1
        self._known.append(person)
        return person

    def _choose(self, visible: list[_Person]) -> _Person | None:
        """Stay with the followed face, unless another weighs clearly more or the scene is new."""
        followed = self._followed
        if followed is not None and followed not in self._known:
            followed = None
        if followed is not None and followed not in visible:
            lost, area = followed.last_seen, TAKE_OVER_AREA * followed.area
            visible = [p for p in visible if p.first_seen > lost and p.area >= area]
        heaviest = max(visible, key=lambda person: person.weight, default=None)
        if heaviest is None or followed is None or followed not in visible:
            return heaviest
        return heaviest if heaviest.weight > SWITCH_RATIO * followed.weight else followed
