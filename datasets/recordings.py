"""The recording of a record: its media files decoded, with faces, points and voice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from datasets.annotations import Record
from datasets.corpora import CORPORA
from media.configuration import ClipConfig
from media.errors import MediaError
from media.frame_rate import limit_pictures
from media.recording import Recording
from media.sound import is_audible

if TYPE_CHECKING:
    from media.faces import Detector
    from media.landmarker import Landmarker
    from media.mesh import MeshReading

DLIB, MESH = "dlib", "mesh"  # what finds landmarks


def read_source(
    record: Record,
    config: ClipConfig,
    detector_name: str,
    points: str = "",
    mesh: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Recording:
    """The recording of a record, whose pictures and sound may lie in two files.

    Args:
        points: `dlib` or `mesh`: by what landmarks are found; empty for none.
        mesh: read blendshapes too. Saved face pictures (`.npy`) have neither.
        tell: is told, line by line, what of the files could not be used.

    Raises:
        MediaError: a file cannot be used.
    """
    # Imported where there is work: face detection takes seconds to import.
    from media.reading import read_recording

    if record.video.endswith(".npy"):
        recording = _read_legacy_faces(Path(record.video), record, config)
    elif record.video:
        landmarker = load_finder(points, mesh, detector_name == "whole")
        detector = _detector(detector_name)
        recording = read_recording(
            Path(record.video), config, detector, landmarker=landmarker, tell=tell
        )
        recording = _limit_pictures(recording, record)
    else:
        return read_recording(Path(record.audio), config, None, tell=tell)
    if not record.audio:
        return recording
    sound = read_recording(Path(record.audio), config, None, tell=tell)
    duration = max(recording.duration, sound.duration)
    return replace(recording, waveform=sound.waveform, voice=sound.voice, duration=duration)


def _limit_pictures(recording: Recording, record: Record) -> Recording:
    corpus = CORPORA.get(record.dataset)
    return limit_pictures(recording, corpus.max_fps) if corpus and corpus.max_fps else recording


@lru_cache(maxsize=2)
def _detector(name: str) -> Detector:
    from media.faces import build_detector

    return build_detector(name)


@lru_cache(maxsize=2)
def load_finder(points: str, mesh: bool, filled: bool) -> Landmarker | MeshReading | None:
    """What is looked for in faces; `filled` tells that they fill their pictures."""
    from media.landmarker import build_landmarker
    from media.mesh import build_mesh_reading

    dlib = build_landmarker("reading landmarks with dlib") if points == DLIB else None
    return build_mesh_reading(filled, dlib) if mesh or points == MESH else dlib


def _read_legacy_faces(path: Path, record: Record, config: ClipConfig) -> Recording:
    """Saved face pictures, (T, H, W, 3) uint8 blue first, spread evenly over the record's sound."""
    from media.reading import read_recording

    try:
        faces = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise MediaError(f"{path}: cannot be read as saved face pictures: {error}") from error
    if faces.ndim != 4 or faces.shape[-1] != 3 or faces.dtype != np.uint8 or not len(faces):
        raise MediaError(
            f"{path}: expected (T, H, W, 3) uint8 pictures, not {faces.shape} {faces.dtype}"
        )
    duration = read_recording(Path(record.audio), config, None).duration if record.audio else 0.0
    duration = duration or config.window_seconds
    size = (config.face_size, config.face_size)
    resized = np.stack([cv2.resize(face[..., ::-1], size) for face in faces])
    times = (np.arange(len(faces)) + 0.5) * duration / len(faces)
    return Recording(
        path=path,
        duration=duration,
        waveform=np.zeros(0, dtype=np.int16),
        faces=resized,
        face_times=times,
        face_ids=np.zeros(len(faces), dtype=np.int32),
        picture_times=times,
    )


def is_silent(recording: Recording, config: ClipConfig) -> bool:
    """Whether there is sound, but nowhere any to hear."""
    samples = recording.waveform
    return len(samples) > 0 and not is_audible(samples / np.float32(32768.0), config)


def add_voice(recording: Recording, config: ClipConfig) -> Recording:
    """The recording and, where it has sound, when that holds speech."""
    if not len(recording.waveform):
        return recording
    from media.voice import find_voice  # torch comes with it

    return replace(recording, voice=find_voice(recording.waveform, config.sample_rate))
