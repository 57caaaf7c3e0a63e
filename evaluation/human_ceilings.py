"""CREMA-D against both of its labels, beside what people recognise.

People's recognition of the intended emotion: Cao, Cooper, Keutmann, Gur, Nenkova and Verma,
CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset, IEEE Transactions on Affective Computing
5(4), 2014, abstract (doi 10.1109/TAFFC.2014.2336244).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.decisions import Decisions, summarise
from evaluation.predictions import PredictionTable

SOURCE = "Cao et al., IEEE Transactions on Affective Computing 5(4), 2014"
HUMAN_INTENDED = {"audio": 0.409, "video": 0.582, "both": 0.636}
_CORPUS_NAMES = ("cremad", "cremad_perceived", "crema-d")
_PICTURES = {"face", "landmarks", "blendshapes"}


def score_crema_d(table: PredictionTable, inputs: Sequence[str]) -> dict[str, Any] | None:
    """Scores of the CREMA-D clips against the intended and the perceived emotion, each with clips.

    Perceived is the raters' choice from what the model is given: the column `perceived`, or
    `perceived_audio`, `perceived_video`, `perceived_both`, or the largest of the `soft_` shares. A
    tie is read as the intended emotion if that is among the tied, other ties are left out.

    Args:
        table: of classification.
        inputs: modalities of the model, empty where unknown.

    Returns:
        `intended`, `perceived`, `shown`, `human` (None where it is not known what is shown) and
        `source`; or None where the table does not hold both labels of CREMA-D clips.
    """
    shown = _shown(inputs)
    rows = _rows(table)
    if not len(rows):
        return None
    names = np.array(table.class_names)
    intended = table.groups.get("intended", names[table.targets])[rows]
    perceived = _perceived(table, shown)
    if perceived is None:
        return None
    choices = [_settle(str(p), str(i)) for p, i in zip(perceived[rows], intended, strict=True)]
    if not set(choices) & set(table.class_names):
        return None
    return {
        "intended": _summary(table, rows, list(map(str, intended))),
        "perceived": _summary(table, rows, choices),
        "shown": shown,
        "human": HUMAN_INTENDED.get(shown),
        "source": SOURCE,
    }


def _shown(inputs: Sequence[str]) -> str:
    seen, heard = bool(_PICTURES & set(inputs)), "speech" in inputs
    if seen and heard:
        return "both"
    return "video" if seen else "audio" if heard else ""


def _rows(table: PredictionTable) -> np.ndarray:
    corpus = table.groups.get("dataset", table.groups.get("corpus"))
    if corpus is None or not (corpus != "").any():
        has = {"perceived", "perceived_audio", "perceived_video", "perceived_both"}
        return np.arange(len(table) if has & set(table.groups) else 0)
    return np.flatnonzero(np.isin(np.char.lower(corpus), _CORPUS_NAMES))


def _perceived(table: PredictionTable, shown: str) -> np.ndarray | None:
    for column in ("perceived", f"perceived_{shown}"):
        if column in table.groups:
            return table.groups[column]
    if table.soft is None:
        return None
    best = table.soft >= table.soft.max(axis=1, keepdims=True)
    names = np.array(table.class_names)
    return np.array([":".join(names[row]) for row in best])


def _settle(choice: str, intended: str) -> str:
    tied = choice.split(":")
    if len(tied) == 1:
        return choice
    return intended if intended in tied else ""


def _summary(table: PredictionTable, rows: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    known = [place for place, label in enumerate(labels) if label in table.class_names]
    chosen = rows[known]
    return summarise(
        Decisions(
            targets=np.array([table.class_names.index(labels[place]) for place in known]),
            predicted=table.scores[chosen].argmax(axis=1),
            n_classes=len(table.class_names),
            units=table.bootstrap_unit[chosen],
        )
    )
