"""The table of results: read from run folders, kept in one file, put between two marks."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.results_table import BEGIN, END, SCORES, main, read_row, results_table, write_between
from reports.tables import to_markdown
from system.files import write_json
from tests.reports.test_run import write_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_run(tmp_path / "run")
    write_json({"parameters": 206_401}, tmp_path / "run" / "run.json")
    return tmp_path / "run"


def test_a_run_becomes_a_row_and_a_table(run: Path, tmp_path: Path) -> None:
    page, scores = tmp_path / "page.md", tmp_path / "scores.json"
    page.write_text(f"before\n{BEGIN}\nstale\n{END}\nafter\n")
    start = ["--scores", str(scores)]
    assert main([*start, "add", str(run), "--name", "net", "--data", "corpus | folds"]) == 0
    assert main([*start, "write", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "stale" not in text
    row = next(line for line in text.splitlines() if line.startswith("| net"))
    assert "corpus \\| folds" in row
    assert "0.21 M" in row
    expected = read_row(run, "")["accuracy"]
    assert f"{100 * expected['value']:.1f} [{100 * expected['low']:.1f}" in row


def test_windows_count_each(run: Path) -> None:
    assert read_row(run, "", windows=True)["clips"] > read_row(run, "")["clips"]


def test_a_fusion_has_the_parameters_of_its_parts(run: Path, tmp_path: Path) -> None:
    fused = tmp_path / "fused"
    score = {"value": 0.5, "low": None, "high": None}
    systems = {"fused": {"accuracy": score, "uar": score, "clips": 2}}
    write_json({"systems": systems}, fused / "metrics.json")
    (fused / "fused.csv").write_text("clip,label,speaker,p_a\nx,a,s1,1\ny,a,s2,1\n")
    row = read_row(fused, "", parts=[run, run])
    assert (row["parameters"], row["speakers"], row["clips"]) == (412_802, 2, 2)
    assert "50.0" in to_markdown([results_table({"fused": row})])
    write_json({}, fused / "metrics.json")
    with pytest.raises(ValueError, match="tells no scores of the fusion"):
        read_row(fused, "")


def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "page.md").write_text("no marks")
    with pytest.raises(ValueError, match="has no lines"):
        write_between(tmp_path / "page.md", "")
    start = ["--scores", str(tmp_path / "scores.json")]
    assert main([*start, "write", str(tmp_path / "page.md")]) == 2
    assert "holds no rows" in capsys.readouterr().err
    assert main([*start, "add", str(tmp_path), "--name", "x", "--data", "y"]) == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.skipif(not SCORES.exists(), reason="no scores are shipped")
def test_the_page_of_results_says_what_the_runs_said(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    copy = tmp_path / "results.md"
    copy.write_text(page)
    assert main(["write", str(copy)]) == 0
    command = "python -m reports.results_table write docs/results.md"
    assert copy.read_text() == page, f"run: {command}"


def test_the_readme_repeats_rows_of_that_page() -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    rows = {line for line in page.splitlines() if line.startswith("|")}
    readme = (ROOT / "README.md").read_text()
    repeated = [line for line in readme.splitlines() if line.startswith("|")]
    assert len(repeated) > 2
    assert [line for line in repeated if line not in rows] == []
