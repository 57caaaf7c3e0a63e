"""Blendshapes of a face over time, and how its head is held.

A blendshape is how far a face goes one way that faces go, such as `mouthSmileLeft`, from 0 to 1, in
the names of Apple's ARKit. Models see them beside the head's yaw, pitch and roll.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from media.landmarks import ANYBODY, interpolate

# In MediaPipe's order; "left" and "right" are those of the person.
BLENDSHAPES = (
    "_neutral",
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "eyeLookDownLeft",
    "eyeLookDownRight",
    "eyeLookInLeft",
    "eyeLookInRight",
    "eyeLookOutLeft",
    "eyeLookOutRight",
    "eyeLookUpLeft",
    "eyeLookUpRight",
    "eyeSquintLeft",
    "eyeSquintRight",
    "eyeWideLeft",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawOpen",
    "jawRight",
    "mouthClose",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthFunnel",
    "mouthLeft",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthPucker",
    "mouthRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "noseSneerLeft",
    "noseSneerRight",
)
POSE = ("yaw", "pitch", "roll")  # of the head, in radians: see `media.mesh.head_pose`
VALUES = len(BLENDSHAPES) + len(POSE)  # of one step
GAPS_BRIDGED = 1.5  # steps of the mesh rate between neighbours that are interpolated
PREFIX = "blendshape_"  # of columns of a timeline
STILL_GAP = 1.0e6  # seconds: a still stands for any length of time


def _partner(name: str) -> str:
    for side, other in (("Left", "Right"), ("Right", "Left")):
        if name.endswith(side):
            return name.removesuffix(side) + other
    return name


# The index of each value's partner in a mirrored face, and the sign that it then has.
MIRRORED = np.array(
    [*(BLENDSHAPES.index(_partner(name)) for name in BLENDSHAPES), *range(len(BLENDSHAPES), VALUES)]
)
MIRRORED_SIGNS = np.array([1.0] * len(BLENDSHAPES) + [-1.0, 1.0, -1.0], dtype=np.float32)


@dataclass(frozen=True)
class MeshTrack:
    """What meshes of faces say.

    Args:
        blendshapes: (M, 52) float32 scores.
        head_poses: (M, 3) float32 radians: yaw, pitch, roll.
        presence: (M,) float32, how sure it was that there is a face.
        times: (M,) float64 rising seconds; a frame without a mesh has no entry.
        ids: (M,) int32, whose they are, as `Recording.face_ids`; `ANYBODY` goes with everybody.
        max_gap: seconds between neighbours that are interpolated.
    """

    blendshapes: np.ndarray
    head_poses: np.ndarray
    presence: np.ndarray
    times: np.ndarray
    ids: np.ndarray
    max_gap: float

    @property
    def values(self) -> np.ndarray:
        """(M, 55) float32: blendshapes, then the head's pose."""
        return np.concatenate([self.blendshapes, self.head_poses], axis=1)

    def of(self, face_id: int | None) -> MeshTrack:
        """The entries of one face; all where none is named."""
        if face_id is None:
            return self
        return self.keep((self.ids == face_id) | (self.ids == ANYBODY))

    def keep(self, which: np.ndarray) -> MeshTrack:
        """The entries that an (M,) bool array marks."""
        kept = {name: getattr(self, name)[which] for name in ARRAYS}
        return MeshTrack(**kept, max_gap=self.max_gap)

    def join(self, later: MeshTrack) -> MeshTrack:
        """These entries and later ones, whose `max_gap` goes on."""
        joined = {
            name: np.concatenate([getattr(self, name), getattr(later, name)]) for name in ARRAYS
        }
        return MeshTrack(**joined, max_gap=later.max_gap)

    def sample(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(S, 55) float32 values at (S,) seconds, and (S,) bool that says where there are."""
        return interpolate(self.values, self.times, times, self.max_gap)


ARRAYS = ("blendshapes", "head_poses", "presence", "times", "ids")


def describe_windows(steps: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """What faces do in windows, for people: means over the steps that are known.

    Args:
        steps: of each of B windows (S, 55) values and (S,) bool, which are known.

    Returns:
        (B,) of `blendshape_<name>`, from 0 to 1, and of `head_yaw`, `head_pitch`, `head_roll` in
        degrees; NaN where a window has no mesh.
    """
    unknown = np.full(VALUES, np.nan)
    means = np.stack([v[known].mean(axis=0) if known.any() else unknown for v, known in steps])
    scores = {f"{PREFIX}{name}": means[:, i] for i, name in enumerate(BLENDSHAPES) if i}
    angles = np.degrees(means[:, len(BLENDSHAPES) :])
    return scores | {f"head_{name}": angles[:, i] for i, name in enumerate(POSE)}


def max_gap(mesh_rate: float) -> float:
    """Seconds between meshes that are read so many times a second, with room for jitter."""
    return GAPS_BRIDGED / mesh_rate


def empty_meshes(max_gap: float = 0.0) -> MeshTrack:
    """No mesh at all."""
    return MeshTrack(
        blendshapes=np.zeros((0, len(BLENDSHAPES)), np.float32),
        head_poses=np.zeros((0, len(POSE)), np.float32),
        presence=np.zeros(0, np.float32),
        times=np.zeros(0),
        ids=np.zeros(0, np.int32),
        max_gap=max_gap,
    )
