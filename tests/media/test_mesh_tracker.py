"""The face mesh through the frames of a recording."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

import media.decoding
from datasets.landmarks import read_ravdess_archive
from media.blendshapes import BLENDSHAPES, STILL_GAP
from media.clip import Window, tile_windows
from media.configuration import ClipConfig
from media.faces import build_detector
from media.landmarks import LEFT_CORNERS, RIGHT_CORNERS
from media.mesh import FaceMesh, MeshReader, MeshReading, Region, build_mesh_reading
from media.mesh_tracker import MeshTracker
from media.people import Face
from media.reading import read_recording, stream_clips
from media.recording import Recording
from media.video import Orientation, Picture, build_picture, warp
from tests.conftest import WriteMedia

CONFIG = ClipConfig(face_size=32, pictures=3)
BOX = np.array([121, 62, 208, 172], np.float32)  # of the face in the 320 x 240 portrait
SIZE = np.array([320, 240, 320, 240], np.float32)


class PortraitDetector:
    """The portrait's box, in frames that are not of one colour."""

    def detect(self, pictures: np.ndarray) -> list[np.ndarray]:
        found = []
        for picture in pictures:
            scale = picture.shape[1] / 320
            boxes = np.append(BOX * scale, 1.0)[None].astype(np.float32)
            found.append(boxes if picture.std() > 5 else boxes[:0])
        return found


@pytest.fixture(scope="module")
def reading() -> MeshReading:
    return build_mesh_reading()


@pytest.fixture(scope="module")
def portrait_file(
    tmp_path_factory: pytest.TempPathFactory, write_media: WriteMedia, face_picture: np.ndarray
) -> Path:
    """2.4 s at 25 frames a second: the face is covered from 0.8 to 1.2 s and away from 1.6 s."""
    covered = face_picture.copy()
    covered[15:200, 80:250] = np.random.default_rng(0).integers(60, 80, (185, 170, 3))
    frames = [covered if 20 <= index < 30 else face_picture for index in range(40)]
    frames += [np.full_like(face_picture, 90)] * 20
    return write_media(tmp_path_factory.mktemp("mesh") / "a.mp4", frames)


@pytest.fixture(scope="module")
def recording(portrait_file: Path, reading: MeshReading) -> Recording:
    return read_recording(portrait_file, CONFIG, PortraitDetector(), landmarker=reading)


def test_meshes_are_read_ten_times_a_second_at_most(recording: Recording) -> None:
    times = recording.meshes.times
    before = times[times < 0.8]
    assert before == pytest.approx([0.0, 0.12, 0.2, 0.32, 0.4, 0.52, 0.6, 0.72])
    assert recording.meshes.max_gap == 0.15
    assert (recording.meshes.presence >= 0.5).all()
    smile = recording.meshes.blendshapes[:, BLENDSHAPES.index("mouthSmileLeft")]
    assert smile.min() > 0.7


def test_a_face_that_is_covered_or_away_has_no_mesh(recording: Recording) -> None:
    times = recording.meshes.times
    assert not ((times > 0.79) & (times < 1.2)).any(), "covered"
    assert not (times >= 1.6).any(), "away"
    clip = recording.cut(Window(0.8, 1.8), CONFIG)
    assert clip.face_mask.any(), "the detector draws its box over the cover"
    middles = 0.85 + np.arange(10) / 10
    assert not clip.blendshapes_mask[(middles > 0.9) & (middles < 1.05)].any()
    assert not clip.blendshapes_mask[middles > 1.74].any()
    assert clip.blendshapes_mask[(middles > 1.2) & (middles < 1.6)].all()
    assert clip.points_mask.any(), "the 68 points are the mesh's"


@pytest.mark.parametrize("hop", [0.5, 0.3])
@pytest.mark.parametrize("block_seconds", [0.01, 1.0])
def test_streamed_meshes_equal_meshes_cut_from_the_whole(
    portrait_file: Path,
    recording: Recording,
    reading: MeshReading,
    monkeypatch: pytest.MonkeyPatch,
    hop: float,
    block_seconds: float,
) -> None:
    monkeypatch.setattr(media.decoding, "BLOCK_SECONDS", block_seconds)
    clips = list(stream_clips(portrait_file, CONFIG, PortraitDetector(), hop, landmarker=reading))
    assert [clip.window for clip in clips] == tile_windows(recording.duration, 1.0, hop)
    for clip in clips:
        again = recording.cut(clip.window, CONFIG)
        for name in ("blendshapes", "blendshapes_mask", "points", "points_mask", "faces"):
            assert np.array_equal(getattr(clip, name), getattr(again, name)), (name, clip.window)


def test_a_still_has_its_mesh_all_the_time(
    tmp_path: Path, face_picture: np.ndarray, reading: MeshReading
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), face_picture[..., ::-1])
    still = read_recording(tmp_path / "a.png", CONFIG, PortraitDetector(), landmarker=reading)
    assert still.meshes.max_gap == still.landmarks.max_gap == STILL_GAP
    clip = still.cut(Window(0.0, 1.0), CONFIG)
    assert clip.blendshapes_mask.all()
    assert clip.points_mask.all()
    assert (clip.blendshapes == clip.blendshapes[0]).all()


