"""Cross-validation through the command line's own parser."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import crossval
from crossval import run_folds
from datasets.annotations import read_annotations
from opts import Options, parse_options
from tests.builders import make_corpus

FLAGS = ["--model", "speech_cnn", "--classes", "happy,sad", "--n_epochs", "1", "--batch_size", "4"]


def _options(manifest: Path, folder: Path, *more: str) -> Options:
    place = ["--result_path", str(folder), "--run_name", "cv"]
    return parse_options(["--annotation_path", str(manifest), *FLAGS, *place, *more])


def _clips(path: Path) -> list[str]:
    return [row["clip"] for row in csv.DictReader(path.open())]


def test_every_speaker_tests_once_and_folds_are_pooled(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "data", per_subset=2)
    said: list[str] = []
    folder = run_folds(_options(manifest, tmp_path, "--n_folds", "3", "--no_val"), said.append)
    names = sorted(record.name for record in read_annotations(manifest))
    assert sorted(_clips(folder / "predictions_testing.csv")) == names
    told = json.loads((folder / "folds.json").read_text())
    assert [row["clips"] for row in told["folds"]] == [2, 2, 2]
    mean = sum(row["accuracy"] for row in told["folds"]) / 3
    assert told["summary"]["accuracy"]["mean"] == pytest.approx(mean)
    assert json.loads((folder / "metrics.json").read_text())["testing"]["clips"] == 6
    assert "mean ± sd over 3 folds" in said[-1]
    for fold in range(3):
        assert not (folder / f"fold_{fold}" / "predictions_validation.csv").exists()


def test_a_finished_fold_is_kept_and_an_unfinished_one_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_corpus(tmp_path / "data", per_subset=2)
    folder = run_folds(_options(manifest, tmp_path, "--n_folds", "3"), lambda _: None)
    (folder / "fold_1" / "metrics.json").unlink()
    run: list[str] = []
    real = crossval.run_experiment
    monkeypatch.setattr(
        crossval,
        "run_experiment",
        lambda options, *rest: run.append(options.train.run_name) or real(options, *rest),
    )
    resumed = parse_options(["--resume_path", str(folder)])
    assert run_folds(resumed, lambda _: None) == folder
    assert run == ["fold_1"]


def test_leaving_one_speaker_out_needs_speakers(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "data", per_subset=2)
    rows = list(csv.DictReader(manifest.open()))
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "speaker": ""} for row in rows)
    with pytest.raises(ValueError, match="needs a speaker in every record"):
        run_folds(_options(manifest, tmp_path, "--leave_one_speaker_out"), lambda _: None)
