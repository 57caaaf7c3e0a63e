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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from tqdm import tqdm

from datasets.annotations import Record, tell_spellings, write_annotations
from datasets.cluster import spread_work
from datasets.corpora import CORPORA, read_corpus
from datasets.corpus_flags import add_corpus_flags, corpus_identity, read_corpus_flags
from datasets.ownership import claim_folder
from datasets.sources import Source, SourceLedger, read_source_hash
from datasets.split_flags import add_split_flags, split_records
from datasets.splits import check_speakers, without_speakers
from datasets.store import ClipStore, StoreWriter, lacks
from datasets.stretches import drop_outside
from datasets.talking import load_landmarker, write_talking
from media.clip import ClipConfig, Recording
from media.errors import MediaError
from media.frame_rate import limit_pictures
from media.landmarks import LandmarkTrack
from media.sound import is_audible
from system.command_line import OneLineParser, describe_unexpected, exit_status, print_error
from system.files import printable

if TYPE_CHECKING:
    from media.faces import Detector
    from media.landmarker import Landmarker
    from media.mesh import MeshReading

STORE_NAME = "clips"
DLIB, MESH = "dlib", "mesh"  # what finds landmarks

# Key, recording or reason, what it came from, and what of it could not be used.
Decoded = tuple[str, Recording | str, Source | None, list[str]]


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
    from media.recording import read_recording

    if record.video.endswith(".npy"):
        recording = _read_legacy_faces(Path(record.video), record, config)
    elif record.video:
        landmarker = _landmarker(points, mesh, detector_name == "whole")
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
def _landmarker(points: str, mesh: bool, filled: bool) -> Landmarker | MeshReading | None:
    """What is looked for in faces; `filled` tells that they fill their pictures."""
    from media.landmarker import build_landmarker
    from media.mesh import build_mesh_reading

    dlib = build_landmarker("--landmarks dlib") if points == DLIB else None
    return build_mesh_reading(filled, dlib) if mesh or points == MESH else dlib


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


@dataclass(frozen=True)
class Finding:
    """How faces and their points are found.

    Args:
        detector: where pictures need another than the configuration names (`whole` for corpora of
            cropped faces).
        points: `dlib` or `mesh`: by what the 68 points of each face are found; empty for none.
        mesh: read each face's blendshapes.
        tracks: landmarks by record key that were found elsewhere.
    """

    detector: str | None = None
    points: str = ""
    mesh: bool = False
    tracks: Mapping[str, LandmarkTrack] = field(default_factory=dict)


def prepare_records(  # noqa: PLR0913 - most are optional
    records: Sequence[Record],
    folder: Path,
    config: ClipConfig,
    finding: Finding | None = None,
    workers: int = 1,
    ray_address: str | None = None,
    tell: Callable[[str], None] | None = None,
) -> dict[str, str]:
    """Put every record's recording into the store in `folder`.

    Args:
        records: several may share their media, which is decoded once.
        folder: of the store; what it holds already is decoded again only where the file's content
            has changed. The earlier recording then stays in the files, but is not read any more.
        config: constants of the store.
        finding: how faces and their points are found, where not as `config` says.
        workers: processes. The store is the same for any number.
        ray_address: of a Ray cluster that decodes instead, see `spread_work`.
        tell: is told, line by line, what of the files could not be used.

    Returns:
        What failed: the record's key to the reason. Stretches are checked by `drop_outside`.

    Raises:
        ValueError: the folder holds a store prepared with other constants, or no Ray is there.
    """
    failures: dict[str, str] = {}
    finding = finding or Finding()
    detector = finding.detector or config.detector
    work = partial(_decode, config=config, detector_name=detector, finding=finding)
    with StoreWriter(folder, config) as writer:
        ledger = SourceLedger(folder)
        wanted = _list_wanted(records, writer.keys, ledger)
        results = spread_work(work, wanted, workers, ray_address) if wanted else iter(())
        bar = tqdm(results, total=len(wanted), unit="file", desc="preparing", disable=None)
        for key, result, source, notes in bar:
            if tell is not None:
                for note in notes:
                    tell(note)
            if isinstance(result, Recording) and source is not None:
                track = finding.tracks.get(key, result.landmarks)
                writer.add(key, replace(result, landmarks=track))
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


def _decode(record: Record, config: ClipConfig, detector_name: str, finding: Finding) -> Decoded:
    notes: list[str] = []
    try:
        recording = read_source(
            record, config, detector_name, finding.points, finding.mesh, notes.append
        )
        recording = _with_voice(recording, config)
        if _is_silent(recording, config):
            notes.append("its sound is silent from begin to end")
        notes = [f"{printable(record.name)}: {note}" for note in notes]
        return record.key, recording, read_source_hash(record), notes
    except (MediaError, ValueError, OSError) as error:
        return record.key, str(error), None, []
    except Exception as error:  # noqa: BLE001 - a fault of ours must not end the others
        return record.key, f"{printable(record.name)}: {describe_unexpected(error)}", None, []