def test_a_face_that_fills_its_picture_is_read_as_a_still_of_it(
    tmp_path: Path, face_picture: np.ndarray, reading: MeshReading
) -> None:
    face = np.ascontiguousarray(face_picture[62:172, 110:220])
    cv2.imwrite(str(tmp_path / "a.png"), face[..., ::-1])
    filled = replace(reading, filled=True)
    whole = build_detector("whole")
    still = read_recording(tmp_path / "a.png", CONFIG, whole, landmarker=filled)
    direct = reading.reader.read_still(face)
    assert direct is not None
    assert still.meshes.blendshapes[0] == pytest.approx(direct.blendshapes, abs=0.1)


class Watched(MeshReader):
    """Counts how faces are looked for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def locate(self, *arguments: Any) -> FaceMesh | None:
        self.calls.append("box")
        return super().locate(*arguments)

    def track(self, *arguments: Any) -> FaceMesh | None:
        self.calls.append("mesh")
        return super().track(*arguments)


def _picture(rgb: np.ndarray, time: float) -> Picture:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    return build_picture(frame, time)


def test_the_face_is_followed_by_its_mesh_until_the_box_says_otherwise(
    face_picture: np.ndarray,
) -> None:
    reader = Watched()
    tracker = MeshTracker(MeshReading(reader), 10.0)
    face = Face(BOX / SIZE, 0)

    def read(time: float, rgb: np.ndarray, face: Face) -> bool:
        return tracker.read(_picture(rgb, time), face) is not None

    assert read(0.0, face_picture, face)
    assert not read(0.04, face_picture, face), "not its turn"
    assert read(0.1, face_picture, face)
    assert reader.calls == ["box", "mesh"]
    moved = np.roll(face_picture, -90, axis=1)
    elsewhere = Face((BOX - (90, 0, 90, 0)) / SIZE, 0)
    assert read(0.2, moved, elsewhere), "a cut: the mesh's region is left"
    assert reader.calls[2:] == ["box"]
    assert read(0.3, moved, Face(elsewhere.box, 1)), "somebody else"
    assert read(1.5, moved, Face(elsewhere.box, 1)), "too long ago"
    assert reader.calls[3:] == ["box", "box"]
    assert not read(1.6, np.full_like(moved, 90), Face(elsewhere.box, 1))
    assert reader.calls[5:] == ["mesh", "box"]


def test_where_the_mesh_was_and_where_the_box_is_give_the_same_scores(
    face_picture: np.ndarray, reading: MeshReading
) -> None:
    cut = _picture(face_picture, 0.0).crop_turned
    located = reading.reader.locate(cut, BOX)
    off = reading.reader.locate(cut, BOX + np.array([6, -5, 8, -5], np.float32))
    assert located is not None
    assert off is not None
    assert np.abs(located.blendshapes - off.blendshapes).mean() < 0.02


def test_the_mesh_gives_the_68_points_in_their_order(
    face_picture: np.ndarray, reading: MeshReading
) -> None:
    mesh = reading.reader.locate(partial(warp, face_picture), BOX)
    assert mesh is not None
    points = mesh.landmarks
    assert points.shape == (68, 2)
    assert (np.diff(points[:17, 0]) > -2).all(), "the jaw runs from left to right"
    assert points[17:27, 1].max() < points[30, 1] < points[48:, 1].min(), "brows, nose, mouth"
    left, right = points[list(LEFT_CORNERS)], points[list(RIGHT_CORNERS)]
    assert left[0, 0] < left[1, 0] < right[0, 0] < right[1, 0]
    assert points[62, 1] < points[66, 1], "inner lips: upper, lower"
    assert points[8, 1] == points[:, 1].max(), "the chin is lowest"


@pytest.mark.parametrize(
    "orientation",
    [
        Orientation(),
        Orientation(flip_x=True),
        Orientation(transpose=True, flip_x=True),
        Orientation(transpose=True, flip_y=True),
    ],
)
@pytest.mark.parametrize("aspect", [1.0, 4 / 3])
def test_a_rotated_square_is_cut_as_displayed(
    face_picture: np.ndarray, orientation: Orientation, aspect: float
) -> None:
    frame = av.VideoFrame.from_ndarray(face_picture, format="rgb24").reformat(format="yuv420p")
    picture = build_picture(frame, 0.0, aspect, orientation)
    displayed = picture.reduce(1000)
    turn = Region(picture.size[0] / 2, picture.size[1] / 2, 140.0, 0.3).turn()
    ours = picture.crop_turned(turn, 256).astype(int)
    assert np.abs(ours - warp(displayed, turn, 256)).mean() < 2.5


@pytest.mark.data
def test_the_mesh_agrees_with_the_corpus_track(real_data: Path, reading: MeshReading) -> None:
    known = read_ravdess_archive(real_data / "ravdess_landmarks68.npz")
    path = sorted((real_data / "ravdess_av").rglob("*.mp4"))[0]
    found = read_recording(path, ClipConfig(), build_detector("mtcnn"), landmarker=reading)
    track = known[f"02{path.stem[2:]}"]
    nearest = np.abs(track.times[None] - found.landmarks.times[:, None]).argmin(axis=1)
    reference = track.points[nearest]
    eyes = np.linalg.norm(reference[:, 36] - reference[:, 45], axis=1)
    error = np.linalg.norm(found.landmarks.points - reference, axis=2)[:, 17:].mean(axis=1) / eyes
    assert error.mean() < 0.06
