"""Detectors share one contract; the tracker follows one face and never keeps a stale box."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from media.clip import ClipConfig
from media.faces import (
    Detector,
    FacePicture,
    FaceTracker,
    build_detector,
    face_square,
)
from media.people import People
from media.video import Picture, build_picture

CONFIG = ClipConfig(face_size=32, face_margin=0.0, detector_stride=5)
WIDTH, HEIGHT = 320, 240
Blob = tuple[int, int, int]  # left, top, side


class BlobDetector:
    """Finds each red (or green) square of at least `smallest` pixels; counts what it looks at."""

    def __init__(self, smallest: int = 1) -> None:
        self.looks = 0
        self.sizes: set[tuple[int, ...]] = set()
        self.smallest = smallest

    def detect(self, pictures: np.ndarray) -> list[np.ndarray]:
        self.looks += len(pictures)
        self.sizes.add(pictures.shape[1:3])
        return [self._find(picture.astype(int)) for picture in pictures]

    def _find(self, picture: np.ndarray) -> np.ndarray:
        boxes = []
        for channel in (0, 1):
            rows, columns = np.nonzero(2 * picture[..., channel] - picture.sum(axis=2) > 60)
            if len(rows) and np.ptp(rows) + 1 >= self.smallest:
                x, y = columns.min(), rows.min()
                boxes.append([x, y, columns.max() + 1, rows.max() + 1, 1.0])
        return np.array(boxes, dtype=np.float32).reshape(-1, 5)


def draw(index: int, red: Blob | None, green: Blob | None = None, fps: int = 25) -> Picture:
    """A grey picture with a red and a green square."""
    rgb = np.full((HEIGHT, WIDTH, 3), 100, dtype=np.uint8)
    for blob, colour in ((red, (230, 30, 30)), (green, (30, 230, 30))):
        if blob is not None:
            left, top, side = blob
            rgb[top : top + side, left : left + side] = colour
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv444p")
    return build_picture(frame, index / fps)


def track(
    pictures: list[Picture], detector: Detector, config: ClipConfig = CONFIG
) -> list[FacePicture]:
    tracker = FaceTracker(detector, config)
    return [done for picture in pictures for done in tracker.push(picture)] + tracker.flush()


def share_of(colour: int, face: np.ndarray | None) -> float:
    """Share of a face picture in which a colour (0 red, 1 green) dominates."""
    assert face is not None
    return float((2 * face[..., colour].astype(int) - face.astype(int).sum(axis=2) > 0).mean())


@pytest.fixture(scope="module")
def mtcnn() -> Detector:
    return build_detector("mtcnn")


@pytest.mark.parametrize("name", ["mtcnn", "whole"])
def test_a_detector_gives_boxes_inside_each_picture(name: str, face_picture: np.ndarray) -> None:
    noise = np.random.default_rng(0).integers(0, 255, face_picture.shape, dtype=np.uint8)
    cut_off = np.roll(face_picture, -120, axis=1)
    pictures = np.stack([face_picture, noise, np.zeros_like(noise), cut_off])
    found = build_detector(name).detect(pictures)
    assert len(found) == 4
    assert len(found[0]) == 1
    for boxes in found:
        assert boxes.dtype == np.float32
        assert boxes.shape[1:] == (5,)
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:4] <= (320, 240)).all()
        assert (boxes[:, 2:4] > boxes[:, :2]).all()


@pytest.mark.parametrize("size", [(10, 10), (21, 400), (1, 1), (64, 64)])
def test_pictures_without_any_candidate_have_no_face(
    mtcnn: Detector, size: tuple[int, int]
) -> None:
    assert [len(b) for b in mtcnn.detect(np.zeros((2, *size, 3), np.uint8))] == [0, 0]


def test_an_unknown_detector_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"unknown detector 'haar'; choose from mtcnn"):
        build_detector("haar")


def test_yunet_asks_for_its_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no path was given"):
        build_detector("yunet")
    with pytest.raises(ValueError, match=r"nowhere.onnx is not there"):
        build_detector("yunet", yunet_path=tmp_path / "nowhere.onnx")
    (tmp_path / "bad.onnx").write_text("no model")
    with pytest.raises(ValueError, match="not a YuNet model"):
        build_detector("yunet", yunet_path=tmp_path / "bad.onnx")


def test_detection_leaves_the_number_of_threads_alone(mtcnn: Detector) -> None:
    before = torch.get_num_threads()
    mtcnn.detect(np.zeros((1, 64, 64, 3), np.uint8))
    assert torch.get_num_threads() == before


def test_a_face_square_holds_the_longer_side_and_the_margin() -> None:
    square = face_square(np.array([0.4, 0.3, 0.5, 0.5]), 0.5, 1000, 500)  # 100 x 100 at 450, 200
    assert (square.left, square.top, square.side) == (375, 125, 150)
    square = face_square(np.array([0.4, 0.3, 0.5, 0.7]), 0.0, 1000, 500)  # 100 x 200
    assert (square.left, square.top, square.side) == (350, 150, 200)


def test_a_face_square_is_shifted_into_the_picture_or_reaches_beyond_it() -> None:
    corner = face_square(np.array([0.9, 0.0, 1.0, 0.2]), 0.2, 1000, 500)
    assert (corner.left, corner.top, corner.side) == (880, 0, 120)
    tall = face_square(np.array([0.5, 0.0, 0.9, 1.0]), 0.2, 1000, 500)
    assert (tall.left, tall.top, tall.side) == (400, -50, 600)
    assert tall.top + tall.side >= 500


def test_a_moving_face_is_followed_by_looking_at_every_fifth_picture() -> None:
    detector = BlobDetector()
    faces = track([draw(i, (20 + 2 * i, 80, 60)) for i in range(101)], detector)
    assert [face.time for face in faces] == [i / 25 for i in range(101)]
    assert min(share_of(0, face.face) for face in faces) > 0.95
    assert detector.looks == 21
    assert {face.face_id for face in faces} == {0}


@pytest.mark.parametrize("last", range(30, 37))
def test_a_face_that_leaves_is_gone_from_the_very_next_picture(last: int) -> None:
    pictures = [draw(i, (50, 50, 60) if i <= last else None) for i in range(60)]
    faces = track(pictures, BlobDetector())
    assert [face.face is not None for face in faces] == [i <= last for i in range(60)]
    assert all(face.face_id == -1 for face in faces[last + 1 :])


@pytest.mark.parametrize("cut", range(40, 46))
def test_across_a_hard_cut_every_picture_shows_its_own_face(cut: int) -> None:
    pictures = [draw(i, (20, 20, 60) if i < cut else (200, 120, 80)) for i in range(80)]
    faces = track(pictures, BlobDetector())
    assert min(share_of(0, face.face) for face in faces) > 0.9
    assert [face.face_id for face in faces] == [int(i >= cut) for i in range(80)]


def test_boxes_that_overlap_too_little_are_not_interpolated() -> None:
    jump = [draw(i, (100, 100, 60) if i < 43 else (125, 110, 60)) for i in range(60)]
    faces = track(jump, BlobDetector())
    assert min(share_of(0, face.face) for face in faces) > 0.95


def test_two_faces_of_like_size_do_not_alternate() -> None:
    wobble = [3 * (i // 5 % 3) for i in range(100)]
    pictures = [draw(i, (30, 80, 60 + w), (200, 80, 66 - w)) for i, w in enumerate(wobble)]
    assert len({face.face_id for face in track(pictures, BlobDetector())}) == 1


def test_a_clearly_larger_face_is_followed_instead() -> None:
    pictures = [draw(i, (30, 80, 44), (180, 40, 100 if i > 50 else 40)) for i in range(200)]
    faces = track(pictures, BlobDetector())
    assert share_of(0, faces[0].face) > 0.9
    assert share_of(1, faces[-1].face) > 0.9


def test_a_bystander_is_not_shown_while_the_followed_face_is_turned_away() -> None:
    away = range(50, 65)
    pictures = [draw(i, None if i in away else (30, 80, 90), (200, 80, 60)) for i in range(100)]
    faces = track(pictures, BlobDetector())
    shown = [face.face is not None for face in faces]
    assert shown == [i not in away for i in range(100)]
    assert {face.face_id for face in faces if face.face is not None} == {faces[0].face_id}


def test_a_face_keeps_its_identity_over_a_short_gap_and_loses_it_over_a_long_one() -> None:
    def ids(gap: int) -> set[int]:
        pictures = [draw(i, None if 25 <= i < 25 + gap else (60, 60, 60)) for i in range(100)]
        return {face.face_id for face in track(pictures, BlobDetector()) if face.face is not None}

    assert len(ids(15)) == 1
    assert len(ids(50)) == 2


def test_small_faces_are_looked_for_at_twice_the_side() -> None:
    config = replace(CONFIG, detector_side=160)
    detector = BlobDetector(smallest=20)
    faces = track([draw(i, (100, 100, 30)) for i in range(50)], detector, config)
    assert detector.sizes == {(120, 160), (240, 320)}
    assert min(share_of(0, face.face) for face in faces) > 0.95


def test_small_faces_are_looked_for_rarely_where_there_is_none() -> None:
    config = replace(CONFIG, detector_side=160)
    detector = BlobDetector()
    track([draw(i, None) for i in range(801)], detector, config)
    assert 161 < detector.looks <= 161 + 9 + 161 / 8


def test_no_more_than_ten_seconds_of_pictures_wait() -> None:
    tracker = FaceTracker(BlobDetector(), CONFIG)
    waiting = 0
    for index in range(40):
        waiting += 1 - len(tracker.push(draw(index, (60, 60, 60), fps=1)))
        assert waiting <= 11


def test_the_picture_size_may_change_in_mid_file() -> None:
    small = build_picture(
        av.VideoFrame.from_ndarray(np.full((120, 160, 3), (230, 30, 30), np.uint8), format="rgb24"),
        1.0,
    )
    faces = track([*(draw(i, (80, 60, 100)) for i in range(25)), small], BlobDetector())
    assert min(share_of(0, face.face) for face in faces) > 0.95


def test_a_doubtful_detection_starts_no_face_but_may_continue_one() -> None:
    doubtful = np.array([[0.1, 0.1, 0.3, 0.3, 0.75]], np.float32)
    sure = np.array([[0.1, 0.1, 0.3, 0.3, 0.99]], np.float32)
    people = People()
    assert people.follow(0.0, doubtful) is None
    first = people.follow(0.2, sure)
    again = people.follow(0.4, doubtful)
    assert first is not None
    assert again is not None
    assert again.face_id == first.face_id
