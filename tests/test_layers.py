"""Imports point down: who may import whom, held by reading the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EVERYTHING = {
    "batch",
    "csv_table",
    "command_line",
    "files",
    "device",
    "timeline",
    "timeline_row",
    "torch_files",
    "summary",
    "metrics",
    "calibration",
    "fusion",
    "losses",
    "models",
    "media",
    "reports",
    "datasets",
    "tfjs_weights",
    "checkpoint",
    "pretrained",
    "flags",
    "opts",
    "schedules",
    "optimizers",
    "media_list",
    "memory",
    "initialisation",
    "validation",
    "run_data",
    "scoring",
    "training",
    "experiment",
    "crossval",
    "attribution",
    "encoded_blocks",
    "whisper_weights",
    "inference",
    "explain",
    "convert",
    "robustness",
    "main",
}
COMMANDS = {"main", "convert", "robustness"}
MAY_IMPORT = {
    "batch": {
        "command_line",
        "files",
        "inference",
        "media",
        "media_list",
        "opts",
        "reports",
        "summary",
        "timeline",
    },
    "command_line": {"media"},
    "csv_table": {"media"},
    "files": set(),
    "device": set(),
    "timeline_row": set(),
    "timeline": {"files", "timeline_row"},
    "summary": {"timeline", "timeline_row"},
    "metrics": set(),
    "calibration": set(),
    "fusion": set(),
    "losses": set(),
    "models": {"fusion"},
    "media": set(),
    "reports": {
        "calibration",
        "command_line",
        "datasets",
        "files",
        "fusion",
        "timeline",
        "metrics",
    },
    "datasets": {"command_line", "csv_table", "files", "media"},
    "torch_files": set(),
    "tfjs_weights": {"models"},
    "whisper_weights": {"models", "torch_files"},
    "checkpoint": {
        "calibration",
        "files",
        "media",
        "models",
        "datasets",
        "tfjs_weights",
        "torch_files",
        "whisper_weights",
    },
    "encoded_blocks": {"files", "media", "models"},
    "pretrained": {"checkpoint", "models", "torch_files"},
    "flags": {"losses", "media", "models", "datasets", "timeline"},
    "opts": {"command_line", "flags", "losses", "models"},
    "schedules": {"flags"},
    "optimizers": {"flags", "models"},
    "media_list": {"csv_table", "files", "media"},
    "memory": set(),
    "initialisation": {
        "checkpoint",
        "datasets",
        "flags",
        "media",
        "models",
        "opts",
        "pretrained",
        "whisper_weights",
    },
    "run_data": {"datasets", "initialisation", "media", "opts"},
    "validation": {"files", "metrics", "datasets", "models"},
    "scoring": {
        "calibration",
        "checkpoint",
        "datasets",
        "files",
        "models",
        "reports",
        "validation",
    },
    "training": {
        "checkpoint",
        "datasets",
        "files",
        "flags",
        "losses",
        "memory",
        "models",
        "optimizers",
        "schedules",
        "validation",
        "metrics",
        "reports",
    },
    "experiment": EVERYTHING
    - COMMANDS
    - {"batch", "inference", "explain", "crossval", "experiment"},
    "crossval": {"datasets", "experiment", "files", "opts", "reports"},
    "attribution": {"models"},
    "inference": EVERYTHING
    - COMMANDS
    - {"batch", "training", "experiment", "crossval", "inference", "explain", "summary"},
    "explain": EVERYTHING - COMMANDS - {"batch", "training", "experiment", "crossval", "explain"},
    "convert": {"calibration", "checkpoint", "command_line", "reports"},
    "robustness": {"command_line", "datasets", "inference", "reports", "timeline"},
    "main": EVERYTHING - COMMANDS,
    "benchmarks": EVERYTHING,
}


def _sources(unit: str) -> list[Path]:
    single = ROOT / f"{unit}.py"
    return [single] if single.exists() else sorted((ROOT / unit).rglob("*.py"))


def _imported(path: Path) -> set[str]:
    tops = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            tops |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            tops.add(node.module.split(".")[0])
    return tops


def test_every_source_file_has_a_place_in_the_table() -> None:
    units = {p.stem for p in ROOT.glob("*.py")}
    units |= {p.parent.name for p in ROOT.glob("*/__init__.py")} - {"tests"}
    assert units <= set(MAY_IMPORT), f"not in the table: {units - set(MAY_IMPORT)}"


@pytest.mark.parametrize("unit", sorted(MAY_IMPORT))
def test_imports_point_down(unit: str) -> None:
    sources = _sources(unit)
    assert sources
    for path in sources:
        ours = _imported(path) & set(MAY_IMPORT)
        wrong = ours - MAY_IMPORT[unit] - {unit}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_models_open_no_file() -> None:
    for path in _sources("models"):
        names = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
        assert "open" not in names
        assert not _imported(path) & {"pathlib", "os", "io", "safetensors"}


def test_reports_need_no_torch() -> None:
    code = "import sys, reports.plots, timeline, metrics; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
