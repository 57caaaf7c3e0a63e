"""Scores and figures of a run, from the tables in its folder: `python -m reports.run results/x`.

Reads what validation wrote (`predictions_<subset>.csv`, `windows_<subset>.csv`, `log.jsonl`, ...)
and writes `metrics.json`, `classification_report_<subset>.json` and the figures. Needs no torch.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from evaluation.calibration import fit_temperature
from evaluation.metrics import confusion_matrix
from evaluation.predictions import PredictionTable, read_json, read_predictions
from evaluation.registry import TASKS
from evaluation.scores import (
    MAIN_SCORES,
    calibration_scores,
    detailed_report,
    group_scores,
    modality_scores,
    score_intervals,
    table_scores,
    window_loss,
)
from reports.bars import Bar, plot_score_bars
from reports.curves import Reliability, plot_agreement, plot_ranking_curves, plot_reliability
from reports.embeddings import FEWEST_POINTS, plot_embeddings
from reports.gallery import MOST_MISTAKES, Mistake, plot_mistakes
from reports.plots import plot_confusion, plot_learning_curves, write_figure
from system.command_line import OneLineParser, exit_status
from system.errors import OptionError
from system.files import write_json

_LOG = logging.getLogger(__name__)

_FITTED_ON = "validation"


@dataclass(frozen=True)
class SubsetTables:
    """What a run folder holds of one subset.

    Args:
        clips: predictions of each clip.
        windows: of each window; None where they were not written.
        without: of each clip, by the modality that was masked.
    """

    clips: PredictionTable
    windows: PredictionTable | None
    without: dict[str, PredictionTable]


def write_run_report(folder: Path) -> dict[str, Any]:
    """Score a run's tables and write its metrics and figures. Returns what `metrics.json` holds.

    Raises:
        ValueError: the folder holds no predictions, or a file in it is not what it should be.
    """
    subsets = read_run(folder)
    before = read_json(folder / "metrics.json")
    results = {name: value for name, value in before.items() if name not in subsets}
    for subset, tables in subsets.items():
        fitted_on = subsets.get(_FITTED_ON) if subset != _FITTED_ON else None
        scores = evaluate_subset(tables, fitted_on)
        if scores["loss"] is None:
            scores["loss"] = before.get(subset, {}).get("loss")
        results[subset] = scores
        write_json(detailed_report(tables.clips), folder / f"classification_report_{subset}.json")
        for name, figure in _subset_figures(folder, subset, tables, fitted_on, scores).items():
            write_figure(figure, folder / f"{name}_{subset}.png")
        _LOG.info(score_line(subset, tables.clips, scores))
    write_json(results, folder / "metrics.json")
    log = _read_log(folder / "log.jsonl")
    if log:
        write_figure(plot_learning_curves(log), folder / "learning_curves.png")
    return results


def read_run(folder: Path) -> dict[str, SubsetTables]:
    """The tables of each subset that has predictions.

    Raises:
        ValueError: there are none, or a file is not what it should be.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder of a run")
    run = read_json(folder / "run.json")
    task, names = run.get("task"), run.get("class_names")
    if task not in (None, *TASKS):
        raise ValueError(f"{folder / 'run.json'}: unknown task '{task}'; it is one of {TASKS}")

    def read(path: Path) -> PredictionTable:
        return read_predictions(path, names, task)

    subsets = {}
    for path in sorted(folder.glob("predictions_*.csv")):
        subset = path.stem.removeprefix("predictions_")
        if "_without_" in subset:
            continue
        masked = sorted(folder.glob(f"{path.stem}_without_*.csv"))
        windows = folder / f"windows_{subset}.csv"
        subsets[subset] = SubsetTables(
            clips=read(path),
            windows=read(windows) if windows.exists() else None,
            without={table.stem.rpartition("_without_")[2]: read(table) for table in masked},
        )
    if not subsets:
        raise OptionError(
            f"{folder} holds no predictions_<subset>.csv: score the run first, without training",
            "no_train",
            "resume_path",
        )
    return subsets


