"""Records of a run and the stores of their clips, prepared here where they were not."""

from __future__ import annotations

import logging
from pathlib import Path

from datasets.annotations import Record, read_annotations, tell_spellings
from datasets.preparation import STORE_NAME, prepare_records
from datasets.samples import StoreSet
from datasets.segments import check_segments
from datasets.splits import check_speakers
from experiments.initialisation import default_face_size
from experiments.options import ExperimentOptions
from media.configuration import ClipConfig
from system.errors import OptionError

_LOG = logging.getLogger(__name__)


def read_data(all_options: ExperimentOptions) -> tuple[list[Record], list[Record], StoreSet]:
    """Records, those that are only paired with them, and the stores of both.

    Recordings that were not prepared are prepared here.

    Raises:
        ValueError: data and options that do not go together.
    """
    options = all_options.data
    face_size = options.sample_size or default_face_size(all_options.model)
    records: list[Record] = []
    pairing: list[Record] = []
    folders = []
    for group, paths in ((records, options.annotation_path), (pairing, options.pair_with)):
        for path in map(Path, paths):
            found, folder = _read_annotated(path, face_size)
            group += found
            folders.append(folder)
    records = [record for record in records if options.dataset in (None, record.dataset)]
    if not records:
        raise ValueError(f"no records of dataset {options.dataset} in {options.annotation_path}")
    check_speakers([*records, *pairing])
    stores = StoreSet(folders)
    if options.sample_size not in (None, stores.config.face_size):
        raise OptionError(
            f"faces of {options.sample_size} pixels are asked for, but the store holds faces of "
            f"{stores.config.face_size}: prepare it again, or leave the size out",
            "sample_size",
        )
    for line in tell_spellings(records):
        _LOG.info(line)
    records, pairing = _held(records, stores), _held(pairing, stores)
    check_segments([*records, *pairing], lambda key: stores.of(key).duration(key))
    return records, pairing, stores


def _read_annotated(path: Path, face_size: int) -> tuple[list[Record], Path]:
    """Records of a file and the store beside it, made here if the file was not prepared."""
    records = read_annotations(path)
    folder = path.parent / STORE_NAME
    if (folder / "store.json").exists():
        return records, folder
    folder = path.with_name(f"{path.stem}.{STORE_NAME}")
    failures = prepare_records(records, folder, ClipConfig(face_size=face_size))
    for reason in failures.values():
        _LOG.info(f"left out: {reason}")
    return [record for record in records if record.key not in failures], folder


def _held(records: list[Record], stores: StoreSet) -> list[Record]:
    held = [record for record in records if stores.holds(record.key)]
    if len(held) < len(records):
        _LOG.info(
            f"left out: {len(records) - len(held)} records that no store holds; prepare again"
        )
    if records and not held:
        raise ValueError("none of the records is in a store: prepare the corpus again")
    return held
