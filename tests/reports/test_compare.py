"""Runs compared on common clips: scores, tests, ranks, costs, and advice made of the numbers."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.comparison import choose_cost, compare_runs, read_runs
from evaluation.decisions import MEASURES, Decisions, compare_pair, summarise
from evaluation.human_ceilings import HUMAN_INTENDED
from evaluation.metrics import classification_scores
from reports.compare import main
from reports.comparison_figure import letter, pareto_front, plot_comparison
from reports.recommendation import recommend, short_number
from reports.tables import Table, comparison_tables, to_html, to_latex, to_markdown

ROOT = Path(__file__).parents[2]
CLASSES = ("neutral", "happy", "sad", "angry")
FILES = {"model_comparison.png", "detailed_analysis.json", "index.html", "table.tex", "table.md"}
NO_TORCH = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "torchaudio"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
"""


def _run(
    folder: Path,
    skill: float,
    seed: int = 0,
    n_speakers: int = 10,
    classes: Sequence[str] = CLASSES,
    info: dict[str, Any] | None = None,
    efficiency: dict[str, Any] | None = None,
    clips: int = 24,
) -> Path:
    """A run whose table holds `clips` clips a speaker; more skill, more of them right."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    with (folder / "predictions_testing.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "speaker", "target", *(f"p_{name}" for name in classes)])
        for speaker in range(n_speakers):
            for number in range(clips):
                target = number % len(classes)
                p = np.exp(random.normal(0, 1, len(classes)) + skill * np.eye(len(classes))[target])
                cells = [f"{value:.6f}" for value in p / p.sum()]
                name = f"s{speaker}_{number}.mp4" if n_speakers else f"{number}"
                writer.writerow([name, f"s{speaker}", classes[target], *cells])
    described = {"model": folder.name, "class_names": list(classes), "inputs": ["face"]}
    (folder / "run.json").write_text(json.dumps({**described, **(info or {})}))
    if efficiency:
        (folder / "efficiency.json").write_text(json.dumps(efficiency))
    return folder


def _edit(folder: Path, edit: Any) -> None:
    path = folder / "predictions_testing.csv"
    rows = list(csv.DictReader(path.open()))
    rows = edit(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _analyse(*folders: Path) -> dict[str, Any]:
    return compare_runs(read_runs(folders, "testing"))


def _decisions(seed: int = 0) -> Decisions:
    random = np.random.default_rng(seed)
    targets = np.repeat([0, 1, 2, 1], 15)
    predicted = np.where(random.random(60) < 0.6, targets, random.integers(0, 4, 60))
    return Decisions(targets, predicted, 4, np.repeat(np.arange(6), 10).astype(str))


def test_scores_agree_with_the_projects_metrics() -> None:
    decisions = _decisions()
    log_p = np.log(0.01 + np.eye(4)[decisions.predicted])
    expected = classification_scores(log_p, decisions.targets, ("a", "b", "c", "d"))
    summary = summarise(decisions)
    for measure in MEASURES:
        assert summary[measure]["value"] == pytest.approx(expected[measure])
        assert summary[measure]["low"] < expected[measure] < summary[measure]["high"]


def test_second_recordings_count_neither_in_scores_nor_in_tests() -> None:
    one = _decisions()
    twice = np.concatenate([np.arange(60), np.flatnonzero(one.predicted == one.targets)])
    performances = np.arange(60).astype(str)[twice]
    doubled = Decisions(one.targets[twice], one.predicted[twice], 4, one.units[twice], performances)
    assert summarise(doubled) == summarise(one)
    assert compare_pair(doubled, doubled)["clips"] == 60


def test_a_pair_tells_the_better_and_equals_itself() -> None:
    worse = _decisions()
    better = Decisions(worse.targets, worse.targets, 4, worse.units)
    pair = compare_pair(better, worse)
    assert pair["uar"]["difference"] == pytest.approx(1 - worse.value("uar"))
    assert 0 < pair["uar"]["low"] < pair["uar"]["difference"] < pair["uar"]["high"]
    assert pair["uar"]["p_permutation"] == pytest.approx(2 / 64)
    assert pair["mcnemar"]["only_second"] == 0
    assert pair["uar"]["cohens_d"] > 1
    same = compare_pair(worse, worse)
    assert (same["uar"]["difference"], same["uar"]["p_permutation"]) == (0.0, 1.0)
    assert same["uar"]["cohens_d"] is None


def test_a_comparison_writes_its_five_files_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        _run(tmp_path / name, skill, seed, info={"parameters": size, "inputs": ["face"]})
        for seed, (name, skill, size) in enumerate(
            [("small_net", 1.0, 2e5), ("big_net", 2.0, 4e6), ("bad & <b>_net", 0.2, 8e6)]
        )
    ]
    out = tmp_path / "out"
    assert main([*map(str, runs), "--output", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == FILES
    assert "big_net has the best UAR" in capsys.readouterr().out
    analysis = json.loads((out / "detailed_analysis.json").read_text())
    assert [model["clips_left_out"] for model in analysis["models"]] == [0, 0, 0]
    assert analysis["cost"]["key"] == "parameters"
    assert set(analysis["ranking"]["mean_ranks"]) == {"small_net", "big_net", "bad & <b>_net"}
    page = (out / "index.html").read_text()
    assert "data:image/png;base64," in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "bad &amp; &lt;b&gt;_net" in page
    assert "<b>_net" not in page
    assert r"bad \& $<$b>\_net" in (out / "table.tex").read_text()
    picture = Image.open(out / "model_comparison.png")
    assert picture.width == pytest.approx(85 / 25.4 * 200, abs=2)


def test_only_common_clips_are_tested_and_the_rest_is_told(tmp_path: Path) -> None:
    one, two = _run(tmp_path / "one", 1.0), _run(tmp_path / "two", 1.5, seed=1)
    _edit(two, lambda rows: rows[5:])
    _edit(one, lambda rows: [{**row, "clip": f"x/{row['clip'][:-4]}.wav"} for row in rows])
    analysis = _analyse(one, two)
    assert analysis["clips"] == analysis["pairs"][0]["clips"] == 235
    assert [model["clips_left_out"] for model in analysis["models"]] == [5, 0]
    assert analysis["models"][0]["all_clips"]["clips"] == 240
    assert any("one: 5 of 240 clips are not common" in note for note in analysis["notes"])


def test_different_class_sets_are_reduced_with_a_line(tmp_path: Path) -> None:
    one = _run(tmp_path / "one", 1.0, clips=8)
    two = _run(tmp_path / "two", 1.0, seed=1, clips=8)
    renamed = (*CLASSES[:3], "calm")
    info = json.loads((two / "run.json").read_text())
    (two / "run.json").write_text(json.dumps({**info, "class_names": list(renamed)}))
    path = two / "predictions_testing.csv"
    path.write_text(path.read_text().replace("angry", "calm"))
    analysis = _analyse(one, two)
    assert analysis["classes"] == ["neutral", "happy", "sad"]
    assert analysis["clips"] == 60
    assert any("angry, calm are left out" in note for note in analysis["notes"])


def test_few_speakers_are_told_that_no_test_can_reach_5_percent(tmp_path: Path) -> None:
    runs = [_run(tmp_path / n, s, n_speakers=4) for n, s in (("one", 0.2), ("two", 3.0))]
    analysis = _analyse(*runs)
    assert any("4 speakers and 1 pairs no" in note for note in analysis["notes"])
    assert analysis["pairs"][0]["uar"]["p_holm"] == pytest.approx(2 / 16)
    assert "counts as worse" in " ".join(recommend(analysis))


def test_unknown_speakers_are_compared_by_clip_with_a_note(tmp_path: Path) -> None:
    runs = [_run(tmp_path / n, s, seed=i) for i, (n, s) in enumerate((("a", 1.0), ("b", 2.0)))]
    for run in runs:
        _edit(run, lambda rows: [{**row, "speaker": ""} for row in rows])
    analysis = _analyse(*runs)
    assert (analysis["intervals_by"], analysis["units"]) == ("clip", 240)
    assert any("BY CLIP" in note for note in analysis["notes"])
    assert analysis["ranking"] is None


def test_advice_is_made_of_numbers_not_of_names(tmp_path: Path) -> None:
    efficiencies = [{"latency_ms_batch1": ms, "device": "cpu"} for ms in (40.0, 8.0, 2.0)]
    skills = (2.0, 2.0, 0.3)
    runs = [
        _run(tmp_path / name, skill, seed, efficiency=efficiency)
        for name, skill, seed, efficiency in zip(
            "abc", skills, (3, 4, 5), efficiencies, strict=True
        )
    ]
    analysis = _analyse(*runs)
    uar = {m["name"]: m["scores"]["uar"]["value"] for m in analysis["models"]}
    assert uar["a"] > uar["b"] > uar["c"]
    advice = " ".join(recommend(analysis, points=100))
    assert f"a has the best UAR, {100 * uar['a']:.1f} %" in advice
    assert "significantly better than c" in advice
    assert "deploy b: the cheapest model not significantly worse" in advice
    assert "8 ms against 40 ms (5 times less)" in advice
    assert "Fastest within 100 points of the best: c, 2 ms" in advice
    strict = " ".join(recommend(analysis, points=0.1))
    assert "Fastest within 0.1 points of the best: a" in strict
    assert "the candidate is b" in strict
    assert "test it on more speakers first" in strict
    for model in analysis["models"]:  # the same numbers, a cheap
        model["efficiency"] = {"latency_ms_batch1": 8.5 if model["name"] == "a" else 8.0}
    assert "at least a tenth less than its 8.5 ms: deploy a." in " ".join(recommend(analysis))
    unknown = " ".join(recommend({**analysis, "cost": None}))
    assert "No cost is known of all models" in unknown


def test_the_cost_is_one_that_all_runs_know_on_one_device() -> None:
    fast = {"latency_ms_batch1": 1.0, "device": "cpu", "flops": 5, "parameters": 3}
    assert choose_cost([fast, fast]) == ("latency_ms_batch1", "cpu")
    assert choose_cost([fast, {**fast, "device": "gpu"}]) == ("flops", "")
    assert choose_cost([fast, {"parameters": 4}]) == ("parameters", "")
    assert choose_cost([fast, {}]) == (None, "")


def test_the_front_holds_what_nothing_cheaper_beats() -> None:
    assert pareto_front([1, 2, 3, 2], [50, 60, 55, 40]) == [0, 1]
    assert pareto_front([2, 1], [70, 70]) == [1]


def _crema_d(folder: Path, inputs: Sequence[str]) -> Path:
    """Right about the intended emotion in all, of which the crowd heard every other as neutral."""
    run = _run(folder, 50.0, info={"inputs": list(inputs)}, clips=8)

    def edit(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        for place, row in enumerate(rows):
            heard = "neutral" if place % 2 else row["target"]
            tie = {0: f"{row['target']}:sad", 4: "happy:sad"}.get(place, row["target"])
            row |= {"dataset": "cremad", "perceived_audio": heard, "perceived_video": tie}
        return rows

    _edit(run, edit)
    return run


def test_crema_d_is_scored_against_both_labels_beside_people(tmp_path: Path) -> None:
    heard, seen = _crema_d(tmp_path / "a", ["speech"]), _crema_d(tmp_path / "v", ["face"])
    analysis = _analyse(heard, seen)
    audio, video = (model["crema_d"] for model in analysis["models"])
    assert audio["intended"]["accuracy"]["value"] == video["intended"]["accuracy"]["value"] == 1.0
    assert audio["perceived"]["accuracy"]["value"] == 0.5
    assert (audio["shown"], audio["human"]) == ("audio", HUMAN_INTENDED["audio"])
    assert (video["shown"], video["human"]) == ("video", 0.582)
    assert video["perceived"]["clips"] == 79  # a tie without the intended emotion is left out
    assert "Cao et al." in to_markdown(comparison_tables(analysis))


def test_soft_labels_serve_as_perceived(tmp_path: Path) -> None:
    run = _crema_d(tmp_path / "a", ["face", "speech"])

    def edit(rows: list[dict[str, str]]) -> list[dict[str, str]]:
        keep = [{k: v for k, v in row.items() if not k.startswith("perceived")} for row in rows]
        return [{**row, **{f"soft_{c}": str(float(c == "sad")) for c in CLASSES}} for row in keep]

    _edit(run, edit)
    scores = _analyse(run, _run(tmp_path / "b", 1.0, clips=8))["models"][0]["crema_d"]
    assert (scores["shown"], scores["human"]) == ("both", 0.636)
    assert scores["perceived"]["accuracy"]["value"] == 0.25


def _same_twice(folder: Path) -> list[Path]:
    return [_run(folder / "a", 1.0), folder / "a"]


def _other_labels(folder: Path) -> list[Path]:
    runs = [_run(folder / "a", 1.0), _run(folder / "b", 1.0)]
    _edit(runs[1], lambda rows: [{**row, "target": "sad"} for row in rows])
    return runs


def _no_table(folder: Path) -> list[Path]:
    runs = [_run(folder / "a", 1.0), _run(folder / "b", 1.0)]
    table = runs[1] / "predictions_testing.csv"
    table.rename(runs[1] / "predictions_validation.csv")
    return runs


def _no_common_class(folder: Path) -> list[Path]:
    return [_run(folder / "a", 1.0), _run(folder / "b", 1.0, classes=("awe", "pride", "sad"))]


def _no_common_clip(folder: Path) -> list[Path]:
    runs = [_run(folder / "a", 1.0), _run(folder / "b", 1.0)]
    _edit(runs[1], lambda rows: [{**row, "clip": "z" + row["clip"]} for row in rows])
    return runs


def _bad_json(folder: Path) -> list[Path]:
    runs = [_run(folder / "a", 1.0), _run(folder / "b", 1.0)]
    (runs[1] / "run.json").write_text("{")
    return runs


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda folder: [_run(folder / "a", 1.0)], "two runs or more"),
        (_same_twice, "is given twice"),
        (_other_labels, "disagree on the label of 180 clips"),
        (_no_table, "choose validation (--subset)"),
        (_no_common_class, "1 classes in common"),
        (_no_common_clip, "no clip in common"),
        (_bad_json, "run.json is no JSON"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, build: Any, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*map(str, build(tmp_path)), "--output", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    runs = [_run(tmp_path / side / "fold0", 1.0) for side in ("x", "y")]
    assert [run.name for run in read_runs(runs, "testing")] == ["x/fold0", "y/fold0"]


@pytest.mark.parametrize("count", [2, 5])
def test_no_text_of_the_figure_is_cut_off_or_covered(tmp_path: Path, count: int) -> None:
    runs = [
        _run(
            tmp_path / f"a_model_of_a_rather_long_name_{number}",
            0.3 * number,
            seed=number,
            n_speakers=6,
            efficiency={"latency_ms_batch1": 3.0 + number % 3, "device": "2 CPU cores"},
            clips=8,
        )
        for number in range(count)
    ]
    figure = plot_comparison(_analyse(*runs))
    inside = figure.bbox.padded(1)
    parts = figure.subfigs
    assert len(parts) == (4 if count > 2 else 3)
    for part in parts:
        shown = [text for text in part.texts if text.get_text()]
        axis = part.axes[0]
        labels = axis.get_yticklabels() if axis.axison else []
        for text in (*shown, *axis.texts, *labels):
            box = text.get_window_extent()
            assert inside.x0 <= box.x0, text
            assert box.x1 <= inside.x1, text
        letters = [t.get_window_extent() for t in axis.texts if t.get_fontweight() == "bold"]
        for place, box in enumerate(letters):
            assert not any(box.overlaps(other) for other in letters[:place])
        for legend in part.legends:
            assert not legend.get_window_extent().overlaps(part.texts[0].get_window_extent())


def test_tables_escape_what_their_language_means_otherwise() -> None:
    table = Table("5 % of A_B", ("model", "x"), (("a|b & c_d", "−1.0 < 2"),))
    assert "a\\|b & c_d" in to_markdown([table])
    latex = to_latex([table])
    assert r"a|b \& c\_d & $-$1.0 $<$ 2 \\" in latex
    assert r"5 \% of A\_B" in latex
    assert latex.count("{") == latex.count("}")
    assert "a|b &amp; c_d" in to_html(table)
    assert "<td>−1.0 &lt; 2</td>" in to_html(table)


def test_numbers_and_letters_are_short() -> None:
    assert [short_number(v) for v in (0.5, 999, 1234, 4.5e9)] == ["0.5", "999", "1.23k", "4.5G"]
    assert [letter(place) for place in (0, 25, 26)] == ["A", "Z", "A1"]


def test_comparison_runs_where_torch_cannot_be_imported(tmp_path: Path) -> None:
    runs = [str(_run(tmp_path / name, 1.0, seed)) for seed, name in enumerate("abc")]
    arguments = [*runs, "--output", str(tmp_path / "out")]
    code = f"{NO_TORCH}\nfrom reports.compare import main\nsys.exit(main({arguments!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
