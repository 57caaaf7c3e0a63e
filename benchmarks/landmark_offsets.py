"""How the mesh's 68 points differ from those of dlib's predictor, on faces where both are run.

python -m benchmarks.landmark_offsets FOLDER media/weights/landmark_offsets.csv

FOLDER holds pictures of cropped faces (`faces_extra`). The table has x and y of what is added to
each point of the mesh, in eye distances along and across the line of the eyes: the median over
faces that look ahead, made symmetric. dlib is needed (the extra `landmarks`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from media.landmarker import build_landmarker, locate_in_face
from media.landmarks import MIRRORED, POINTS, normalise
from media.mesh import LANDMARKS, MeshReader

MOST_YAW = 0.35  # radians


def measure(folder: Path) -> tuple[np.ndarray, int]:
    """(68, 2) offsets, and the number of faces that they were measured on."""
    reader, landmarker = MeshReader(), build_landmarker("the comparison")
    found = []
    for path in sorted(folder.rglob("*.jpg")):
        face = np.ascontiguousarray(np.asarray(Image.open(path).convert("RGB")))
        mesh, points = reader.read_still(face), locate_in_face(landmarker, face)
        if mesh is None or points is None or abs(mesh.head_pose[0]) > MOST_YAW:
            continue
        pair = (points * face.shape[1::-1], mesh.points[LANDMARKS, :2])
        dlib, ours = (normalise(p[None], np.ones(1, bool))[0, :POINTS] for p in pair)
        found.append(dlib - ours)
    offsets = np.median(found, axis=0)
    return (offsets + offsets[MIRRORED] * (-1, 1)) / 2, len(found)


def main(arguments: Sequence[str] | None = None) -> int:
    folder, table = (Path(a) for a in (sys.argv[1:] if arguments is None else arguments))
    offsets, count = measure(folder)
    np.savetxt(table, offsets, fmt="%.4f", delimiter=",", header="x,y", comments="")
    print(f"{table}: medians over {count} faces, largest {np.abs(offsets).max():.3f} eye distances")
    return 0


if __name__ == "__main__":
    sys.exit(main())
