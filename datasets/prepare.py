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
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from datasets.annotations import Record, tell_spellings, write_annotations
from datasets.corpora import CORPORA, read_corpus
from datasets.corpus_flags import add_corpus_flags, corpus_identity, read_corpus_flags
from datasets.mouth_opening import load_landmarker, write_mouth_openings
from datasets.ownership import claim_folder
from datasets.preparation import STORE_NAME, DetectionOptions, prepare_records
from datasets.recordings import DLIB, MESH, load_finder
from datasets.segments import drop_outside
from datasets.split_flags import add_split_flags, split_records
from datasets.splits import check_speakers, without_speakers
from datasets.store import ClipStore, lacks
from datasets.trimming import trim_silence
from media.configuration import ClipConfig
from media.landmarks import LandmarkTrack
from system.command_line import OneLineParser, exit_status, print_error
from system.errors import OptionError


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
    finding = DetectionOptions(detector, points, options.mesh, _known_tracks(options, records))
    for name, wanted in (("landmarks", options.landmarks), ("blendshapes", options.mesh)):
        if wanted and lacks(folder, name):
            raise OptionError(
                f"{folder} was prepared without {name}: prepare into another folder", "out"
            )
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
        copies = write_mouth_openings(records, folder, out / "talking", workers)
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
        load_finder(options.landmarks, options.mesh, False)  # says now what is missing, and once
        return {}
    return _find_tracks(Path(options.landmarks), records) if options.landmarks else {}


def _first(failures: dict[str, str]) -> str:
    return next(iter(failures.values()), "no files")


def _read_records(options: argparse.Namespace, out: Path) -> list[Record]:
    """Records of the corpus, with their subsets."""
    flags = read_corpus_flags(options)
    root = Path(options.root).resolve()
    if not root.exists():
        raise OptionError(f"{root} does not exist", "root")
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
