"""Cross-validation: the same experiment once for each fold, and what the folds say together."""

from __future__ import annotations

import json
import logging
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from datasets.annotations import Record, read_annotations
from datasets.splits import (
    LEAVE_ONE_CORPUS_OUT,
    PROTOCOLS,
    corpora_of,
    k_folds,
    leave_one_corpus_out,
    leave_one_out,
    split_by_protocol,
)
from evaluation.pooling import pool_predictions
from evaluation.registry import TASKS, metrics_of
from experiments.experiment import new_run_folder
from experiments.options import ExperimentOptions, run_folder_of
from experiments.run import run_experiment
from reports.run import write_run_report
from system.command_line import show_notes
from system.errors import OptionError
from system.files import replacing, write_json

_LOG = logging.getLogger(__name__)

_POOLED = "testing"
_SCORES = ("clips", "accuracy", "uar", "macro_f1", "average_precision", "ccc", "mae")
_COUNTS = ("fold", "clips", "classes")  # of a fold's row, what is no score


@dataclass(frozen=True)
class _Fold:
    """One fold: its place among all, its run folder, and the device that it runs on."""

    number: int
    folder: Path
    device: str

    @property
    def is_done(self) -> bool:
        return (self.folder / "metrics.json").exists()


def run_folds(options: ExperimentOptions) -> Path:
    """Run every fold that has not been run, and pool their test predictions. Returns the folder.

    Each fold is a run folder `fold_<name>` of its own. A fold that was interrupted goes on where it
    was, a finished one is kept. With `no_val` the speakers that would validate train as well.
    Where there are several GPUs, each takes a fold at a time.

    Raises:
        ValueError: as `run_experiment` does, or folds that the records do not allow.
    """
    resumed = options.train.resume_path
    folder = run_folder_of(resumed) if resumed else new_run_folder(options)
    if not resumed and (folder / "opts.json").exists():
        raise OptionError(
            f"{folder} holds a run: resume it, or give another name", "resume_path", "run_name"
        )
    names = _fold_names(options)
    devices = _devices(options.run.device)
    folds = [
        _Fold(number, folder / f"fold_{name}", devices[number % len(devices)])
        for number, name in enumerate(names)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(options.to_dict(), folder / "opts.json")
    waiting = [fold for fold in folds if not fold.is_done]
    _LOG.info(f"{len(folds)} folds, {len(waiting)} of them to run")
    if len(devices) > 1 and len(waiting) > 1:
        _run_side_by_side(waiting, options, len(devices))
    else:
        for fold in waiting:
            _LOG.info(f"fold {fold.number + 1} of {len(folds)}: {fold.folder}")
            _run_fold(fold, options)
    _pool(folder, folds)
    return folder


def _devices(wanted: str) -> list[str]:
    """All GPUs where none is named, else the device asked for."""
    count = torch.cuda.device_count()
    if wanted in ("auto", "cuda") and count > 1:
        return [f"cuda:{index}" for index in range(count)]
    return [wanted]


def _run_side_by_side(folds: list[_Fold], options: ExperimentOptions, workers: int) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=show_notes) as pool:
        for _ in pool.map(partial(_run_fold, options=options), folds):
            pass


def _run_fold(fold: _Fold, options: ExperimentOptions) -> None:
    started = (fold.folder / "opts.json").exists()
    train = replace(
        options.train,
        resume_path=str(fold.folder) if started else None,
        result_path=str(fold.folder.parent),
        run_name=fold.folder.name,
    )
    run = replace(options.run, device=fold.device)
    resplit = partial(_resplit, options=options, fold=fold.number)
    run_experiment(replace(options, run=run, train=train), resplit)


def _fold_names(options: ExperimentOptions) -> list[str]:
    """Folds by number from 0, or by the speaker or corpus that tests."""
    data = options.data
    if data.protocol == LEAVE_ONE_CORPUS_OUT:
        return corpora_of(_read_records(options))
    if data.protocol:
        return [str(fold) for fold in range(PROTOCOLS[data.protocol].folds)]
    if data.n_folds:
        return [str(fold) for fold in range(data.n_folds)]
    return _speakers(options)


