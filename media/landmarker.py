"""68 points of a face in a picture, from the box that a detector drew.

The predictor is dlib's regression trees (Kazemi & Sullivan, CVPR 2014). It and its file, trained on
iBUG 300-W and so not for commercial use, come with the optional packages of the extra `landmarks`.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from media.landmarks import POINTS
from media.video import Picture, Square

INSTALL = "uv pip install -r pyproject.toml --extra landmarks"
# From MTCNN's box to the square that dlib's own detector would draw, on which its predictor was
# trained: medians over 340 pictures of 14 people, in whom the share is 0.72 to 0.86.
START_SHARE = 0.8  # its side, of the box's longer side
START_LOWERED = 0.055  # its centre below the box's, of the box's height
REACH = 1.25  # side of the region that the predictor sees, of the start square's
# Pixels of that region's side. The predictor rounds points to whole pixels, which at fewer loses
# accuracy and at the size of a small face half of it.
REGION_SIDE = 512
# Where the search begins in a picture that a face fills: left, top, right, bottom as shares of it.
FILLED = (0.14, 0.2, 0.86, 0.92)
FILLED_SIDE = 384  # pixels to which such a picture is enlarged
LOOKS = 3  # each begins from the square around the points of the one before
SETTLED = 0.05  # how far the last may move that square, as a share of the picture


class Landmarker(Protocol):
    """Finds the points of one face."""

    def locate(self, luma: np.ndarray, box: np.ndarray) -> np.ndarray:
        """(H, W) uint8 and (4,) x1, y1, x2, y2 -> (68, 2) float32, both in pixels of `luma`.

        The box is square and holds the face from the brows to the chin.
        """
        ...


def build_landmarker(needed_by: str = "the model") -> Landmarker:
    """The predictor of the extra `landmarks`.

    Args:
        needed_by: what asks for points, for the message where the extra is missing.

    Raises:
        ValueError: the extra is not installed, or its predictor cannot be read.
    """
    models = find_spec("face_recognition_models")  # not imported: that needs an old setuptools
    folders = None if models is None else models.submodule_search_locations
    if not folders or find_spec("dlib") is None:
        raise ValueError(
            f"{needed_by} needs landmarks, and the extra `landmarks` is not installed: {INSTALL}"
        )
    return DlibLandmarker(Path(folders[0]) / "models" / "shape_predictor_68_face_landmarks.dat")


class DlibLandmarker:
    """dlib's predictor of 68 points.

    Raises:
        ValueError: the file is not there, or is no predictor of 68 points.
    """

    def __init__(self, path: Path) -> None:
        import dlib  # here, as the package is optional

        self._rectangle = dlib.rectangle
        try:
            self._predictor = dlib.shape_predictor(str(path))
        except RuntimeError as error:
            raise ValueError(f"{path} is not a predictor of face points: {error}") from error

    def locate(self, luma: np.ndarray, box: np.ndarray) -> np.ndarray:
        left, top, right, bottom = np.rint(box).astype(int).tolist()
        found = self._predictor(luma, self._rectangle(left, top, right - 1, bottom - 1))
        parts = [(found.part(index).x, found.part(index).y) for index in range(POINTS)]
        return np.array(parts, dtype=np.float32)


def locate_points(landmarker: Landmarker, picture: Picture, box: np.ndarray) -> np.ndarray:
    """(68, 2) float32 in pixels of the displayed picture, from a relative (4,) box."""
    square = _region(box, *picture.size)
    margin = REGION_SIDE * (1 - 1 / REACH) / 2
    start = np.array([margin, margin, REGION_SIDE - margin, REGION_SIDE - margin], np.float32)
    found = landmarker.locate(picture.crop_luma(square, REGION_SIDE), start)
    step = square.side / REGION_SIDE  # displayed pixels to one of the region
    corner = np.array([square.left, square.top])
    return (corner + (found + 0.5) * step - 0.5).astype(np.float32)


def locate_in_face(landmarker: Landmarker, face: np.ndarray) -> np.ndarray | None:
    """Points of a face that fills a picture, as those of FER2013 do.

    Args:
        face: (H, H, 3) uint8 RGB.

    Returns:
        (68, 2) float32 as shares of the picture's sides; None where the search does not settle, as
        with hands before the face, or seen from the side.
    """
    luma = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    luma = cv2.resize(luma, (FILLED_SIDE, FILLED_SIDE), interpolation=cv2.INTER_CUBIC)
    border = FILLED_SIDE // 4
    luma = np.pad(luma, border, mode="edge")
    square = np.array(FILLED) * FILLED_SIDE + border
    for _ in range(LOOKS):
        points = landmarker.locate(luma, square)
        low, high = points.min(axis=0), points.max(axis=0)
        middle, half = (low + high) / 2, (high - low).max() / 2
        before, square = square, np.concatenate([middle - half, middle + half])
    if np.abs(square - before).max() > SETTLED * FILLED_SIDE:
        return None
    return ((points + 0.5 - border) / FILLED_SIDE).astype(np.float32)


def _region(box: np.ndarray, width: int, height: int) -> Square:
    """What the predictor sees, around the start square; it may reach beyond the picture."""
    x1, y1, x2, y2 = np.asarray(box, dtype=np.float64) * (width, height, width, height)
    side = max(2, round(REACH * START_SHARE * max(x2 - x1, y2 - y1)))
    left = (x1 + x2 - side) / 2
    top = (y1 + y2 - side) / 2 + START_LOWERED * (y2 - y1)
    return Square(round(left), round(top), side)
