"""What was found in the frames of a recording, put behind what was found before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from media.blendshapes import STILL_GAP, MeshTrack
from media.landmarks import LandmarkTrack

if TYPE_CHECKING:
    from media.faces import FacePicture


def extend_landmarks(
    track: LandmarkTrack, shown: Sequence[FacePicture], still: bool = False
) -> LandmarkTrack:
    """The track and the points in the frames that follow; those of a still stand for any time."""
    located = [picture for picture in shown if picture.points is not None]
    if not located:
        return track
    points = np.stack([picture.points for picture in located if picture.points is not None])
    return LandmarkTrack(
        points=np.concatenate([track.points, points.astype(np.float32)]),
        times=np.concatenate([track.times, [picture.time for picture in located]]),
        ids=np.concatenate([track.ids, [picture.face_id for picture in located]]).astype(np.int32),
        max_gap=STILL_GAP if still else track.max_gap,
    )


def extend_meshes(track: MeshTrack, shown: Sequence[FacePicture], still: bool = False) -> MeshTrack:
    """The same of meshes."""
    read = [(p.time, p.face_id, p.mesh) for p in shown if p.mesh is not None]
    if not read:
        return track
    times, ids, meshes = zip(*read, strict=True)
    new = MeshTrack(
        blendshapes=np.stack([mesh.blendshapes for mesh in meshes]),
        head_poses=np.stack([mesh.head_pose for mesh in meshes]),
        presence=np.array([mesh.presence for mesh in meshes], dtype=np.float32),
        times=np.array(times),
        ids=np.array(ids, dtype=np.int32),
        max_gap=STILL_GAP if still else track.max_gap,
    )
    return track.join(new)
