"""Damaged files on purpose: the damage repeats, every case is told, and nothing breaks on it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import mutations
from benchmarks.mutation_seeds import make_seeds
from benchmarks.mutation_worker import answer
from benchmarks.mutations import Result, Worker, format_report
from benchmarks.mutators import BINARY, find_boxes, mutate, swap_atoms
from media.errors import MediaError


@pytest.mark.parametrize("mutator", BINARY, ids=lambda mutator: mutator.__name__)
def test_damage_is_the_same_for_a_seed_and_another_for_another(mutator: object) -> None:
    assert callable(mutator)
    content = np.random.default_rng(0).bytes(5000)
    one, again, other = (
        bytes(mutator(bytearray(content), np.random.default_rng(seed))) for seed in (1, 1, 2)
    )
    assert one == again != other
    assert one != content


def test_every_kind_of_damage_is_drawn() -> None:
    names = {mutate(bytes(500), "media", (1, number))[1] for number in range(200)}
    assert names == {mutator.__name__ for mutator in BINARY}


def test_boxes_of_an_mp4_are_exchanged_whole() -> None:
    def box(kind: bytes, body: bytes) -> bytes:
        return (8 + len(body)).to_bytes(4, "big") + kind + body

    track = box(b"trak", box(b"tkhd", b"12") + box(b"edts", b"3"))
    content = box(b"ftyp", b"mp42") + box(b"moov", track) + box(b"mdat", b"x" * 9)
    kinds = [content[a + 4 : a + 8] for a, _ in find_boxes(content)]
    assert kinds == [b"ftyp", b"moov", b"trak", b"tkhd", b"edts", b"mdat"]
    for seed in range(20):
        changed = swap_atoms(bytearray(content), np.random.default_rng(seed))
        assert sorted(changed) == sorted(content)


def test_seeds_are_readable_before_they_are_damaged(tmp_path: Path) -> None:
    from benchmarks.mutation_worker import build_reader

    for kind in ("annotations", "recipes"):
        read = build_reader(kind, tmp_path)
        for path in make_seeds(kind, tmp_path / kind):
            assert answer(read, path)["outcome"] == "read", path


def _raise(error: BaseException) -> dict[str, object]:
    def read(_: Path) -> str:
        raise error

    return answer(read, Path("case-1.mp4"))


def test_only_what_a_user_sees_as_one_line_is_refused() -> None:
    assert _raise(MediaError("case-1.mp4: no"))["outcome"] == "refused"
    assert _raise(MediaError("case-1.mp4:\nno"))["outcome"] == "several lines"
    assert _raise(ValueError("no"))["outcome"] == "no file named"
    assert _raise(KeyError("x"))["outcome"] == "traceback"
    assert _raise(AssertionError("rows"))["outcome"] == "traceback"
    assert _raise(SystemExit(2))["outcome"] == "refused"
    assert answer(str, Path("a"))["outcome"] == "read"


SLEEPER = """
import sys, time
print("ready", flush=True)
for line in sys.stdin:
    if "slow" in line: time.sleep(60)
    if "dead" in line: sys.exit(3)
    size = 900 if "large" in line else 1
    print('{{"outcome": "read", "text": "", "megabytes": %d}}' % size, flush=True)
"""


def test_a_file_that_hangs_kills_or_swells_is_a_fault_and_the_next_goes_on() -> None:
    worker = Worker("media", Path(), limit=2.0, bound=500.0)
    worker._command = [sys.executable, "-c", SLEEPER.format()]
    try:
        names = ("a", "slow", "b", "dead", "c", "large", "d")
        outcomes = [worker.run(Path(name))[0] for name in names]
    finally:
        worker.stop()
    assert outcomes == ["read", "hang", "read", "died", "read", "memory", "read"]


def test_a_campaign_goes_on_where_it_was_and_tells_of_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def run(_: Worker, path: Path) -> tuple[str, float, float, str]:
        ran.append(path.name)
        fault = path.stem == "case-3"
        return ("traceback" if fault else "read", 0.1, 10.0, "KeyError" if fault else "")

    monkeypatch.setattr(Worker, "run", run)
    arguments = ["annotations", "--output", str(tmp_path), "--count"]
    assert mutations.main([*arguments, "3"]) == 0
    assert mutations.main([*arguments, "6"]) == 1
    assert [name.split(".")[0] for name in ran] == [f"case-{n}" for n in range(6)]
    assert [path.stem.split(".")[0] for path in tmp_path.glob("case-*")] == ["case-3"]
    report = (tmp_path / "annotations.md").read_text()
    assert "# 6 mutated annotations" in report
    assert "1 faults\n- 3: traceback" in report
    assert "KeyError" in capsys.readouterr().out


def test_a_report_counts_by_damage() -> None:
    results = [Result(0, "a", "drop", "read", 1.0, 5.0), Result(1, "b", "drop", "hang", 9.0, 7.0)]
    report = format_report(results, "media")
    assert "| drop | 1 | 0 | 1 |" in report
    assert "slowest: 9.0 s (case 1, b)" in report


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count"), [("media", 300), ("annotations", 300), ("checkpoints", 50), ("recipes", 50)]
)
def test_nothing_breaks_on_damaged_files(tmp_path: Path, kind: str, count: int) -> None:
    status = mutations.main([kind, "--count", str(count), "--output", str(tmp_path)])
    lines = (tmp_path / f"{kind}.jsonl").read_text().splitlines()
    faults = [line for line in map(json.loads, lines) if line["outcome"] not in mutations.GOOD]
    assert status == 0, faults
    assert len(lines) == count
