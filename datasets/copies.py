"""Recordings of a corpus that occur several times under different names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from datasets.annotations import Record
from media.content import read_sound_hash
from media.errors import MediaError


def without_copies(
    records: Sequence[Record], report: Callable[[str], None] | None = None
) -> list[Record]:
    """The records without those whose sound an earlier one of the same corpus has already.

    Sounds are the same where their encoded samples are. A file that cannot be read is kept:
    preparing the corpus reports it.

    Args:
        report: is told how many were left out in each corpus; nothing where there were none.
    """
    seen: set[tuple[str, str]] = set()
    kept: list[Record] = []
    copies: Counter[str] = Counter()
    for record in records:
        try:
            content = (record.dataset, read_sound_hash(Path(record.audio)))
        except MediaError:
            kept.append(record)
            continue
        if content in seen:
            copies[record.dataset] += 1
        else:
            seen.add(content)
            kept.append(record)
    for corpus, count in sorted(copies.items() if report else ()):
        assert report
        report(f"{corpus}: {count} recordings left out, copies of others under another name")
    return kept
