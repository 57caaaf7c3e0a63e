"""A mouth that is opened is open, the rest of the face stays, and copies go into training only."""

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets import mouth_opening
from datasets.annotations import read_annotations
from datasets.mouth_opening import INNER_LOWER, INNER_UPPER, Mouth, draw_mouth, open_mouth
from datasets.prepare import main as prepare
from media.landmarker import Landmarker, build_landmarker, locate_in_face

SIDE = 96
EYES = slice(36, 48)


@pytest.fixture(scope="module")
def landmarker() -> Landmarker:
    pytest.importorskip("dlib", reason="the extra `landmarks` is not installed")
    return build_landmarker()


@pytest.fixture(scope="module")
def portrait(face_picture: np.ndarray) -> np.ndarray:
    """(96, 96, 3) uint8: a face that fills the picture, teeth showing."""
    return cv2.resize(face_picture[28:168, 92:232], (SIDE, SIDE), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def points(landmarker: Landmarker, portrait: np.ndarray) -> np.ndarray:
    found = locate_in_face(landmarker, portrait)
    assert found is not None
    return found


def _gap(points: np.ndarray) -> float:
    """Between the middles of the lips, in halves of the mouth's width."""
    half = np.linalg.norm(points[54] - points[48]) / 2
    return float(np.linalg.norm(points[INNER_LOWER[2]] - points[INNER_UPPER[2]]) / half)


def test_points_of_a_face_that_fills_the_picture(portrait: np.ndarray, points: np.ndarray) -> None:
    assert ((points > 0) & (points < 1)).mean() > 0.9
    eyes, nose, mouth = (points[part].mean(axis=0) for part in (EYES, slice(27, 36), slice(48, 68)))
    assert eyes[1] < nose[1] < mouth[1]
    whites = portrait[..., 0].astype(int)
    row, column = np.rint(points[66] * SIDE - 0.5).astype(int)[::-1]
    assert whites[row - 2, column] > whites[row + 3, column], "teeth above the lower lip"


class _Wanderer:
    """Finds the face elsewhere at each look."""

    def locate(self, luma: np.ndarray, box: np.ndarray) -> np.ndarray:
        half = np.linspace(0, 60, 68)
        return (np.stack([half, half], axis=1) + box[:2] + 40).astype(np.float32)


def test_a_search_that_does_not_settle_finds_nothing(portrait: np.ndarray) -> None:
    assert locate_in_face(_Wanderer(), portrait) is None


@pytest.mark.parametrize("opening", [0.3, 0.6])
def test_the_lips_go_apart_by_as_much(
    landmarker: Landmarker, portrait: np.ndarray, points: np.ndarray, opening: float
) -> None:
    changed = locate_in_face(landmarker, open_mouth(portrait, points, Mouth(opening, 0.0, 0.5)))
    assert changed is not None
    assert _gap(changed) - _gap(points) == pytest.approx(opening, abs=0.15)
    moved = np.linalg.norm(changed[EYES] - points[EYES], axis=1).max()
    assert moved < 0.02, "the eyes are where they were"
    assert changed[8, 1] > points[8, 1], "the chin goes down"


def test_a_rounded_mouth_is_narrower(
    landmarker: Landmarker, portrait: np.ndarray, points: np.ndarray
) -> None:
    changed = locate_in_face(landmarker, open_mouth(portrait, points, Mouth(0.3, 0.5, 0.5)))
    assert changed is not None
    width, before = (np.linalg.norm(found[54] - found[48]) for found in (changed, points))
    assert width < 0.9 * before


def test_all_above_the_lips_stays(portrait: np.ndarray, points: np.ndarray) -> None:
    changed = open_mouth(portrait, points, Mouth(0.6, 0.0, 0.5))
    nose = int(points[33, 1] * SIDE)
    assert np.abs(changed[:nose].astype(int) - portrait[:nose]).max() <= 1
    assert not np.array_equal(changed, portrait)
    assert changed.dtype == np.uint8
    assert changed.shape == portrait.shape


def test_what_opens_is_dark(portrait: np.ndarray, points: np.ndarray) -> None:
    changed = open_mouth(portrait, points, Mouth(0.8, 0.0, 0.5))
    half = np.linalg.norm(points[54] - points[48]) * SIDE / 2
    column, row = points[INNER_LOWER[2]] * SIDE - 0.5 + (0, 0.4 * half)
    hole, chin = changed[round(row), round(column)], portrait[round(row), round(column)]
    assert hole.max() < 0.6 * chin.min()


def test_draws_differ_and_stay_within_their_limits() -> None:
    rng = np.random.default_rng(0)
    mouths = [draw_mouth(rng) for _ in range(200)]
    for name, limits in (
        ("opening", mouth_opening.OPENING),
        ("narrowing", mouth_opening.NARROWING),
        ("shade", mouth_opening.SHADE),
    ):
        values = [getattr(mouth, name) for mouth in mouths]
        assert limits[0] <= min(values) < max(values) <= limits[1]
        assert np.ptp(values) > 0.9 * (limits[1] - limits[0])


@pytest.fixture
def corpus(tmp_path: Path, portrait: np.ndarray) -> Path:
    small = cv2.resize(portrait, (48, 48), interpolation=cv2.INTER_AREA)
    rng = np.random.default_rng(0)
    for name in (
        "train/happy/Training_1.jpg",
        "train/sad/Training_2.jpg",
        "test/happy/PublicTest_3.jpg",
        "test/sad/PrivateTest_4.jpg",
    ):
        path = tmp_path / "fer" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # So different in light that none counts as a copy of another.
        light = np.outer(*rng.uniform(0.3, 1.0, (2, 48)))[..., None]
        cv2.imwrite(str(path), (small * light).astype(np.uint8)[..., ::-1])
    return tmp_path / "fer"


@pytest.mark.usefixtures("landmarker")
def test_training_pictures_get_a_talking_copy(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["fer2013", "--root", str(corpus), "--out", str(out), "--face_size", "64"]
    command += ["--talking", "--keep_duplicates"]
    assert prepare(command) == 0
    records = read_annotations(out / "manifest.csv")
    copies = {r.name: r for r in records if r.extra.get("talking")}
    assert len(records) == 4 + len(copies)
    assert copies, "a point was found in none"
    assert set(copies) <= {"Training_1.png", "Training_2.png"}
    first = {name: Path(copy.video).stat().st_mtime_ns for name, copy in copies.items()}
    for name, copy in copies.items():
        original = next(r for r in records if r.name == name.replace("png", "jpg"))
        assert (copy.label, copy.subset) == (original.label, "training")
        picture = cv2.imread(copy.video)
        assert picture is not None
        assert picture.shape == (64, 64, 3)
    assert prepare(command) == 0
    again = {Path(r.video).name: Path(r.video).stat().st_mtime_ns for r in copies.values()}
    assert again == first, "what is there stays"
    name, copy = next(iter(copies.items()))
    os.utime(corpus / "train" / copy.label / name.replace("png", "jpg"))
    assert prepare(command) == 0
    assert Path(copy.video).stat().st_mtime_ns > first[name], "its picture is newer"


def test_without_the_extra_it_is_one_line(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    mouth_opening.load_landmarker.cache_clear()
    monkeypatch.setitem(sys.modules, "dlib", None)
    assert prepare(["fer2013", "--root", str(corpus), "--out", str(tmp_path / "o"), "--talking"])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "opening mouths needs landmarks" in error
    assert "--extra landmarks" in error
    assert not (tmp_path / "o" / "clips").exists(), "it is said before the work"


def test_other_corpora_refuse_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["ravdess", "--root", str(tmp_path), "--out", str(tmp_path / "o"), "--talking"]
    assert prepare(command) == 2
    assert "--talking is of fer2013 only" in capsys.readouterr().err
