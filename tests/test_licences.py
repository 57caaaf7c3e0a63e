"""The licence, the notices and the citation are complete and agree with each other."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "licences.md").read_text()
NOTICE = (ROOT / "NOTICE").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CHECKPOINTS = sorted((ROOT / "results" / "pretrained").glob("*.safetensors"))
WEIGHTS = sorted((ROOT / "media" / "weights").iterdir())
# Data on which weights of others were trained that a checkpoint starts from or holds.
STARTS = ("VGGFace2", "Whisper's web speech")
CITATION_KEYS = {
    "abstract",
    "authors",
    "cff-version",
    "commit",
    "contact",
    "date-released",
    "doi",
    "identifiers",
    "keywords",
    "license",
    "license-url",
    "message",
    "preferred-citation",
    "references",
    "repository",
    "repository-artifact",
    "repository-code",
    "title",
    "type",
    "url",
    "version",
}


def _row(name: str) -> str:
    """The line of a table whose first cell has that name in code marks."""
    rows = [line for line in PAGE.splitlines() if re.match(rf"\|[^|]*`{re.escape(name)}`", line)]
    assert len(rows) == 1, f"{name} has {len(rows)} rows in docs/licences.md, not one"
    return rows[0]


def _training_data(path: Path) -> list[tuple[str, str]]:
    """Corpora of a checkpoint with their terms, from its metadata."""
    with safe_open(path, "numpy") as file:
        info = json.loads(file.metadata()["emofuse"])["info"]
    pairs = [entry.split(": ", 1) for entry in info["licence"]]
    assert {name for name, _ in pairs} == set(info["corpora"])
    return [(name, terms) for name, terms in pairs]


def test_there_are_weights_to_speak_of() -> None:
    assert CHECKPOINTS
    assert {"face_landmarker.task", "silero_vad_16k.safetensors"} <= {path.name for path in WEIGHTS}


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_a_checkpoint_has_a_row_with_all_its_data(path: Path) -> None:
    data = _row(path.name).split("|")[3]
    assert {name.strip() for name in data.split(",")} == {name for name, _ in _training_data(path)}


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_the_table_of_data_has_the_terms_of_each_checkpoint(path: Path) -> None:
    for name, terms in _training_data(path):
        assert terms in _row(name)


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_a_checkpoint_that_holds_weights_of_others_is_in_the_notice(path: Path) -> None:
    if {name for name, _ in _training_data(path)} & set(STARTS):
        assert f"results/pretrained/{path.name}" in NOTICE


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.name)
def test_each_file_beside_the_weights_of_others_is_on_the_page(path: Path) -> None:
    assert f"`{path.name}`" in PAGE
    if path.suffix in {".task", ".safetensors", ".csv"}:
        assert f"media/weights/{path.name}" in NOTICE
        assert _row(path.name)


def test_the_notice_names_only_files_that_are_there() -> None:
    named = re.findall(r"(?:docs|media|models|results|datasets|benchmarks)/[\w/.]+\w", NOTICE)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_licence_is_that_of_the_project() -> None:
    licence = (ROOT / "LICENSE").read_text()
    author = PROJECT["authors"][0]["name"]
    assert PROJECT["license"] == "MIT"
    assert licence.startswith("MIT License\n")
    assert re.search(rf"^Copyright \(c\) \d{{4}} {author}$", licence, re.MULTILINE)
    assert all((ROOT / name).exists() for name in [*PROJECT["license-files"], PROJECT["readme"]])


def test_the_notice_holds_the_text_of_the_mit_licence() -> None:
    terms = (ROOT / "LICENSE").read_text().split("\n\n", 2)[2]
    assert NOTICE.endswith(terms)


def _citation() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text())


def test_the_citation_has_what_its_format_asks_for() -> None:
    citation = _citation()
    assert citation["cff-version"] == "1.2.0"
    assert {"authors", "message", "title"} <= set(citation) <= CITATION_KEYS
    assert citation["type"] == "software"
    for reference in citation["references"]:
        assert {"authors", "title", "type"} <= set(reference)
        assert isinstance(reference["year"], int)
        for person in reference["authors"]:
            assert set(person) == {"family-names", "given-names"}


def test_the_citation_agrees_with_the_project() -> None:
    citation = _citation()
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
