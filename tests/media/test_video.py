"""Pictures: colours, geometry as displayed, and times."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

from media.video import (
    Orientation,
    Picture,
    PictureTrack,
    Square,
    build_picture,
    orientation_from_matrix,
)
from tests.conftest import WriteMedia

COLOURS = np.array(
    [[200, 40, 40], [40, 180, 60], [50, 60, 210], [230, 230, 230], [20, 20, 20], [200, 180, 30]]
)
PIXEL_FORMATS = [
    *("yuv420p", "yuvj420p", "yuv422p", "yuv444p", "nv12", "yuv410p"),
    *("yuv420p10le", "yuv444p12le", "rgb24", "bgra", "gbrp", "rgb565le"),
]
BT709, BT601 = 1, 5
LIMITED, FULL = 1, 2


@pytest.fixture
def chart() -> np.ndarray:
    """(64, 96, 3) uint8 RGB: six patches of 32 pixels, all different."""
    patches = COLOURS.reshape(2, 3, 3).astype(np.uint8)
    return patches.repeat(32, axis=0).repeat(32, axis=1)


def encode_planes(rgb: np.ndarray, space: int, colour_range: int) -> av.VideoFrame:
    """A yuv444p frame by the formulas of ITU-R BT.601 and 709, written out independently."""
    red, blue = {BT709: (0.2126, 0.0722), BT601: (0.299, 0.114)}[space]
    r, g, b = (rgb[..., i] / 255.0 for i in range(3))
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)
    if colour_range == FULL:
        planes = [255 * y, 255 * u + 128, 255 * v + 128]
    else:
        planes = [219 * y + 16, 224 * u + 128, 224 * v + 128]
    values = np.stack([np.rint(p).clip(0, 255).astype(np.uint8) for p in planes])
    frame = av.VideoFrame.from_ndarray(values, format="yuv444p")
    frame.colorspace, frame.color_range = space, colour_range
    return frame


@pytest.mark.parametrize("space", [BT709, BT601])
@pytest.mark.parametrize("colour_range", [LIMITED, FULL])
def test_colours_follow_the_matrix_and_range_of_the_frame(
    chart: np.ndarray, space: int, colour_range: int
) -> None:
    picture = build_picture(encode_planes(chart, space, colour_range), 0.0)
    assert np.abs(picture.reduce(96).astype(int) - chart).max() <= 3


def test_large_pictures_of_unknown_colour_space_are_bt709_and_small_ones_bt601(
    chart: np.ndarray,
) -> None:
    large = np.tile(chart, (12, 2, 1))  # 768 rows
    for rgb, right, wrong in ((large, BT709, BT601), (chart, BT601, BT709)):
        for space, fits in ((right, True), (wrong, False)):
            frame = encode_planes(rgb, space, LIMITED)
            frame.colorspace = 2  # unspecified
            error = np.abs(build_picture(frame, 0.0).reduce(10**4).astype(int) - rgb).max()
            assert (error <= 3) == fits


@pytest.mark.parametrize("name", PIXEL_FORMATS)
def test_every_pixel_format_gives_the_same_colours(chart: np.ndarray, name: str) -> None:
    source = av.VideoFrame.from_ndarray(chart, format="rgb24")
    frame = source if name == "rgb24" else source.reformat(format=name)
    rgb = build_picture(frame, 0.0).reduce(96)
    centres = rgb[16::32, 16::32].reshape(-1, 3).astype(int)
    assert np.abs(centres - COLOURS).max() <= (10 if name == "rgb565le" else 6)


@pytest.mark.parametrize("name", ["gray", "gray16le", "ya8"])
def test_grey_pictures_are_grey(name: str) -> None:
    levels = np.arange(0, 256, 4, dtype=np.uint8)
    grey = np.repeat(levels[None], 64, axis=0)
    frame = av.VideoFrame.from_ndarray(grey, format="gray").reformat(format=name)
    rgb = build_picture(frame, 0.0).reduce(64).astype(int)
    assert np.abs(rgb - levels[None, :, None]).max() <= 3


def test_an_odd_size_loses_no_column(chart: np.ndarray) -> None:
    frame = av.VideoFrame.from_ndarray(chart[:63, :95], format="rgb24").reformat(format="yuv420p")
    picture = build_picture(frame, 0.0)
    assert picture.size == (95, 63)
    assert picture.reduce(95).shape == (63, 95, 3)
    assert picture.crop(Square(64, 32, 31), 31).shape == (31, 31, 3)


# Displayed as numpy would turn it, by (quarter turns counter-clockwise, then mirrored).
TURNS: dict[tuple[int, bool], Callable[[np.ndarray], np.ndarray]] = {
    (turn, mirror): (lambda p, t=turn, m=mirror: np.rot90(p, t)[:, :: -1 if m else 1])
    for turn in range(4)
    for mirror in (False, True)
}


@pytest.mark.parametrize(("turn", "mirror"), list(TURNS))
def test_a_turned_recording_is_shown_upright(
    tmp_path: Path, write_media: WriteMedia, chart: np.ndarray, turn: int, mirror: bool
) -> None:
    path = write_media(tmp_path / "a.mp4", [chart] * 3, rotation=(90.0 * turn, mirror))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        picture = PictureTrack(stream, 0.0).add(next(container.decode(stream)))
    assert picture is not None
    wanted = TURNS[turn, mirror](chart)
    shown = picture.reduce(96)
    assert shown.shape == wanted.shape
    assert picture.size == wanted.shape[1::-1]
    assert np.abs(shown[16::32, 16::32].astype(int) - wanted[16::32, 16::32]).max() < 12


@pytest.mark.parametrize("orientation", [Orientation(*flags) for flags in np.ndindex(2, 2, 2)])
def test_a_crop_is_what_is_displayed_there(chart: np.ndarray, orientation: Orientation) -> None:
    noise = np.random.default_rng(1).integers(0, 60, chart.shape)
    frame = encode_planes(np.clip(chart + noise, 0, 255), BT601, FULL)
    picture = build_picture(frame, 0.0, orientation=orientation)
    shown = picture.reduce(96)
    for left, top, side in ((0, 0, 32), (10, 20, 30), (24, 2, 40)):
        crop = picture.crop(Square(left, top, side), side)
        assert np.array_equal(crop, shown[top : top + side, left : left + side])


def test_a_square_beyond_the_picture_repeats_its_border(chart: np.ndarray) -> None:
    picture = build_picture(encode_planes(chart, BT601, FULL), 0.0)
    crop = picture.crop(Square(-10, -20, 104), 104)
    wanted = np.pad(picture.reduce(96), ((20, 20), (10, 0), (0, 0)), mode="edge")[:, :104]
    assert np.array_equal(crop, wanted)


def test_pixels_that_are_not_square_are_stretched_for_display(chart: np.ndarray) -> None:
    picture = build_picture(encode_planes(chart, BT601, FULL), 0.0, aspect=2.0)
    assert picture.size == (192, 64)
    assert picture.reduce(192).shape == (64, 192, 3)
    crop = picture.crop(Square(128, 0, 64), 64)  # the third column of patches, twice as wide
    assert np.abs(crop[16, 32].astype(int) - COLOURS[2]).max() <= 3
    assert np.abs(crop[16, 4].astype(int) - COLOURS[2]).max() <= 3


def test_the_display_matrix_is_read_as_the_standard_says() -> None:
    one = 1 << 16
    quarter_clockwise = (0, one, 0, -one, 0, 0, 0, 0, 1 << 30)  # what a phone held upright writes
    assert orientation_from_matrix(quarter_clockwise) == Orientation(True, True, False)
    picture = Picture(0.0, (np.arange(8, dtype=np.uint8).reshape(2, 4),), np.ones((3, 2)))
    assert picture.size == (4, 2)


def stamped(pts: list[int | None], duration: int = 1) -> PictureTrack:
    """A track, at 1/25 s a tick, that was given frames of those times; `.times` is what it made."""
    stream: Any = SimpleNamespace(average_rate=25, sample_aspect_ratio=None)
    track: Any = PictureTrack(stream, origin=0.0)
    track.times = []
    for value in pts:
        frame = av.VideoFrame(16, 16, "yuv420p")
        frame.time_base, frame.pts, frame.duration = Fraction(1, 25), value, duration
        picture = track.add(frame)
        track.times += [] if picture is None else [round(picture.time, 6)]
    return track


def test_a_picture_without_a_time_follows_the_one_before() -> None:
    assert stamped([0, 1, None, None, 4]).times == [0.0, 0.04, 0.08, 0.12, 0.16]


def test_a_picture_not_later_than_the_one_before_is_left_out() -> None:
    assert stamped([0, 2, 2, 1, 3, -5]).times == [0.0, 0.08, 0.12]


def test_the_end_is_where_the_last_picture_stops_being_shown() -> None:
    assert stamped([0, 5], duration=3).end == pytest.approx(0.32)
    assert stamped([0, 5], duration=0).end == pytest.approx(0.24)  # by the average rate


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_its_exif_data_say(
    tmp_path: Path, chart: np.ndarray, orientation: int, suffix: str
) -> None:
    image = Image.fromarray(chart)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"a.{suffix}", exif=exif, quality=95)
    with av.open(str(tmp_path / f"a.{suffix}")) as container:
        (stream,) = container.streams.video
        (frame,) = container.decode(stream)
        picture = PictureTrack(stream, 0.0).add(frame)
    assert picture is not None
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / f"a.{suffix}")))
    shown = picture.reduce(max(expected.shape))
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).mean() < 8
