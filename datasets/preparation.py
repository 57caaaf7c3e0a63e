"""Records into a store: each recording decoded once, and again only where its files changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from datasets.annotations import Record
from datasets.parallel import spread_work
from datasets.recordings import add_voice, is_silent, read_source
from datasets.sources import Source, SourceLedger, read_source_hash
from datasets.store import StoreWriter
from media.configuration import ClipConfig
from media.errors import MediaError
from media.landmarks import LandmarkTrack
from media.recording import Recording
from system.command_line import describe_unexpected
from system.files import printable

STORE_NAME = "clips"

# Key, recording or reason, what it came from, and what of it could not be used.
Decoded = tuple[str, Recording | str, Source | None, list[str]]


@dataclass(frozen=True)
class DetectionOptions:
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
    finding: DetectionOptions | None = None,
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
    finding = finding or DetectionOptions()
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


def _decode(
    record: Record, config: ClipConfig, detector_name: str, finding: DetectionOptions
) -> Decoded:
    notes: list[str] = []
    try:
        recording = read_source(
            record, config, detector_name, finding.points, finding.mesh, notes.append
        )
        recording = add_voice(recording, config)
        if is_silent(recording, config):
            notes.append("its sound is silent from begin to end")
        notes = [f"{printable(record.name)}: {note}" for note in notes]
        return record.key, recording, read_source_hash(record), notes
    except (MediaError, ValueError, OSError) as error:
        return record.key, str(error), None, []
    except Exception as error:  # noqa: BLE001 - a fault of ours must not end the others
        return record.key, f"{printable(record.name)}: {describe_unexpected(error)}", None, []
