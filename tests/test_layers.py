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
    ("labels",),
    ("system",),
    ("media", "models"),
    ("evaluation", "timeline"),
    ("datasets",),
    ("checkpoints",),
    ("optim", "reports"),
    ("opts", "training", "validation"),
    ("experiments", "explain", "inference", "recognition"),
    ("main",),
    ("benchmarks",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# (file, room it should not import from): why it still does.
EXCEPTIONS = {
    ("system/flags.py", "datasets"): "declares the options of every room",
    ("system/flags.py", "media"): "declares the options of every room",
    ("system/flags.py", "models"): "declares the options of every room",
    ("system/flags.py", "optim"): "declares the options of every room",
    ("system/flags.py", "timeline"): "declares the options of every room",
    ("models/encoded_blocks.py", "media"): "encodes the sound of clips",
    ("models/late_fusion.py", "evaluation"): "fits the weights of its combination",
    ("training.py", "validation"): "scores each epoch",
    ("inference.py", "explain"): "leaves one modality out for --contributions",
    ("explain/explanation.py", "inference"): "reads recordings as inference does",
    ("recognition/batch.py", "inference"): "runs the engine on each recording",
}
FILE_READERS_AMONG_MODELS = {"encoded_blocks.py": "keeps encoded sound beside a store"}


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
        assert opens == (path.name in FILE_READERS_AMONG_MODELS), path.name


@pytest.mark.parametrize("room", ["evaluation", "labels", "reports", "timeline"])
def test_numbers_and_figures_need_no_torch(room: str) -> None:
    modules = ", ".join(f"{room}.{path.stem}" for path in _sources(room) if path.stem[0] != "_")
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
