"""What a record's labels are to a model: probabilities of classes, marks of labels, or values."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from datasets.annotations import Record
from labels.emotions import canonical, class_index

PREFIX = "target_"  # of the manifest's columns


def resolve_targets(wanted: Sequence[str] | None, records: Sequence[Record]) -> tuple[str, ...]:
    """Names of the targets of a run: those asked for, or of all columns, in the file's order.

    Raises:
        ValueError: no record has such a column, or not the one asked for, or one is named twice.
    """
    columns = dict.fromkeys(
        name.removeprefix(PREFIX)
        for record in records
        for name in record.extra
        if name.startswith(PREFIX)
    )
    if not columns:
        raise ValueError(
            f"no {PREFIX}<name> column in the annotation files: this task learns nothing else"
        )
    if wanted is None:
        return tuple(columns)
    found = tuple(name if name in columns else canonical(name) for name in wanted)
    for name in found:
        if name not in columns:
            raise ValueError(f"no column {PREFIX}{name}; there are targets {', '.join(columns)}")
    if len(set(found)) < len(found):
        raise ValueError(f"targets must be different names, not {', '.join(found)}")
    return found


def target_of(record: Record, task: str, names: tuple[str, ...]) -> np.ndarray | None:
    """(C,) float32 target of a record; None where its label has no place or a value is not there.

    Args:
        task: `classification` (probabilities of classes), `multilabel` (marks of 0 to 1) or
            `regression` (values).
        names: of the classes or targets.

    Raises:
        ValueError: a value that is no number, or a mark outside 0 to 1.
    """
    if task == "classification":
        return None if class_index(record.label, names) is None else soft_target(record, names)
    texts = [record.extra.get(f"{PREFIX}{name}", "") for name in names]
    if not all(texts):
        return None
    return np.array(
        [_value(record, task, name, text) for name, text in zip(names, texts, strict=True)],
        dtype=np.float32,
    )


def soft_target(record: Record, class_names: tuple[str, ...]) -> np.ndarray:
    """(C,) float32 probabilities: vote shares among the classes, or 1 for the label."""
    target = np.zeros(len(class_names), dtype=np.float32)
    for name, share in record.soft.items():
        index = class_index(name, class_names)
        if index is not None:
            target[index] += share
    if target.sum() <= 0:
        target[class_index(record.label, class_names) or 0] = 1.0
    return target / target.sum()


def _value(record: Record, task: str, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or (task == "multilabel" and not 0 <= value <= 1):
        wanted = "a mark from 0 to 1" if task == "multilabel" else "a number"
        raise ValueError(f"{PREFIX}{name} of {record.name} must be {wanted}, not {text!r}")
    return value
