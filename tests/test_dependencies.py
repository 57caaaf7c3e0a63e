"""The page of dependencies says what pyproject.toml, the lock and the packages themselves say."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"^\| `([\w.-]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def _rows() -> dict[str, tuple[str, str, str]]:
    """Package -> what it is for, licence, locked version."""
    found = ROW.findall((ROOT / "docs" / "dependencies.md").read_text())
    assert len({name for name, *_ in found}) == len(found), "a package stands on the page twice"
    return {name: (role, licence, version) for name, role, licence, version in found}


def _requirements() -> set[str]:
    """Names of all packages in pyproject.toml, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    return {re.split(r"[\s<>=!~\[;]", entry)[0] for entries in lists for entry in entries}


def _stated_licence(package: str) -> str:
    """As the package's metadata has it: an SPDX expression, one line of text, or a classifier."""
    fields = metadata(package)
    text = (fields.get("License") or "").strip()
    if fields.get("License-Expression"):
        return str(fields["License-Expression"])
    if text and "\n" not in text:
        return text
    classifiers = fields.get_all("Classifier", [])
    return [c.split("::")[-1].strip() for c in classifiers if c.startswith("License")][-1]


def test_the_page_names_the_packages_of_pyproject_and_no_others() -> None:
    assert set(_rows()) == _requirements()


def test_the_page_has_the_locked_versions() -> None:
    pattern = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)
    locked = dict(pattern.findall((ROOT / "requirements.txt").read_text()))
    versions = {name: version for name, (_, _, version) in _rows().items()}
    assert versions == {name: locked[name.lower().replace("_", "-")] for name in versions}


@pytest.mark.parametrize("package", sorted(_requirements()))
def test_the_page_has_the_licence_that_the_package_states(package: str) -> None:
    try:
        stated = _stated_licence(package)
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    assert _rows()[package][1] == stated
