"""Readers of landmark tracks: the archive of RAVDESS's landmarks (differences between pictures,
29.97 a second) and CSVs of OpenFace 2 (Baltrusaitis et al., FG 2018)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from datasets.annotations import Record
from labels.ravdess_names import read_ravdess_name
from media.landmarks import POINTS, LandmarkTrack, build_track
from system.errors import OptionError

RAVDESS_FPS = 30000 / 1001


def read_ravdess_archive(path: Path) -> dict[str, LandmarkTrack]:
    """Tracks in pixels of 1280x720 pictures by file name, such as `02-01-06-01-02-01-12`.

    The archive holds `delta` (sum over pictures gives x, y), `names` and `offsets`.

    Raises:
        ValueError: the file is no such archive.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            points = np.cumsum(archive["delta"], axis=0, dtype=np.int16)
            names, offsets = archive["names"], archive["offsets"]
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no archive of delta, names, offsets: {error}") from error
    tracks = {}
    for name, start, end in zip(names.tolist(), offsets[:-1], offsets[1:], strict=True):
        times = np.arange(end - start) / RAVDESS_FPS
        tracks[str(name)] = build_track(points[start:end], times)
    return tracks


def read_openface(path: Path, min_confidence: float = 0.8) -> LandmarkTrack:
    """Track in pixels from an OpenFace 2 CSV, of the face that is seen in the most pictures.

    Args:
        path: CSV with columns timestamp, confidence, success, x_0..x_67, y_0..y_67, in whose
            header blanks may stand before the names, and face_id where several faces were sought.
        min_confidence: pictures below it, or not marked a success, are left out.

    Raises:
        ValueError: a column is missing, or no picture is left.
    """
    try:
        table = pd.read_csv(path, skipinitialspace=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path} as OpenFace's table: {error}") from error
    xs, ys = ([f"{axis}_{i}" for i in range(POINTS)] for axis in "xy")
    missing = [n for n in ("timestamp", "confidence", "success", *xs, *ys) if n not in table]
    if missing:
        raise ValueError(f"{path} has no column {missing[0]}; expected OpenFace 2's 2D landmarks")
    table = table[(table["success"] == 1) & (table["confidence"] >= min_confidence)]
    if not len(table):
        raise ValueError(f"{path}: no picture is a success of confidence {min_confidence} or more")
    if "face_id" in table:
        table = table[table["face_id"] == table["face_id"].mode()[0]]
    points = np.stack([table[xs].to_numpy(), table[ys].to_numpy()], axis=-1)
    return build_track(points, table["timestamp"].to_numpy(np.float64))


def find_tracks(source: Path, records: Iterable[Record]) -> dict[str, LandmarkTrack]:
    """Tracks of records, by key; records that have none there are left out.

    Args:
        source: RAVDESS's archive (`.npz`), or a folder with OpenFace's `<name of the file>.csv`.

    Raises:
        ValueError: no such source, or no record has a track in it.
    """
    tracks: dict[str, LandmarkTrack] = {}
    if source.suffix == ".npz":
        archive = {_performance(name): t for name, t in read_ravdess_archive(source).items()}
        for record in records:
            track = archive.get(_performance(Path(record.name).stem))
            if track is not None:
                tracks[record.key] = track
    elif source.is_dir():
        for record in records:
            path = source / f"{Path(record.name).stem}.csv"
            if path.exists():
                tracks[record.key] = read_openface(path)
    else:
        raise OptionError(
            f"{source} holds no landmarks: give mesh, dlib, an .npz archive, or a folder of CSVs",
            "landmarks",
        )
    if not tracks:
        raise OptionError(f"{source} holds no track of any of the records", "landmarks")
    return tracks


def _performance(name: str) -> str:
    """What the files of one performance, with and without sound, have in common in their names."""
    known = read_ravdess_name(name)
    return known.performance if known else name
