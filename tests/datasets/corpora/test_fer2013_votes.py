"""FER2013 is read with its annotators' votes, without duplicates."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets.annotations import read_annotations
from datasets.corpora import fer2013
from datasets.prepare import main as prepare_main
from datasets.store import ClipStore
from tests.builders import make_fer as _make_fer


def test_fer2013_drops_duplicates_from_the_earlier_subset(tmp_path: Path) -> None:
    _make_fer(tmp_path)
    records = {Path(r.video).name: r for r in fer2013.read_records(tmp_path)}
    assert "Training_3.jpg" not in records, "it stands in PrivateTest too"
    assert "Training_2.jpg" not in records, "most annotators did not know"
    assert records["PrivateTest_9.jpg"].subset == "testing"
    assert records["Training_1.jpg"].soft == pytest.approx({"happy": 7 / 9, "surprised": 2 / 9})


def test_fer2013_prepares_through_the_command_line(tmp_path: Path) -> None:
    _make_fer(tmp_path / "fer")
    out = tmp_path / "out"
    arguments = ["fer2013", "--root", str(tmp_path / "fer"), "--out", str(out), "--face_size", "32"]
    assert prepare_main(arguments) == 0
    store = ClipStore(out / "clips")
    records = read_annotations(out / "manifest.csv")
    assert {store.count(record.key, "faces") for record in records} == {1}
    before = (out / "clips" / "faces").stat().st_mtime_ns
    assert prepare_main(arguments) == 0
    assert (out / "clips" / "faces").stat().st_mtime_ns == before, "nothing was left to do"
    assert prepare_main([*arguments[:-1], "48"]) == 2, "another face size needs another folder"