def evaluate_subset(tables: SubsetTables, fitted_on: SubsetTables | None) -> dict[str, Any]:
    """Scores by clip, and under their names by window, group, masked modality and calibration.

    `loss` is the mean cross-entropy over windows, None where they are not known.

    Args:
        fitted_on: predictions of validation, for calibration.
    """
    clips, windows = tables.clips, tables.windows
    classes = clips.task == "classification"
    scores: dict[str, Any] = {"loss": window_loss(windows) if windows and classes else None}
    scores |= table_scores(clips)
    if windows:
        scores["windows"] = table_scores(windows)
    scores["intervals"] = score_intervals(clips)
    scores["groups"] = group_scores(clips)
    if tables.without:
        scores["without"] = modality_scores(clips, tables.without)
    if fitted_on and classes:
        scores["calibration"] = {"clips": calibration_scores(fitted_on.clips, clips)}
        if windows and fitted_on.windows:
            scores["calibration"]["windows"] = calibration_scores(fitted_on.windows, windows)
    return scores


def score_line(subset: str, table: PredictionTable, scores: dict[str, Any]) -> str:
    """One line for the user: main scores with intervals, and the worst group of each kind."""
    names, intervals = MAIN_SCORES[table.task], scores["intervals"]
    line = f"{subset}: "
    if intervals["clips"] < scores["clips"]:
        line += ", ".join(f"{_titled(name)} {_shown(scores[name])}" for name in names)
        line += f" over {scores['clips']} clips; of distinct performances "
    line += ", ".join(f"{_titled(name)} {_with_ends(intervals[name])}" for name in names)
    line += f" over {intervals['clips']} clips"
    for kind, found in scores["groups"].items():
        worst = found["worst"]
        line += f"; worst {kind} {worst['name']} (n = {worst['clips']})"
    return line


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _with_ends(score: dict[str, float | None]) -> str:
    spread = f" [{_shown(score['low'])}, {_shown(score['high'])}]"
    return _shown(score["value"]) + ("" if score["low"] is None else spread)


def _subset_figures(
    folder: Path,
    subset: str,
    tables: SubsetTables,
    fitted_on: SubsetTables | None,
    scores: dict[str, Any],
) -> dict[str, Figure]:
    """Figures by the first part of their file's name."""
    table, figures = tables.clips, {}
    names = table.class_names
    if table.task == "regression":
        figures["agreement"] = plot_agreement(table.scores, table.targets, names)
    elif table.task == "multilabel":
        figures["curves"] = plot_ranking_curves(table.scores, table.targets, names)
    else:
        figures |= _classification_figures(folder, subset, tables, fitted_on)
    if table.task != "regression":
        figures |= _bar_figures(table, scores)
    return figures | _embedding_figures(folder / f"embeddings_{subset}.npz", table)


def _classification_figures(
    folder: Path, subset: str, tables: SubsetTables, fitted_on: SubsetTables | None
) -> dict[str, Figure]:
    table = tables.clips
    names, labels = table.class_names, table.targets
    truth = np.eye(len(names))[labels]
    figures = {
        "confusion": plot_confusion(confusion_matrix(table.scores, labels), names),
        "curves": plot_ranking_curves(table.scores, truth, names),
    }
    mistakes = _read_mistakes(folder / f"faces_{subset}.npz", table)
    if mistakes:
        wrong = int((table.scores.argmax(axis=1) != labels).sum())
        figures["errors"] = plot_mistakes(mistakes, wrong, len(table))
    if fitted_on:
        pairs = [("clips", fitted_on.clips, table)]
        if fitted_on.windows and tables.windows:
            pairs.append(("windows", fitted_on.windows, tables.windows))
        figures["reliability"] = plot_reliability([_reliability(*pair) for pair in pairs])
    return figures


def _reliability(title: str, fitted_on: PredictionTable, table: PredictionTable) -> Reliability:
    calibration = fit_temperature(fitted_on.log_probabilities, fitted_on.targets)
    after = calibration.apply(table.log_probabilities)
    return Reliability(title, table.scores, after, table.targets)


