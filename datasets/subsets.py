"""What the subsets of a run lack: told at its start, since no score will tell it later."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from datasets.annotations import SUBSETS, Record
from labels.emotions import class_index
from system.errors import OptionError


def check_training_rows(records: Sequence[Record]) -> None:
    """Raise ValueError, with the remedy, where no record is for training."""
    counts = Counter(record.subset for record in records)
    if counts["training"]:
        return
    if set(counts) <= {""}:
        raise OptionError(
            f"none of {len(records)} records has a subset: add a column `subset` (training, "
            "validation, testing), split the corpus by ratio when it is prepared, or "
            "cross-validate",
            "n_folds",
        )
    there = ", ".join(f"{counts[name]} for {name}" for name in SUBSETS if counts[name])
    raise ValueError(
        f"none of {len(records)} records is for training ({there}): correct the column `subset`, "
        "or split the corpus by ratio when it is prepared"
    )


def find_gaps(
    records: Sequence[Record], class_names: Sequence[str], scored: Sequence[str]
) -> list[str]:
    """A line for each subset that has no record, and for each class that a subset lacks.

    Args:
        class_names: none for tasks without classes.
        scored: subsets beside training that the run is asked to score.
    """
    gaps = []
    for subset in ("training", *scored):
        present = [record for record in records if record.subset == subset]
        if not present:
            gaps.append(f"no record is for {subset}: {_CONSEQUENCES[subset]}")
            continue
        found = {class_index(record.label, tuple(class_names)) for record in present}
        missing = [name for i, name in enumerate(class_names) if i not in found]
        if missing:
            gaps.append(f"{subset} has no record of {', '.join(missing)}")
    return gaps


_CONSEQUENCES = {
    "training": "nothing is learned",
    "validation": "no epoch is known to be the best, so the last one is kept, uncalibrated",
    "testing": "the run ends without test scores",
}
