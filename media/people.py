"""Who is who: faces linked over time into identities, and the choice of the one to follow.

Boxes are relative to the displayed picture (0 to 1), so that they stay comparable where a file
changes its resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LINK_IOU = 0.15  # boxes that overlap as much are the same face; small ones move fast
SAME_BOX_IOU = 0.6  # key frames whose boxes overlap less are not interpolated but bisected
FORGET_SECONDS = 1.0  # a face not seen for so long gets a new identity
START_SCORE = 0.9  # a new face must be this sure; one that is followed may be less
SWITCH_RATIO = 1.5  # another face must weigh this much more to be followed instead
TAKE_OVER_AREA = 0.25  # size of a new face, against the lost one's, that takes over at once
WEIGHT_SECONDS = 3.0  # time constant of area x time


@dataclass(frozen=True)
class Face:
    """A face in one picture: (4,) relative box, and who it is."""

    box: np.ndarray
    face_id: int


class People:
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
            overlap = iou(boxes[:, :4], np.stack([person.box for person in self._known]))
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


def has_face(boxes: np.ndarray) -> bool:
    return bool((boxes[:, 4] >= START_SCORE).any())


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(F, 4) and (G, 4) boxes -> (F, G) intersection over union."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    return shared / (_areas(a)[:, None] + _areas(b)[None] - shared).clip(1e-12)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:4] - boxes[:, :2]).clip(0).prod(axis=1)


def close_gap(times: list[float], faces: list[Face | None], left: int, right: int) -> bool:
    """Settle the frames between two that are known; false where another look is needed."""
    first, last = faces[left], faces[right]
    if right - left < 2 or (first is None and last is None):
        return True
    if first is None or last is None or first.face_id != last.face_id:
        return False
    if iou(first.box[None], last.box[None])[0, 0] < SAME_BOX_IOU:
        return False
    span = times[right] - times[left]
    for index in range(left + 1, right):
        share = (times[index] - times[left]) / span
        box = first.box + np.float32(share) * (last.box - first.box)
        faces[index] = Face(box, first.face_id)
    return True


def match_between(boxes: np.ndarray, first: Face | None, last: Face | None) -> Face | None:
    """Of the boxes in a middle frame, the one that is the face before, or the face after it."""
    around = [face for face in (first, last) if face is not None]
    if first is not None and last is not None and first.face_id == last.face_id:
        around.append(Face((first.box + last.box) / 2, first.face_id))
    if not len(boxes):
        return None
    overlap = iou(boxes[:, :4], np.stack([face.box for face in around]))
    found, side = np.unravel_index(overlap.argmax(), overlap.shape)
    if overlap[found, side] < LINK_IOU:
        return None
    return Face(boxes[found, :4], around[side].face_id)
