"""Rows of a table of results, from run folders and never typed.

    python -m reports.results_table add results/RUN --name landmarks --data "RAVDESS, six folds"
    python -m reports.results_table add results/FUSED --name both --data … --parts results/A …
    python -m reports.results_table write docs/results.md

`add` notes the scores of a run folder, or of what `evaluation.fuse` wrote, in
`results/pretrained/scores.json`; `write` puts all rows between two marks of a Markdown file.
Needs no torch.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.predictions import PredictionTable, read_json, read_predictions
from evaluation.scores import score_intervals
from reports.tables import Table, score_cell, to_markdown
from system.command_line import OneLineParser, exit_status
from system.files import replacing, write_json

SCORES = Path(__file__).parent.parent / "results" / "pretrained" / "scores.json"
BEGIN, END = "<!-- results: python -m reports.results_table write -->", "<!-- /results -->"
_COLUMNS = ("system", "test data", "parameters", "accuracy", "UAR", "clips or windows", "speakers")


def read_row(
    run: Path,
    data: str,
    subset: str = "testing",
    windows: bool = False,
    parts: Sequence[Path] = (),
) -> dict[str, Any]:
    """Scores of a run as a row is made of.

    Args:
        run: a run folder, a folder of folds, or a folder that `evaluation.fuse` wrote.
        data: what it was tested on, in words.
        windows: score each window by itself, not each clip.
        parts: runs that a fusion combines, for its parameters.

    Raises:
        ValueError: the folder holds no such scores.
    """
    found = _read_fused(run) if (run / "fused.csv").exists() else _read_run(run, subset, windows)
    counts = [read_json(part / "run.json").get("parameters") for part in parts or [run]]
    known = [count for count in counts if count is not None]
    return {"data": data, "parameters": sum(known) if len(known) == len(counts) else None, **found}


def _read_fused(folder: Path) -> dict[str, Any]:
    fused = read_json(folder / "metrics.json").get("systems", {}).get("fused")
    if fused is None:
        raise ValueError(f"{folder} tells no scores of the fusion: its labels were not known")
    with (folder / "fused.csv").open(newline="", encoding="utf-8") as handle:
        speakers = {row["speaker"] for row in csv.DictReader(handle)}
    known = None if "" in speakers else len(speakers)
    return {**{name: fused[name] for name in ("accuracy", "uar", "clips")}, "speakers": known}


def _read_run(folder: Path, subset: str, windows: bool) -> dict[str, Any]:
    table = read_predictions(folder / f"{'windows' if windows else 'predictions'}_{subset}.csv")
    if table.task != "classification":
        raise ValueError(f"{folder} is a run of {table.task}; the table is of classes")
    scores = score_intervals(_apart(table) if windows else table)
    known = len(np.unique(table.speaker)) if (table.speaker != "").all() else None
    return {**{name: scores[name] for name in ("accuracy", "uar", "clips")}, "speakers": known}


def _apart(table: PredictionTable) -> PredictionTable:
    """Windows of a clip are one performance, but each counts."""
    groups = {name: values for name, values in table.groups.items() if name != "performance"}
    return replace(table, groups=groups)


def results_table(rows: dict[str, dict[str, Any]]) -> Table:
    """All rows; intervals are of 95 % over speakers, or over clips where speakers are unknown."""
    cells = tuple(
        (
            name,
            row["data"],
            "" if row["parameters"] is None else f"{row['parameters'] / 1e6:.2f} M",
            score_cell(row["accuracy"]),
            score_cell(row["uar"]),
            f"{row['clips']:,}",
            "" if row["speakers"] is None else str(row["speakers"]),
        )
        for name, row in rows.items()
    )
    return Table("", _COLUMNS, cells)


def write_between(path: Path, text: str, marks: tuple[str, str] = (BEGIN, END)) -> None:
    """Put text between two marks of a file.

    Raises:
        ValueError: the file has no such marks.
    """
    begin, end = marks
    before = path.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(before):
        raise ValueError(f"{path} has no lines {begin} and {end}")
    after = pattern.sub(lambda _: f"{begin}\n\n{text.strip()}\n\n{end}", before)
    with replacing(path) as temporary:
        temporary.write_text(after, encoding="utf-8")


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = OneLineParser(prog="python -m reports.results_table", description=__doc__)
    parser.add_argument("--scores", type=Path, default=SCORES, help="file of all rows")
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="note the scores of a run")
    add.add_argument("run", type=Path, help="folder of a run, of folds, or of evaluation.fuse")
    add.add_argument("--name", required=True, help="of the row; one that is there is replaced")
    add.add_argument("--data", required=True, help="what it was tested on, in words")
    add.add_argument("--subset", default="testing", help="of the run")
    add.add_argument("--parts", type=Path, nargs="+", default=[], help="runs that it combines")
    add.add_argument("--windows", action="store_true", help="score windows, not clips")
    write = commands.add_parser("write", help="put the table into Markdown files")
    write.add_argument("files", type=Path, nargs="+")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status."""
    options = parse_options(arguments)
    return exit_status(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    rows: dict[str, Any] = read_json(options.scores)
    if options.command == "add":
        chosen = (options.subset, options.windows, options.parts)
        row = read_row(options.run, options.data, *chosen)
        write_json({**rows, options.name: row}, options.scores)
        print(f"{options.name}: {score_cell(row['accuracy'])}, in {options.scores}")
        return 0
    if not rows:
        raise ValueError(f"{options.scores} holds no rows: add some")
    for path in options.files:
        write_between(path, to_markdown([results_table(rows)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
