"""What was recognised in one recording: its facts, and a timeline for each identity in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timeline.table import TIME_TOLERANCE, Timeline

FOLLOWED: None = None  # identity of the timeline that goes by whichever face is followed


@dataclass(frozen=True, eq=False)
class Analysis:
    """A recording and its timelines, each of which covers all of it.

    Args:
        path: of the recording's file.
        duration: of the recording, in seconds.
        checkpoint: identity of the model and its options, as a timeline's JSON file holds it.
        notes: lines on what of the recording could not be used.
        timelines: by the identity of the face; for now one, of `FOLLOWED`.
    """

    path: Path
    duration: float
    checkpoint: Mapping[str, Any]
    notes: tuple[str, ...]
    timelines: Mapping[int | None, Timeline]

    @property
    def timeline(self) -> Timeline:
        """The timeline of the face that is followed."""
        return self.timelines[FOLLOWED]

    def check(self) -> None:
        """Raise ValueError, naming the identity, where a timeline does not cover the recording."""
        if not self.timelines:
            raise ValueError(f"{self.path}: there is no timeline")
        for identity, timeline in self.timelines.items():
            name = "followed face" if identity is FOLLOWED else f"face {identity}"
            try:
                timeline.check()
            except ValueError as error:
                raise ValueError(f"{self.path}: timeline of {name}: {error}") from error
            if abs(timeline.duration - self.duration) > TIME_TOLERANCE:
                raise ValueError(
                    f"{self.path}: timeline of {name} lasts {timeline.duration:.3f} s, "
                    f"the recording {self.duration:.3f} s"
                )
