"""Preparing clips against the straightforward recipe, on the same files in one process.

Ours is what `python -m datasets.prepare` does with a file: decode it once, find faces, and append
the faces of every picture and the sound to a store. The other is `benchmarks.reference` without its
model: pictures read twice, MTCNN at full resolution on the last pictures of each one-second window,
a log-mel per window by librosa. Each recipe takes one file first, unmeasured, to warm up.

    python -m benchmarks.prepare_speed CLIPS... [--threads 1]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from facenet_pytorch import MTCNN

from benchmarks import reference
from datasets.annotations import Record
from datasets.recordings import read_source
from datasets.store import StoreWriter
from media.clip import tile_windows
from media.configuration import ClipConfig
from media.errors import MediaError
from media.suffixes import VIDEO, find_media
from system.command_line import OneLineParser

TARGET = 3.0  # times as fast as the reference, a clip


@dataclass(frozen=True)
class Speed:
    """Seconds a clip of both recipes, and the faces that each found in all clips."""

    clips: int
    ours: float
    reference: float
    our_faces: int
    reference_faces: int

    @property
    def ratio(self) -> float:
        return self.reference / self.ours


def measure(paths: Sequence[Path], config: ClipConfig) -> Speed:
    """Prepare the clips with both recipes, one after the other.

    Raises:
        ValueError: there are no clips, or the reference finds no picture in one.
        MediaError: ours cannot use one.
    """
    if not paths:
        raise ValueError("no clips to measure; give video files or folders of them")
    mtcnn = MTCNN()
    with tempfile.TemporaryDirectory() as folder, StoreWriter(Path(folder), config) as writer:
        ours, our_faces = _time(lambda path: _prepare(path, config, writer), paths)
        other, other_faces = _time(lambda path: _prepare_plainly(path, config, mtcnn), paths)
    return Speed(len(paths), ours, other, our_faces, other_faces)


def _time(prepare: Callable[[Path], int], paths: Sequence[Path]) -> tuple[float, int]:
    """Seconds a clip, and what was found in all."""
    prepare(paths[0])
    start = time.perf_counter()
    found = sum(prepare(path) for path in paths)
    return (time.perf_counter() - start) / len(paths), found


def _prepare(path: Path, config: ClipConfig, writer: StoreWriter) -> int:
    record = Record(str(path), "", label="")
    recording = read_source(record, config, config.detector)
    writer.add(record.key, recording)
    return len(recording.faces)


def _prepare_plainly(path: Path, config: ClipConfig, mtcnn: MTCNN) -> int:
    count, rate = reference.count_pictures(path)
    waveform = reference.read_waveform(path, config.sample_rate)
    duration = max(count / rate, len(waveform) / config.sample_rate)
    windows = tile_windows(duration, config.window_seconds, config.window_seconds)
    used = [reference.used_pictures(w, count, rate, config.pictures) for w in windows]
    found = 0
    for window, pictures in zip(windows, reference.read_pictures(path, used), strict=True):
        faces = [reference.crop_face(picture, mtcnn, config) for picture in pictures]
        found += sum(face is not None for face in faces)
        reference.speech_inputs(waveform, window, config)
    return found


def list_clips(paths: Sequence[Path]) -> list[Path]:
    """The files, and the videos in the folders."""
    clips: list[Path] = []
    for path in paths:
        inside = find_media(path, VIDEO).files
        clips += inside if path.is_dir() else [path]
    return clips


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status: 1 where the target is missed."""
    parser = OneLineParser("python -m benchmarks.prepare_speed", description=__doc__)
    parser.add_argument("clips", type=Path, nargs="+", help="videos, or folders of them")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each recipe")
    options = parser.parse_args(arguments)
    try:
        if options.threads < 1:
            raise ValueError(f"--threads must be 1 or more, not {options.threads}")
        torch.set_num_threads(options.threads)
        cv2.setNumThreads(options.threads)
        speed = measure(list_clips(options.clips), ClipConfig())
    except (ValueError, OSError, MediaError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{speed.clips} clips, {options.threads} threads for OpenCV and torch")
    print(f"ours       {speed.ours:7.3f} s a clip, {speed.our_faces} faces")
    print(f"reference  {speed.reference:7.3f} s a clip, {speed.reference_faces} faces")
    met = speed.ratio >= TARGET
    print(f"ratio      {speed.ratio:7.2f} (target: {TARGET:g} or more{'' if met else ': MISSED'})")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
