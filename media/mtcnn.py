"""MTCNN: three small networks in a cascade that find faces and five points in each.

Source: Zhang et al., Joint face detection and alignment using multitask cascaded convolutional
networks, IEEE Signal Processing Letters 2016. The weights are those that the package
facenet-pytorch ships (MIT; from David Sandberg's TensorFlow port). They are read from its files;
the package itself is never imported. The results equal facenet-pytorch's.

1. The proposal network looks at every place of an image pyramid and proposes boxes.
2. The refinement network looks at each proposed box again, at 24x24 pixels.
3. The output network looks at what is left, at 48x48 pixels, and gives the points too.

After each, boxes are moved by what the network found, and of boxes that overlap the best is kept.
Boxes are x1, y1, x2, y2 in pixels, counted from 1 in the published networks: hence the 1s below.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

WEIGHTS_PACKAGE = "facenet_pytorch"
SMALLEST_FACE = 20  # pixels
PYRAMID_FACTOR = 0.709  # from one scale to the next
CELL, STRIDE = (
    12,
    2,
)  # pixels that the proposal network sees at once, and from one place to the next
REFINE_SIDE, OUTPUT_SIDE = 24, 48
PROPOSE_SCORE, REFINE_SCORE, OUTPUT_SCORE = 0.6, 0.7, 0.7  # least probability of a face
SAME_SCALE_OVERLAP, OVERLAP = 0.5, 0.7  # of two boxes that overlap more, one is dropped
CROPS_AT_ONCE = 512  # bounds the memory that the second and third network need
BOXES_AT_ONCE = 256  # bounds the memory in which overlaps are measured


@dataclass(frozen=True)
class FoundFaces:
    """Faces of one frame, best first; boxes and points may lie outside the frame.

    Args:
        boxes: (F, 5) float32: x1, y1, x2, y2 and the probability of a face.
        points: (F, 5, 2) float32, x and y: left and right eye as seen in the frame, nose, left and
            right corner of the mouth.
    """

    boxes: np.ndarray
    points: np.ndarray


class Mtcnn:
    """The cascade with its published weights.

    Raises:
        ValueError: the package with the weights is not installed, or its files are not as expected.
    """

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self._device = torch.device(device)
        folder = _weights_folder()
        self._propose = _load(_ProposalNetwork(), folder / "pnet.pt").to(self._device)
        self._refine = _load(_RefinementNetwork(), folder / "rnet.pt").to(self._device)
        self._output = _load(_OutputNetwork(), folder / "onet.pt").to(self._device)

    @torch.inference_mode()
    def find(self, frames: np.ndarray) -> list[FoundFaces]:
        """Faces of each of (B, H, W, 3) uint8 RGB frames."""
        pixels = torch.from_numpy(frames.copy()).to(self._device).permute(0, 3, 1, 2).float()
        candidates = self._refined(pixels, self._proposed(pixels))
        final, points = self._final(pixels, candidates)
        boxes = np.column_stack([final.boxes, final.scores])
        of_frames = [final.frames == index for index in range(len(frames))]
        return [FoundFaces(boxes[own], points[own]) for own in of_frames]

    def _proposed(self, pixels: Tensor) -> _Candidates:
        height, width = pixels.shape[2:]
        planes = pixels.contiguous()  # in this order areas are averaged faster, to the same numbers
        found = [_Candidates.none()]
        for scale in _pyramid(min(height, width)):
            size = (int(height * scale + 1), int(width * scale + 1))
            moves, scores = self._propose(_scaled(planes, size))
            at_scale = _places_of_faces(moves, scores, scale)
            found.append(at_scale.take(_best(at_scale, SAME_SCALE_OVERLAP)))
        together = _Candidates.join(found)
        together = together.take(_best(together, OVERLAP))
        sides = together.boxes[:, 2:] - together.boxes[:, :2]
        return together.at(together.boxes + together.moves * np.tile(sides, 2)).squared()

    def _refined(self, pixels: Tensor, candidates: _Candidates) -> _Candidates:
        candidates, crops = _crop(pixels, candidates, REFINE_SIDE)
        moves, scores = _in_parts(self._refine, crops, (4, 1))
        found = candidates.seen(moves, scores[:, 0]).take(scores[:, 0] > REFINE_SCORE)
        found = found.take(_best(found, OVERLAP))
        return found.moved().squared()

    def _final(self, pixels: Tensor, candidates: _Candidates) -> tuple[_Candidates, np.ndarray]:
        """Faces and their (N, 5, 2) points."""
        candidates, crops = _crop(pixels, candidates, OUTPUT_SIDE)
        moves, points, scores = _in_parts(self._output, crops, (4, 10, 1))
        sure = scores[:, 0] > OUTPUT_SCORE
        found, points = candidates.seen(moves, scores[:, 0]).take(sure), points[sure]
        corner, side = found.boxes[:, None, :2], found.boxes[:, None, 2:] - found.boxes[:, None, :2]
        placed = (side + 1) * points.reshape(-1, 2, 5).transpose(0, 2, 1) + corner - 1
        found = found.moved()
        kept = _best(found, OVERLAP, nested=True)
        return found.take(kept), placed[kept]


@dataclass(frozen=True)
class _Candidates:
    """Boxes that may hold a face, of all frames of a batch.

    Args:
        boxes: (N, 4) float32.
        moves: (N, 4) float32: where the box's sides should go, as fractions of its extent.
        scores: (N,) float32, the probability of a face.
        frames: (N,) index of the frame in the batch.
    """

    boxes: np.ndarray
    moves: np.ndarray
    scores: np.ndarray
    frames: np.ndarray

    @classmethod
    def none(cls) -> _Candidates:
        boxes = np.zeros((0, 4), np.float32)
        return cls(boxes, boxes, np.zeros(0, np.float32), np.zeros(0, np.int64))

    @classmethod
    def join(cls, parts: list[_Candidates]) -> _Candidates:
        return cls(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.moves for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.frames for part in parts]),
        )

    def take(self, chosen: np.ndarray) -> _Candidates:
        """Those of the indices, in their order, or those that a mask holds."""
        return _Candidates(
            self.boxes[chosen], self.moves[chosen], self.scores[chosen], self.frames[chosen]
        )

    def at(self, boxes: np.ndarray) -> _Candidates:
        return _Candidates(boxes, self.moves, self.scores, self.frames)

    def seen(self, moves: np.ndarray, scores: np.ndarray) -> _Candidates:
        """The same boxes, with what the next network found in them."""
        return _Candidates(self.boxes, moves, scores, self.frames)

    def moved(self) -> _Candidates:
        sides = self.boxes[:, 2:] - self.boxes[:, :2] + 1
        return self.at(self.boxes + self.moves * np.tile(sides, 2))

    def squared(self) -> _Candidates:
        """Boxes extended to squares around their centres."""
        extents = self.boxes[:, 2:] - self.boxes[:, :2]
        sides = extents.max(axis=1, keepdims=True, initial=0.0)
        corners = self.boxes[:, :2] + extents * np.float32(0.5) - sides * np.float32(0.5)
        return self.at(np.hstack([corners, corners + sides]))


def _pyramid(shorter_side: int) -> Iterator[float]:
    """Scales at which a face as large as a cell is `SMALLEST_FACE` large in the frame, or more."""
    scale = CELL / SMALLEST_FACE
    side = shorter_side * scale
    while side > CELL:
        yield scale
        scale, side = scale * PYRAMID_FACTOR, side * PYRAMID_FACTOR


def _scaled(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 3, H, W) from 0 to 255 -> (B, 3, *size) from about -1 to 1, by means over areas."""
    means = functional.adaptive_avg_pool2d(planes, size)
    return ((means - 127.5) * 0.0078125).contiguous(memory_format=torch.channels_last)


