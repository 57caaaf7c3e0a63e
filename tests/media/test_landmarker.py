"""Points lie where the displayed picture shows them, and belong to the followed face."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest

import media.decoding
from datasets.landmarks import read_ravdess_archive
from media.clip import tile_windows
from media.configuration import ClipConfig
from media.faces import Detector, FaceTracker, build_detector
from media.landmarker import DlibLandmarker, Landmarker, build_landmarker, locate_points
from media.landmarks import MIRRORED, POINTS
from media.reading import read_recording, stream_clips
from media.recording import Recording
from media.video import Orientation, Picture, PictureTrack, build_picture
from tests.conftest import WriteMedia
from tests.media.test_faces import BlobDetector, draw

CONFIG = ClipConfig(face_size=32, window_seconds=0.5, pictures=5)
WHOLE = build_detector("whole")
ORIENTATIONS = [Orientation(*turns) for turns in product((False, True), repeat=3)]


class BoxLandmarker:
    """All points but two in the middle of the box; those two are its corners."""

    def locate(self, luma: np.ndarray, box: np.ndarray) -> np.ndarray:
        points = np.tile((box[:2] + box[2:] - 1) / 2, (POINTS, 1)).astype(np.float32)
        points[0], points[1] = box[:2] - 0.5, box[2:] - 0.5
        return points


class DotLandmarker:
    """All points in the middle of the bright dot."""

    def locate(self, luma: np.ndarray, box: np.ndarray) -> np.ndarray:
        assert luma.dtype == np.uint8
        return np.tile(middle_of_dot(luma), (POINTS, 1)).astype(np.float32)


def middle_of_dot(grey: np.ndarray) -> np.ndarray:
    weight = np.maximum(grey.astype(float) - 120, 0)
    rows, columns = np.indices(grey.shape)
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


def dotted(height: int = 120, width: int = 160) -> np.ndarray:
    """A dark picture with a bright dot in its left upper part."""
    picture = np.full((height, width, 3), 30, np.uint8)
    picture[30:42, 40:52] = 230
    return picture


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
@pytest.mark.parametrize("aspect", [1.0, 1.5, 0.8])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "gray"])
def test_points_are_in_pixels_of_the_picture_as_displayed(
    orientation: Orientation, aspect: float, pixel_format: str
) -> None:
    frame = av.VideoFrame.from_ndarray(dotted(), format="rgb24").reformat(format=pixel_format)
    picture = build_picture(frame, 0.0, aspect, orientation)
    x, y, width, height = 46 * aspect, 36.0, 160 * aspect, 120.0
    if orientation.transpose:
        x, y, width, height = y, x, height, width
    x = width - x if orientation.flip_x else x
    y = height - y if orientation.flip_y else y
    assert middle_of_dot(picture.reduce(1000)[..., 1]) + 0.5 == pytest.approx([x, y], abs=0.2)
    for box in ((0, 0, 1, 1), (0.1, 0.1, 0.9, 0.9)):
        points = locate_points(DotLandmarker(), picture, np.array(box, np.float32))
        assert points.shape == (POINTS, 2)
        assert points.dtype == np.float32
        assert points[5] + 0.5 == pytest.approx([x, y], abs=0.05)


@pytest.mark.parametrize("values", ["limited", "full"])
def test_the_predictor_sees_black_as_0_and_white_as_255(values: str) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, 32:] = 255
    frame = av.VideoFrame.from_ndarray(stripes, format="rgb24")
    frame = frame.reformat(format="yuv420p" if values == "limited" else "gray")
    seen: list[np.ndarray] = []

    class Watcher(BoxLandmarker):
        def locate(self, luma: np.ndarray, box: np.ndarray) -> np.ndarray:
            seen.append(luma)
            return super().locate(luma, box)

    locate_points(Watcher(), build_picture(frame, 0.0), np.array([0, 0, 1, 1], np.float32))
    assert np.percentile(seen[0], [10, 90]) == pytest.approx([0, 255], abs=2)


@pytest.mark.parametrize(("left", "top"), [(100, 60), (-30, 20), (260, 190)])
def test_the_predictor_starts_where_its_own_detector_would_draw(left: int, top: int) -> None:
    box = np.array([left, top, left + 70, top + 100]) / (320, 240, 320, 240)
    points = locate_points(BoxLandmarker(), draw(0, None), box.astype(np.float32))
    assert points[1] - points[0] == pytest.approx([80, 80], abs=0.5)
    assert points[5] == pytest.approx([left + 34.5, top + 49.5 + 5.5], abs=1)


@pytest.mark.parametrize("turn", [0, 1, 2, 3])
def test_points_of_a_turned_file_are_where_it_is_displayed(
    tmp_path: Path, write_media: WriteMedia, turn: int
) -> None:
    path = write_media(tmp_path / "a.mp4", [dotted()] * 3, rotation=(90.0 * turn, False))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        picture = PictureTrack(stream, 0.0).add(next(container.decode(stream)))
        assert picture is not None
        expected = middle_of_dot(picture.reduce(1000)[..., 1])
    recording = read_recording(path, CONFIG, WHOLE, landmarker=DotLandmarker())
    assert recording.landmarks.points.shape == (3, POINTS, 2)
    assert recording.landmarks.points[0, 0] == pytest.approx(expected, abs=0.3)
    assert recording.landmarks.points[0, 0] != pytest.approx([45.5, 35.5], abs=5) or turn == 0


def test_points_follow_the_face_and_carry_its_identity() -> None:
    def left(index: int) -> int:
        return 20 + index if index < 42 else 200

    pictures = [draw(i, (left(i), 80, 60) if i < 70 else None) for i in range(80)]
    tracker = FaceTracker(BlobDetector(), replace(CONFIG, detector_stride=5), BoxLandmarker())
    faces = [done for picture in pictures for done in tracker.push(picture)] + tracker.flush()
    assert [face.points is not None for face in faces] == [i < 70 for i in range(80)]
    shown = [face for face in faces if face.points is not None]
    assert [face.face_id for face in shown] == [int(i >= 42) for i in range(70)]
    xs = [float(face.points[5, 0]) for face in shown if face.points is not None]
    assert xs == pytest.approx([left(i) + 29.5 for i in range(70)], abs=1)


@pytest.fixture(scope="module")
def blob_file(tmp_path_factory: pytest.TempPathFactory, write_media: WriteMedia) -> Path:
    """2.4 s of a red square that moves, is away from 0.8 to 1.4 s, and comes back elsewhere."""
    path = tmp_path_factory.mktemp("landmarker") / "a.mp4"
    return write_media(path, [_blob_picture(i) for i in range(60)])


def _blob_picture(index: int) -> np.ndarray:
    picture = np.full((240, 320, 3), 100, np.uint8)
    if not 20 <= index < 35:
        left = 40 + 2 * index
        picture[80:140, left : left + 60] = (230, 30, 30)
    return picture


def test_each_point_has_the_time_and_identity_of_its_face(blob_file: Path) -> None:
    recording = read_recording(blob_file, CONFIG, BlobDetector(), landmarker=BoxLandmarker())
    assert 40 <= len(recording.face_times) <= 45
    assert np.array_equal(recording.landmarks.times, recording.face_times)
    assert np.array_equal(recording.landmarks.ids, recording.face_ids)


@pytest.mark.parametrize("hop", [0.5, 0.3])
@pytest.mark.parametrize("block_seconds", [0.01, 1.0])
def test_streamed_points_equal_points_cut_from_the_whole(
    talking_face: Path, monkeypatch: pytest.MonkeyPatch, hop: float, block_seconds: float
) -> None:
    _compare_streamed(talking_face, WHOLE, monkeypatch, hop, block_seconds)


def _compare_streamed(
    path: Path,
    detector: Detector,
    monkeypatch: pytest.MonkeyPatch,
    hop: float,
    block_seconds: float,
) -> None:
    landmarker = DotLandmarker() if detector is WHOLE else BoxLandmarker()
    recording = read_recording(path, CONFIG, detector, landmarker=landmarker)
    monkeypatch.setattr(media.decoding, "BLOCK_SECONDS", block_seconds)
    clips = list(stream_clips(path, CONFIG, detector, hop, landmarker=landmarker))
    windows = tile_windows(recording.duration, CONFIG.window_seconds, hop)
    assert [clip.window for clip in clips] == windows
    assert any(clip.points_mask.any() for clip in clips)
    for clip in clips:
        again = recording.cut(clip.window, CONFIG)
        assert np.array_equal(clip.points_mask, again.points_mask), clip.window
        assert np.array_equal(clip.points, again.points), clip.window
        assert np.array_equal(clip.faces, again.faces), clip.window
        assert np.array_equal(clip.waveform, again.waveform), clip.window


@pytest.mark.parametrize("hop", [0.5, 0.3, 0.07])
@pytest.mark.parametrize("block_seconds", [0.01, 1.0])
def test_streamed_points_equal_the_whole_where_a_face_goes_and_comes(
    blob_file: Path, monkeypatch: pytest.MonkeyPatch, hop: float, block_seconds: float
) -> None:
    _compare_streamed(blob_file, BlobDetector(), monkeypatch, hop, block_seconds)


def test_without_a_landmarker_nothing_else_changes(talking_face: Path) -> None:
    plain = read_recording(talking_face, CONFIG, WHOLE)
    pointed = read_recording(talking_face, CONFIG, WHOLE, landmarker=BoxLandmarker())
    assert len(plain.landmarks.times) == 0
    assert len(pointed.landmarks.times) == 60
    for name in ("waveform", "faces", "face_times", "face_ids", "picture_times", "duration"):
        assert np.array_equal(getattr(plain, name), getattr(pointed, name)), name
    for clip in stream_clips(talking_face, CONFIG, WHOLE, 0.5):
        assert not clip.points_mask.any()


def test_points_without_a_detector_are_refused_at_once(talking_face: Path) -> None:
    with pytest.raises(ValueError, match="name a detector too"):
        stream_clips(talking_face, CONFIG, None, 0.5, landmarker=BoxLandmarker())
    with pytest.raises(ValueError, match="name a detector too"):
        read_recording(talking_face, CONFIG, None, landmarker=BoxLandmarker())


@pytest.mark.parametrize("missing", ["dlib", "face_recognition_models"])
def test_a_missing_extra_is_one_line_that_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError, match=r"checkpoint a\.pt needs landmarks") as caught:
        build_landmarker("checkpoint a.pt")
    assert "uv pip install -r pyproject.toml --extra landmarks" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_predictor_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    pytest.importorskip("dlib", reason="the extra `landmarks` is not installed")
    (tmp_path / "bad.dat").write_text("no predictor")
    for name in ("bad.dat", "absent.dat"):
        with pytest.raises(ValueError, match=rf"{name} is not a predictor of face points"):
            DlibLandmarker(tmp_path / name)


@pytest.fixture(scope="module")
def dlib_landmarker() -> Landmarker:
    pytest.importorskip("dlib", reason="the extra `landmarks` is not installed")
    return build_landmarker()


def test_a_mirrored_face_has_mirrored_points(
    dlib_landmarker: Landmarker, face_picture: np.ndarray
) -> None:
    detector = build_detector("mtcnn")

    def locate(rgb: np.ndarray) -> np.ndarray:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        picture: Picture = build_picture(frame, 0.0)
        box = detector.detect(rgb[None])[0][0, :4] / (320, 240, 320, 240)
        return locate_points(dlib_landmarker, picture, box)

    points, mirrored = locate(face_picture), locate(face_picture[:, ::-1])[MIRRORED]
    mirrored[:, 0] = 319 - mirrored[:, 0]
    eyes = np.linalg.norm(points[36:42].mean(axis=0) - points[42:48].mean(axis=0))
    assert np.linalg.norm(points - mirrored, axis=1).mean() < 0.05 * eyes
    assert points[36:42, 1].max() < points[30, 1] < points[48:, 1].min(), "eyes, nose tip, mouth"


@pytest.mark.data
def test_points_agree_with_the_corpus_track(real_data: Path, dlib_landmarker: Landmarker) -> None:
    tracks = read_ravdess_archive(real_data / "ravdess_landmarks68.npz")
    paths = sorted((real_data / "ravdess_av").rglob("*.mp4"))
    assert len(paths) == 5
    read = _reader(dlib_landmarker)
    for path in paths:
        found, track = read(path).landmarks, tracks[f"02{path.stem[2:]}"]
        nearest = np.abs(track.times[None] - found.times[:, None]).argmin(axis=1)
        same = np.abs(track.times[nearest] - found.times) < 0.005
        assert same.sum() > 90
        reference = track.points[nearest[same]]
        left, right = (reference[:, i : i + 6].mean(axis=1) for i in (36, 42))
        eyes = np.linalg.norm(left - right, axis=1)
        error = np.linalg.norm(found.points[same] - reference, axis=2).mean(axis=1) / eyes
        assert error.mean() < 0.015, path.name
        assert np.percentile(error, 95) < 0.02, path.name


def _reader(landmarker: Landmarker) -> Callable[[Path], Recording]:
    detector = build_detector("mtcnn")
    return lambda path: read_recording(path, ClipConfig(), detector, landmarker=landmarker)
