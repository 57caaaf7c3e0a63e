"""A model and a metric from outside are trained and scored by `main.py`, with no line changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.predictions import read_predictions
from evaluation.registry import metrics_of, register_metric
from evaluation.scores import MAIN_SCORES
from tests.builders import make_corpus
from tests.runs import QUICK

ROOT = Path(__file__).parent.parent


def test_a_model_and_a_metric_from_outside_are_trained_and_scored(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path / "data")
    options = ["--annotation_path", str(manifest), "--result_path", str(tmp_path)]
    options += ["--run_name", "run", "--model", "band_means", "--n_epochs", "1", *QUICK]
    # In a process of its own, as what is registered stays so for every test after it.
    code = f"import sys, tests.outside; from main import main; sys.exit(main({options!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run"
    assert json.loads((run / "run.json").read_text())["model"] == "band_means"
    scores = json.loads((run / "metrics.json").read_text())["validation"]
    table = read_predictions(run / "predictions_validation.csv")
    expected = table.scores[range(len(table)), table.targets].mean()
    assert scores["true_probability"] == pytest.approx(expected)
    assert 0 < scores["windows"]["true_probability"] < 1
    ends = scores["intervals"]["true_probability"]
    assert ends["low"] <= ends["value"] <= ends["high"]


def test_a_metric_has_a_name_of_its_own_and_a_known_task() -> None:
    assert set(MAIN_SCORES["classification"]) <= set(metrics_of("classification"))
    with pytest.raises(ValueError, match="'uar' is there already"):
        register_metric("uar")(lambda scores, targets: 0.0)
    with pytest.raises(ValueError, match="unknown task 'ranking'; choose from classification"):
        register_metric("new", "ranking")
