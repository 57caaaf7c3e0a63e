"""Prepare a corpus: decode each file once, find faces, store them, and write the manifest.

`python -m datasets.prepare ravdess --root RAVDESS --out data/ravdess` leaves `manifest.csv`, which
`--annotation_path` of main.py takes, and the store `clips/` beside it. Killed at any moment, the
same command goes on where it was. Files that fail are listed with the reason; the rest is kept.
Run again, it decodes what is new and what changed since (by content hash), and nothing else.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from tqdm import tqdm

from command_line import OneLineParser
from datasets.annotations import Record, write_annotations
from datasets.cluster import spread_work
from datasets.corpora import CORPORA, read_corpus
from datasets.sources import Source, SourceLedger, read_source_hash
from datasets.splits import (
    PROTOCOLS,
    check_fold,
    check_speakers,
    k_folds,
    leave_one_out,
    split_by_ids,
    split_by_protocol,
    split_by_ratio,
    without_speakers,
)
from datasets.store import ClipStore, StoreWriter
from media.clip import ClipConfig, Recording
from media.errors import MediaError

if TYPE_CHECKING:
    from media.faces import Detector

STORE_NAME = "clips"
RATIO = (0.15, 0.15)  # shares of speakers that validate and test, where nothing else is asked for

Decoded = tuple[str, Recording | str, Source | None]  # key, recording or reason, what it came from


def read_source(record: Record, config: ClipConfig, detector_name: str) -> Recording:
    """The recording of a record, whose pictures and sound may lie in two files.

    Raises:
        MediaError: a file cannot be used.
    """
    # Imported where there is work: face detection takes seconds to import.
    from media.recording import read_recording

    if record.video.endswith(".npy"):
        recording = _read_legacy_faces(Path(record.video), record, config)
    elif record.video:
        recording = read_recording(Path(record.video), config, _detector(detector_name))
    else:
        return read_recording(Path(record.audio), config, None)
    if not record.audio:
        return recording
    sound = read_recording(Path(record.audio), config, None)
    duration = max(recording.duration, sound.duration)
    return replace(recording, waveform=sound.waveform, duration=duration)


@lru_cache(maxsize=2)
def _detector(name: str) -> Detector:
    from media.faces import build_detector

    return build_detector(name)


def _read_legacy_faces(path: Path, record: Record, config: ClipConfig) -> Recording:
    """Saved face pictures, (T, H, W, 3) uint8 blue first, spread evenly over the record's sound."""
    from media.recording import read_recording

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
    ray_address: str | None = None,
) -> dict[str, str]:
    """Put every record's recording into the store in `folder`.

    Args:
        records: several may share their media, which is decoded once.
        folder: of the store; what it holds already is decoded again only where the file's content
            has changed. The earlier recording then stays in the files, but is not read any more.
        config: constants of the store.
        detector_name: where pictures need another detector than `config` names (`whole` for
            corpora of cropped faces).
        workers: processes. The store is the same for any number.
        ray_address: of a Ray cluster that decodes instead, see `spread_work`.

    Returns:
        What failed: the record's key to the reason.

    Raises:
        ValueError: the folder holds a store prepared with other constants, or no Ray is there.
    """
    failures: dict[str, str] = {}
    work = partial(_decode, config=config, detector_name=detector_name or config.detector)
    with StoreWriter(folder, config) as writer:
        ledger = SourceLedger(folder)
        wanted = _list_wanted(records, writer.keys, ledger)
        results = spread_work(work, wanted, workers, ray_address) if wanted else iter(())
        bar = tqdm(results, total=len(wanted), unit="file", desc="preparing", disable=None)
        for key, result, source in bar:
            if isinstance(result, Recording) and source is not None:
                writer.add(key, result)
                ledger.add(source)
            else:
                failures[key] = str(result)
    return failures


def _list_wanted(records: Sequence[Record], held: set[str], ledger: SourceLedger) -> list[Record]:
    """A record of each recording that is missing or changed; hashes that lack are added."""
    wanted = []
    for key, record in {record.key: record for record in records}.items():
        if key not in held:
            wanted.append(record)
        elif key not in ledger:
            _add_hash(record, ledger)
        elif ledger.is_changed(record):
            wanted.append(record)
    return wanted


def _add_hash(record: Record, ledger: SourceLedger) -> None:
    """Note what a held recording was made from, unless its files are gone since."""
    if all(Path(path).exists() for path in (record.video, record.audio) if path):
        ledger.add(read_source_hash(record))


def _decode(record: Record, config: ClipConfig, detector_name: str) -> Decoded:
    try:
        recording = read_source(record, config, detector_name)
        return record.key, recording, read_source_hash(record)
    except (MediaError, OSError) as error:
        return record.key, str(error), None


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
    records = _read_records(options, out)
    config = ClipConfig(
        face_size=options.face_size,
        face_margin=options.face_margin,
        detector_stride=options.detector_stride,
        sample_rate=options.sample_rate,
    )
    detector = "whole" if CORPORA[options.corpus].cropped_faces else options.detector
    workers, folder = options.workers, out / STORE_NAME
    failures = prepare_records(records, folder, config, detector, workers, options.ray)
    records = [record for record in records if record.key not in failures]
    if options.trim_silence_db > 0:
        store = ClipStore(folder)
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


