"""What a model card states of a checkpoint, from its file and its run, between marks of the card.

    python -m reports.model_card results/pretrained/face.safetensors results/RUN MODEL_CARD.md

The prose around the marks is written by people. Needs no torch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.predictions import read_json
from reports.results_table import write_between
from reports.tables import Table, score_cell, to_markdown
from system.command_line import OneLineParser, exit_status

BEGIN, END = "<!-- facts: python -m reports.model_card -->", "<!-- /facts -->"
_METADATA = "emofuse"
_RAVDESS = "ravdess-"
_GROUPINGS = ("gender", "dataset", "corpus", "speaker")


def read_metadata(path: Path) -> dict[str, Any]:
    """What a checkpoint of ours tells of itself, read without its weights.

    Raises:
        ValueError: the file is no such checkpoint.
    """
    try:
        with path.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > path.stat().st_size:
                raise ValueError("it is no safetensors file")
            header = json.loads(handle.read(length))
        return dict(json.loads(header["__metadata__"][_METADATA]))
    except (struct.error, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no checkpoint of ours: {error}") from error


def facts(checkpoint: Path, run: Path, subset: str = "testing") -> str:
    """Markdown: the file, what it was trained on, and its scores with intervals, classes, groups,
    without each modality, and calibration.

    Raises:
        ValueError: no such checkpoint, or the run was not scored on the subset.
    """
    scores = read_json(run / "metrics.json").get(subset)
    if scores is None or "recall" not in scores:
        raise ValueError(f"{run} tells no scores of classes on {subset}")
    tables = [
        _file_table(checkpoint, read_json(run / "run.json")),
        _score_table(scores, subset),
        _recall_table(scores),
        *_group_tables(scores["groups"]),
    ]
    if scores.get("without"):
        tables.append(_ablation_table(scores))
    if scores.get("calibration"):
        tables.append(_calibration_table(scores["calibration"]["clips"]))
    return to_markdown(tables)


def _file_table(path: Path, about: dict[str, Any]) -> Table:
    told = read_metadata(path)
    clips, info = told["clip_config"], told["info"]
    people = info.get("training_speakers", [])
    speakers = [name.removeprefix(_RAVDESS) for name in people if name.startswith(_RAVDESS)]
    parameters, takes = about.get("parameters"), about.get("inputs", [])
    picture = f", faces of {clips['face_size']}x{clips['face_size']} pixels, {clips['colour']}"
    calibration = told.get("calibration")
    rows = {
        "file": f"`{path.name}`, {path.stat().st_size / 1e6:.1f} MB",
        "SHA-256": f"`{hashlib.sha256(path.read_bytes()).hexdigest()}`",
        "architecture": f"`{told['architecture']['name']}`"
        + ("" if parameters is None else f", {parameters:,} parameters"),
        "classes, in order": ", ".join(told["class_names"]),
        "takes": f"{' and '.join(takes)}, {clips['window_seconds']:g} s"
        + (picture if "face" in takes else ""),
        "trained on": ", ".join(info.get("corpora", [])),
        "licence of the data": "; ".join(info.get("licence", [])),
        "RAVDESS actors trained on": ", ".join(speakers) or "none",
        "other people trained on": _count_people(info.get("training_speakers", [])),
        "calibrated": calibration["method"] if calibration else "no",
    }
    return Table("", ("", ""), tuple((name, text) for name, text in rows.items() if text))


def _count_people(speakers: Sequence[str]) -> str:
    """How many of each other corpus, as `ased 59, emodb 9`."""
    counts = Counter(name.rpartition("-")[0] for name in speakers if not name.startswith(_RAVDESS))
    return ", ".join(f"{corpus} {count}" for corpus, count in sorted(counts.items()) if corpus)


def _score_table(scores: dict[str, Any], subset: str) -> Table:
    ends = scores["intervals"]
    rows = [("by clip", score_cell(ends["accuracy"]), score_cell(ends["uar"]), ends["clips"])]
    windows = scores.get("windows")
    if windows:
        found = (f"{100 * windows[name]:.1f}" for name in ("accuracy", "uar"))
        rows.append(("by window", *found, windows["windows"]))
    by = f"{ends['units']} {ends['by']}s"
    return Table(
        f"Scores (%) on {subset}, with 95 % intervals by bootstrap over {by}.",
        ("", "accuracy", "UAR", "number"),
        tuple((name, first, second, str(count)) for name, first, second, count in rows),
    )


def _recall_table(scores: dict[str, Any]) -> Table:
    recall = scores["recall"]
    cells = tuple("" if value is None else f"{100 * value:.0f}" for value in recall.values())
    return Table("Recall by class (%).", tuple(recall), (cells,))


def _group_tables(groups: dict[str, Any]) -> list[Table]:
    tables = []
    for name in _GROUPINGS:
        found = groups.get(name, {}).get("groups", {})
        if not 1 < len(found) <= 24:
            continue
        rows = []
        for group, entry in found.items():
            within = entry.get("accuracy_interval") if name == "speaker" else None
            low, high = within or (None, None)
            cell = score_cell({"value": entry["accuracy"], "low": low, "high": high})
            rows.append((group, cell, f"{100 * entry['uar']:.1f}", str(entry["clips"])))
        caption = f"By {name} (%){'; intervals over clips' if name == 'speaker' else ''}."
        tables.append(Table(caption, (name, "accuracy", "UAR", "clips"), tuple(rows)))
    return tables


def _ablation_table(scores: dict[str, Any]) -> Table:
    rows = [("all", f"{100 * scores['accuracy']:.1f}", f"{100 * scores['uar']:.1f}")]
    rows += [
        (f"without {name}", f"{100 * entry['accuracy']:.1f}", f"{100 * entry['uar']:.1f}")
        for name, entry in scores["without"].items()
    ]
    return Table("With a modality masked (%).", ("", "accuracy", "UAR"), tuple(rows))


def _calibration_table(scores: dict[str, Any]) -> Table:
    rows = [("as trained", scores["before"])]
    rows += [(name, scores[name]) for name in ("temperature", "vector") if name in scores]
    return Table(
        f"Calibration by clip, fitted on {scores['fitted_on']} clips of validation: expected "
        "calibration error and log loss.",
        ("", "ECE", "log loss"),
        tuple((name, f"{s['ece']:.3f}", f"{s['log_loss']:.3f}") for name, s in rows),
    )


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = OneLineParser(prog="python -m reports.model_card", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="the shipped .safetensors file")
    parser.add_argument("run", type=Path, help="run folder that scored it")
    parser.add_argument("card", type=Path, help="Markdown file with the marks")
    parser.add_argument("--subset", default="testing", help="of the run")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status."""
    options = parse_options(arguments)
    return exit_status(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    text = facts(options.checkpoint, options.run, options.subset)
    write_between(options.card, text, (BEGIN, END))
    return 0


if __name__ == "__main__":
    sys.exit(main())
