"""What a store was made from: a hash of the content of each recording's files.

`sources.jsonl` lies in the store's folder, one line a recording. A file whose size or time of
change differs from the line is hashed again; where its content differs too, it is decoded anew.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from datasets.annotations import Record
from system.files import naming

_NAME = "sources.jsonl"


@dataclass(frozen=True)
class Source:
    """SHA-256 over a recording's files in order, their bytes, and their last change (ns)."""

    key: str
    sha256: str
    size: int
    modified: int


def read_source_hash(record: Record) -> Source:
    """Hash the files of a record.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in _paths(record):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return Source(record.key, digest.hexdigest(), *_read_stamp(record))


class SourceLedger:
    """The sources of a store, appended to as recordings are. A half line is cut off."""

    def __init__(self, folder: Path) -> None:
        path = folder / _NAME
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with path.open("r+b") as file:
                file.truncate(len(whole))
        sources = (Source(**json.loads(line)) for line in whole.splitlines())
        self._sources = {source.key: source for source in sources}
        self._path = path

    def __contains__(self, key: str) -> bool:
        return key in self._sources

    def add(self, source: Source) -> None:
        """Append a source; a later one of a key replaces it."""
        with naming(self._path), self._path.open("ab") as file:
            file.write(json.dumps(asdict(source)).encode() + b"\n")
        self._sources[source.key] = source

    def is_changed(self, record: Record) -> bool:
        """Whether a record's files are other than when it was prepared.

        Files that are gone are not: what was prepared from them stays good.
        """
        known = self._sources[record.key]
        try:
            if _read_stamp(record) == (known.size, known.modified):
                return False
            return read_source_hash(record).sha256 != known.sha256
        except OSError:
            return False


def _paths(record: Record) -> list[Path]:
    return [Path(path) for path in (record.video, record.audio) if path]


def _read_stamp(record: Record) -> tuple[int, int]:
    stats = [path.stat() for path in _paths(record)]
    return sum(s.st_size for s in stats), max(s.st_mtime_ns for s in stats)
