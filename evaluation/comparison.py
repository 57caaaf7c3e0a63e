"""Several runs on the clips that all of them scored: scores, tests, ranks, costs.

What each run holds is read from its folder: `predictions_<subset>.csv`, `run.json`, and
`efficiency.json` where it was measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.decisions import Decisions, compare_pair, summarise
from evaluation.human_ceilings import score_crema_d
from evaluation.predictions import PredictionTable, read_json, read_predictions
from evaluation.statistics import Ranking, holm, rank_systems
from labels.clip_names import read_clip_name
from system.errors import OptionError

# What a cheaper model has less of, the first that is known of all models being compared by.
COSTS = {
    "latency_ms_batch1": "latency of a window, batch 1 (ms)",
    "flops": "FLOPs of a window",
    "parameters": "parameters",
    "file_bytes": "file size (bytes)",
}
SIGNIFICANT = 0.05
_RUN_NUMBERS = ("parameters", "trainable", "flops", "file_bytes")
_MEASURED = ("latency_ms_batch1", "throughput_windows_per_s", "peak_memory_mb", "device")


@dataclass(frozen=True)
class Run:
    """A run folder as far as it is compared.

    Args:
        name: unique among the runs.
        table: of clips.
        inputs: modalities of the model, empty where unknown.
        efficiency: numbers by name; only those that are known.
    """

    name: str
    table: PredictionTable
    inputs: tuple[str, ...]
    efficiency: dict[str, Any]


@dataclass(frozen=True)
class Common:
    """Decisions of each run on the same clips in the same order, and what was left out for it."""

    class_names: tuple[str, ...]
    decisions: tuple[Decisions, ...]
    by_speaker: bool
    left_out: dict[str, int]
    notes: tuple[str, ...]


def read_runs(folders: Sequence[Path], subset: str) -> list[Run]:
    """Read what is compared of each run.

    Raises:
        ValueError: fewer than two runs, one given twice, or one without a table of classes.
    """
    if len(folders) < 2:
        raise ValueError("a comparison takes the folders of two runs or more")
    names = _unique_names(folders)
    return [_read_run(folder, name, subset) for folder, name in zip(folders, names, strict=True)]


def compare_runs(runs: Sequence[Run]) -> dict[str, Any]:
    """The whole analysis, as `detailed_analysis.json` holds it.

    Scores and tests are of the clips common to all; `all_clips` are scores of all that a run has.
    p-values are adjusted for the number of pairs (Holm).

    Raises:
        ValueError: fewer than two classes or no clip in common, or labels that disagree.
    """
    common = match_runs(runs)
    models = [
        {
            "name": run.name,
            "inputs": list(run.inputs),
            "scores": summarise(decisions),
            "all_clips": summarise(_decisions(run.table, np.arange(len(run.table)))),
            "clips_left_out": common.left_out[run.name],
            "efficiency": run.efficiency,
            "crema_d": score_crema_d(run.table, run.inputs),
        }
        for run, decisions in zip(runs, common.decisions, strict=True)
    ]
    first = common.decisions[0]
    ranking = rank_runs(common)
    units = len(np.unique(first.units))
    notes = list(common.notes)
    pairs = _compare_pairs([run.name for run in runs], common.decisions)
    least = min(1.0, len(pairs) * 2.0 ** (1 - units))
    if least >= SIGNIFICANT:
        kind = "speakers" if common.by_speaker else "clips"
        notes.append(
            f"With {units} {kind} and {len(pairs)} pairs no "
            f"Holm-adjusted permutation test can reach 5 % (least possible p: {least:.2g}); "
            "the intervals of the differences have to serve."
        )
    cost, device = choose_cost([run.efficiency for run in runs])
    return {
        "classes": list(common.class_names),
        "clips": len(first.once().targets),
        "units": units,
        "intervals_by": "speaker" if common.by_speaker else "clip",
        "models": models,
        "pairs": pairs,
        "ranking": None if ranking is None else _describe_ranking(ranking, runs),
        "cost": None if cost is None else {"key": cost, "name": COSTS[cost], "device": device},
        "notes": notes,
    }


def match_runs(runs: Sequence[Run]) -> Common:
    """Decisions of each run on the clips and among the classes that all have.

    Raises:
        ValueError: fewer than two classes or no clip in common, or labels that disagree.
    """
    classes = [n for n in runs[0].table.class_names if all(n in r.table.class_names for r in runs)]
    if len(classes) < 2:
        raise ValueError(f"the runs have {len(classes)} classes in common; two are needed")
    notes = []
    others = sorted({n for run in runs for n in run.table.class_names} - set(classes))
    if others:
        notes.append(
            f"Class sets differ: compared on the {len(classes)} common classes "
            f"({', '.join(classes)}); clips and probabilities of {', '.join(others)} are left out."
        )
    tables = [_by_key(run.table, classes) for run in runs]
    keys = [key for key in tables[0] if all(key in table for table in tables)]
    if not keys:
        raise ValueError(f"{runs[0].name} and the other runs have no clip in common")
    left_out = {run.name: len(t) - len(keys) for run, t in zip(runs, tables, strict=True)}
    for name, count in left_out.items():
        if count:
            notes.append(
                f"{name}: {count} of {count + len(keys)} clips are not common to all runs."
            )
    rows = [np.array([table[key] for key in keys]) for table in tables]
    _check_labels(runs, rows)
    speakers = runs[0].table.speaker[rows[0]]
    by_speaker = bool((speakers != "").all())
    if not by_speaker:
        notes.append(
            "The speaker of some clips is not known: intervals and tests are BY CLIP and too "
            "narrow wherever clips share speakers."
        )
    units = speakers if by_speaker else np.array(keys)
    decisions = [
        _decisions(run.table, chosen, classes, units)
        for run, chosen in zip(runs, rows, strict=True)
    ]
    return Common(tuple(classes), tuple(decisions), by_speaker, left_out, tuple(notes))


def rank_runs(common: Common) -> Ranking | None:
    """Ranks of three runs or more by the UAR of each speaker, two of them at least."""
    once = [decisions.once() for decisions in common.decisions]
    if len(once) < 3 or not common.by_speaker or len(np.unique(once[0].units)) < 2:
        return None
    return rank_systems(np.stack([decisions.by_unit("uar") for decisions in once], axis=1))


def choose_cost(efficiencies: Sequence[dict[str, Any]]) -> tuple[str | None, str]:
    """The first of `COSTS` that all runs know (latency: on one device), and the device's name."""
    for key in COSTS:
        if not all(known.get(key) for known in efficiencies):
            continue
        devices = {str(known.get("device", "")) for known in efficiencies}
        if key != "latency_ms_batch1":
            return key, ""
        if len(devices) == 1:
            return key, devices.pop()
    return None, ""


