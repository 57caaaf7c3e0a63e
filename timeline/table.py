"""The result of recognition over one recording: a row for each window.

It knows no model: a result can be read and redrawn on a machine without torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from timeline.row import Task, TimelineRow, check_row
from timeline.segments import Segment, join_windows

if TYPE_CHECKING:
    import pandas as pd

TimelineStyle = Literal["stacked", "lines"]  # how its probabilities are drawn

TIME_TOLERANCE = 1e-3  # seconds: what a CSV file can hold
CLASS_PREFIX, VALUE_PREFIX = "p_", "y_"  # of columns: probabilities, and values of a regression
CONTRIBUTION_PREFIX, GATE_PREFIX = "contribution_", "gate_"
SPEECH_FRACTION, ADAPTED = "speech_fraction", "adapted"
# What further columns of numbers begin with: those, and face measures.
MEASURES = (
    CONTRIBUTION_PREFIX,
    GATE_PREFIX,
    SPEECH_FRACTION,
    ADAPTED,
    "blendshape_",
    "head_",
)
UNCERTAIN = "uncertain"
LEADING_COLUMNS = (
    "start",
    "end",
    "partial",
    "face_id",
    "face_share",
    "modalities",
    "dominant",
    "confidence",
)


@dataclass(frozen=True, eq=False)
class Timeline:
    """Emotions over one recording.

    Args:
        rows: one per window, ascending in time.
        class_names: C labels, in the order of the probabilities.
        media: path or name of the recording.
        duration: of the recording, in seconds.
        window_seconds, hop_seconds: length of a window, and step from one to the next.
        checkpoint: identity of the model (`name`, `architecture`, `sha256`, ...), as JSON holds it.
        thumbnails: (time in seconds, (S, S, 3) uint8 RGB) faces for figures; not written to files.
        task: what the model was trained for, and so what the probabilities are.
        source: which file of which folder the recording is, with its size and last change.
        warnings: lines on what of the recording could not be used.
    """

    rows: tuple[TimelineRow, ...]
    class_names: tuple[str, ...]
    media: str
    duration: float
    window_seconds: float
    hop_seconds: float
    checkpoint: dict[str, Any] = field(default_factory=dict)
    thumbnails: tuple[tuple[float, np.ndarray], ...] = ()
    task: Task = "classification"
    source: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """Names of the columns of classes, or of values."""
        prefix = VALUE_PREFIX if self.task == "regression" else CLASS_PREFIX
        return [prefix + name for name in self.class_names]

    @property
    def measures(self) -> list[str]:
        """Names of the further columns of numbers: what was asked for, the same in each row."""
        return list(self.rows[0].measures) if self.rows else []

    @property
    def marks_uncertain(self) -> bool:
        """Whether rows say if they are uncertain."""
        return bool(self.rows) and self.rows[0].uncertain is not None

    def dominant(self, row: TimelineRow) -> str | None:
        """The most probable class or label of a row; None of nothing recognised, and of values."""
        if row.probabilities is None or self.task == "regression":
            return None
        return self.class_names[row.probabilities.argmax()]

    def confidence(self, row: TimelineRow) -> float | None:
        """Probability of the dominant class or label."""
        if row.probabilities is None or self.task == "regression":
            return None
        return float(row.probabilities.max())

    def probabilities(self) -> np.ndarray:
        """(W, C) float64, a row of NaN for each window in which nothing was recognised."""
        table = np.full((len(self.rows), len(self.class_names)), np.nan)
        for index, row in enumerate(self.rows):
            if row.probabilities is not None:
                table[index] = row.probabilities
        return table

    def borders(self) -> np.ndarray:
        """(W + 1,) seconds: row i alone stands for [borders[i], borders[i + 1]).

        Where windows do not overlap this is the window itself. Where they do, it is the stretch of
        one hop around the window's middle; the first and the last reach to the recording's ends.
        """
        inner = [(before.end + after.start) / 2 for before, after in pairwise(self.rows)]
        return np.array([0.0, *inner, self.duration])

    def segments(self) -> list[Segment]:
        """Neighbouring rows of the same dominant class joined; confidence is the mean over time."""
        confidences = np.array([self.confidence(row) or 0.0 for row in self.rows])
        return join_windows(self.borders(), [self.dominant(r) for r in self.rows], confidences)

    def check(self) -> None:
        """Raise ValueError where rows do not tile [0, duration) or hold no valid probabilities."""
        if not self.rows:
            raise ValueError("the timeline has no rows")
        if len(set(self.class_names)) != len(self.class_names) or not self.class_names:
            raise ValueError(f"class names {self.class_names}: must be distinct, at least one")
        covered = 0.0
        for number, row in enumerate(self.rows, start=1):
            if row.start > covered + TIME_TOLERANCE:
                raise ValueError(f"no row covers {covered:.3f} s to {row.start:.3f} s")
            if row.end <= covered:
                raise ValueError(
                    f"row {number} ends at {row.end:.3f} s, no later than those before"
                )
            check_row(row, number, len(self.class_names), self.task)
            if list(row.measures) != self.measures or (
                self.marks_uncertain != (row.uncertain is not None)
            ):
                raise ValueError(f"row {number} has other columns than the first")
            covered = row.end
        if (np.diff(self.borders()) <= 0).any():
            raise ValueError("the rows are not in order of time")
        if abs(covered - self.duration) > TIME_TOLERANCE:
            raise ValueError(f"rows end at {covered:.3f} s, the recording at {self.duration:.3f} s")

    def to_pandas(self) -> pd.DataFrame:
        """One line per row, columns as in the CSV file; missing values where nothing was seen."""
        import pandas as pd  # takes most of a second, and only notebooks and tables need it

        cells = {c: [getattr(row, c, None) for row in self.rows] for c in LEADING_COLUMNS}
        cells["dominant"] = [self.dominant(row) for row in self.rows]
        cells["confidence"] = [self.confidence(row) for row in self.rows]
        table = pd.DataFrame(cells).astype({"face_id": "Int64", "confidence": "float64"})
        table[self.columns] = self.probabilities()
        if self.marks_uncertain:
            table[UNCERTAIN] = [bool(row.uncertain) for row in self.rows]
        for name in self.measures:
            table[name] = pd.array([row.measures[name] for row in self.rows], dtype="float64")
        return table


def format_time(seconds: float) -> str:
    """`m:ss`, from an hour on `h:mm:ss`; with one decimal where it is not a whole second."""
    minutes, rest = divmod(round(seconds * 10), 600)
    clock = f"{rest // 10:02d}" + (f".{rest % 10}" if rest % 10 else "")
    if minutes < 60:
        return f"{minutes}:{clock}"
    return f"{minutes // 60}:{minutes % 60:02d}:{clock}"
