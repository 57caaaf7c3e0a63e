"""Prepare a corpus: decode each file once, find faces, store them, and write the manifest.

`python -m datasets.prepare ravdess --root RAVDESS --out data/ravdess` leaves `manifest.csv`, which
`--annotation_path` of main.py takes, and the store `clips/` beside it. Killed at any moment, the
same command goes on where it was. Files that fail are listed with the reason; the rest is kept.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from datasets import fer2013, ravdess
from datasets.annotations import Record, read_annotations, write_annotations
from datasets.splits import check_speakers, split_by_ids, split_by_ratio
from datasets.store import ClipStore, StoreWriter
from media.clip import ClipConfig, Recording
from media.errors import MediaError
from media.faces import Detector, build_detector
from media.recording import read_recording

CORPORA = ("ravdess", "fer2013", "annotation")
STORE_NAME = "clips"
LEGACY_COLOUR = "bgr"  # `.npy` faces of the field's reference are saved blue first
_PENDING_PER_WORKER = 4


def read_source(record: Record, config: ClipConfig, detector_name: str) -> Recording:
    """The recording of a record, whose pictures and sound may lie in two files.

    Raises:
        MediaError: a file cannot be used.
    """
    detector = _detector(detector_name)
    if record.video.endswith(".npy"):
        recording = _read_legacy_faces(Path(record.video), record, config)
    elif record.video:
        recording = read_recording(Path(record.video), config, detector)
    else:
        return read_recording(Path(record.audio), config, None)
    if not record.audio:
        return recording
    sound = read_recording(Path(record.audio), config, None)
    duration = max(recording.duration, sound.duration)
    return replace(recording, waveform=sound.waveform, duration=duration)


@lru_cache(maxsize=2)
def _detector(name: str) -> Detector:
    return build_detector(name)


def _read_legacy_faces(path: Path, record: Record, config: ClipConfig) -> Recording:
    """Saved face pictures, (T, H, W, 3) uint8 blue first, spread evenly over the record's sound."""
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


def prepare_records(
    records: Sequence[Record],
    folder: Path,
    config: ClipConfig,
    detector_name: str | None = None,
    workers: int = 1,
) -> dict[str, str]:
    """Put every record's recording into the store in `folder`.

    Args:
        records: several may share their media, which is decoded once.
        folder: of the store; what it holds already is not decoded again.
        config: constants of the store.
        detector_name: where pictures need another detector than `config` names (`whole` for
            corpora of cropped faces).
        workers: processes. The store is the same for any number.

    Returns:
        What failed: the record's key to the reason.

    Raises:
        ValueError: the folder holds a store prepared with other constants.
    """
    failures: dict[str, str] = {}
    with StoreWriter(folder, config) as writer:
        wanted = {record.key: record for record in records if record.key not in writer.keys}
        results = _decode(list(wanted.values()), config, detector_name or config.detector, workers)
        bar = tqdm(results, total=len(wanted), unit="file", desc="preparing", disable=None)
        for key, result in bar:
            if isinstance(result, Recording):
                writer.add(key, result)
            else:
                failures[key] = result
    return failures


def _decode(
    records: list[Record], config: ClipConfig, detector_name: str, workers: int
) -> Iterator[tuple[str, Recording | str]]:
    """Recordings, or the reason of a failure, in the order of the records."""
    if workers <= 1:
        for record in records:
            yield _decode_one(record, config, detector_name)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        waiting: list[Future[tuple[str, Recording | str]]] = []
        queue = iter(records)
        for record in islice(queue, workers * _PENDING_PER_WORKER):
            waiting.append(pool.submit(_decode_one, record, config, detector_name))
        while waiting:
            yield waiting.pop(0).result()
            for record in islice(queue, 1):
                waiting.append(pool.submit(_decode_one, record, config, detector_name))


def _decode_one(
    record: Record, config: ClipConfig, detector_name: str
) -> tuple[str, Recording | str]:
    try:
        return record.key, read_source(record, config, detector_name)
    except MediaError as error:
        return record.key, str(error)


