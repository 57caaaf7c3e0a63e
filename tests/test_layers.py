"""Imports point down: who may import whom, held by reading the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the bottom up. A file imports from the floors below its own, and from its own room.
FLOORS = (
    ("system",),
    ("media", "models"),
    ("evaluation", "timeline"),
    ("datasets",),
    ("checkpoints",),
    ("optim", "reports"),
    ("opts", "training", "validation"),
    ("recognition",),
    ("experiments", "explain", "inference"),
    ("main",),
    ("benchmarks",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# (file, room it should not import from): why it still does.
EXCEPTIONS = {
    ("system/command_line.py", "media"): "catches MediaError, a mistake of the user like any other",
    ("system/csv_table.py", "media"): "names a Git LFS pointer in place of a table",
    ("system/flags.py", "datasets"): "declares the options of every room",
    ("system/flags.py", "media"): "declares the options of every room",
    ("system/flags.py", "models"): "declares the options of every room",
    ("system/flags.py", "optim"): "declares the options of every room",
    ("system/flags.py", "timeline"): "declares the options of every room",
    ("models/late_fusion.py", "evaluation"): "fits the weights of its combination",
    ("evaluation/clip_names.py", "datasets"): "knows the emotions by RAVDESS's numbers",
    ("evaluation/fuse.py", "datasets"): "matches class names of two systems",
    ("evaluation/score_tables.py", "datasets"): "matches class names of two systems",
    ("training.py", "validation"): "scores each epoch",
}


def _sources(room: str) -> list[Path]:
    single = ROOT / f"{room}.py"
    return [single] if single.exists() else sorted((ROOT / room).rglob("*.py"))


def _imported(path: Path) -> set[str]:
    tops = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            tops |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            tops.add(node.module.split(".")[0])
    return tops


def _not_below(room: str) -> set[tuple[str, str]]:
    """(file, room) of each import from the room's own floor or one above it."""
    return {
        (str(path.relative_to(ROOT)), other)
        for path in _sources(room)
        for other in _imported(path) & set(FLOOR) - {room}
        if FLOOR[other] >= FLOOR[room]
    }


def test_every_source_file_has_a_floor() -> None:
    rooms = {p.stem for p in ROOT.glob("*.py")}
    rooms |= {p.parent.name for p in ROOT.glob("*/__init__.py")} - {"tests"}
    assert rooms == set(FLOOR)


@pytest.mark.parametrize("room", FLOOR)
def test_imports_point_down(room: str) -> None:
    assert _sources(room)
    wrong = _not_below(room) - set(EXCEPTIONS)
    assert not wrong, f"imports that do not point down: {sorted(wrong)}"


def test_no_exception_outlives_its_import() -> None:
    needed = set().union(*(_not_below(room) for room in FLOOR))
    assert not set(EXCEPTIONS) - needed, "take them off the table"


def test_models_open_no_file() -> None:
    for path in _sources("models"):
        names = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
        opens = "open" in names or bool(_imported(path) & {"pathlib", "os", "io", "safetensors"})
        assert not opens, path.name


@pytest.mark.parametrize("room", ["evaluation", "reports", "timeline"])
def test_numbers_and_figures_need_no_torch(room: str) -> None:
    modules = ", ".join(f"{room}.{path.stem}" for path in _sources(room) if path.stem[0] != "_")
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