def _read_records(options: argparse.Namespace, out: Path) -> list[Record]:
    """Records of the corpus, with their subsets."""
    if options.song and options.corpus != "ravdess":
        raise ValueError("--song is of RAVDESS only")
    name = "ravdess_song" if options.song else options.corpus
    root = Path(options.root).resolve()
    if not root.exists():
        raise ValueError(f"--root {root} does not exist")
    records = read_corpus(name, _unpacked(root, out))
    if options.exclude_speakers:
        records = without_speakers(records, options.exclude_speakers)
    records = split_records(records, options)
    check_speakers(records)
    return records


def split_records(records: list[Record], options: argparse.Namespace) -> list[Record]:
    """Records with the subsets that the command line asks for.

    Where it asks for none: those that the corpus has, the split published for RAVDESS, or else
    `RATIO` of the speakers.

    Raises:
        ValueError: two ways are asked for at once, or one that the records do not allow.
    """
    way, seed, fold = _choose_way(options), options.manual_seed, options.fold or 0
    if way == "--n_folds":
        check_fold(fold, options.n_folds)
        return k_folds(records, options.n_folds, seed)[fold]
    if way == "--leave_one_out":
        return leave_one_out(records, options.leave_one_out, seed=seed)
    if way == "--validation_speakers/--test_speakers":
        return split_by_ids(records, options.validation_speakers, options.test_speakers)
    split = "ratio" if way == "--split_ratio" else options.split or _default_split(records)
    if split == "keep":
        return records
    if split == "ratio":
        held_share, test_share = options.split_ratio or RATIO
        return split_by_ratio(records, held_share, test_share, seed)
    return split_by_protocol(records, split, fold)


def _choose_way(options: argparse.Namespace) -> str:
    """The one flag that asks for a way to split, or nothing where none does."""
    ways = _list_ways(options)
    if len(ways) > 1:
        raise ValueError(f"{' and '.join(ways)} cannot be combined: choose one way to split")
    way = ways[0] if ways else ""
    if options.fold is not None and way != "--n_folds":
        if not way:
            raise ValueError("--fold needs --n_folds or a --split with folds")
        protocol = PROTOCOLS.get(options.split)
        if protocol is None or not protocol.folds:
            raise ValueError(f"--fold has no meaning with {options.split or way}")
    return way


def _list_ways(options: argparse.Namespace) -> list[str]:
    """The flags that each ask for a way to split."""
    asked = {
        "--split": options.split not in (None, "ratio", "ids"),
        "--split_ratio": bool(options.split_ratio) or options.split == "ratio",
        "--validation_speakers/--test_speakers": bool(
            options.validation_speakers or options.test_speakers or options.split == "ids"
        ),
        "--n_folds": options.n_folds is not None,
        "--leave_one_out": options.leave_one_out is not None,
    }
    return [name for name, is_asked in asked.items() if is_asked]


def _default_split(records: list[Record]) -> str:
    if any(record.subset for record in records):
        return "keep"
    return "ravdess_icpr22" if {r.dataset for r in records} == {"ravdess"} else "ratio"


def _unpacked(root: Path, out: Path) -> Path:
    """The folder itself, or where a tar archive was unpacked (once)."""
    if not root.is_file() or not tarfile.is_tarfile(root):
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
    parser = OneLineParser(prog="python -m datasets.prepare", description=__doc__)
    add = parser.add_argument
    default = ClipConfig()
    add(
        "corpus",
        choices=tuple(CORPORA),
        help="whose layout to read; `annotation`: files of a table",
    )
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
    add("--ray", metavar="ADDRESS", help="decode on this Ray cluster; `local` starts one")
    _add_split_options(parser)
    return parser.parse_args(arguments)


def _add_split_options(parser: argparse.ArgumentParser) -> None:
    """Ways to split, of which one may be asked for. Speakers are named in full or by number."""
    add = parser.add_argument_group("split").add_argument
    add_people = partial(add, nargs="+", default=[], metavar="SPEAKER")
    ways = ("keep", "ratio", "ids", *PROTOCOLS)
    add("--split", choices=ways, help="`keep`: as the corpus has it; a published protocol by name")
    add_people("--validation_speakers", help="who validates, with `ids`")
    add_people("--test_speakers", help="who tests, with `ids`")
    add_people("--exclude_speakers", help="whom to leave out")
    add("--split_ratio", type=float, nargs=2, metavar=("VAL", "TEST"), help="shares of speakers")
    add("--n_folds", type=int, help="folds of speakers, each testing in turn")
    add("--fold", type=int, help="which fold tests, counted from 0")
    add("--leave_one_out", metavar="SPEAKER", help="the one who tests")
    add("--manual_seed", type=int, default=1, help="of what is drawn")


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
