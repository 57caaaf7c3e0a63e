"""Labelled segments against the recordings that they are of: what lies outside is no label."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from datasets.annotations import Record

BEYOND_SECONDS = 0.25  # that an end may lie after a recording's, as lengths are rounded
_MILLISECONDS = 1000.0
_LEAST_MILLISECONDS = 100.0  # no one labels less


def outside(record: Record, duration: float) -> str | None:
    """Why a record's segment is not one of a recording of so many seconds; None where it is."""
    last = record.start if record.end is None else record.end
    beyond = record.start >= duration or last > duration + BEYOND_SECONDS
    if not beyond:
        return None
    end = "its end" if record.end is None else f"{record.end:g} s"
    place = f"{record.origin}: " if record.origin else ""
    text = f"{place}{record.start:g} s to {end} is not within the {duration:.3g} s of {record.name}"
    scaled = record.start / _MILLISECONDS < duration and (
        last / _MILLISECONDS <= duration + BEYOND_SECONDS
    )
    if scaled and last >= max(_LEAST_MILLISECONDS, 10 * duration):
        return f"{text}; these look like milliseconds: give seconds"
    return f"{text}; correct its start and end"


def drop_outside(
    records: Iterable[Record], duration_of: Callable[[str], float], failures: dict[str, str]
) -> list[Record]:
    """Records whose recordings did not fail, and that lie within them.

    Args:
        duration_of: seconds of a recording, by its key.
        failures: reasons by key; of each record outside, one is added, by where it was read.
    """
    kept = []
    for record in records:
        if record.key in failures:
            continue
        reason = outside(record, duration_of(record.key))
        if reason is None:
            kept.append(record)
        else:
            failures[record.origin or f"{record.key} at {record.start:g} s"] = reason
    return kept


def check_segments(records: Iterable[Record], duration_of: Callable[[str], float]) -> None:
    """Raise ValueError, naming the first, where segments lie outside their recordings.

    Args:
        duration_of: seconds of a recording, by its key.
    """
    wrong = [text for r in records if (text := outside(r, duration_of(r.key))) is not None]
    if wrong:
        more = f" (and {len(wrong) - 1} more rows)" if len(wrong) > 1 else ""
        raise ValueError(f"{wrong[0]}{more}")
