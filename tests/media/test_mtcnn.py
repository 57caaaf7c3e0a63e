"""MTCNN finds what the published cascade finds, without running the package of its weights."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

import media.mtcnn
from datasets.demo_clip import read_portrait
from media.mtcnn import FoundFaces, Mtcnn, pool

BOXES = [[179.9801, 62.0421, 267.239, 173.042, 1.0]]  # x1, y1, x2, y2, probability
POINTS = [
    [
        [204.986, 101.754],
        [246.718, 103.665],
        [225.034, 129.926],
        [201.712, 140.086],
        [245.33, 142.587],
    ]
]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cascade() -> Mtcnn:
    return Mtcnn()


def test_the_portrait_has_the_face_and_points_that_the_published_cascade_finds(
    cascade: Mtcnn,
) -> None:
    """The values are facenet-pytorch 2.5.3's."""
    (found,) = cascade.find(read_portrait()[None])
    assert found.boxes == pytest.approx(np.array(BOXES), abs=0.01)
    assert found.points == pytest.approx(np.array(POINTS), abs=0.01)


def test_a_frame_does_not_depend_on_the_others_of_its_batch(cascade: Mtcnn) -> None:
    portrait = read_portrait()
    shifted, empty = np.roll(portrait, 60, axis=1), np.zeros_like(portrait)
    together = cascade.find(np.stack([shifted, empty, portrait]))
    alone = [cascade.find(frame[None])[0] for frame in (shifted, empty, portrait)]
    assert [len(faces.boxes) for faces in together] == [1, 0, 1]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)
        np.testing.assert_allclose(one.points, other.points, atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (10, 300), (19, 19), (20, 20), (64, 64)])
def test_frames_that_are_small_or_empty_have_no_face(cascade: Mtcnn, size: tuple[int, int]) -> None:
    found = cascade.find(np.full((2, *size, 3), 200, np.uint8))
    assert [(faces.boxes.shape, faces.points.shape) for faces in found] == [((0, 5), (0, 5, 2))] * 2


def test_synthetic_frames_give_what_facenet_pytorch_gives(cascade: Mtcnn) -> None:
    theirs = _Published()
    count = 0
    for frames in _synthetic_batches():
        count += _assert_equal(cascade.find(frames), theirs.find(frames))
    assert count >= 10


@pytest.mark.data
@pytest.mark.parametrize("name", ["several_faces_1080p.mp4", "portrait_phone.mp4", "no_face.mp4"])
def test_real_clips_give_what_facenet_pytorch_gives(
    cascade: Mtcnn, real_data: Path, name: str
) -> None:
    frames = np.stack(list(_small_frames(real_data / "media" / name)))
    for batch in (frames[:4], frames[4:]):
        _assert_equal(cascade.find(batch), _Published().find(batch))


@pytest.mark.parametrize("side", [2, 3])
@pytest.mark.parametrize("size", [(23, 24), (7, 11), (48, 48)])
def test_pooling_equals_that_of_torch(side: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, 5, *size)
    assert torch.equal(pool(x, side), nn.MaxPool2d(side, 2, ceil_mode=True)(x))


def test_without_the_package_one_line_says_how_to_get_the_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(media.mtcnn, "WEIGHTS_PACKAGE", "not_installed_here")
    with pytest.raises(ValueError, match=r"not installed: run `pip install .*facenet-pytorch"):
        Mtcnn()


def test_files_that_are_not_the_weights_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(media.mtcnn, "_weights_folder", lambda: tmp_path)
    with pytest.raises(ValueError, match=r"pnet\.pt does not hold MTCNN's weights"):
        Mtcnn()
    (tmp_path / "pnet.pt").write_text("no weights")
    with pytest.raises(ValueError, match=r"pnet\.pt does not hold MTCNN's weights"):
        Mtcnn()
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "pnet.pt")
    with pytest.raises(ValueError, match=r"pnet\.pt does not hold MTCNN's weights"):
        Mtcnn()


def test_the_package_of_the_weights_is_not_imported() -> None:
    code = (
        "import sys; from media.mtcnn import Mtcnn; Mtcnn(); "
        "sys.exit(any(name in sys.modules for name in ('facenet_pytorch', 'torchvision')))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


class _Published:
    """facenet-pytorch's own cascade, with its thresholds and sizes of faces."""

    def __init__(self) -> None:
        facenet = pytest.importorskip("facenet_pytorch")
        self._networks = facenet.MTCNN()
        self._detect = pytest.importorskip("facenet_pytorch.models.utils.detect_face").detect_face

    @torch.inference_mode()
    def find(self, frames: np.ndarray) -> list[FoundFaces]:
        net = self._networks
        try:
            boxes, points = self._detect(
                frames,
                20,
                net.pnet,
                net.rnet,
                net.onet,
                (0.6, 0.7, 0.7),
                0.709,
                torch.device("cpu"),
            )
        except (RuntimeError, ValueError) as error:
            if "non-empty list" not in str(error):  # its way to say that no candidate is left
                raise
            empty = FoundFaces(np.zeros((0, 5)), np.zeros((0, 5, 2)))
            return [empty] if len(frames) == 1 else [self.find(frame[None])[0] for frame in frames]
        pairs = zip(boxes, points, strict=True)
        return [FoundFaces(*(np.asarray(part, np.float32) for part in pair)) for pair in pairs]


def _assert_equal(ours: list[FoundFaces], theirs: list[FoundFaces]) -> int:
    """The number of faces; they are equal bit for bit where both run on the same CPU."""
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.boxes, other.boxes.reshape(-1, 5), rtol=0, atol=1e-3)
        np.testing.assert_allclose(one.points, other.points.reshape(-1, 5, 2), rtol=0, atol=1e-3)
    return sum(len(faces.boxes) for faces in ours)


def _synthetic_batches() -> Iterator[np.ndarray]:
    """The portrait shifted, turned, scaled, dimmed and disturbed, three frames at a time."""
    portrait, random = read_portrait(), np.random.default_rng(0)
    for _ in range(12):
        frames = []
        for _ in range(3):
            turn = cv2.getRotationMatrix2D(
                (224, 120), random.uniform(-30, 30), random.uniform(0.4, 1.2)
            )
            turn[:, 2] += random.uniform(-120, 20, 2)
            frame = cv2.warpAffine(portrait, turn, (260, 200)) * random.uniform(0.4, 1.2)
            frame += random.normal(0, random.uniform(0, 20), frame.shape)
            frames.append(frame.clip(0, 255).astype(np.uint8))
        yield np.stack(frames)


def _small_frames(path: Path) -> Iterator[np.ndarray]:
    """Every third of the first frames, 320 pixels on the longer side."""
    capture = cv2.VideoCapture(str(path))
    for index in range(24):
        read, frame = capture.read()
        assert read
        if index % 3 == 0:
            scale = 320 / max(frame.shape)
            small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            yield np.ascontiguousarray(small[..., ::-1])
