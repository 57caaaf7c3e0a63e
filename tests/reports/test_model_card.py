"""What a model card states is read from the checkpoint and its run."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from checkpoints.checkpoint import save_checkpoint
from reports.model_card import BEGIN, END, _count_people, main, read_metadata
from reports.run import evaluate_subset, read_run
from system.files import write_json
from tests.builders import make_checkpoint
from tests.reports.test_run import write_run

SHIPPED = Path(__file__).parents[2] / "results" / "pretrained"
FILES = sorted(SHIPPED.glob("*.safetensors"))


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "MODEL_CARD.md"
    path.write_text(f"# Net\n{BEGIN}\nstale\n{END}\n## For whom\n")
    return path


def test_a_card_states_file_data_and_scores(card: Path, tmp_path: Path) -> None:
    run, weights = tmp_path / "run", tmp_path / "net.safetensors"
    write_run(run)
    subsets = read_run(run)
    scores = evaluate_subset(subsets["testing"], subsets["validation"])
    write_json({"testing": scores}, run / "metrics.json")
    write_json({"parameters": 1234}, run / "run.json")
    info = {"corpora": ["mine"], "licence": ["mine: free"], "training_speakers": ["ravdess-07"]}
    save_checkpoint(replace(make_checkpoint("speech_cnn"), info=info), weights)
    assert main([str(weights), str(run), str(card)]) == 0
    text = card.read_text()
    assert "stale" not in text
    assert text.endswith("## For whom\n")
    told = ["1,234 parameters", "| mine: free |", "| 07 |", "Recall by class", "By gender"]
    told += [hashlib.sha256(weights.read_bytes()).hexdigest(), "Calibration by clip"]
    assert [word for word in told if word not in text] == []


def test_a_mistake_is_one_line(
    card: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "net.safetensors"
    weights.write_bytes(b"no weights at all")
    (tmp_path / "run").mkdir()
    assert main([str(weights), str(tmp_path / "run"), str(card)]) == 2
    assert "tells no scores of classes" in capsys.readouterr().err
    with pytest.raises(ValueError, match="no checkpoint of ours"):
        read_metadata(weights)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_shipped_checkpoint_has_a_card_of_this_very_file(path: Path) -> None:
    text = (SHIPPED / path.stem / "MODEL_CARD.md").read_text()
    assert hashlib.sha256(path.read_bytes()).hexdigest() in text
    for heading in ("Protocol", "Known failures", "What it is for, and what not"):
        assert f"## {heading}" in text


def test_people_of_other_corpora_are_counted_not_listed() -> None:
    people = ["ravdess-02", "ased-01", "ased-02", "emodb-03", "someone"]
    assert _count_people(people) == "ased 2, emodb 1"
