"""Tables of scores from any system: a clip name and one column a class, in any order and scale.

A class's column is `p_happy`, `logit_happy`, `score_happy` or just `happy`; spellings such as
`Anger` and `angry` are one class. Scores may be probabilities, percentages, votes,
log-probabilities or logits: what they were taken for is told in `assumed`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import log_softmax, logsumexp

from evaluation.predictions import PROBABILITY_FLOOR
from labels.clip_names import read_clip_name
from labels.emotions import RAVDESS, canonical

CLIP_COLUMNS = ("clip", "clip_name", "file", "filename", "file_name", "name", "path", "id")
LABEL_COLUMNS = ("label", "target", "emotion", "true", "truth")
PREFIXES = ("p_", "prob_", "logit_", "logits_", "log_p_", "score_")
_EMOTIONS = {*RAVDESS, "contempt"}
_NO_CLASS = {*CLIP_COLUMNS, *LABEL_COLUMNS, "speaker", "performance", "dataset", "gender"}
_NO_CLASS |= {"intensity", "start", "end", "fold", "subset", "predicted", "prediction", "index"}
_NO_CLASS |= {"confidence", "dominant", "actor", "subject", "loss", "unnamed: 0"}
_ROUNDING = 0.05  # by which the probabilities of a row may miss a sum of 1


@dataclass(frozen=True)
class ScoreTable:
    """What one system says of each clip.

    Args:
        path: the file.
        class_names: (C,) in canonical spelling, in the order of its columns.
        keys: (N,) of the clips, equal in every system's table.
        names: (N,) clips as the file names them.
        log_p: (N, C) log-probabilities, finite.
        labels: (N,) true classes as the table or the clip's name tells; empty where neither does.
        speakers: (N,) as the table or the clip's name tells; empty where neither does.
        assumed: in words, what the scores were taken for.
    """

    path: Path
    class_names: tuple[str, ...]
    keys: tuple[str, ...]
    names: tuple[str, ...]
    log_p: np.ndarray
    labels: tuple[str, ...]
    speakers: tuple[str, ...]
    assumed: str

    def ordered(self, class_names: Sequence[str]) -> np.ndarray:
        """(N, C) log-probabilities in another order of the same classes."""
        return self.log_p[:, [self.class_names.index(name) for name in class_names]]


def read_score_table(path: Path) -> ScoreTable:
    """Read a table.

    Recordings of one RAVDESS performance (01- and 02- files) become one clip: their
    log-probabilities are averaged.

    Raises:
        ValueError: no such table, a clip twice, a score that is no finite number, or two columns
            of one class.
    """
    frame = read_columns(path)
    clip_column = _clip_column(path, frame)
    names = frame[clip_column].tolist()
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{path} has the clip '{twice[0]}' twice; give one row a clip")
    columns = _class_columns(path, frame, clip_column)
    scores = _read_scores(path, frame[list(columns.values())], names)
    log_p, assumed = to_log_probabilities(scores, path)
    known = [read_clip_name(name) for name in names]
    labels = _column(frame, LABEL_COLUMNS) or [name.label for name in known]
    speakers = _column(frame, ("speaker", "actor", "subject")) or [name.speaker for name in known]
    table = ScoreTable(
        path=path,
        class_names=tuple(columns),
        keys=tuple(name.key for name in known),
        names=tuple(names),
        log_p=log_p,
        labels=tuple(canonical(label) for label in labels),
        speakers=tuple(speakers),
        assumed=f"{path.name}: {assumed}",
    )
    return _one_row_a_key(table)


def read_labels(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """True classes by key, and speakers by key where there is a column `speaker`.

    Raises:
        ValueError: no column of clips or labels, or a clip twice.
    """
    frame = read_columns(path)
    names = frame[_clip_column(path, frame)].tolist()
    labels = _column(frame, LABEL_COLUMNS)
    if labels is None:
        raise ValueError(f"{path} has no column of labels; name it 'label'")
    keys = [read_clip_name(name).key for name in names]
    found: dict[str, str] = {}
    for key, name, label in zip(keys, names, labels, strict=True):
        if found.setdefault(key, canonical(label)) != canonical(label):
            raise ValueError(f"{path} has two labels for the clip '{name}'")
    speakers = _column(frame, ("speaker",)) or []
    return found, dict(zip(keys, speakers, strict=False))


def read_columns(path: Path) -> pd.DataFrame:
    """A headed CSV as text, column names trimmed, nothing read as missing.

    Raises:
        ValueError: no such file, no table, or no rows.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as a headed CSV: {reason}") from error
    frame.columns = [str(name).strip() for name in frame.columns]
    if frame.empty:
        raise ValueError(f"{path} has a header and no rows")
    return frame.map(str.strip)


