"""The followed face's mesh through the frames of a recording, a few times a second."""

from __future__ import annotations

import numpy as np

from media.configuration import TIME_TOLERANCE
from media.mesh import FaceMesh, MeshReading, region_of_points
from media.people import Face, iou
from media.video import Picture

SAME_FACE_IOU = 0.3  # of the points' extent and the detector's box; below, the box is right
OLDEST_SECONDS = 0.5  # age of the last mesh whose region is still looked in


class MeshTracker:
    """Reads the mesh of the followed face at most so many times a second.

    Time is divided into steps of 1 / `rate` seconds from 0, and the first frame in each that shows
    the face is read. The region is that of the last mesh, as MediaPipe follows a face, while it is
    the same person's, not too old, and agrees with the detector's box; otherwise, and where there
    is no face in that region, it is made from the box.
    """

    def __init__(self, reading: MeshReading, rate: float) -> None:
        self._reader, self._filled = reading.reader, reading.filled
        self._rate = rate
        self._step = -1  # the last step in which a frame was read
        self._last: tuple[float, int, FaceMesh] | None = None  # time, whose, what

    def read(self, picture: Picture, face: Face) -> FaceMesh | None:
        """The mesh in this frame; None where it is not its turn, or there is no face."""
        step = int((picture.time + TIME_TOLERANCE) * self._rate)
        if step <= self._step:
            return None
        self._step = step
        mesh = self._locate(picture, face)
        self._last = None if mesh is None else (picture.time, face.face_id, mesh)
        return mesh

    def _locate(self, picture: Picture, face: Face) -> FaceMesh | None:
        width, height = picture.size
        if self._filled:
            return self._reader.locate_filled(picture.crop_turned, width, height)
        box = face.box * np.array([width, height, width, height], dtype=np.float32)
        known = self._known_mesh(picture.time, face.face_id, box)
        if known is not None:
            mesh = self._reader.track(picture.crop_turned, region_of_points(known.points))
            if mesh is not None and _overlap(mesh, box) >= SAME_FACE_IOU:
                return mesh
        return self._reader.locate(picture.crop_turned, box)

    def _known_mesh(self, time: float, face_id: int, box: np.ndarray) -> FaceMesh | None:
        """The last mesh, where its region is worth a look."""
        if self._last is None:
            return None
        then, whose, mesh = self._last
        if whose != face_id or time - then > OLDEST_SECONDS:
            return None
        return mesh if _overlap(mesh, box) >= SAME_FACE_IOU else None


def _overlap(mesh: FaceMesh, box: np.ndarray) -> float:
    """Intersection over union of the points' extent and a box, both in pixels."""
    points = mesh.points[:, :2]
    extent = np.concatenate([points.min(axis=0), points.max(axis=0)])
    return float(iou(extent[None], box[None])[0, 0])
