"""Late fusion of anyone's predictions, from tables of scores.

`python -m evaluation.fuse --train audio_train.csv video_train.csv --test audio_test.csv
video_test.csv --method stacking --output results/fused` fits on the first tables and scores each
system and their fusion on the second. Writes `fused.csv` and `metrics.json`. Needs no torch.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.combination import Combination, fit_combination
from evaluation.decisions import MEASURE_NAMES, MEASURES, Decisions, compare_pair, summarise
from evaluation.predictions import write_rows
from evaluation.rules import FITTED_METHODS, METHODS
from evaluation.score_tables import ScoreTable, read_labels, read_score_table
from labels.emotions import class_index
from system.command_line import OneLineParser, exit_status
from system.files import write_json

_LOG = logging.getLogger(__name__)
Labels = tuple[dict[str, str], dict[str, str]]  # of read_labels: true classes, speakers


@dataclass(frozen=True)
class Matched:
    """What K systems say of the same clips.

    Args:
        keys, names: (N,) clips, and how the first system names them.
        class_names: (C,).
        log_p: (N, K, C) log-probabilities.
        present: (N, K) whether the system has the clip.
        targets: (N,) class indices, -1 where the truth is not known.
        speakers: (N,) empty where unknown.
    """

    keys: tuple[str, ...]
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    log_p: np.ndarray
    present: np.ndarray
    targets: np.ndarray
    speakers: np.ndarray

    def units(self) -> np.ndarray:
        """(N,) speakers; all clips where the speaker of any is not known."""
        return self.speakers if (self.speakers != "").all() else np.array(self.keys)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status."""
    options = _parser().parse_args(argv)
    return exit_status(lambda: _run(options))


def match_tables(
    tables: Sequence[ScoreTable],
    class_names: Sequence[str],
    labels: Labels = ({}, {}),
    missing: str = "refuse",
) -> Matched:
    """Bring the clips and classes of several systems in one order.

    Args:
        tables: one a system.
        class_names: order of the classes.
        labels: true classes and speakers by clip, which stand above what tables tell.
        missing: what of a clip that a table lacks: `refuse`, `drop` it, or `keep` it for the
            others to decide.

    Raises:
        ValueError: classes differ, a clip is missing, labels disagree or name no class.
    """
    for table in tables:
        _check_classes(table, class_names, tables[0].path)
    rows = [{key: row for row, key in enumerate(table.keys)} for table in tables]
    keys = list(dict.fromkeys(key for table in tables for key in table.keys))
    if missing == "refuse":
        _refuse_missing(tables, rows, keys)
    elif missing == "drop":
        keys = [key for key in keys if all(key in row for row in rows)]
    if not keys:
        raise ValueError(f"{tables[0].path} and the other tables have no clip in common")
    log_p = np.zeros((len(keys), len(tables), len(class_names)))
    present = np.array([[key in row for row in rows] for key in keys])
    for place_of, (table, row) in enumerate(zip(tables, rows, strict=True)):
        there = present[:, place_of]
        chosen = [row[key] for key in keys if key in row]
        log_p[there, place_of] = table.ordered(class_names)[chosen]
    told = [_told(key, tables, rows, labels) for key in keys]
    return Matched(
        keys=tuple(keys),
        names=tuple(name for name, _, _ in told),
        class_names=tuple(class_names),
        log_p=log_p,
        present=present,
        targets=np.array([_target(name, label, class_names) for name, label, _ in told]),
        speakers=np.array([speaker for *_, speaker in told], dtype=str),
    )


def fit_on(matched: Matched, method: str) -> Combination:
    """Fit on the clips of which the truth is known and all systems say something.

    Raises:
        ValueError: there are none, or a class has none.
    """
    usable = matched.present.all(axis=1) & (matched.targets >= 0)
    classes = matched.class_names
    absent = [n for i, n in enumerate(classes) if i not in matched.targets[usable]]
    if absent:
        raise ValueError(
            f"no training clip with a known label and all scores is '{absent[0]}'; "
            "add a column 'label' or give --labels"
        )
    units = matched.units()
    return fit_combination(matched.log_p[usable], matched.targets[usable], method, units[usable])


