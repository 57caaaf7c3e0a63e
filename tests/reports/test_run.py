"""A run's scores and figures come from its tables alone, without torch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from evaluation.predictions import PredictionTable, read_predictions
from evaluation.scores import (
    count_once,
    group_scores,
    main_scores,
    modality_scores,
    score_intervals,
    table_scores,
    window_loss,
)
from reports.run import write_run_report
from tests.builders import table_row as _row
from tests.builders import write_table as _write_table

ROOT = Path(__file__).parents[2]
NAMES = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
ALIKE = {"neutral": "calm", "calm": "sad", "fearful": "surprised", "angry": "disgust"}
OVERCONFIDENCE = 2.5


def _clips(actors: range, takes: int) -> list[dict[str, Any]]:
    """A corpus like RAVDESS: each performance twice, as audio-video and as video."""
    clips = []
    for actor in actors:
        for label, name in enumerate(NAMES):
            for take in range(takes):
                strong = take % 2 == 1 and name != "neutral"
                stem = f"01-0{label + 1}-0{1 + strong}-01-{take + 1:02d}-{actor:02d}"
                for kind in ("01", "02"):
                    clips.append(
                        {
                            "clip": f"{kind}-{stem}.mp4",
                            "speaker": f"RAVDESS/Actor_{actor:02d}",
                            "target": name,
                            "dataset": "RAVDESS",
                            "gender": "female" if actor % 2 == 0 else "male",
                            "intensity": "strong" if strong else "normal",
                            "performance": stem,
                        }
                    )
    return clips


def _window_logits(
    clips: list[dict[str, Any]], random: np.random.Generator, signal: float
) -> np.ndarray:
    """(R, 3, C): twins alike, speakers of different difficulty, too sure of itself."""
    by_name: dict[str, np.ndarray] = {}
    ease: dict[str, float] = {}
    rows = []
    for clip in clips:
        label = NAMES.index(clip["target"])
        ease.setdefault(clip["speaker"], random.normal(1.0, 0.25))
        if clip["performance"] not in by_name:
            logits = random.normal(size=len(NAMES))
            logits[label] += signal * ease[clip["speaker"]]
            if clip["target"] in ALIKE:
                logits[NAMES.index(ALIKE[clip["target"]])] += 0.7 * signal
            by_name[clip["performance"]] = logits
        noise = random.normal(size=(3, len(NAMES)))
        rows.append(OVERCONFIDENCE * (by_name[clip["performance"]] + 0.5 * noise))
    return np.array(rows)


def _probability_columns(probabilities: np.ndarray) -> dict[str, str]:
    return {f"p_{name}": f"{p:.6f}" for name, p in zip(NAMES, probabilities, strict=True)}


def write_run(
    folder: Path, actors: int = 4, takes: int = 2, embedding: int = 8, side: int = 16
) -> None:
    """A run folder as training leaves it, of a fused model on a corpus like RAVDESS."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for first, subset in ((1, "validation"), (11, "testing")):
        clips = _clips(range(first, first + actors), takes)
        logits = _window_logits(clips, random, signal=2.2)
        mean = np.log(softmax(logits, axis=-1)).mean(axis=1)
        rows = zip(clips, softmax(mean, axis=-1), strict=True)
        table = [{**clip, **_probability_columns(p)} for clip, p in rows]
        _write_table(folder / f"predictions_{subset}.csv", table)
        windows = [
            {**clip, "start": second, "end": second + 1, **_probability_columns(p)}
            for clip, probabilities in zip(clips, softmax(logits, axis=-1), strict=True)
            for second, p in enumerate(probabilities)
        ]
        _write_table(folder / f"windows_{subset}.csv", windows)
        for modality, signal in (("face", 1.2), ("speech", 1.6)):
            masked = softmax(_window_logits(clips, random, signal).mean(axis=1), axis=-1)
            table = [{**c, **_probability_columns(p)} for c, p in zip(clips, masked, strict=True)]
            _write_table(folder / f"predictions_{subset}_without_{modality}.csv", table)
        names = np.array([clip["clip"] for clip in clips])
        directions = random.normal(size=(len(NAMES), embedding))
        features = mean @ directions + random.normal(size=(len(clips), embedding))
        np.savez(
            folder / f"embeddings_{subset}.npz", features=features.astype(np.float32), clip=names
        )
        wrong = mean.argmax(axis=1) != [NAMES.index(clip["target"]) for clip in clips]
        sure = softmax(mean, axis=-1).max(axis=1)
        chosen = sorted(np.flatnonzero(wrong), key=lambda row: -sure[row])[:12]
        faces = random.integers(60, 220, size=(len(chosen), 5, 1, 1, 3)) + random.integers(
            0, 30, size=(len(chosen), 5, side, side, 3)
        )
        np.savez(folder / f"faces_{subset}.npz", faces=faces.astype(np.uint8), clip=names[chosen])
    log = [
        {
            "epoch": epoch,
            "train_loss": 2.1 * 0.9**epoch,
            "val_loss": 2.1 * 0.93**epoch + 0.002 * epoch**2,
            "train_acc": 1 - 0.87 * 0.9**epoch,
            "val_acc": 0.62 - 0.5 * 0.85**epoch,
            "val_uar": 0.6 - 0.5 * 0.85**epoch - 0.0002 * epoch**2,
            "lr": 0.01 * 0.9**epoch,
        }
        for epoch in range(1, 21)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    run = {"model": "ia", "task": "classification", "class_names": NAMES, "calibration": None}
    (folder / "run.json").write_text(json.dumps(run))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, reported on in a process in which torch cannot be imported."""
    folder = tmp_path_factory.mktemp("results") / "run"
    write_run(folder)
    (folder.parent / "torch.py").write_text("raise ImportError('no torch here')")
    code = "import sys; from reports.run import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder.parent), str(ROOT)])},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "testing: accuracy" in done.stdout
    return folder


@pytest.fixture(scope="module")
def metrics(run: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = (run / "metrics.json").read_text()
    return dict(json.loads(text, parse_constant=refuse))


def _table(tmp_path: Path, rows: list[dict[str, Any]], name: str = "t.csv") -> PredictionTable:
    _write_table(tmp_path / name, rows)
    return read_predictions(tmp_path / name)


def test_a_run_without_torch_gives_every_figure(run: Path) -> None:
    figures = {path.stem for path in run.glob("*.png")}
    kinds = ("confusion", "curves", "embeddings", "errors", "groups", "speakers")
    both = {f"{kind}_{subset}" for kind in kinds for subset in ("validation", "testing")}
    assert figures == both | {"reliability_testing", "learning_curves"}
    for path in run.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width <= 90 / 25.4 * 200 + 110, path  # a column, or a large confusion
            assert np.ptp(np.asarray(picture.convert("L"))) > 100, path
    assert not list(run.glob(".*"))


def test_metrics_keep_their_keys_and_hold_the_new_ones(metrics: dict[str, Any]) -> None:
    assert set(metrics) == {"validation", "testing"}
    scores = metrics["testing"]
    old = {"loss", "clips", "accuracy", "uar", "macro_f1", "recall", "windows"}
    assert old | {"intervals", "groups", "without", "calibration"} <= set(scores)
    assert scores["clips"] == 4 * 8 * 2 * 2
    assert scores["windows"]["windows"] == 3 * scores["clips"]
    assert scores["loss"] == pytest.approx(scores["windows"]["log_loss"], rel=1e-3)
    assert "calibration" not in metrics["validation"]
    assert scores["intervals"]["by"] == "speaker"
    assert (scores["intervals"]["units"], scores["intervals"]["clips"]) == (4, 64)
    low, high = (scores["intervals"]["uar"][end] for end in ("low", "high"))
    assert 0 <= low < scores["intervals"]["uar"]["value"] < high <= 1
    assert scores["without"]["face"]["uar"] < scores["uar"]
    assert set(scores["groups"]) == {"speaker", "gender", "intensity"}


def test_calibration_helps_a_model_that_is_too_sure(metrics: dict[str, Any]) -> None:
    for unit, scores in metrics["testing"]["calibration"].items():
        assert scores["temperature"]["temperature"] > 1.2, unit
        assert scores["temperature"]["log_loss"] < scores["before"]["log_loss"], unit
        assert scores["temperature"]["ece"] < scores["before"]["ece"], unit
        for sets in scores["sets"].values():
            assert 0.7 < sets["coverage"] <= 1
            assert 1 <= sets["mean_size"] <= 8


def test_the_detailed_report_is_of_the_same_clips(run: Path, metrics: dict[str, Any]) -> None:
    report = json.loads((run / "classification_report_testing.json").read_text())
    assert report["accuracy"] == metrics["testing"]["accuracy"]
    assert {n: row["recall"] for n, row in report["classes"].items()} == pytest.approx(
        metrics["testing"]["recall"]
    )


def test_what_a_former_report_knew_is_kept_where_no_table_tells_better(tmp_path: Path) -> None:
    _write_table(tmp_path / "predictions_testing.csv", [_row("a", "happy", 0.9)])
    former = {"testing": {"loss": 1.25}, "validation": {"uar": 0.5}}
    (tmp_path / "metrics.json").write_text(json.dumps(former))
    results = write_run_report(tmp_path)
    assert results["testing"]["loss"] == 1.25
    assert results["validation"] == {"uar": 0.5}
    assert results["testing"]["intervals"]["uar"] == {"value": 1.0, "low": None, "high": None}


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_other_tasks_are_reported_too(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    random = np.random.default_rng(0)
    rows = []
    for number in range(40):
        truth = random.integers(0, 2, 2) if kind == "multilabel" else random.normal(size=2)
        guess = np.clip(0.5 * truth + random.uniform(0, 0.5, 2), -1, 1)
        first = "p" if kind == "multilabel" else "y"
        rows.append(
            {
                "clip": f"{number}",
                "speaker": f"s{number % 4}",
                "gender": "fm"[number % 2],
                **{f"target_{name}": t for name, t in zip("ab", truth, strict=True)},
                **{f"{first}_{name}": g for name, g in zip("ab", guess, strict=True)},
            }
        )
    _write_table(tmp_path / "predictions_testing.csv", rows)
    caplog.set_level("INFO")
    scores = write_run_report(tmp_path)["testing"]
    main_score = {"multilabel": "macro_f1", "regression": "ccc"}[kind]
    ends = scores["intervals"][main_score]
    assert ends["low"] <= scores[main_score] <= ends["high"]
    assert ends["value"] == pytest.approx(scores[main_score])
    assert set(scores["groups"]) == {"speaker", "gender"}
    figures = {path.stem.removesuffix("_testing") for path in tmp_path.glob("*.png")}
    expected = {"multilabel": {"curves", "speakers", "groups"}, "regression": {"agreement"}}
    assert figures == expected[kind]
    assert caplog.messages[0].startswith("testing: ")


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [_row("a", "sad", 0.25, gender="f"), _row("b", "happy", 1.0, gender="")]
    table = _table(tmp_path, [{**row, "soft_happy": 0.4, "soft_sad": 0.6} for row in rows])
    assert table.task == "classification"
    assert table.class_names == ("happy", "sad")
    assert table.targets.tolist() == [1, 0]
    assert table.scores.tolist() == [[0.25, 0.75], [1.0, 0.0]]
    assert np.isfinite(table.log_probabilities).all()
    assert {name: v.tolist() for name, v in table.groups.items()} == {"gender": ["f", ""]}
    assert table.soft is not None
    assert table.soft[0].tolist() == [0.4, 0.6]
    rounded = {**_row("a", "sad", 0.2), "p_sad": 0.799}
    assert _table(tmp_path, [rounded], "r.csv").scores.sum() == pytest.approx(1, abs=1e-12)
    turned = read_predictions(tmp_path / "t.csv", ("sad", "happy"))
    assert turned.scores[0].tolist() == [0.75, 0.25]
    assert turned.targets.tolist() == [0, 1]


def test_window_loss_is_the_cross_entropy_against_the_annotators(tmp_path: Path) -> None:
    row = {**_row("a", "sad", 0.25), "start": 0, "end": 1}
    assert window_loss(_table(tmp_path, [row])) == pytest.approx(-np.log(0.75))
    soft = {**row, "soft_happy": 0.5, "soft_sad": 0.5}
    expected = -0.5 * (np.log(0.25) + np.log(0.75))
    assert window_loss(_table(tmp_path, [soft])) == pytest.approx(expected)


def test_twins_of_one_performance_count_once(tmp_path: Path) -> None:
    rows = [
        _row("01-a", "happy", 0.9, performance="a", gender="f"),
        _row("02-a", "happy", 0.9, performance="a", gender="f"),
        _row("01-b", "happy", 0.1, performance="b", gender="f"),
        _row("c", "sad", 0.1, performance="", gender="m"),
        _row("d", "sad", 0.1, performance="", gender="m"),
    ]
    table = _table(tmp_path, rows)
    assert count_once(table).clip.tolist() == ["01-a", "01-b", "c", "d"]
    intervals = score_intervals(table)
    assert intervals["clips"] == 4
    assert intervals["accuracy"]["value"] == pytest.approx(3 / 4)
    assert table_scores(table)["accuracy"] == pytest.approx(4 / 5)
    female = group_scores(table)["gender"]["groups"]["f"]
    assert (female["clips"], female["accuracy"]) == (2, 0.5)


def test_the_worst_group_is_named_among_those_of_enough_clips(tmp_path: Path) -> None:
    rows = [_row(f"f{i}", "happy", 0.9 if i < 8 else 0.1, gender="f") for i in range(12)]
    rows += [_row(f"m{i}", "happy", 0.9 if i < 5 else 0.1, gender="m") for i in range(10)]
    rows += [_row("x", "happy", 0.1, gender="x")]
    gender = group_scores(_table(tmp_path, rows))["gender"]
    assert gender["worst"]["name"] == "m"
    assert gender["worst"]["clips"] == 10
    assert gender["worst"]["uar"] == pytest.approx(0.5)
    assert gender["groups"]["x"]["uar"] == 0.0
    low, high = gender["groups"]["m"]["accuracy_interval"]
    assert low < 0.5 < high


def test_quick_scores_are_those_of_the_report(run: Path) -> None:
    table = read_predictions(run / "predictions_testing.csv")
    rows = np.random.default_rng(0).integers(0, len(table), 50)
    scores = table_scores(table.take(rows))
    for name, function in main_scores(table).items():
        assert function(rows) == pytest.approx(scores[name]), name


def test_a_masked_modality_is_compared_on_the_same_clips(tmp_path: Path) -> None:
    table = _table(tmp_path, [_row("a", "happy", 0.9), _row("b", "sad", 0.2)])
    other = _table(tmp_path, [_row("a", "happy", 0.4), _row("b", "sad", 0.2)], "face.csv")
    change = modality_scores(table, {"face": other})["face"]["change"]
    assert (change["score"], change["value"]) == ("uar", -0.5)
    with pytest.raises(ValueError, match="not of the same clips"):
        modality_scores(table, {"face": other.take(np.array([0]))})
