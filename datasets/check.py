"""The leak guard: what makes a score on a split look better than it is, or cannot be trained on.

`python -m datasets.check data/ravdess/manifest.csv` prints the balance of classes and speakers and
every fault it finds, and ends with 1 where there is any. Copies within one subset are no fault, but
noted. It reads the prepared store beside the manifest; without one it decodes the files. Several
manifests are checked as one corpus.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from tqdm import tqdm

from datasets.annotations import SUBSETS, Record, read_annotations
from datasets.corpora import CORPORA
from datasets.fingerprints import (
    Match,
    SoundPrint,
    find_face_matches,
    find_sound_matches,
    read_face_prints,
    read_sound_print,
)
from datasets.preparation import STORE_NAME
from datasets.recordings import read_source
from datasets.segments import outside
from datasets.store import ClipStore
from labels.emotions import class_index, resolve_classes
from labels.ravdess_names import read_ravdess_name
from media.configuration import ClipConfig
from media.errors import MediaError
from media.recording import Recording
from system.checkpoint_metadata import read_metadata
from system.command_line import OneLineParser, exit_status

MAX_LENGTH_GAP = 0.25  # seconds by which sound and pictures of a recording may differ in length
_SHOWN = 10  # faults of a kind that are printed
_FOREIGN = {".pth", ".pt", ".tar", ".ckpt", ".bin"}  # weights as torch saves them


@dataclass(frozen=True)
class Fault:
    """What is wrong: its `kind` (speaker, performance, file, ...) and a line for people."""

    kind: str
    message: str


@dataclass(frozen=True)
class Content:
    """What is compared of a record: fingerprints, and seconds of sound and pictures (0: none)."""

    sound: SoundPrint
    faces: np.ndarray
    sound_seconds: float
    picture_seconds: float


def find_faults(
    records: Sequence[Record],
    contents: Sequence[Content | str],
    class_names: tuple[str, ...] | None = None,
) -> list[Fault]:
    """All faults of a split.

    Args:
        records: those without a subset are left out of every comparison of sides.
        contents: of each record, or why it cannot be read.
        class_names: of the checkpoint that shall be used with the records.
    """
    faults = [Fault("decode", content) for content in contents if isinstance(content, str)]
    pairs = [(r, c) for r, c in zip(records, contents, strict=True) if isinstance(c, Content)]
    used = [(r, c) for r, c in pairs if r.subset]
    faults += _find_two_sided(records)
    faults += _find_copies([r for r, _ in used], [c for _, c in used])
    faults += _find_missing_classes(records)
    faults += _find_length_gaps(pairs)
    return faults + (_find_label_faults(records, class_names) if class_names else [])


def read_contents(manifest: Path) -> tuple[list[Record], list[Content | str]]:
    """Records of a manifest and what is compared of each, or why it cannot be read.

    Raises:
        ValueError: the manifest or its store cannot be read.
    """
    records = read_annotations(manifest)
    folders = (manifest.parent / STORE_NAME, manifest.with_name(f"{manifest.stem}.{STORE_NAME}"))
    folder = next((f for f in folders if (f / "store.json").exists()), None)
    if folder is None:
        read: Callable[[Record], Recording] = _decode
        config = ClipConfig()
    else:
        store = ClipStore(folder)
        read, config = _reader(store), store.config
    bar = tqdm(records, unit="record", desc=f"reading {manifest}", disable=None)
    return records, [_read_content(record, read, config.sample_rate) for record in bar]


def _decode(record: Record) -> Recording:
    corpus = CORPORA.get(record.dataset)
    whole = corpus is not None and corpus.cropped_faces
    config = ClipConfig()
    return read_source(record, config, "whole" if whole else config.detector)


def _reader(store: ClipStore) -> Callable[[Record], Recording]:
    def read(record: Record) -> Recording:
        if record.key not in store:
            raise MediaError(f"{record.name}: not in {store.folder}; see why when it is prepared")
        return store.recording(record.key)

    return read


def _read_content(
    record: Record, read: Callable[[Record], Recording], sample_rate: int
) -> Content | str:
    try:
        recording = read(record)
    except MediaError as error:
        return str(error)
    beyond = outside(record, recording.duration)
    if beyond is not None:
        return beyond
    end = recording.duration if record.end is None else record.end
    first, last = round(record.start * sample_rate), round(end * sample_rate)
    shown = (recording.face_times >= record.start) & (recording.face_times < end)
    times = recording.picture_times
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    return Content(
        sound=read_sound_print(recording.waveform[first:last], sample_rate),
        faces=read_face_prints(recording.faces, np.flatnonzero(shown)),
        sound_seconds=len(recording.waveform) / sample_rate,
        picture_seconds=float(times[-1]) + step if len(times) > 1 else 0.0,
    )


def _find_two_sided(records: Iterable[Record]) -> list[Fault]:
    """Speakers, performances and files that stand on two sides."""
    sides: dict[tuple[str, str], dict[str, Record]] = defaultdict(dict)
    for record in records:
        for trait in _traits(record) if record.subset else ():
            sides[trait].setdefault(record.subset, record)
    faults = []
    for (kind, name), found in sorted(sides.items()):
        if len(found) > 1:
            where = " and ".join(f"{s} ({found[s].name})" for s in SUBSETS if s in found)
            faults.append(Fault(kind, f"{name} stands in {where}"))
    return faults


def _traits(record: Record) -> Iterator[tuple[str, str]]:
    if record.speaker:
        yield "speaker", record.speaker
    performances = {record.extra.get("performance", "")}
    for path in filter(None, (record.video, record.audio)):
        yield "file", path
        known = read_ravdess_name(Path(path).stem.split("_")[0])
        performances.add(known.performance if known else "")
    for name in performances - {""}:
        yield "performance", name


def find_notes(records: Sequence[Record], contents: Sequence[Content | str]) -> list[str]:
    """Lines on records of one subset that have the same sound or nearly the same faces.

    Faces of one speaker are alike, so faces are compared between speakers, or where none is known.
    """
    pairs = [(r, c) for r, c in zip(records, contents, strict=True) if isinstance(c, Content)]
    used = [(r, c) for r, c in pairs if r.subset]
    first: dict[tuple[str, int], int] = {}
    people = [
        first.setdefault((record.speaker, -1 if record.speaker else i), i)
        for i, (record, _) in enumerate(used)
    ]
    sounds = find_sound_matches([content.sound for _, content in used], np.arange(len(used)))
    faces = find_face_matches([content.faces for _, content in used], np.array(people))
    compared = [record for record, _ in used]
    return [*_tell_alike("sound", sounds, compared), *_tell_alike("faces", faces, compared)]


def find_shared_names(records: Sequence[Record]) -> list[str]:
    """Lines on speakers that two corpora name alike: one person, or two who count as one."""
    corpora: dict[str, set[str]] = defaultdict(set)
    for record in records:
        corpora[record.speaker].add(record.dataset or "no corpus")
    return [
        f"speaker {name} is of {' and '.join(sorted(found))}: if these are different people, put "
        "the corpus in front of the name"
        for name, found in sorted(corpora.items())
        if name and len(found) > 1
    ]


def _tell_alike(kind: str, matches: list[Match], records: Sequence[Record]) -> Iterator[str]:
    """A line for each subset in which records match, with the first pair."""
    alike: dict[str, list[tuple[Record, Record]]] = defaultdict(list)
    for match in matches:
        one, two = records[match.first], records[match.second]
        if one.subset == two.subset and one.key != two.key:
            alike[one.subset].append((one, two))
    for subset in filter(alike.get, SUBSETS):
        one, two = alike[subset][0]
        count = len(alike[subset])
        agree = f"{count} pairs agree" if count > 1 else "1 pair agrees"
        yield f"{kind}: {agree} within {subset}, as {one.name} and {two.name}"


def _find_copies(records: list[Record], contents: list[Content]) -> list[Fault]:
    sides = np.array([SUBSETS.index(record.subset) for record in records])
    sounds = find_sound_matches([content.sound for content in contents], sides)
    faces = find_face_matches([content.faces for content in contents], sides)
    return [
        *_tell_matches("sound", "bits", sounds, records),
        *_tell_matches("faces", "faces", faces, records),
    ]


def _tell_matches(
    kind: str, unit: str, matches: list[Match], records: list[Record]
) -> Iterator[Fault]:
    for match in sorted(matches, key=lambda match: -match.agreement):
        one, two = records[match.first], records[match.second]
        yield Fault(
            kind,
            f"{one.name} ({one.subset}) and {two.name} ({two.subset}) have the same {kind}: "
            f"{match.agreement:.0%} of {unit} agree",
        )


def _find_missing_classes(records: Sequence[Record]) -> list[Fault]:
    counts = count_by_subset((record.label, record.subset) for record in records)
    present = [name for name in SUBSETS if any(row[name] for row in counts.values())]
    return [
        Fault("class", f"{subset} has no {label}")
        for label, row in counts.items()
        for subset in present
        if not row[subset]
    ]


def _find_length_gaps(pairs: Iterable[tuple[Record, Content]]) -> list[Fault]:
    faults = {}
    for record, content in pairs:
        heard, seen = content.sound_seconds, content.picture_seconds
        if heard and seen and abs(heard - seen) > MAX_LENGTH_GAP:
            faults[record.key] = Fault(
                "length", f"{record.name}: sound lasts {heard:.2f} s and pictures {seen:.2f} s"
            )
    return list(faults.values())


def _find_label_faults(records: Sequence[Record], class_names: tuple[str, ...]) -> list[Fault]:
    labels = {record.label for record in records}
    strange = sorted(label for label in labels if class_index(label, class_names) is None)
    faults = [Fault("labels", f"the checkpoint has no place for {label}") for label in strange]
    known = {
        class_names[i]
        for i in (class_index(label, class_names) for label in labels)
        if i is not None
    }
    if len(known) < 2:
        return faults
    ours = resolve_classes("auto", known)
    theirs = tuple(name for name in class_names if name in known)
    if ours != theirs:
        text = f"the order is {', '.join(ours)} here and {', '.join(theirs)} in the checkpoint"
        faults.append(Fault("labels", text))
    return faults


def read_class_names(path: Path) -> tuple[str, ...]:
    """Class names of a checkpoint, in order, without reading its weights.

    Raises:
        ValueError: not a checkpoint that this project wrote.
    """
    if path.suffix.lower() in _FOREIGN and path.exists():
        raise ValueError(
            f"{path} is a foreign checkpoint and names no classes; the order of labels can be "
            "compared with a .safetensors checkpoint of this project only"
        )
    names = read_metadata(path).get("class_names")
    if not names:
        raise ValueError(f"{path} names no classes: the order of labels cannot be compared with it")
    return tuple(names)


def count_by_subset(pairs: Iterable[tuple[str, str]]) -> dict[str, Counter[str]]:
    """Rows of a table: how often each name occurs in each subset."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for name, subset in pairs:
        counts[name][subset] += 1
    return dict(sorted(counts.items()))


