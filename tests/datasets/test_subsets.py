"""What the subsets of a run lack is told at its start, with the remedy."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from datasets.annotations import Record, read_annotations, write_annotations
from datasets.subsets import check_training_rows, find_gaps
from main import main
from tests.builders import make_corpus
from tests.runs import no_scores

__all__ = ["no_scores"]
NAMES = ("happy", "sad")
QUICK = ["--model", "speech_cnn", "--n_epochs", "1", "--batch_size", "4"]


def _records(**labels: str) -> list[Record]:
    """A record for each label (`h` or `s`) of each subset."""
    words = {"h": "happy", "s": "sad"}
    return [
        Record(f"{subset}{i}.mp4", "", words[letter], subset=subset.strip("_"))
        for subset, letters in labels.items()
        for i, letter in enumerate(letters)
    ]


def test_records_without_subsets_are_answered_with_what_to_do() -> None:
    records = [replace(record, subset="") for record in _records(training="hs")]
    with pytest.raises(ValueError, match=r"none of 2 records has a subset: .*ratio.*cross"):
        check_training_rows(records)


def test_subsets_without_training_say_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"is for training \(1 for validation, 2 for testing\)"):
        check_training_rows(_records(validation="h", testing="hs"))
    check_training_rows(_records(training="h"))


def test_subsets_and_classes_that_are_missing_are_told() -> None:
    records = _records(training="hs", validation="h")
    assert find_gaps(records, NAMES, ["validation", "testing"]) == [
        "validation has no record of sad",
        "no record is for testing: the run ends without test scores",
    ]
    assert find_gaps(records, NAMES, []) == []
    assert find_gaps([], NAMES, []) == ["no record is for training: nothing is learned"]
    assert find_gaps(_records(training="hh"), (), ["validation"]) == [
        "no record is for validation: no epoch is known to be the best, so the last one is kept, "
        "uncalibrated"
    ]


def _without(manifest: Path, *subsets: str) -> Path:
    records = [r for r in read_annotations(manifest) if r.subset not in subsets]
    write_annotations(records, manifest)
    return manifest


def _train(manifest: Path, folder: Path, *more: str) -> int:
    arguments = ["--annotation_path", str(manifest), "--result_path", str(folder)]
    return main([*arguments, "--run_name", "run", *QUICK, *more])


@pytest.mark.usefixtures("no_scores")
def test_a_run_without_validation_says_so_on_screen_and_in_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = _without(make_corpus(tmp_path / "data"), "validation", "testing")
    assert _train(manifest, tmp_path, "--early_stopping", "2") == 2
    error = capsys.readouterr().err
    assert "early stopping has no effect: no record is for validation" in error
    assert "(--early_stopping)" in error
    assert _train(manifest, tmp_path) == 0
    shown = capsys.readouterr().out
    assert "note: no record is for validation" in shown
    assert "note: no record is for testing" in shown
    assert "(best)" not in shown
    notes = (tmp_path / "run" / "notes.txt").read_text().splitlines()
    assert [note.split(":")[0] for note in notes] == [
        "no record is for validation",
        "no record is for testing",
    ]
    assert main(["--no_train", "--resume_path", str(tmp_path / "run")]) == 2
    assert "nothing to score: no record is for validation or testing" in capsys.readouterr().err


@pytest.mark.usefixtures("no_scores")
def test_stretches_outside_the_prepared_recordings_are_not_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_corpus(tmp_path / "data")
    records = read_annotations(manifest)
    records[2:4] = [replace(record, start=5.0, end=9.0) for record in records[2:4]]
    write_annotations(records, manifest)
    assert _train(manifest, tmp_path) == 2
    error = capsys.readouterr().err
    assert "manifest.csv, line 4: 5 s to 9 s is not within the 1.5 s of" in error
    assert "(and 1 more rows)" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_scores")
def test_resuming_what_is_no_state_of_this_run_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_corpus(tmp_path / "data")
    assert _train(manifest, tmp_path) == 0
    state = tmp_path / "run" / "last.pt"
    kept = state.read_bytes()
    state.write_bytes(kept[: len(kept) // 2])
    capsys.readouterr()
    assert main(["--resume_path", str(tmp_path / "run"), "--n_epochs", "2"]) == 2
    assert "last.pt cannot be read: it is damaged; delete it" in capsys.readouterr().err
    other = ["--annotation_path", str(manifest), "--result_path", str(tmp_path)]
    other += ["--run_name", "other", "--model", "speech_crnn", "--n_epochs", "1"]
    assert main(other) == 0
    shutil.copy(tmp_path / "other" / "last.pt", state)
    capsys.readouterr()
    assert main(["--resume_path", str(tmp_path / "run"), "--n_epochs", "2"]) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert "is of another model: " in error
    assert "missing" in error
