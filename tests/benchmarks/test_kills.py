"""Tasks killed at random moments end as those never killed, and a difference would be seen."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from benchmarks import kills
from benchmarks.kills import Task, run_round


def _count(folder: Path, _: bool, lossy: bool = False) -> int:
    """Write ten files, one each 10 ms; goes on where it was, and once `lossy` skips one then."""
    begun = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(10):
        path = folder / str(number)
        if not path.exists() and not (lossy and begun and number == 9):
            time.sleep(0.01)
            path.write_text(str(number))
    return 0


def _read(folder: Path) -> dict[str, object]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_task_is_killed_and_goes_on_to_its_end(tmp_path: Path) -> None:
    task = Task("count", _count, _read)
    rounds = [run_round(task, tmp_path / "a", 0.1, random.Random(seed)) for seed in range(5)]
    assert all(status == 0 for _, status in rounds)
    assert sum(count for count, _ in rounds) > 0
    assert len(_read(tmp_path / "a")) == 10


def test_another_end_is_a_fault_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks = [Task("lossy", lambda out, again: _count(out, again, lossy=True), _read)]
    monkeypatch.setattr(kills, "build_tasks", lambda _: tasks)
    assert kills.main(["--kills", "4", "--output", str(tmp_path)]) == 1
    assert "came to another end" in capsys.readouterr().out
    assert list(tmp_path.glob("differs-*"))


@pytest.mark.slow
def test_killed_tasks_end_as_those_never_killed(tmp_path: Path) -> None:
    assert kills.main(["--kills", "12", "--output", str(tmp_path)]) == 0