def _is_silent(recording: Recording, config: ClipConfig) -> bool:
    """Whether there is sound, but nowhere any to hear."""
    samples = recording.waveform
    return len(samples) > 0 and not is_audible(samples / np.float32(32768.0), config)


def _with_voice(recording: Recording, config: ClipConfig) -> Recording:
    """The recording and, where it has sound, when that holds speech."""
    if not len(recording.waveform):
        return recording
    from media.voice import find_voice  # torch comes with it

    return replace(recording, voice=find_voice(recording.waveform, config.sample_rate))


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
    claim_folder(out, corpus_identity(options), records, options.replace)
    for line in tell_spellings(records):
        print(line)
    if options.talking:
        load_landmarker()  # says what is missing now, not when all else is prepared
    config = ClipConfig(
        face_size=options.face_size,
        face_margin=options.face_margin,
        detector_stride=options.detector_stride,
        sample_rate=options.sample_rate,
        mesh_rate=options.mesh_rate,
    )
    detector = "whole" if CORPORA[options.corpus].cropped_faces else options.detector
    workers, folder = options.workers, out / STORE_NAME
    points = options.landmarks if options.landmarks in (DLIB, MESH) else ""
    finding = Finding(detector, points, options.mesh, _known_tracks(options, records))
    for name, wanted in (("landmarks", options.landmarks), ("blendshapes", options.mesh)):
        if wanted and lacks(folder, name):
            raise ValueError(f"{folder} was prepared without {name}: prepare into another --out")
    prepare_all = partial(
        prepare_records,
        folder=folder,
        config=config,
        finding=finding,
        workers=workers,
        tell=lambda note: print(f"note: {note}", file=sys.stderr),
    )
    failures = prepare_all(records, ray_address=options.ray)
    records = drop_outside(records, ClipStore(folder).duration, failures)
    if options.talking:
        copies = write_talking(records, folder, out / "talking", workers)
        failures |= prepare_all(copies)
        print(f"{len(copies)} of the training pictures a second time, with the mouth opened")
        records += [copy for copy in copies if copy.key not in failures]
    if options.trim_silence_db > 0:
        store = ClipStore(folder)
        records = [trim_silence(record, store, options.trim_silence_db) for record in records]
    if not records:
        raise ValueError(f"none of {len(failures)} records could be used: {_first(failures)}")
    write_annotations(records, out / "manifest.csv")
    print(f"{out / 'manifest.csv'}: {len(records)} records, {len(failures)} failed")
    for reason in failures.values():
        print_error(reason, "failed")
    return 1 if failures else 0


def _find_tracks(source: Path, records: Sequence[Record]) -> Mapping[str, LandmarkTrack]:
    from datasets.landmarks import find_tracks  # pandas comes with it, and takes a second

    return find_tracks(source, records)


def _known_tracks(
    options: argparse.Namespace, records: list[Record]
) -> Mapping[str, LandmarkTrack]:
    """Landmarks found elsewhere, by record key."""
    if options.landmarks in (DLIB, MESH):
        _landmarker(options.landmarks, options.mesh, False)  # says now what is missing, and once
        return {}
    return _find_tracks(Path(options.landmarks), records) if options.landmarks else {}


def _first(failures: dict[str, str]) -> str:
    return next(iter(failures.values()), "no files")


def _read_records(options: argparse.Namespace, out: Path) -> list[Record]:
    """Records of the corpus, with their subsets."""
    flags = read_corpus_flags(options, say=print)
    root = Path(options.root).resolve()
    if not root.exists():
        raise ValueError(f"--root {root} does not exist")
    records = read_corpus(options.corpus, _unpacked(root, out), **flags)
    if options.exclude_speakers:
        records = without_speakers(records, options.exclude_speakers)
    records = split_records(records, options)
    check_speakers(records)
    return records


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
    add(
        "--landmarks",
        metavar="SOURCE",
        help="68 points: `mesh` or `dlib` finds them; or RAVDESS's .npz, or OpenFace's CSVs",
    )
    add("--mesh", action="store_true", help="blendshapes and head pose, by MediaPipe's face mesh")
    add("--mesh_rate", type=float, default=default.mesh_rate, help="meshes a second")
    add("--replace", action="store_true", help="put this corpus in another's place in --out")
    add("--ray", metavar="ADDRESS", help="decode on this Ray cluster; `local` starts one")
    add_corpus_flags(parser)
    add_split_flags(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. A user's mistake is one line and exit status 2."""
    options = parse_options(arguments)
    again = "interrupted; the same command goes on from here"
    return exit_status(lambda: prepare(options), again)


if __name__ == "__main__":
    sys.exit(main())
