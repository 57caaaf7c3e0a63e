"""Cross-validation through the command line's own parser."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from datasets.annotations import read_annotations, write_annotations
from experiments import crossval
from experiments.crossval import run_folds
from opts import Options, parse_options
from tests.builders import make_corpus

FLAGS = ["--model", "speech_cnn", "--classes", "happy,sad", "--n_epochs", "1", "--batch_size", "4"]


def _options(manifest: Path, folder: Path, *more: str) -> Options:
    place = ["--result_path", str(folder), "--run_name", "cv"]
    return parse_options(["--annotation_path", str(manifest), *FLAGS, *place, *more])


def _clips(path: Path) -> list[str]:
    return [row["clip"] for row in csv.DictReader(path.open())]


def test_every_speaker_tests_once_and_folds_are_pooled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    manifest = make_corpus(tmp_path / "data", per_subset=2)
    folder = run_folds(_options(manifest, tmp_path, "--n_folds", "3", "--no_val"))
    names = sorted(record.name for record in read_annotations(manifest))
    assert sorted(_clips(folder / "predictions_testing.csv")) == names
    told = json.loads((folder / "folds.json").read_text())
    assert [row["clips"] for row in told["folds"]] == [2, 2, 2]
    mean = sum(row["accuracy"] for row in told["folds"]) / 3
    assert told["summary"]["accuracy"]["mean"] == pytest.approx(mean)
    assert json.loads((folder / "metrics.json").read_text())["testing"]["clips"] == 6
    assert "mean ± sd over 3 folds" in caplog.messages[-1]
    for fold in range(3):
        assert not (folder / f"fold_{fold}" / "predictions_validation.csv").exists()


def test_a_finished_fold_is_kept_and_an_unfinished_one_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_corpus(tmp_path / "data", per_subset=2)
    folder = run_folds(_options(manifest, tmp_path, "--n_folds", "3"))
    (folder / "fold_1" / "metrics.json").unlink()
    run: list[str] = []
    real = crossval.run_experiment
    monkeypatch.setattr(
        crossval,
        "run_experiment",
        lambda options, *rest: run.append(options.train.run_name) or real(options, *rest),
    )
    resumed = parse_options(["--resume_path", str(folder)])
    assert run_folds(resumed) == folder
    assert run == ["fold_1"]


def test_leaving_one_speaker_out_needs_speakers(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "data", per_subset=2)
    rows = list(csv.DictReader(manifest.open()))
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "speaker": ""} for row in rows)
    with pytest.raises(ValueError, match="every record needs a speaker"):
        run_folds(_options(manifest, tmp_path, "--leave_one_speaker_out"))


def _make_two_manifests(folder: Path) -> list[str]:
    """Corpora one and two in the first, three in the second, which holds no sad clip."""
    paths = []
    for name, corpora in (("a", ("one", "two")), ("b", ("three",))):
        manifest = make_corpus(folder / name, per_subset=4)
        records = [
            replace(record, dataset=corpora[i % len(corpora)], speaker=f"{name}-{i}", subset="")
            for i, record in enumerate(r for r in read_annotations(manifest))
        ]
        kept = [r for i, r in enumerate(records) if name == "a" or r.label == "happy" or i == 1]
        bored = [
            replace(r, label="boredom") if name == "b" and i == 1 else r for i, r in enumerate(kept)
        ]
        write_annotations(bored, manifest)
        paths.append(str(manifest))
    return paths


def test_each_corpus_tests_once_over_the_classes_that_it_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    manifests = _make_two_manifests(tmp_path / "data")
    more = ["--classes", "seven", "--protocol", "leave_one_corpus_out", "--balance_corpora", "1"]
    options = _options(Path(manifests[0]), tmp_path, "--annotation_path", *manifests, *more)
    folder = run_folds(options)
    rows = {row["fold"]: row for row in csv.DictReader((folder / "folds.csv").open())}
    assert list(rows) == ["fold_one", "fold_three", "fold_two"]
    assert [rows[name]["clips"] for name in rows] == ["6", "6", "6"]
    assert rows["fold_three"]["classes"] == "1"
    assert rows["fold_three"]["recall_sad"] == "", "no clip of it is sad"
    assert rows["fold_three"]["uar"] == rows["fold_three"]["recall_happy"]
    for name in rows:
        tested = csv.DictReader((folder / name / "predictions_testing.csv").open())
        assert {row["dataset"] for row in tested} == {name.removeprefix("fold_")}
        held = csv.DictReader((folder / name / "predictions_validation.csv").open())
        assert name.removeprefix("fold_") not in {row["dataset"] for row in held}
    clips = _clips(folder / "predictions_testing.csv")
    assert len(set(clips)) == 18
    assert "fold_three/testing-0.mp4" in clips, "file names are the same in two corpora"
    groups = json.loads((folder / "metrics.json").read_text())["testing"]["groups"]
    assert set(groups["dataset"]["groups"]) == {"one", "two", "three"}
    assert "left out: 1 boredom, which are not among the classes" in caplog.messages
    assert any(line.startswith("fold_three (6 clips of 1 classes): ") for line in caplog.messages)


def test_leaving_a_corpus_out_needs_two(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "data", per_subset=2)
    with pytest.raises(ValueError, match="needs records of two corpora or more; all are of made"):
        run_folds(_options(manifest, tmp_path, "--protocol", "leave_one_corpus_out"))
