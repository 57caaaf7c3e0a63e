"""Imports point down: who may import whom, held by reading the sources."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the bottom up. A file imports from the floors below its own, and from its own room.
FLOORS = (
    ("labels",),
    ("system",),
    ("evaluation",),
    ("media", "models"),
    ("timeline",),
    ("datasets",),
    ("checkpoints",),
    ("optim", "reports"),
    ("validation",),
    ("training",),
    ("recognition",),
    ("experiments", "explain", "inference"),
    ("opts",),
    ("main",),
    ("benchmarks",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# (file, room it should not import from): why it still does.
EXCEPTIONS = {}
# Files whose errors name flags of other programs.
NAME_FLAGS = {
    "checkpoints/whisper_weights.py": "a flag of the program that converts Whisper",
    "media/mtcnn.py": "flags of pip",
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


def _is_of_a_command_line(path: Path) -> bool:
    """Whether a file parses flags, is handed parsed ones, or declares them."""
    text = path.read_text(encoding="utf-8")
    return path.stem == "options" or "argparse" in text or "OneLineParser" in text


@pytest.mark.parametrize("room", sorted(set(FLOOR) - {"benchmarks", "main", "opts"}))
def test_no_library_names_a_flag_in_its_errors(room: str) -> None:
    for path in _sources(room):
        if not _is_of_a_command_line(path) and str(path.relative_to(ROOT)) not in NAME_FLAGS:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            raised = [
                node.value
                for statement in ast.walk(tree)
                if isinstance(statement, ast.Raise)
                for node in ast.walk(statement)
                if isinstance(node, ast.Constant) and isinstance(node.value, str)
            ]
            named = [text for text in raised if re.search(r"(^|[\s`(])--[a-z]", text)]
            assert not named, f"{path.name}: leave the flag to `OptionError`: {named}"


def test_models_open_no_file() -> None:
    for path in _sources("models"):
        names = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
        opens = "open" in names or bool(_imported(path) & {"pathlib", "os", "io", "safetensors"})
        assert not opens, path.name


@pytest.mark.parametrize("room", ["evaluation", "labels", "reports", "timeline"])
def test_numbers_and_figures_need_no_torch(room: str) -> None:
    modules = ", ".join(f"{room}.{path.stem}" for path in _sources(room) if path.stem[0] != "_")
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_no_file_has_over_400_lines_and_no_function_over_60() -> None:
    paths = [*ROOT.glob("*.py"), *(p for r in (*FLOOR, "tests") for p in (ROOT / r).rglob("*.py"))]
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 400, f"{path.relative_to(ROOT)} has over 400 lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                lines = node.end_lineno - node.lineno + 1
                assert lines <= 60, f"{node.name} of {path.relative_to(ROOT)} has {lines} lines"