def score_systems(
    matched: Matched, fused: np.ndarray, system_names: Sequence[str]
) -> dict[str, Any]:
    """Each single system and the fusion on clips that all have, and the gain over the best single.

    Args:
        fused: (N, C) log-probabilities.
        system_names: (K,).

    Raises:
        ValueError: no clip has a known label and all scores.
    """
    usable = matched.present.all(axis=1) & (matched.targets >= 0)
    if not usable.any():
        raise ValueError("no test clip has a known label; add a column 'label' or give --labels")
    units, classes = matched.units()[usable], len(matched.class_names)

    def decide(log_p: np.ndarray) -> Decisions:
        return Decisions(matched.targets[usable], log_p[usable].argmax(axis=1), classes, units)

    singles = {name: decide(matched.log_p[:, k]) for k, name in enumerate(system_names)}
    decided = decide(fused)
    best = max(singles, key=lambda name: singles[name].value("uar"))
    scores = {name: summarise(single) for name, single in singles.items()}
    gain = {"over": best, **compare_pair(decided, singles[best])}
    return {"systems": {**scores, "fused": summarise(decided)}, "gain": gain}


def _run(options: argparse.Namespace) -> int:
    method, missing = options.method, options.missing
    if method in FITTED_METHODS and not options.train:
        raise ValueError(f"--method {method} is fitted; give --train, or use mean or product")
    if options.train and len(options.train) != len(options.test):
        raise ValueError(
            f"{len(options.train)} --train and {len(options.test)} --test tables; "
            "give one of each system, in the same order"
        )
    if len(options.test) < 2:
        raise ValueError("a fusion takes the --test tables of two systems or more")
    labels: Labels = read_labels(options.labels) if options.labels else ({}, {})
    tests = [read_score_table(path) for path in options.test]
    trains = [read_score_table(path) for path in options.train or ()]
    classes = tests[0].class_names
    test = match_tables(tests, classes, labels, missing)
    notes: list[str] = [table.assumed for table in (*trains, *tests)]
    rule = Combination(method)
    if trains:
        train = match_tables(trains, classes, labels, missing)
        notes += _check_apart(train, test)
        if method in FITTED_METHODS:
            rule = fit_on(train, method)
        else:
            notes.append(f"NOTE: {method} has nothing to fit: --train was checked and not used")
    fused = rule.apply(test.log_p, test.present)
    names = _system_names(options.test)
    if (test.targets >= 0).any():
        scores = score_systems(test, fused, names)
    else:
        scores = {}
    notes += _notes(test)
    _write(options.output, test, fused, {**_describe(options, rule, names, test), **scores}, notes)
    _tell(scores, notes, options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="python -m evaluation.fuse", description=__doc__.split("\n")[0])
    parser.add_argument("--train", nargs="+", type=Path, help="a table a system, to fit on")
    parser.add_argument("--test", nargs="+", type=Path, required=True, help="in the same order")
    parser.add_argument("--labels", type=Path, help="CSV of clip, label, and maybe speaker")
    parser.add_argument("--method", choices=METHODS, default="product")
    parser.add_argument(
        "--missing",
        choices=("refuse", "drop", "keep"),
        default="refuse",
        help="clips that not all tables have: keep lets the others decide",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    return parser


def _check_classes(table: ScoreTable, class_names: Sequence[str], first: Path) -> None:
    extra = [name for name in table.class_names if name not in class_names]
    lacking = [name for name in class_names if name not in table.class_names]
    if extra:
        raise ValueError(f"{table.path}: unknown class '{extra[0]}', which {first} does not have")
    if lacking:
        raise ValueError(f"{table.path} has no column of the class '{lacking[0]}' of {first}")


def _refuse_missing(
    tables: Sequence[ScoreTable], rows: Sequence[dict[str, int]], keys: Sequence[str]
) -> None:
    for table, row in zip(tables, rows, strict=True):
        lacking = [key for key in keys if key not in row]
        if lacking:
            raise ValueError(
                f"{table.path} lacks {len(lacking)} of {len(keys)} clips, '{lacking[0]}' among "
                "them; add them, or pass --missing drop or --missing keep"
            )


def _told(
    key: str, tables: Sequence[ScoreTable], rows: Sequence[dict[str, int]], labels: Labels
) -> tuple[str, str, str]:
    """Name, label and speaker of a clip; the labels' file stands above the tables."""
    found = [(t, r[key]) for t, r in zip(tables, rows, strict=True) if key in r]
    name = found[0][0].names[found[0][1]]
    given = {table.labels[row]: table.path for table, row in found if table.labels[row]}
    if key in labels[0]:
        given = {labels[0][key]: Path()}
    if len(given) > 1:
        said = " and ".join(f"'{label}' ({path})" for label, path in given.items())
        raise ValueError(f"the clip '{name}' is labelled {said}; correct one, or give --labels")
    speakers = [table.speakers[row] for table, row in found if table.speakers[row]]
    speaker = labels[1].get(key, "") or next(iter(speakers), "")
    return name, next(iter(given), ""), speaker


def _target(name: str, label: str, class_names: Sequence[str]) -> int:
    if not label:
        return -1
    index = class_index(label, tuple(class_names))
    if index is None:
        raise ValueError(
            f"the clip '{name}' is labelled '{label}', an unknown class; the tables have "
            f"{', '.join(class_names)}"
        )
    return index


def _check_apart(train: Matched, test: Matched) -> list[str]:
    """Refuse clips on both sides; note speakers on both."""
    both = set(train.keys) & set(test.keys)
    if both:
        raise ValueError(
            f"{len(both)} clips are in --train and in --test, '{min(both)}' among them; "
            "scores on clips that were fitted on say nothing"
        )
    speakers = (set(train.speakers) & set(test.speakers)) - {""}
    if not speakers:
        return []
    return [f"NOTE: {len(speakers)} speakers of --test are in --train too: scores are optimistic"]


def _notes(test: Matched) -> list[str]:
    notes = []
    if not (test.speakers != "").all():
        notes.append(
            "NOTE: the speaker of some clips is not known: intervals and tests are BY CLIP and "
            "too narrow; add a column 'speaker'"
        )
    unlabelled = int((test.targets < 0).sum())
    if unlabelled:
        notes.append(f"NOTE: {unlabelled} test clips have no label: fused, but not scored")
    partial = int((~test.present.all(axis=1)).sum())
    if partial:
        notes.append(f"NOTE: {partial} test clips lack a system: fused of the rest, not scored")
    return notes


def _system_names(paths: Sequence[Path]) -> list[str]:
    """Stems, numbered where two are alike or named as the fusion."""
    stems = [path.stem for path in paths]
    unclear = len(set(stems)) < len(stems) or "fused" in stems
    return [f"{n}_{stem}" for n, stem in enumerate(stems, 1)] if unclear else stems


def _describe(
    options: argparse.Namespace, rule: Combination, names: Sequence[str], test: Matched
) -> dict[str, Any]:
    fitted: dict[str, Any] = {}
    if rule.weights is not None:
        fitted["weights"] = dict(zip(names, rule.weights.round(6).tolist(), strict=True))
    if rule.matrix is not None and rule.bias is not None:
        fitted = {"decay": rule.decay, "matrix": rule.matrix.tolist(), "bias": rule.bias.tolist()}
    by_speaker = bool((test.speakers != "").all())
    return {
        "method": rule.method,
        "train": [str(path) for path in options.train or ()],
        "test": [str(path) for path in options.test],
        "class_names": list(test.class_names),
        "clips": len(test.keys),
        "intervals_by": "speaker" if by_speaker else "clip",
        "fitted": fitted,
    }


def _write(
    folder: Path, test: Matched, fused: np.ndarray, metrics: dict[str, Any], notes: Sequence[str]
) -> None:
    write_json({**metrics, "notes": list(notes)}, folder / "metrics.json")
    probabilities = [[f"{value:.6f}" for value in p] for p in np.exp(fused)]
    labels = [test.class_names[target] if target >= 0 else "" for target in test.targets]
    rows = zip(test.names, labels, test.speakers, probabilities, strict=True)
    header = ["clip", "label", "speaker", *(f"p_{name}" for name in test.class_names)]
    write_rows(folder / "fused.csv", header, ([*known, *p] for *known, p in rows))


def _tell(
    scores: dict[str, Any],
    notes: Sequence[str],
    options: argparse.Namespace,
) -> None:
    for note in notes:
        _LOG.info(note)
    for name, system in scores.get("systems", {}).items():
        parts = [f"{MEASURE_NAMES[m]} {_percent(system[m])}" for m in MEASURES]
        _LOG.info(f"{name}: {', '.join(parts)} ({system['clips']} clips)")
    if scores:
        gain = scores["gain"]
        uar, over = gain["uar"], gain["over"]
        ends = "" if uar["low"] is None else f" [{100 * uar['low']:+.1f}, {100 * uar['high']:+.1f}]"
        _LOG.info(
            f"fused less {over}: UAR {100 * uar['difference']:+.1f} points{ends}, "
            f"permutation p = {uar['p_permutation']:.3g}"
        )
    _LOG.info(f"wrote {options.output / 'fused.csv'} and {options.output / 'metrics.json'}")


def _percent(score: dict[str, Any]) -> str:
    if score["low"] is None:
        return f"{score['value']:.1%}"
    return f"{score['value']:.1%} [{score['low']:.1%}, {score['high']:.1%}]"


if __name__ == "__main__":
    sys.exit(main())