def _places_of_faces(moves: Tensor, scores: Tensor, scale: float) -> _Candidates:
    """Boxes of the places where the proposal network sees a face.

    Args:
        moves: (B, 4, H, W).
        scores: (B, H, W).
        scale: of the frame that it looked at.
    """
    found = scores >= PROPOSE_SCORE
    places = found.nonzero()  # (N, 3): frame, row, column
    corners = STRIDE * places[:, 1:].flip(1).float()
    boxes = torch.hstack([(corners + 1) / scale, (corners + CELL) / scale]).floor()
    own = moves.permute(0, 2, 3, 1)[found]
    arrays = [part.cpu().numpy() for part in (boxes, own, scores[found], places[:, 0])]
    return _Candidates(*arrays)


def _crop(pixels: Tensor, candidates: _Candidates, side: int) -> tuple[_Candidates, Tensor]:
    """What the boxes hold of their frames, as (N, 3, side, side); boxes outside are left out."""
    height, width = pixels.shape[2:]
    first = np.maximum(candidates.boxes[:, :2].astype(np.int64), 1) - 1
    last = np.minimum(candidates.boxes[:, 2:].astype(np.int64), (width, height))
    inside = np.all(last > first, axis=1)
    candidates = candidates.take(inside)
    corners = np.hstack([first, last])[inside].tolist()
    crops = [
        functional.adaptive_avg_pool2d(pixels[frame, None, :, top:bottom, left:right], side)
        for frame, (left, top, right, bottom) in zip(candidates.frames, corners, strict=True)
    ]
    if not crops:
        return candidates, pixels.new_zeros((0, 3, side, side))
    return candidates, (torch.cat(crops) - 127.5) * 0.0078125


def _in_parts(network: nn.Module, crops: Tensor, widths: tuple[int, ...]) -> list[np.ndarray]:
    """The network's outputs for (N, 3, S, S), each as (N, width)."""
    found = [network(part) for part in crops.split(CROPS_AT_ONCE)] if len(crops) else []
    return [
        np.concatenate(
            [np.zeros((0, width), np.float32), *(part[i].cpu().numpy() for part in found)]
        )
        for i, width in enumerate(widths)
    ]


