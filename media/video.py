"""Pictures of a recording: presentation times, geometry as displayed, RGB of what is needed.

Decoded pictures stay in their planes; only a reduced picture or a face's region becomes RGB.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import av
import cv2
import numpy as np
from av.sidedata.sidedata import SideDataContainer
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import ColorRange, Colorspace

from media.audio import MOST_GAP

DEFAULT_RATE = 25.0  # pictures per second, where a file tells neither rate nor durations
_DIRECT_FORMATS = {
    "gray",
    "nv12",
    "yuv420p",
    "yuv422p",
    "yuv444p",
    "yuvj420p",
    "yuvj422p",
    "yuvj444p",
}
# Weights of red and blue in luma, by AVColorSpace (ITU-T H.273, table 4).
_LUMA_WEIGHTS = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601, 625 lines
    6: (0.299, 0.114),  # BT.601, 525 lines
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020
    10: (0.2627, 0.0593),
}
_BT709, _BT601 = 1, 5
_FULL_RANGE, _LIMITED_RANGE = 2, 1
_SIDE_DATA_KINDS = 64  # of AVFrameSideDataType, with room for those to come


@dataclass(frozen=True)
class Orientation:
    """How a stored picture is turned for display: transposed first, then mirrored."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False


@dataclass(frozen=True)
class Square:
    """A square of the displayed picture, in whole pixels. It may reach beyond the picture."""

    left: int
    top: int
    side: int


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Args:
        time: presentation time in seconds, from the start of the recording.
        planes: luma (H, W) and, if there is colour, chroma planes (h, w) or one (h, w, 2); uint8
            views on the decoder's memory.
        matrix: (3, 2 or 4) float32, from the planes' values and 1 to RGB.
        aspect: width of a stored pixel over its height.
        orientation: how it is turned for display.
    """

    time: float
    planes: tuple[np.ndarray, ...]
    matrix: np.ndarray
    aspect: float = 1.0
    orientation: Orientation = Orientation()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as displayed, in square pixels."""
        height, width = self.planes[0].shape
        width = max(1, round(width * self.aspect))
        return (height, width) if self.orientation.transpose else (width, height)

    @property
    def memory(self) -> int:
        """Bytes that the planes take."""
        return sum(plane.size for plane in self.planes)

    def reduce(self, side: int) -> np.ndarray:
        """(h, w, 3) uint8 RGB as displayed, the longer side at most `side`."""
        width, height = self.size
        scale = min(1.0, side / max(width, height))
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        stored = (height, width) if self.orientation.transpose else (width, height)
        return self._to_rgb([_resize(plane, stored) for plane in self.planes])

    def crop(self, square: Square, side: int) -> np.ndarray:
        """(side, side, 3) uint8 RGB of a displayed square; its border repeats beyond the picture.

        The square is rounded to whole chroma samples.
        """
        left, top, right, bottom = self._stored_region(square)
        height, width = self.planes[0].shape
        regions = []
        for plane in self.planes:
            step_x, step_y = round(width / plane.shape[1]), round(height / plane.shape[0])
            region = (left // step_x, top // step_y, right // step_x, bottom // step_y)
            regions.append(_resize(_cut_region(plane, region), (side, side)))
        return self._to_rgb(regions)

    def crop_luma(self, square: Square, side: int) -> np.ndarray:
        """(side, side) uint8, 0 black to 255 white, of exactly a displayed square.

        It is interpolated linearly; the border repeats beyond the picture.
        """
        step = square.side / side
        x = np.array([step, 0.0, square.left + (step - 1) / 2])
        y = np.array([0.0, step, square.top + (step - 1) / 2])
        region = warp(self.planes[0], self._to_stored(np.stack([x, y])), side)
        red = self.matrix[0].astype(float)  # of grey, whose chroma is 128, as of any other
        black = red[1:-1].sum() * 128 + red[-1]
        return cv2.convertScaleAbs(region, alpha=red[0], beta=black)

    def crop_turned(self, turn: np.ndarray, side: int) -> np.ndarray:
        """(side, side, 3) uint8 RGB of any square, also a rotated one, interpolated linearly.

        The border repeats beyond the frame.

        Args:
            turn: (2, 3), from pixel indices of the result to pixel indices as displayed.
            side: of the result, in pixels.
        """
        stored = self._to_stored(turn)
        height, width = self.planes[0].shape
        regions = []
        for plane in self.planes:
            shrink = np.array([[plane.shape[1] / width], [plane.shape[0] / height]])
            inside = (
                stored * shrink
            )  # of subsampled chroma, whose samples lie between those of luma
            inside[:, 2:] += (shrink - 1) / 2
            regions.append(warp(plane, inside, side))
        stacked = regions[0] if len(regions) == 1 else np.dstack(regions)
        return cv2.transform(stacked, self.matrix)

    def _to_stored(self, displayed: np.ndarray) -> np.ndarray:
        """(2, 3) to pixel indices as stored, from such a matrix to those as displayed."""
        width, height = self.size
        x, y = displayed
        x = np.array([0.0, 0.0, width - 1]) - x if self.orientation.flip_x else x
        y = np.array([0.0, 0.0, height - 1]) - y if self.orientation.flip_y else y
        if self.orientation.transpose:
            x, y, width = y, x, height
        squeeze = self.planes[0].shape[1] / width
        return np.stack([squeeze * x + [0.0, 0.0, (squeeze - 1) / 2], y])

    def _stored_region(self, square: Square) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in stored pixels, all even."""
        width, height = self.size
        x = width - square.left - square.side if self.orientation.flip_x else square.left
        y = height - square.top - square.side if self.orientation.flip_y else square.top
        if self.orientation.transpose:
            x, y = y, x
        columns = max(2, 2 * round(square.side / self.aspect / 2))
        rows = max(2, 2 * round(square.side / 2))
        left, top = 2 * round(x / self.aspect / 2), 2 * round(y / 2)
        return left, top, left + columns, top + rows

    def _to_rgb(self, planes: list[np.ndarray]) -> np.ndarray:
        stacked = planes[0] if len(planes) == 1 else np.dstack(planes)
        rgb = cv2.transform(stacked, self.matrix)
        if self.orientation.transpose:
            rgb = rgb.swapaxes(0, 1)
        rgb = rgb[:, ::-1] if self.orientation.flip_x else rgb
        rgb = rgb[::-1] if self.orientation.flip_y else rgb
        return np.ascontiguousarray(rgb)


class PictureTrack:
    """Gives decoded frames their times on the recording's time line.

    Args:
        stream: where the frames come from.
        origin: presentation time, in the file's seconds, that is time 0.
    """

    def __init__(self, stream: av.VideoStream, origin: float) -> None:
        self.end = 0.0  # seconds: where the last picture stops being shown
        self._origin = origin
        self._last = -float("inf")
        self._duration = 1.0 / float(stream.average_rate or DEFAULT_RATE)
        self._aspect = _pixel_aspect(stream.sample_aspect_ratio)
        self._orientations: dict[int, Orientation] = {}  # by the frame's rotation

    def add(self, frame: av.VideoFrame) -> Picture | None:
        """The frame as a picture; None if it is not later than the one before, or before time 0.

        Nor if it lies hours after the one before: then its time is damaged.

        A frame without a time of its own follows where the one before ends.
        """
        duration = self._duration
        time = self.end
        if frame.time_base is not None:
            if frame.duration:
                duration = float(frame.duration * frame.time_base)
            if frame.pts is not None:
                time = float(frame.pts * frame.time_base) - self._origin
        if time <= self._last or not 0 <= time <= self.end + MOST_GAP:
            return None
        self._last, self.end = time, time + duration
        if frame.rotation not in self._orientations:
            self._orientations[frame.rotation] = read_orientation(frame)
        return build_picture(frame, time, self._aspect, self._orientations[frame.rotation])


def build_picture(
    frame: av.VideoFrame,
    time: float,
    aspect: float = 1.0,
    orientation: Orientation = Orientation(),
) -> Picture:
    """Views on a frame's planes; unusual pixel formats are converted first."""
    space, full = _colour_of(frame)
    stored = frame if frame.format.name in _DIRECT_FORMATS else _to_planar(frame, space, full)
    planes = _plane_views(stored)
    matrix = _rgb_matrix(space, full)
    if len(planes) == 1:
        matrix = np.stack([matrix[:, 0], matrix @ np.array([0, 128, 128, 1], np.float32)], axis=1)
    return Picture(time, planes, matrix, aspect, orientation)


def _colour_of(frame: av.VideoFrame) -> tuple[int, bool]:
    """Colour space as in H.273, and whether values use the full range."""
    name = frame.format.name
    if frame.format.is_rgb or frame.format.has_palette:
        return _BT601, False  # what `_to_planar` makes of it
    space = int(frame.colorspace)
    if space not in _LUMA_WEIGHTS:
        space = _BT709 if frame.height >= 720 else _BT601
    declared = int(frame.color_range)
    grey = name.startswith(("gray", "ya"))
    full = declared == _FULL_RANGE or name.startswith("yuvj")
    return space, full or (grey and declared != _LIMITED_RANGE)


def _to_planar(frame: av.VideoFrame, space: int, full: bool) -> av.VideoFrame:
    colour = ColorRange.JPEG if full else ColorRange.MPEG
    if frame.format.is_rgb or frame.format.has_palette:
        return frame.reformat(
            format="yuv444p",
            dst_colorspace=Colorspace.ITU601,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
        )
    return frame.reformat(
        format="yuv420p",
        src_colorspace=space,
        dst_colorspace=space,
        src_color_range=colour,
        dst_color_range=colour,
    )


def _plane_views(frame: av.VideoFrame) -> tuple[np.ndarray, ...]:
    views = []
    for index, plane in enumerate(frame.planes):
        rows = np.frombuffer(cast("bytes", plane), dtype=np.uint8)
        rows = rows.reshape(plane.height, plane.line_size)
        if frame.format.name == "nv12" and index == 1:
            views.append(rows[:, : 2 * plane.width].reshape(plane.height, plane.width, 2))
        else:
            views.append(rows[:, : plane.width])
    return tuple(views)


def _rgb_matrix(space: int, full: bool) -> np.ndarray:
    """(3, 4) float32 from Y, U, V and 1, each in 0..255, to R, G, B in 0..255 (ITU-T H.273)."""
    red, blue = _LUMA_WEIGHTS[space]
    green = 1.0 - red - blue
    luma, chroma, black = (1.0, 1.0, 0.0) if full else (255 / 219, 255 / 224, 16.0)
    to_red, to_blue = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    gains = np.array(
        [
            [luma, 0.0, to_red],
            [luma, -to_blue * blue / green, -to_red * red / green],
            [luma, to_blue, 0.0],
        ]
    )
    offset = gains @ np.array([black, 128.0, 128.0])
    return np.hstack([gains, -offset[:, None]]).astype(np.float32)


def read_orientation(frame: av.VideoFrame) -> Orientation:
    """Of the frame's display matrix, to the nearest quarter turn.

    To be asked rarely: PyAV keeps a frame alive whose side data were read, until the next garbage
    collection.
    """
    side_data = cast("SideDataContainer", frame.side_data)
    data = side_data.get(SideDataType.DISPLAYMATRIX)
    return orientation_from_matrix(struct.unpack("=9i", bytes(data))) if data else Orientation()


def _name_side_data() -> None:
    """Name the kinds of side data that FFmpeg has and PyAV 18 does not know.

    EXIF data of photographs are one. PyAV refuses all side data of a frame that has such a kind,
    and with them the orientation.
    """
    known = SideDataType._value2member_map_
    for value in range(_SIDE_DATA_KINDS):
        if value not in known:
            kind: Any = object.__new__(SideDataType)
            kind._name_, kind._value_ = f"UNKNOWN_{value}", value
            known[value] = kind


_name_side_data()


def orientation_from_matrix(matrix: tuple[int, ...]) -> Orientation:
    """Orientation from a display matrix (a, b, u, c, d, v, x, y, w) of ISO/IEC 14496-12.

    A stored point (x, y) is displayed at (a x + c y, b x + d y).
    """
    a, b, _, c, d = matrix[:5]
    if abs(b) > abs(a):
        return Orientation(transpose=True, flip_x=c < 0, flip_y=b < 0)
    return Orientation(flip_x=a < 0, flip_y=d < 0)


def _pixel_aspect(ratio: Fraction | None) -> float:
    value = float(ratio) if ratio else 1.0
    return value if 0.1 < value < 10 else 1.0  # beyond, it is a broken header


def warp(plane: np.ndarray, inverse: np.ndarray, side: int) -> np.ndarray:
    """(side, side, ...) sampled linearly where a (2, 3) matrix leads; the border repeats."""
    return cv2.warpAffine(
        plane,
        inverse,
        (side, side),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _resize(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinks = size[0] <= plane.shape[1] and size[1] <= plane.shape[0]
    return cv2.resize(plane, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _cut_region(plane: np.ndarray, region: tuple[int, int, int, int]) -> np.ndarray:
    """Rows and columns of a plane; what lies outside repeats the border."""
    left, top, right, bottom = region
    height, width = plane.shape[:2]
    before_x, before_y = max(0, -left), max(0, -top)
    after_x, after_y = max(0, right - width), max(0, bottom - height)
    view = plane[max(0, top) : min(height, bottom), max(0, left) : min(width, right)]
    if not (before_x or before_y or after_x or after_y):
        return view
    border = cv2.BORDER_REPLICATE
    return cv2.copyMakeBorder(view, before_y, after_y, before_x, after_x, border)
