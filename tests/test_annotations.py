"""Annotation files: one table a corpus, whose columns and paths stay what they are."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from datasets.annotations import COLUMNS, Record, read_annotations, write_annotations


def _header(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return next(csv.reader(file))


def test_a_manifest_has_the_columns_of_every_corpus(tmp_path: Path) -> None:
    records = [
        Record("a.mp4", "", "sad", speaker="s", dataset="ravdess", extra={"gender": "female"}),
        Record("b.mp4", "", "sad", soft={"sad": 0.75, "happy": 0.25}, extra={"performance": "9"}),
    ]
    write_annotations(records, tmp_path / "manifest.csv")
    header = _header(tmp_path / "manifest.csv")
    assert header == [*COLUMNS, "performance", "p_sad", "p_happy"]
    assert COLUMNS[-4:] == ("speaker", "gender", "corpus", "subset")
    known, unknown = read_annotations(tmp_path / "manifest.csv")
    assert (known.dataset, known.extra) == ("ravdess", {"gender": "female", "performance": ""})
    assert (unknown.dataset, unknown.extra) == ("", {"performance": "9"}), "gender is not known"


@pytest.mark.parametrize("header", ["corpus", "dataset", "dataset,corpus"])
def test_the_corpus_is_read_under_either_name(tmp_path: Path, header: str) -> None:
    cells = "other,ravdess" if "," in header else "ravdess"
    (tmp_path / "list.csv").write_text(f"video,label,{header}\na.mp4,sad,{cells}\n")
    (record,) = read_annotations(tmp_path / "list.csv")
    assert (record.dataset, record.extra) == ("ravdess", {})


def test_a_linked_file_keeps_the_name_it_was_prepared_under(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.mp4").touch()
    (tmp_path / "corpus").mkdir()
    link = tmp_path / "corpus" / "a.mp4"
    link.symlink_to(tmp_path / "elsewhere.mp4")
    record = Record(str(link), "", "sad")
    for folder in (tmp_path / "corpus", tmp_path):
        write_annotations([record], folder / "manifest.csv")
        (back,) = read_annotations(folder / "manifest.csv")
        assert back.key == record.key
    (tmp_path / "way").symlink_to(tmp_path / "corpus")
    (back,) = read_annotations(tmp_path / "way" / "manifest.csv")
    assert back.key == record.key, "however the manifest is reached"