def to_log_probabilities(scores: np.ndarray, path: Path) -> tuple[np.ndarray, str]:
    """(N, C) scores of an unknown kind to (N, C) log-probabilities, and what they were taken for.

    Log-probabilities and logits alike go through a softmax, which leaves the former as they are.

    Raises:
        ValueError: scores without a negative one, of which a row is all 0.
    """
    if (scores < 0).any():
        is_log = (scores <= 1e-6).all() and np.abs(logsumexp(scores, axis=1)).max() < _ROUNDING
        kind = "log-probabilities" if is_log else "logits (softmax taken)"
        p = np.exp(log_softmax(scores, axis=1))
    else:
        sums = scores.sum(axis=1, keepdims=True)
        if (sums == 0).any():
            raise ValueError(f"{path}: the scores of a row are all 0, which is no judgement")
        if np.abs(sums - 1).max() < _ROUNDING:
            kind = "probabilities"
        elif np.abs(sums - 100).max() < 100 * _ROUNDING:
            kind = "percentages"
        else:
            kind = "scores of 0 or more that do not sum to 1 (divided by their sum)"
        p = scores / sums
    p = np.maximum(p, PROBABILITY_FLOOR)
    return np.log(p / p.sum(axis=1, keepdims=True)), f"taken for {kind}"


def _clip_column(path: Path, frame: pd.DataFrame) -> str:
    by_lower = {name.lower(): name for name in reversed(frame.columns)}
    for name in CLIP_COLUMNS:
        if name in by_lower:
            return by_lower[name]
    first = str(frame.columns[0])
    if pd.to_numeric(frame[first], errors="coerce").isna().all():
        return first
    raise ValueError(f"{path} has no column of clip names; name it 'clip'")


def _class_columns(path: Path, frame: pd.DataFrame, clip_column: str) -> dict[str, str]:
    """Canonical class name to column: those of a known prefix, else emotions, else all numbers."""
    others = [name for name in frame.columns if name != clip_column]
    for prefix in PREFIXES:
        chosen = {n: n[len(prefix) :] for n in others if n.lower().startswith(prefix)}
        if len(chosen) > 1:
            break
    else:
        chosen = {n: n for n in others if canonical(n) in _EMOTIONS}
        if len(chosen) < 2:
            free = [n for n in others if n.lower() not in _NO_CLASS]
            chosen = {n: n for n in free if pd.to_numeric(frame[n], errors="coerce").notna().any()}
    if len(chosen) < 2:
        raise ValueError(f"{path} has no columns of scores; name them p_<class> or logit_<class>")
    columns: dict[str, str] = {}
    for column, name in chosen.items():
        earlier = columns.setdefault(canonical(name), column)
        if earlier != column:
            raise ValueError(f"{path}: columns '{earlier}' and '{column}' are one class")
    return columns


def _read_scores(path: Path, frame: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    scores = frame.apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    wrong = np.argwhere(~np.isfinite(scores))
    if len(wrong):
        row, column = wrong[0]
        text = frame.iloc[row, column]
        raise ValueError(
            f"{path}: '{frame.columns[column]}' of the clip '{names[row]}' is '{text}', "
            "not a finite number"
        )
    return scores


def _column(frame: pd.DataFrame, wanted: Sequence[str]) -> list[str] | None:
    by_lower = {name.lower(): name for name in reversed(frame.columns)}
    found = next((by_lower[name] for name in wanted if name in by_lower), None)
    return None if found is None else frame[found].tolist()


def _one_row_a_key(table: ScoreTable) -> ScoreTable:
    """Rows of one performance averaged; clips that only their folder or extension tells apart."""
    counts = Counter(table.keys)
    plain = [key for key, count in counts.items() if count > 1 and not key.startswith("ravdess ")]
    if plain:
        raise ValueError(
            f"{table.path} has the clip '{plain[0]}' twice, under names that differ only in "
            "folder or extension; rename them"
        )
    keys = tuple(counts)
    if len(keys) == len(table.keys):
        return table
    places = {key: number for number, key in enumerate(keys)}
    place = np.array([places[key] for key in table.keys])
    first = np.unique(place, return_index=True)[1]
    sums = np.zeros((len(keys), table.log_p.shape[1]))
    np.add.at(sums, place, table.log_p)
    merged = len(table.keys) - len(keys)
    return ScoreTable(
        path=table.path,
        class_names=table.class_names,
        keys=keys,
        names=tuple(table.names[row] for row in first),
        log_p=log_softmax(sums / np.bincount(place)[:, None], axis=1),
        labels=tuple(table.labels[row] for row in first),
        speakers=tuple(table.speakers[row] for row in first),
        assumed=f"{table.assumed}; {merged} second recordings of a performance averaged in",
    )
