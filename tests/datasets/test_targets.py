"""Targets of records: classes, annotators' votes and values."""

from __future__ import annotations

import pytest

from datasets.annotations import Record
from datasets.targets import resolve_targets, soft_target, target_of
from labels.emotions import SEVEN
from tests.builders import (
    LABELS,
)


def test_votes_outside_the_classes_are_shared_out() -> None:
    record = Record("a", "", "sad", soft={"sad": 0.5, "calm": 0.25, "contempt": 0.25})
    target = dict(zip(SEVEN, soft_target(record, SEVEN).tolist(), strict=True))
    assert target["sad"] == pytest.approx(2 / 3)
    assert target["neutral"] == pytest.approx(1 / 3)


def _measured(**values: str) -> Record:
    return Record("a.mp4", "", "sad", extra={f"target_{k}": v for k, v in values.items()})


def test_targets_are_the_columns_of_the_file_in_their_order() -> None:
    records = [_measured(valence="0.1", arousal="0.2"), _measured(happy="1")]
    assert resolve_targets(None, records) == ("valence", "arousal", "happy")
    assert resolve_targets(["joy", "valence"], records) == ("happy", "valence")
    with pytest.raises(ValueError, match="no column target_power; there are targets valence, aro"):
        resolve_targets(["power"], records)
    with pytest.raises(ValueError, match="must be different names, not happy, happy"):
        resolve_targets(["happy", "joy"], records)
    with pytest.raises(ValueError, match="no target_<name> column in the annotation files"):
        resolve_targets(None, [Record("a.mp4", "", "sad")])


def test_a_record_without_all_targets_is_not_used() -> None:
    names = ("valence", "arousal")
    found = target_of(_measured(valence="0.25", arousal="-1"), "regression", names)
    assert found is not None
    assert found.tolist() == [0.25, -1.0]
    assert target_of(_measured(valence="0.25", arousal=""), "regression", names) is None
    assert target_of(Record("a.mp4", "", "zeal"), "classification", LABELS) is None


@pytest.mark.parametrize(
    ("task", "value", "message"),
    [
        ("regression", "high", "target_valence of a.mp4 must be a number, not 'high'"),
        ("regression", "nan", "must be a number, not 'nan'"),
        ("multilabel", "2", "must be a mark from 0 to 1, not '2'"),
    ],
)
def test_a_target_that_cannot_be_is_named(task: str, value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        target_of(_measured(valence=value), task, ("valence",))