def _bar_figures(table: PredictionTable, scores: dict[str, Any]) -> dict[str, Figure]:
    """Speakers, from the best to the worst; and all other groups and modalities."""
    first, second = MAIN_SCORES[table.task]

    def group_bar(name: str, group: dict[str, Any]) -> Bar:
        return Bar(name, group["clips"], group[first], group[second], group[f"{first}_interval"])

    def whole_bar(name: str, found: dict[str, Any]) -> Bar:
        ends, other = found["intervals"][first], found["intervals"][second]
        interval = None if ends["low"] is None else (ends["low"], ends["high"])
        return Bar(name, found["intervals"]["clips"], ends["value"], other["value"], interval)

    kinds: dict[str, Sequence[Bar]] = {
        kind: [group_bar(*group) for group in found["groups"].items()]
        for kind, found in scores["groups"].items()
    }
    speakers = sorted(kinds.pop("speaker", []), key=lambda bar: -bar.second)
    if "without" in scores:
        masked = [whole_bar(f"without {name}", s) for name, s in scores["without"].items()]
        kinds = {"modalities": [whole_bar("all", scores), *masked], **kinds}
    titles = (_titled(first), _titled(second))
    figures = {}
    if speakers:
        figures["speakers"] = plot_score_bars({"speaker": speakers}, titles)
    if kinds:
        figures["groups"] = plot_score_bars(kinds, titles)
    return figures


def _titled(score: str) -> str:
    return score.upper() if score in ("uar", "ccc", "mae") else score.replace("_", " ")


def _embedding_figures(path: Path, table: PredictionTable) -> dict[str, Figure]:
    arrays = _read_arrays(path, ("features", "clip"))
    if arrays is None or table.task == "regression" or len(table) < FEWEST_POINTS:
        return {}
    features, clips = arrays
    if len(clips) != len(table) or not (clips == table.clip).all():
        raise ValueError(f"{path} and {table.path} are not of the same clips in the same order")
    if table.task == "classification":
        emotions = [table.class_names[label] for label in table.targets]
    else:
        emotions = [_strongest(row, table.class_names) for row in table.targets]
    if not np.isfinite(features).all():
        raise ValueError(f"{path} holds embeddings that are not finite")
    if not np.ptp(features, axis=0).any():
        return {}  # all alike: nothing to tell apart
    return {"embeddings": plot_embeddings(features, emotions, table.speaker.tolist())}


def _strongest(targets: np.ndarray, names: Sequence[str]) -> str:
    return names[int(targets.argmax())] if targets.any() else "none"


def _read_mistakes(path: Path, table: PredictionTable) -> list[Mistake]:
    """The most confident mistakes; those whose faces were kept where any were."""
    names, predicted = table.class_names, table.scores.argmax(axis=1)
    arrays = _read_arrays(path, ("faces", "clip"))
    strips = {}
    if arrays is not None:
        strips = dict(zip(arrays[1].tolist(), arrays[0], strict=True))
    wrong = np.flatnonzero(predicted != table.targets)
    confidence = table.scores.max(axis=1)
    kept = [row for row in wrong.tolist() if str(table.clip[row]) in strips] or wrong.tolist()
    first = sorted(kept, key=lambda row: -confidence[row])
    return [
        Mistake(
            clip=str(table.clip[row]),
            true=names[table.targets[row]],
            predicted=names[predicted[row]],
            confidence=float(confidence[row]),
            probability=float(table.scores[row, table.targets[row]]),
            faces=strips.get(str(table.clip[row])),
        )
        for row in first[:MOST_MISTAKES]
    ]


def _read_arrays(path: Path, names: Sequence[str]) -> list[np.ndarray] | None:
    """Arrays of an .npz file, of equal length; None where there is no such file."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = [archive[name] for name in names]
    except (EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} does not hold {' and '.join(names)}: {error}") from error
    if len({len(array) for array in arrays}) > 1:
        raise ValueError(f"{path}: {' and '.join(names)} are not of the same length")
    return arrays


def _read_log(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}, line {number} is no JSON: {error}") from error
    return lines


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of `python -m reports.run`."""
    parser = OneLineParser(prog="python -m reports.run", description=__doc__)
    parser.add_argument("folder", nargs="+", type=Path, help="of a run: results/<run>")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. A user's mistake is one line and exit status 2."""
    options = parse_options(arguments)
    return exit_status(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    for folder in options.folder:
        write_run_report(folder)
        print(f"{folder}: metrics.json and figures written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