def _speakers(options: ExperimentOptions) -> list[str]:
    found = {record.speaker for record in _read_records(options)}
    if "" in found:
        raise OptionError("every record needs a speaker", "leave_one_speaker_out")
    return sorted(found)


def _read_records(options: ExperimentOptions) -> list[Record]:
    """All records that the options name, prepared or not."""
    data = options.data
    records = [r for path in data.annotation_path for r in read_annotations(Path(path))]
    return [record for record in records if data.dataset in (None, record.dataset)]


def _resplit(records: list[Record], options: ExperimentOptions, fold: int) -> list[Record]:
    data, seed = options.data, options.train.manual_seed
    if data.protocol == LEAVE_ONE_CORPUS_OUT:
        corpus = corpora_of(_read_records(options))[fold]
        split = leave_one_corpus_out(records, corpus, seed=seed)
    elif data.protocol:
        split = split_by_protocol(records, data.protocol, fold)
    elif data.n_folds:
        split = k_folds(records, data.n_folds, seed)[fold]
    else:
        split = leave_one_out(records, _speakers(options)[fold], seed=seed)
    if options.train.no_val:
        split = [replace(r, subset="training") if r.subset == "validation" else r for r in split]
    return split


def _pool(folder: Path, folds: list[_Fold]) -> None:
    """All test predictions as those of one run; scores by fold, mean and standard deviation."""
    for pattern in (f"predictions_{_POOLED}*.csv", f"windows_{_POOLED}.csv"):
        for first in folds[0].folder.glob(pattern):
            paths = {fold.folder.name: fold.folder / first.name for fold in folds}
            pool_predictions(paths, folder / first.name)
    write_json(json.loads((folds[0].folder / "run.json").read_text()), folder / "run.json")
    write_run_report(folder)
    rows = [_row(fold) for fold in folds]
    _write_table(rows, folds, folder / "folds.csv")
    names = [name for name in rows[0] if name not in _COUNTS]
    summary = {
        name: {
            "mean": float(np.mean([row[name] for row in rows])),
            "sd": float(np.std([row[name] for row in rows], ddof=1)),
        }
        for name in names
    }
    write_json({"folds": rows, "summary": summary}, folder / "folds.json")
    for row in rows:
        told = ", ".join(f"{name} {row[name]:.3f}" for name in names)
        _LOG.info(f"{row['fold']} ({row['clips']} clips{_tell_classes(row)}): {told}")
    told = ", ".join(f"{name} {s['mean']:.3f} ± {s['sd']:.3f}" for name, s in summary.items())
    _LOG.info(f"mean ± sd over {len(rows)} folds: {told}")


def _write_table(rows: list[dict[str, Any]], folds: list[_Fold], path: Path) -> None:
    """The scores of each fold, and its recalls; empty for a class that its test lacks."""
    recalls = [_read_scores(fold).get("recall", {}) for fold in folds]
    table = pd.DataFrame(
        row | {f"recall_{name}": value for name, value in recall.items()}
        for row, recall in zip(rows, recalls, strict=True)
    )
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4f")


def _row(fold: _Fold) -> dict[str, Any]:
    """The test scores of a fold that are single numbers, over the `classes` that its test has."""
    scores = _read_scores(fold)
    registered = [m.name for task in TASKS for m in metrics_of(task).values() if m.interval]
    known = dict.fromkeys((*_SCORES, *registered))
    row = {"fold": fold.folder.name} | {n: scores[n] for n in known if n in scores}
    return row | ({"classes": len(scores["recall"])} if "recall" in scores else {})


def _tell_classes(row: dict[str, Any]) -> str:
    return f" of {row['classes']} classes" if "classes" in row else ""


def _read_scores(fold: _Fold) -> dict[str, Any]:
    return json.loads((fold.folder / "metrics.json").read_text())[_POOLED]