def _read_run(folder: Path, name: str, subset: str) -> Run:
    path = folder / f"predictions_{subset}.csv"
    if not path.is_file():
        there = sorted(
            p.stem.removeprefix("predictions_") for p in folder.glob("predictions_*.csv")
        )
        there = [known for known in there if "_without_" not in known]
        remedy = f"choose {' or '.join(there)}" if there else "validate that run first"
        raise OptionError(f"{folder} has no {path.name}; {remedy}", *(["subset"] if there else []))
    info = read_json(folder / "run.json")
    table = read_predictions(path, info.get("class_names"), info.get("task"))
    if table.task != "classification":
        raise ValueError(f"{folder} is a run of {table.task}; only classification is compared")
    known = {key: info[key] for key in _RUN_NUMBERS if info.get(key)}
    weights = folder / "model_best.safetensors"
    if "file_bytes" not in known and weights.is_file():
        known["file_bytes"] = weights.stat().st_size
    measured = read_json(folder / "efficiency.json")
    known |= {key: measured[key] for key in _MEASURED if measured.get(key)}
    return Run(name, table, tuple(info.get("inputs") or ()), known)


def _unique_names(folders: Sequence[Path]) -> list[str]:
    """Folder names, with as many parents as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    twice = [part for part, count in Counter(parts).items() if count > 1]
    if twice:
        raise ValueError(f"{Path(*twice[0])} is given twice")
    depth = 1
    while len({part[-depth:] for part in parts}) < len(parts):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def _by_key(table: PredictionTable, classes: Sequence[str]) -> dict[str, int]:
    """Row of each clip of these classes; of recordings of one RAVDESS performance the first."""
    chosen = [row for row, t in enumerate(table.targets) if table.class_names[t] in classes]
    keys = {row: read_clip_name(str(table.clip[row])).key for row in chosen}
    plain = [key for key in keys.values() if not key.startswith("ravdess ")]
    if len(set(plain)) < len(plain):  # stems are not unique here: the whole name is
        keys = {row: str(table.clip[row]) for row in chosen}
    rows: dict[str, int] = {}
    for row, key in keys.items():
        rows.setdefault(key, row)
    return rows


def _check_labels(runs: Sequence[Run], rows: Sequence[np.ndarray]) -> None:
    first, *others = (
        np.array(run.table.class_names)[run.table.targets[chosen]]
        for run, chosen in zip(runs, rows, strict=True)
    )
    for run, labels in zip(runs[1:], others, strict=True):
        wrong = labels != first
        if wrong.any():
            row = int(wrong.argmax())
            clip = runs[0].table.clip[rows[0][row]]
            raise ValueError(
                f"{runs[0].name} and {run.name} disagree on the label of {int(wrong.sum())} clips, "
                f"such as {clip} ({first[row]}, {labels[row]}); they cannot be compared"
            )


def _decisions(
    table: PredictionTable,
    rows: np.ndarray,
    classes: Sequence[str] | None = None,
    units: np.ndarray | None = None,
) -> Decisions:
    """Decisions among these classes, or all of the table's; units as given, or the table's."""
    names = list(classes or table.class_names)
    columns = np.array([table.class_names.index(name) for name in names])
    place = np.full(len(table.class_names), -1)
    place[columns] = np.arange(len(columns))
    performances = table.performance
    return Decisions(
        targets=place[table.targets[rows]],
        predicted=table.scores[rows][:, columns].argmax(axis=1),
        n_classes=len(names),
        units=table.bootstrap_unit[rows] if units is None else units,
        performances=performances[rows] if units is None and performances is not None else None,
    )


def _compare_pairs(names: Sequence[str], decisions: Sequence[Decisions]) -> list[dict[str, Any]]:
    pairs = [
        {"first": names[i], "second": names[j], **compare_pair(decisions[i], decisions[j])}
        for i, j in combinations(range(len(names)), 2)
    ]
    for measure in ("accuracy", "uar"):
        adjusted = holm([pair[measure]["p_permutation"] for pair in pairs])
        for pair, p_value in zip(pairs, adjusted, strict=True):
            pair[measure]["p_holm"] = p_value
    adjusted = holm([pair["mcnemar"]["p_value"] for pair in pairs])
    for pair, p_value in zip(pairs, adjusted, strict=True):
        pair["mcnemar"]["p_holm"] = p_value
    return pairs


def _describe_ranking(ranking: Ranking, runs: Sequence[Run]) -> dict[str, Any]:
    names = [run.name for run in runs]
    described = asdict(ranking)
    described["f"] = None if np.isinf(ranking.f) else ranking.f
    described["mean_ranks"] = dict(zip(names, ranking.mean_ranks, strict=True))
    described["cliques"] = [[names[i] for i in group] for group in ranking.cliques()]
    return described