def format_balance(records: Sequence[Record]) -> str:
    """Tables of records by class, gender and corpus, and of speakers, in each subset."""
    sections = [_format_row("", SUBSETS)]
    for kind, names in (
        ("class", [record.label for record in records]),
        ("gender", [record.extra.get("gender", "") for record in records]),
        ("corpus", [record.dataset for record in records]),
    ):
        subsets = [record.subset for record in records]
        for name, row in count_by_subset(zip(names, subsets, strict=True)).items():
            if name:
                sections.append(_format_row(f"{kind} {name}", (row[s] for s in SUBSETS)))
    counts = {
        s: Counter(r.speaker for r in records if r.speaker and r.subset == s) for s in SUBSETS
    }
    sections.append(_format_row("speakers", (len(row) for row in counts.values())))
    sections.append(_format_row("records a speaker", map(_spread, counts.values())))
    return "\n".join(sections)


def _spread(counts: Counter[str]) -> str:
    """Least, middle and most records of a speaker."""
    values = counts.values()
    return f"{min(values)}/{median(values):g}/{max(values)}" if values else "-"


def _format_row(name: str, cells: Iterable[object]) -> str:
    return f"{name:<24}" + "".join(f"{cell!s:>14}" for cell in cells)


def format_faults(faults: Sequence[Fault], shown: int) -> str:
    """Lines by kind, at most `shown` of each."""
    by_kind: dict[str, list[str]] = defaultdict(list)
    for fault in faults:
        by_kind[fault.kind].append(f"{fault.kind}: {fault.message}")
    lines = []
    for kind, messages in by_kind.items():
        lines += messages[:shown]
        if len(messages) > shown:
            lines.append(f"{kind}: and {len(messages) - shown} more (--all lists them)")
    summary = ", ".join(f"{len(messages)} {kind}" for kind, messages in by_kind.items())
    return "\n".join([*lines, f"faults: {summary or 'none'}"])


def check(options: argparse.Namespace) -> int:
    """Run the command line. Returns its exit status: 1 where there are faults."""
    class_names = read_class_names(Path(options.model_path)) if options.model_path else None
    records: list[Record] = []
    contents: list[Content | str] = []
    for manifest in options.manifest:
        found, read = read_contents(Path(manifest))
        records += found
        contents += read
    faults = find_faults(records, contents, class_names)
    print(format_balance(records))
    for note in [*find_notes(records, contents), *find_shared_names(records)]:
        print(f"note: {note}")
    print(format_faults(faults, len(faults) if options.all else _SHOWN))
    return 1 if faults else 0


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of `python -m datasets.check`."""
    parser = OneLineParser(prog="python -m datasets.check", description=__doc__)
    add = parser.add_argument
    add("manifest", nargs="+", help="annotation files; several are checked as one corpus")
    add("--model_path", help="checkpoint whose class names shall agree with the labels")
    add("--all", action="store_true", help=f"list all faults, not {_SHOWN} of a kind")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. A user's mistake is one line and exit status 2."""
    options = parse_options(arguments)
    return exit_status(lambda: check(options))


if __name__ == "__main__":
    sys.exit(main())