def trim_silence(record: Record, store: ClipStore, below_peak_db: float) -> Record:
    """The record without the leading and trailing sound that lies far below its loudest part."""
    waveform = store.recording(record.key).waveform
    frame = store.config.sample_rate // 100
    frames = waveform[: len(waveform) // frame * frame].reshape(-1, frame).astype(np.float64)
    if not frames.size or not frames.any():
        return record
    level = 10 * np.log10((frames**2).mean(axis=1) + 1e-3)
    loud = np.flatnonzero(level > level.max() - below_peak_db)
    start, end = loud[0] / 100.0, (loud[-1] + 1) / 100.0
    return replace(record, start=round(float(start), 3), end=round(float(end), 3))


def prepare(options: argparse.Namespace) -> int:
    """Run the command line. Returns its exit status: 1 where some files failed."""
    out = Path(options.out).resolve()
    records = _read_corpus(options, out)
    config = ClipConfig(
        face_size=options.face_size,
        face_margin=options.face_margin,
        detector_stride=options.detector_stride,
        sample_rate=options.sample_rate,
    )
    detector = "whole" if options.corpus == "fer2013" else options.detector
    failures = prepare_records(records, out / STORE_NAME, config, detector, options.workers)
    records = [record for record in records if record.key not in failures]
    if options.trim_silence_db > 0:
        store = ClipStore(out / STORE_NAME)
        records = [trim_silence(record, store, options.trim_silence_db) for record in records]
    if not records:
        raise ValueError(f"none of {len(failures)} files could be used: {_first(failures)}")
    write_annotations(records, out / "manifest.csv")
    print(f"{out / 'manifest.csv'}: {len(records)} records, {len(failures)} files failed")
    for reason in failures.values():
        print(f"failed: {reason}", file=sys.stderr)
    return 1 if failures else 0


def _first(failures: dict[str, str]) -> str:
    return next(iter(failures.values()), "no files")


def _read_corpus(options: argparse.Namespace, out: Path) -> list[Record]:
    root = Path(options.root).resolve()
    if not root.exists():
        raise ValueError(f"--root {root} does not exist")
    if options.corpus == "annotation":
        records = read_annotations(root)
        check_speakers(records)
        return records
    root = _unpacked(root, out)
    if options.corpus == "fer2013":
        return fer2013.read_records(root)
    records = ravdess.read_records(root, song=options.song)
    if options.split_ratio:
        held_share, test_share = options.split_ratio
        return split_by_ratio(records, held_share, test_share, options.manual_seed)
    present = {int(record.speaker[-2:]) for record in records}
    held = options.validation_speakers or [a for a in ravdess.VALIDATION_ACTORS if a in present]
    tested = options.test_speakers or [a for a in ravdess.TEST_ACTORS if a in present]
    excluded = {f"ravdess-{actor:02d}" for actor in options.exclude_speakers}
    return split_by_ids([r for r in records if r.speaker not in excluded], held, tested)


def _unpacked(root: Path, out: Path) -> Path:
    """The folder itself, or where a tar archive was unpacked (once)."""
    if not root.is_file():
        return root
    target = out / "raw"
    if not target.exists():
        temporary = out / "raw.part"
        with tarfile.open(root) as archive:
            archive.extractall(temporary, filter="data")
        temporary.rename(target)
    return target


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of `python -m datasets.prepare`."""
    parser = argparse.ArgumentParser(prog="python -m datasets.prepare", description=__doc__)
    add = parser.add_argument
    default = ClipConfig()
    add("corpus", choices=CORPORA, help="whose layout to read; `annotation`: files of a table")
    add("--root", required=True, help="folder (or tar archive) of the corpus; annotation file")
    add("--out", required=True, help="folder for manifest.csv and the store clips/")
    add("--workers", type=int, default=1, help="processes that decode")
    add("--face_size", type=int, default=default.face_size, help="side of face pictures, pixels")
    add("--face_margin", type=float, default=default.face_margin, help="around the detected box")
    add("--detector", choices=("mtcnn", "whole"), default="mtcnn", help="`whole`: cropped faces")
    add("--detector_stride", type=int, default=default.detector_stride, help="every k-th picture")
    add("--sample_rate", type=int, default=default.sample_rate, help="of the stored sound, Hz")
    add("--trim_silence_db", type=float, default=0.0, help="cut ends this far below the peak; 35")
    add("--song", action="store_true", help="RAVDESS: songs too")
    add("--validation_speakers", type=int, nargs="+", default=[], help="RAVDESS actors")
    add("--test_speakers", type=int, nargs="+", default=[], help="RAVDESS actors")
    add("--exclude_speakers", type=int, nargs="+", default=[], help="RAVDESS actors to leave out")
    add("--split_ratio", type=float, nargs=2, metavar=("VAL", "TEST"), help="shares of speakers")
    add("--manual_seed", type=int, default=1, help="of --split_ratio")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. A user's mistake is one line and exit status 2."""
    try:
        return prepare(parse_options(arguments))
    except (ValueError, MediaError, OSError, tarfile.TarError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
