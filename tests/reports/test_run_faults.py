"""Broken tables and folders of a run are refused by name, with the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from reports.run import main
from tests.builders import table_row as _row
from tests.builders import write_table as _write_table


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no column 'clip'"),
        ("clip,target,p_a\n", "a header and no rows"),
        ("clip,speaker\nx,y\n", "it needs 'target' and 'p_<class>'"),
        ("clip,target,p_a,p_b\nx,a,1\n", "line 2: 3 fields under a header of 4"),
        ("clip,target,p_a,p_b\nx,a,1,0\ny,a,one,0\n", "line 3: p_a is 'one', not a number"),
        ("clip,target,p_a,p_b\nx,a,nan,0\n", "line 2: p_a is 'nan', not a number"),
        ("clip,target,p_a,p_b\nx,c,1,0\n", "line 2: target 'c' has no column; there are a, b"),
        ("clip,target,p_a,p_b\nx,a,0.7,0.7\n", "line 2: probabilities sum to 1.4"),
        ("clip,target,p_a,p_b\nx,a,-1,2\n", "line 2: a probability is not between 0 and 1"),
        ("clip,target,p_a,p_b\nx,a,1,0\nx,a,1,0\n", "the clip 'x' twice"),
        ("clip,target,p_a,p_a\nx,a,1,0\n", "the column 'p_a' twice"),
        ("clip,target_a,p_a,p_b\nx,1,1,0\n", "no column 'target_b'"),
        ("clip,target_a,p_a\nx,2,1\n", "line 2: a target is neither 0 nor 1"),
        ("clip,target_a,y_a\nx,2,\n", "line 2: y_a is '', not a number"),
    ],
)
def test_a_broken_table_is_refused_by_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    path = tmp_path / "predictions_testing.csv"
    path.write_text(text)
    assert main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {path}")
    assert reason in message
    assert message.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_is_no_run_is_refused_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path)]) == 2
    assert (
        "score the run first, without training (--no_train, --resume_path)"
        in capsys.readouterr().err
    )
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "is no folder of a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("run.json", "{", "run.json is no JSON"),
        ("run.json", '{"task": "ranking"}', "unknown task 'ranking'"),
        ("run.json", '{"task": "regression"}', "but the run's task is regression"),
        ("run.json", '{"class_names": ["a"]}', "the run has a"),
        ("log.jsonl", "{}\n{", "log.jsonl, line 2 is no JSON"),
        ("faces_testing.npz", "PK", "does not hold faces and clip"),
        ("embeddings_testing.npz", "PK", "does not hold features and clip"),
        ("embeddings_testing.npz", "", "does not hold features and clip"),
    ],
)
def test_a_broken_file_beside_the_tables_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, reason: str
) -> None:
    rows = [_row(f"{i}", "happy", 0.9) for i in range(5)]
    _write_table(tmp_path / "predictions_testing.csv", rows)
    (tmp_path / name).write_text(text)
    assert main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert reason in message
    assert message.count("\n") == 1