def _best(candidates: _Candidates, most: float, nested: bool = False) -> np.ndarray:
    """Indices of boxes, best first, without those that overlap a better one of their frame.

    Args:
        candidates: of any frames.
        most: overlap that is still allowed, see `_overlaps`.
        nested: whether overlap is measured against the smaller box.
    """
    order = np.argsort(-candidates.scores, kind="stable")
    if nested:  # the published code's order: it decides between boxes with equal scores
        order = np.argsort(candidates.scores)[::-1]
    kept = order[:0]
    for start in range(0, len(order), BOXES_AT_ONCE):
        block = order[start : start + BOXES_AT_ONCE]
        before = _overlaps(candidates.take(kept), candidates.take(block), nested) > most
        block = block[~before.any(axis=0)]
        within = _overlaps(candidates.take(block), candidates.take(block), nested) > most
        free = np.ones(len(block), bool)
        for index in range(len(block)):
            if free[index]:
                free[index + 1 :] &= ~within[index, index + 1 :]
        kept = np.concatenate([kept, block[free]])
    return kept


def _overlaps(first: _Candidates, second: _Candidates, nested: bool) -> np.ndarray:
    """(N, M): the area that boxes share, as a fraction of their union; 0 in different frames.

    With `nested` it is a fraction of the smaller box, so that a box within another overlaps wholly.
    """
    edge = np.float32(nested)  # the published code counts pixels at both ends here, and only here
    one, other = first.boxes.T[:, :, None], second.boxes.T[:, None, :]
    shared = (np.minimum(one[2], other[2]) - np.maximum(one[0], other[0]) + edge).clip(min=0)
    shared *= (np.minimum(one[3], other[3]) - np.maximum(one[1], other[1]) + edge).clip(min=0)
    own, its = ((x2 - x1 + edge) * (y2 - y1 + edge) for x1, y1, x2, y2 in (one, other))
    whole = np.minimum(own, its) if nested else own + its - shared
    same_frame = first.frames[:, None] == second.frames
    return np.divide(shared, whole, where=same_frame & (whole > 0), out=np.zeros_like(shared))


class _ProposalNetwork(nn.Module):
    """(B, 3, H, W) -> moves (B, 4, H', W') and scores (B, H', W'), a place every 2 pixels.

    Parts of all three networks bear the names that they have in the files of weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = pool(self.prelu1(self.conv1(x)), 2)
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_2(x), self.conv4_1(x).softmax(dim=1)[:, 1]


class _RefinementNetwork(nn.Module):
    """(N, 3, 24, 24) -> moves (N, 4) and scores (N, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)
        self.dense5_2 = nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = pool(self.prelu1(self.conv1(x)), 3)
        x = pool(self.prelu2(self.conv2(x)), 3)
        x = self.prelu4(self.dense4(_flat(self.prelu3(self.conv3(x)))))
        return self.dense5_2(x), self.dense5_1(x).softmax(dim=1)[:, 1:]


class _OutputNetwork(nn.Module):
    """(N, 3, 48, 48) -> moves (N, 4), points (N, 10: five x, five y) and scores (N, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1 = nn.Linear(256, 2)
        self.dense6_2 = nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = pool(self.prelu1(self.conv1(x)), 3)
        x = pool(self.prelu2(self.conv2(x)), 3)
        x = pool(self.prelu3(self.conv3(x)), 2)
        x = self.prelu5(self.dense5(_flat(self.prelu4(self.conv4(x)))))
        return self.dense6_2(x), self.dense6_3(x), self.dense6_1(x).softmax(dim=1)[:, 1:]


def _flat(x: Tensor) -> Tensor:
    """(N, D, H, W) -> (N, W * H * D), the order in which the weights were trained."""
    return x.permute(0, 3, 2, 1).flatten(1)


def pool(x: Tensor, side: int) -> Tensor:
    """Max pooling with stride 2 and ceil_mode: equal to torch's, and 8 times as fast on the CPU."""
    for dim in (2, 3):
        x = _pool_along(x, dim, side)
    return x


def _pool_along(x: Tensor, dim: int, side: int) -> Tensor:
    length = x.shape[dim]
    count = -(-(length - side) // 2) + 1
    missing = 2 * (count - 1) + side - length
    padding = (0, 0, 0, missing) if dim == 2 else (0, missing)
    x = functional.pad(x, padding, value=-float("inf"))
    index = [slice(None)] * 4
    shifted = []
    for start in range(side):
        index[dim] = slice(start, start + 2 * count - 1, 2)
        shifted.append(x[tuple(index)])
    return reduce(torch.maximum, shifted)


def _weights_folder() -> Path:
    spec = find_spec(WEIGHTS_PACKAGE)  # looks for the package and does not run it
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "MTCNN's weights are read from the package facenet-pytorch, which is not installed: "
            "run `pip install --no-deps facenet-pytorch==2.5.3`"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def _load(network: nn.Module, path: Path) -> nn.Module:
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} does not hold MTCNN's weights: run `pip install --no-deps --force-reinstall "
            "facenet-pytorch==2.5.3`"
        ) from error
    return network.eval().requires_grad_(False)
