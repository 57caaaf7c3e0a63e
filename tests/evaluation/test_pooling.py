"""Tables of folds become one, in which every clip has a name of its own."""

from __future__ import annotations

import csv
from pathlib import Path

from evaluation.pooling import pool_predictions


def _pooled(folder: Path, *tables: str) -> list[dict[str, str]]:
    paths = {}
    for number, text in enumerate(tables):
        path = folder / f"{number}.csv"
        path.write_text(text)
        paths[f"fold_{number}"] = path
    pool_predictions(paths, folder / "pooled.csv")
    return list(csv.DictReader((folder / "pooled.csv").open()))


def test_votes_of_some_folds_do_not_leave_the_others_without(tmp_path: Path) -> None:
    voted = "clip,speaker,target,soft_happy,soft_sad\na,01,sad,0.4,0.6\n"
    plain = "clip,speaker,target\nb,02,happy\n"
    rows = _pooled(tmp_path, voted, plain)
    assert [row["clip"] for row in rows] == ["a", "b"]
    assert [row["speaker"] for row in rows] == ["01", "02"]
    votes = [(float(row["soft_happy"]), float(row["soft_sad"])) for row in rows]
    assert votes == [(0.4, 0.6), (1.0, 0.0)]


def test_a_clip_name_of_two_folds_gets_its_fold_in_front(tmp_path: Path) -> None:
    rows = _pooled(tmp_path, "clip,target\na,sad\nb,sad\n", "clip,target\na,happy\n")
    assert [row["clip"] for row in rows] == ["fold_0/a", "b", "fold_1/a"]
