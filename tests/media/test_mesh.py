"""The face mesh: points, blendshapes and head pose from a frame."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.demo_clip import (
    FROWN,
    SMILE,
    SURPRISED,
    Expression,
    draw_portrait,
    read_portrait,
)
from media.blendshapes import BLENDSHAPES
from media.errors import MediaError
from media.mesh import FaceMesh, MeshReader, head_pose, region_of_box
from media.video import warp

BOX = np.array([181.0, 62.0, 268.0, 172.0])  # MTCNN's in the portrait


@pytest.fixture(scope="module")
def reader() -> MeshReader:
    return MeshReader()


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return read_portrait()


@pytest.fixture(scope="module")
def mesh(reader: MeshReader, portrait: np.ndarray) -> FaceMesh:
    return _locate(reader, portrait, BOX)


def _locate(reader: MeshReader, frame: np.ndarray, box: np.ndarray) -> FaceMesh:
    found = reader.locate(partial(warp, frame), box)
    assert found is not None
    return found


def _score(mesh: FaceMesh, name: str) -> float:
    return float(mesh.blendshapes[BLENDSHAPES.index(name)])


def test_a_smile_with_teeth_is_a_smile_and_no_open_jaw(mesh: FaceMesh) -> None:
    assert mesh.presence > 0.99
    assert _score(mesh, "mouthSmileLeft") > 0.8
    assert _score(mesh, "mouthSmileRight") > 0.8
    assert _score(mesh, "jawOpen") < 0.1
    assert _score(mesh, "mouthFrownLeft") < 0.1
    assert ((mesh.blendshapes >= 0) & (mesh.blendshapes <= 1)).all()


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_scores_do_not_depend_on_resolution(
    reader: MeshReader, portrait: np.ndarray, mesh: FaceMesh, scale: float
) -> None:
    resized = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    found = _locate(reader, resized, BOX * scale)
    assert np.abs(found.points[:, :2] / scale - mesh.points[:, :2]).mean() < 1.0  # pixels of 512
    assert np.abs(found.blendshapes - mesh.blendshapes).mean() < 0.03


@pytest.mark.parametrize("degrees", [-25, 25])
def test_a_head_that_leans_has_the_same_expression(
    reader: MeshReader, portrait: np.ndarray, mesh: FaceMesh, degrees: float
) -> None:
    centre = (224.0, 117.0)
    turned = cv2.warpAffine(portrait, cv2.getRotationMatrix2D(centre, -degrees, 1.0), (512, 512))
    found = _locate(reader, turned, BOX)
    assert np.abs(found.blendshapes - mesh.blendshapes).mean() < 0.03
    leant = math.degrees(found.head_pose[2] - mesh.head_pose[2])
    assert leant == pytest.approx(degrees, abs=3)


def test_a_wall_has_no_face(reader: MeshReader) -> None:
    wall = np.random.default_rng(0).integers(90, 110, (200, 200, 3), dtype=np.uint8)
    assert reader.locate(partial(warp, wall), np.array([50, 50, 150, 150])) is None
    assert reader.read_still(wall) is None


def test_a_small_grey_still_shows_the_smile(reader: MeshReader, portrait: np.ndarray) -> None:
    face = cv2.resize(portrait[62:172, 170:280], (48, 48), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    found = reader.read_still(grey)
    assert found is not None
    assert _score(found, "mouthSmileLeft") > 0.5
    assert _score(found, "jawOpen") < 0.2


@pytest.mark.parametrize(("axis", "place"), [("yaw", 0), ("pitch", 1), ("roll", 2)])
def test_each_angle_of_the_head_has_its_sign(mesh: FaceMesh, axis: str, place: int) -> None:
    level = _turn(mesh.points, *(-mesh.head_pose), inverse=True)
    assert np.abs(head_pose(level)).max() < 1e-4
    angles = [0.0, 0.0, 0.0]
    angles[place] = 0.3
    turned = _turn(level, *angles)
    assert head_pose(turned) == pytest.approx(angles, abs=1e-4)
    nose = turned[1] - level[1] - (turned.mean(axis=0) - level.mean(axis=0))  # its tip
    if axis == "yaw":
        assert nose[0] > 0  # to the right of the frame
    elif axis == "pitch":
        assert nose[1] < 0  # up
    else:
        right_eye = turned[263] - turned[33]
        assert right_eye[1] > 0  # clockwise: the eye at the right is lower


def test_head_pose_gives_back_three_angles_at_once(mesh: FaceMesh) -> None:
    level = _turn(mesh.points, *(-mesh.head_pose), inverse=True)
    angles = [-0.5, 0.2, 0.3]
    assert head_pose(_turn(level, *angles)) == pytest.approx(angles, abs=1e-4)


def test_other_weights_are_refused_by_name(tmp_path: Path) -> None:
    other = tmp_path / "other.task"
    other.write_bytes(b"no weights")
    with pytest.raises(MediaError, match=r"other\.task.*not the weights"):
        MeshReader(other)


def _turn(
    points: np.ndarray, yaw: float, pitch: float, roll: float, inverse: bool = False
) -> np.ndarray:
    """Points turned about the origin: roll, then pitch, then yaw; with `inverse` the other way."""
    about_y = cv2.Rodrigues(np.array([0.0, -yaw, 0.0]))[0]
    about_x = cv2.Rodrigues(np.array([-pitch, 0.0, 0.0]))[0]
    about_z = cv2.Rodrigues(np.array([0.0, 0.0, roll]))[0]
    if inverse:
        return points @ (about_z @ about_x @ about_y).T
    return points @ (about_y @ about_x @ about_z).T


def test_scores_follow_how_a_portrait_is_warped(reader: MeshReader) -> None:
    def read(expression: Expression) -> FaceMesh:
        return _locate(reader, draw_portrait(expression, 0.0), np.array([260, 100, 480, 385]))

    smile, frown, surprised = read(SMILE), read(FROWN), read(SURPRISED)
    assert _score(smile, "mouthSmileLeft") > _score(frown, "mouthSmileLeft") + 0.3
    assert _score(surprised, "browInnerUp") > _score(smile, "browInnerUp") + 0.1
    assert _score(frown, "browDownLeft") > _score(surprised, "browDownLeft") + 0.05
    opened = [_score(read(replace(SURPRISED, opening=gap)), "jawOpen") for gap in (5, 10, 16)]
    assert opened[0] < 0.1 < opened[1] < 0.4 < opened[2]


@pytest.mark.slow
def test_a_mesh_costs_little_on_one_thread(reader: MeshReader, portrait: np.ndarray) -> None:
    region = region_of_box(BOX)
    cut = partial(warp, portrait)
    times = []
    for _ in range(30):
        start = time.process_time()
        reader.track(cut, region)
        times.append(time.process_time() - start)
    assert np.median(times) < 0.05, "12 ms were measured, of which blendshapes 1 to 2"
