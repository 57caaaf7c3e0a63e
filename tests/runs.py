"""Runs of a few epochs that tests are made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets.annotations import read_annotations, write_annotations
from main import main

QUICK = [
    "--sample_duration",
    "2",
    "--batch_size",
    "4",
    "--optimizer",
    "adamw",
    "--learning_rate",
    "3e-3",
]


@pytest.fixture
def no_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what follows training: its figures take longer than the training of a test."""
    monkeypatch.setattr("experiments.run.write_scores", lambda _: None)


def train(manifest: Path, folder: Path, *extra: str, name: str = "run") -> Path:
    arguments = ["--annotation_path", str(manifest), "--result_path", str(folder)]
    assert main([*arguments, "--run_name", name, *QUICK, *extra]) == 0
    return folder / name


def weights_of(run: Path) -> dict[str, Any]:
    return torch.load(run / "last.pt", weights_only=True)


def with_targets(manifest: Path, columns: dict[str, tuple[str, str]]) -> Path:
    """The manifest with target columns: a value for happy and one for sad records."""
    records = [
        replace(
            record,
            extra={f"target_{n}": v[record.label == "sad"] for n, v in columns.items()},
        )
        for record in read_annotations(manifest)
    ]
    write_annotations(records, manifest)
    return manifest
