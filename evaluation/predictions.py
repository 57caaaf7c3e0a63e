"""Tables of predictions, as training writes them: one row a clip, or one row a window."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

TASKS = ("classification", "multilabel", "regression")
PROBABILITY_FLOOR = 1e-7  # what a probability written as 0 is taken for in a logarithm
_MOST_ROUNDING = 0.01  # by which probabilities of a row may miss a sum of 1


@dataclass(frozen=True)
class PredictionTable:
    """What a model said of each clip (or window) of a subset, and what was true.

    Args:
        path: the file that was read.
        task: one of `TASKS`.
        class_names: (C,) names of classes, labels or regression targets.
        clip: (N,) names. Unique in a table of clips; repeated in a table of windows.
        speaker: (N,) names, empty where unknown.
        groups: every other column (`dataset`, `gender`, `performance`, ...): (N,) strings.
        targets: classification (N,) class indices; multilabel (N, C) of 0 and 1; regression
            (N, C) values.
        scores: (N, C) probabilities, in classification of sum 1; regression: predicted values.
        soft: (N, C) shares of the annotators by class, where the table has `soft_` columns.
        span: (N, 2) start and end of each window in seconds; None in a table of clips.
    """

    path: Path
    task: str
    class_names: tuple[str, ...]
    clip: np.ndarray
    speaker: np.ndarray
    groups: dict[str, np.ndarray]
    targets: np.ndarray
    scores: np.ndarray
    soft: np.ndarray | None = None
    span: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.clip)

    @property
    def log_probabilities(self) -> np.ndarray:
        """(N, C), finite: probabilities below `PROBABILITY_FLOOR` count as that."""
        return np.log(np.maximum(self.scores, PROBABILITY_FLOOR))

    @property
    def performance(self) -> np.ndarray | None:
        """(N,) performances, a row without one being its own; None where no row has any."""
        known = self.groups.get("performance")
        if known is None or not (known != "").any():
            return None
        return np.where(known == "", np.char.add("clip:", self.clip), known)

    @property
    def bootstrap_unit(self) -> np.ndarray:
        """(N,) what is drawn as a whole: the speaker; where unknown the performance, or clip."""
        alone = np.char.add("clip:", self.clip) if self.performance is None else self.performance
        return np.where(self.speaker == "", alone, self.speaker)

    def take(self, rows: np.ndarray) -> PredictionTable:
        """The table of these rows, given as indices or as a mask."""
        return replace(
            self,
            clip=self.clip[rows],
            speaker=self.speaker[rows],
            groups={name: values[rows] for name, values in self.groups.items()},
            targets=self.targets[rows],
            scores=self.scores[rows],
            soft=None if self.soft is None else self.soft[rows],
            span=None if self.span is None else self.span[rows],
        )


def read_predictions(
    path: Path, class_names: Sequence[str] | None = None, task: str | None = None
) -> PredictionTable:
    """Read `predictions_*.csv` or `windows_*.csv`; a table with `start` and `end` is of windows.

    Args:
        class_names: the order of classes; the order of columns where it is not given.
        task: one of `TASKS`; found by the columns where it is not given: `target` and `p_` are
            classification, `target_` and `p_` multilabel, `target_` and `y_` regression.

    Raises:
        ValueError: the file is no such table; says which line and column.
    """
    header, rows, lines = _read_rows(path)
    found = _task_of(path, header)
    if task not in (None, found):
        raise ValueError(f"{path} is a table of {found}, but the run's task is {task}")
    prefix = "y_" if found == "regression" else "p_"
    names = tuple(name.removeprefix(prefix) for name in header if name.startswith(prefix))
    if class_names is not None:
        if sorted(class_names) != sorted(names):
            raise ValueError(
                f"{path} has columns {prefix} of {', '.join(names)}; "
                f"the run has {', '.join(class_names)}"
            )
        names = tuple(class_names)
    columns = _Columns(path, lines, dict(zip(header, zip(*rows, strict=True), strict=True)))
    scores = columns.numbers([prefix + name for name in names])
    if found != "regression":
        _check_probabilities(columns, scores, exclusive=found == "classification")
    if found == "classification":
        scores = scores / scores.sum(axis=1, keepdims=True)
    span = columns.numbers(["start", "end"]) if {"start", "end"} <= set(header) else None
    soft_names = [f"soft_{name}" for name in names]
    has_soft = set(soft_names) <= set(header)
    used = {"clip", "speaker", "target", "start", "end", *soft_names}
    used |= {name for name in header if name.startswith((prefix, "target_"))}
    table = PredictionTable(
        path=path,
        task=found,
        class_names=names,
        clip=columns.words("clip"),
        speaker=columns.words("speaker"),
        groups={name: columns.words(name) for name in header if name not in used},
        targets=_read_targets(columns, found, names),
        scores=scores,
        soft=columns.numbers(soft_names) if has_soft else None,
        span=span,
    )
    _check_clips(table)
    return table


@dataclass(frozen=True)
class _Columns:
    """Columns of a table by name, and the line of each row."""

    path: Path
    lines: list[int]
    by_name: dict[str, tuple[str, ...]]

    def words(self, name: str) -> np.ndarray:
        values = self.by_name.get(name, ("",) * len(self.lines))
        return np.array([value.strip() for value in values], dtype=str)

    def numbers(self, names: Sequence[str]) -> np.ndarray:
        """(N, len(names)) finite float64."""
        try:
            values = np.array([self.by_name[name] for name in names], dtype=np.float64).T
            if np.isfinite(values).all():
                return values
        except ValueError:
            pass  # the cell at fault is looked for below
        for name in names:
            for line, text in zip(self.lines, self.by_name[name], strict=True):
                if not _is_finite_number(text):
                    raise ValueError(f"{self.path}, line {line}: {name} is '{text}', not a number")
        raise AssertionError("unreachable: some cell is no finite number")

    def refuse(self, wrong: Any, reason: str) -> None:
        """Raise ValueError for the first row that is wrong, if one is."""
        if wrong.any():
            raise ValueError(f"{self.path}, line {self.lines[int(wrong.argmax())]}: {reason}")


def _read_rows(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, rows, and the line that each row ends on."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            rows, lines = [], []
            for row in filter(None, reader):
                if len(row) != len(header):
                    raise ValueError(
                        f"{path}, line {reader.line_num}: {len(row)} fields under a header of "
                        f"{len(header)}"
                    )
                rows.append(row)
                lines.append(reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV text: {error}") from error
    if "clip" not in header:
        raise ValueError(f"{path} is no table of predictions: it has no column 'clip'")
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise ValueError(f"{path} has the column '{twice[0]}' twice")
    if not rows:
        raise ValueError(f"{path} has a header and no rows")
    return header, rows, lines


def _task_of(path: Path, header: Sequence[str]) -> str:
    probabilities = any(name.startswith("p_") for name in header)
    values = any(name.startswith("y_") for name in header)
    named_targets = any(name.startswith("target_") for name in header)
    if "target" in header and probabilities:
        return "classification"
    if named_targets and probabilities:
        return "multilabel"
    if named_targets and values:
        return "regression"
    raise ValueError(
        f"{path} is no table of predictions: it needs 'target' and 'p_<class>', "
        "'target_<label>' and 'p_<label>', or 'target_<name>' and 'y_<name>'"
    )


def _read_targets(columns: _Columns, task: str, names: Sequence[str]) -> np.ndarray:
    if task != "classification":
        for name in names:
            if f"target_{name}" not in columns.by_name:
                raise ValueError(f"{columns.path} has no column 'target_{name}'")
        targets = columns.numbers([f"target_{name}" for name in names])
        if task == "multilabel":
            wrong = ~np.isin(targets, (0, 1)).all(axis=1)
            columns.refuse(wrong, "a target is neither 0 nor 1")
        return targets
    index = {name: number for number, name in enumerate(names)}
    words = columns.words("target")
    unknown = np.array([word not in index for word in words])
    if unknown.any():
        word = words[int(unknown.argmax())]
        columns.refuse(unknown, f"target '{word}' has no column; there are {', '.join(names)}")
    return np.array([index[word] for word in words], dtype=np.int64)


def _check_probabilities(columns: _Columns, scores: np.ndarray, exclusive: bool) -> None:
    outside = ((scores < 0) | (scores > 1)).any(axis=1)
    columns.refuse(outside, "a probability is not between 0 and 1")
    if exclusive:
        sums = scores.sum(axis=1)
        wrong = np.abs(sums - 1) > _MOST_ROUNDING
        columns.refuse(wrong, f"probabilities sum to {sums[int(wrong.argmax())]:.3g}, not to 1")


def _check_clips(table: PredictionTable) -> None:
    if (table.clip == "").any():
        raise ValueError(f"{table.path}: a row has no clip")
    if table.span is None:
        names, counts = np.unique(table.clip, return_counts=True)
        if counts.max() > 1:
            raise ValueError(f"{table.path} has the clip '{names[counts.argmax()]}' twice")


def _is_finite_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def read_json(path: Path) -> dict[str, Any]:
    """An object, empty where there is no such file."""
    if not path.exists():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no JSON object")
    return values
