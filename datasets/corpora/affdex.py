"""AFFDEX measures exported from iMotions, beside the participants' videos.

Source of the measures: McDuff et al., AFFDEX SDK, CHI EA 2016. An export is a table of about 25
samples a second: emotions and engagement 0..100, valence -100..100, attention 0..100 (from the
head's orientation), empty where there is no face and in rows of other sensors. Versions differ, so
encoding, delimiter, decimal sign, the header's place and the columns' spelling are sniffed. Files
called ExportMerge are merges of the others and left out.

A record is a window of a participant's video. `label` is the strongest emotion above a threshold,
else neutral. `target_<name>` columns serve two more tasks: `multilabel` has `target_angry` to
`target_surprised`, 1 where an emotion reaches its own threshold, else 0; `regression` has
`target_attention`, `target_engagement` (0..1) and `target_valence` (-1..1), means of the window. A
target that was not measured is empty.
"""

from __future__ import annotations

import fnmatch
import re
import warnings
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datasets.annotations import Record
from datasets.corpora.corpus import Corpus, CorpusOption, register_corpus
from datasets.imotions import EMOTIONS, SCALES, Export, Layout, read_export, read_layout
from labels.emotions import canonical
from media.clip import check_hop, tile_windows
from media.errors import MediaError
from media.suffixes import VIDEO, is_hidden

if TYPE_CHECKING:
    from media.reading import MediaInfo

TASKS = {"classification": (), "multilabel": EMOTIONS, "regression": SCALES}  # and their targets
GRID_SECONDS = 0.04  # at which measures are resampled before the mean of a window is taken
_TABLE = {".csv", ".tsv", ".txt"}
_DEFAULT_FPS = 30.0  # of videos that do not tell
_DEFAULT_THRESHOLD = 50.0
_PERSON = ("name", "respondent", "participant")  # metadata, "Respondent" taken off
_UUID = re.compile(r"[({\[]?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}[)}\]]?", re.IGNORECASE)


@dataclass(frozen=True)
class AffdexOptions:
    """How samples become labelled windows. Seconds and AFFDEX's own 0..100.

    Args:
        task: whose targets are written, of `TASKS`; the label is written for all.
        window_seconds, hop_seconds: of the records.
        threshold: what the strongest emotion must exceed, or the window is neutral.
        thresholds: by emotion, what makes its target of `multilabel` 1; 50 where not named.
        max_gap: samples further apart are not interpolated between.
        tolerance: within which a sample stands for a time that cannot be interpolated.
        min_coverage: share of a window that must be measured.
        min_attention: samples with less are as if there were no face.
        fps: of frame-indexed exports; None for the video's own.
        offset: added to the export's times to give the video's.
        video_pattern: of videos' names, where a participant has several, as `*interview*`.

    Raises:
        ValueError: an unknown task or emotion, a number out of range, or thresholds by emotion that
            the task does not use.
    """

    task: str = "classification"
    window_seconds: float = 1.0
    hop_seconds: float = 1.0
    threshold: float = _DEFAULT_THRESHOLD
    thresholds: dict[str, float] = field(default_factory=dict)
    max_gap: float = 0.1
    tolerance: float = 0.04
    min_coverage: float = 0.5
    min_attention: float = 0.0
    fps: float | None = None
    offset: float = 0.0
    video_pattern: str = "*"

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"unknown task {self.task!r}; choose from {', '.join(TASKS)}")
        for name in self.thresholds:
            if name not in EMOTIONS:
                raise ValueError(f"unknown emotion {name!r}; choose from {', '.join(EMOTIONS)}")
        if self.thresholds and self.task != "multilabel":
            raise ValueError(f"thresholds by emotion are of multilabel, not of {self.task}")
        check_hop(self.window_seconds, self.hop_seconds)
        self._check_numbers()

    def _check_numbers(self) -> None:
        scores = {f"threshold of {name}": value for name, value in self.thresholds.items()}
        scores |= {"threshold": self.threshold, "min_attention": self.min_attention}
        for name, value in scores.items():
            if not 0 <= value <= 100:
                raise ValueError(f"{name} must lie in 0..100, not {value:g}")
        for name in ("max_gap", "tolerance"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be 0 or more seconds, not {getattr(self, name):g}")
        if not 0 <= self.min_coverage <= 1:
            raise ValueError(f"min_coverage must lie in 0..1, not {self.min_coverage:g}")
        if self.fps is not None and not 0 < self.fps < np.inf:
            raise ValueError(f"fps must be positive, not {self.fps:g}")


def read_records(root: Path, options: AffdexOptions | None = None) -> list[Record]:
    """Labelled windows of every export under a folder that has its participant's video.

    What cannot be used (no video, several, an unreadable table) is named in a warning.

    Raises:
        ValueError: no export could be used, with the reasons.
    """
    options = options or AffdexOptions()
    paths = sorted(p for p in root.rglob("*") if p.is_file() and not is_hidden(p.name))
    videos = [path for path in paths if path.suffix.lower() in VIDEO]
    videos = [path for path in videos if fnmatch.fnmatch(path.name, options.video_pattern)]
    records: list[Record] = []
    problems: list[str] = []
    for path in paths:
        if path.suffix.lower() in _TABLE and "exportmerge" not in path.name.lower():
            try:
                records += _read_participant(path, videos, options)
            except ValueError as error:
                problems.append(str(error))
    if not records:
        reasons = "; ".join(problems) or "no table there"
        raise ValueError(f"no AFFDEX export under {root} can be used: {reasons}")
    if problems:
        warnings.warn("left out: " + "; ".join(problems), stacklevel=2)
    return records


def resample(
    times: np.ndarray, values: np.ndarray, grid: np.ndarray, options: AffdexOptions
) -> np.ndarray:
    """Values at other times: interpolated, else of the nearest sample, within limits, else NaN.

    Args:
        times: (M,) rising seconds.
        values: (M,), NaN where there is none.
        grid: (G,) seconds.

    Returns:
        (G,) float64.
    """
    given = ~np.isnan(values)
    times, values = times[given], values[given]
    result = np.full(len(grid), np.nan)
    if not len(times):
        return result
    right = np.searchsorted(times, grid)
    before, after = np.maximum(right - 1, 0), np.minimum(right, len(times) - 1)
    between = (times[before] <= grid) & (grid <= times[after])
    between &= times[after] - times[before] <= options.max_gap + 1e-9
    nearest = np.where(grid - times[before] <= times[after] - grid, before, after)
    near = ~between & (np.abs(times[nearest] - grid) <= options.tolerance + 1e-9)
    result[near] = values[nearest[near]]
    result[between] = np.interp(grid[between], times, values)
    return result


def label_windows(
    export: Export, duration: float, options: AffdexOptions
) -> list[tuple[float, float, str, dict[str, str]]]:
    """Start, end, label and target columns of every window that is measured well enough.

    A window without any target of its task is left out.

    Args:
        export: with times from the video's start, which lasts `duration` seconds.
    """
    grid = np.arange(GRID_SECONDS / 2, duration, GRID_SECONDS)
    tracks = {
        name: resample(export.times, values, grid, options)
        for name, values in _attentive(export, options.min_attention).items()
    }
    emotions = np.stack([tracks[name] for name in EMOTIONS if name in tracks])
    measured = ~np.isnan(emotions).all(axis=0)
    windows = []
    for window in tile_windows(duration, options.window_seconds, options.hop_seconds):
        first, last = np.searchsorted(grid, (window.start, window.end))
        coverage = measured[first:last].mean() if last > first else 0.0
        if coverage < options.min_coverage or not coverage:
            continue
        parts = {name: track[first:last] for name, track in tracks.items()}
        means = {n: float(np.nanmean(p)) for n, p in parts.items() if not np.isnan(p).all()}
        targets = _targets(means, options)
        if TASKS[options.task] and not any(targets.values()):
            continue
        columns = {**targets, "coverage": f"{coverage:.2f}"}
        windows.append((window.start, window.end, _dominant(means, options.threshold), columns))
    return windows


def _read_participant(path: Path, videos: list[Path], options: AffdexOptions) -> list[Record]:
    # Imported where there is work: face detection comes with it and takes seconds.
    from media.reading import probe

    layout = read_layout(path)
    participant = _participant(path, layout)
    video = _match_video(path, participant, videos)
    info: MediaInfo | None = None
    with suppress(MediaError):  # preparing the corpus reports it
        info = probe(video)
    fps = options.fps or (info.fps if info and info.fps else _DEFAULT_FPS)
    export = read_export(path, layout, fps)
    export = Export(export.times + options.offset, export.measures)
    duration = float(export.times[-1]) + GRID_SECONDS
    if info and info.duration:
        duration = min(duration, info.duration)
    about = {k: v for k, v in layout.about.items() if k in ("gender", "age", "group")}
    return [
        Record(
            video=str(video),
            audio="",
            label=label,
            start=start,
            end=end,
            speaker=f"affdex-{participant}",
            dataset="affdex",
            extra={**about, **columns},
        )
        for start, end, label, columns in label_windows(export, duration, options)
    ]


def _participant(path: Path, layout: Layout) -> str:
    """Name in the metadata without its UUID, else the file's name."""
    name = next((layout.about[key] for key in _PERSON if key in layout.about), "")
    return _UUID.sub("", name).strip(" -_") or path.stem


def _match_video(path: Path, participant: str, videos: list[Path]) -> Path:
    """The one video whose name is, or as a word holds, the participant's or the export's name."""
    for wanted in (participant, path.stem):
        key = _squeezed(wanted)
        exact = [video for video in videos if _squeezed(video.stem) == key]
        found = exact or [video for video in videos if key in _words(video.stem)]
        if len(found) > 1:
            names = ", ".join(video.name for video in found)
            raise ValueError(f"{path}: several videos of {wanted} ({names}); set video_pattern")
        if found:
            return found[0]
    raise ValueError(f"{path}: no video of participant {participant}")


def _squeezed(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _words(name: str) -> set[str]:
    """Words of a file name, and neighbours joined, so that `P 01_interview` holds `p01`."""
    words = [word for word in re.split(r"[\W_]+", name.lower()) if word]
    return {"".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, i + 4)}


def _attentive(export: Export, min_attention: float) -> dict[str, np.ndarray]:
    """Measures, NaN where the participant attended less."""
    attention = export.measures.get("attention")
    if attention is None or min_attention <= 0:
        return export.measures
    return {n: np.where(attention < min_attention, np.nan, v) for n, v in export.measures.items()}


def _dominant(means: dict[str, float], threshold: float) -> str:
    strongest = max((n for n in means if n in EMOTIONS), key=lambda name: means[name])
    return canonical(strongest) if means[strongest] > threshold else "neutral"


def _targets(means: dict[str, float], options: AffdexOptions) -> dict[str, str]:
    """`target_<name>` columns of the task; empty where a measure is not there."""
    targets = {}
    for name in TASKS[options.task]:
        value = means.get(name)
        if value is None:
            text = ""
        elif name in SCALES:
            text = f"{value / 100:.4f}"
        else:
            text = str(int(value >= options.thresholds.get(name, _DEFAULT_THRESHOLD)))
        targets[f"target_{canonical(name)}"] = text
    return targets


_PREFIX = "affdex_"  # then the name of an `AffdexOptions` entry


def _option(name: str, help_text: str, kind: type = float, **more: Any) -> CorpusOption:
    metavar = "NUMBER" if kind is float else None
    return CorpusOption(_PREFIX + name, help_text, kind, **{"metavar": metavar, **more})


def _read_by_flags(root: Path, **given: Any) -> list[Record]:
    """As `read_records`, with options by the names of their flags."""
    values = {name.removeprefix(_PREFIX): value for name, value in given.items()}
    if "thresholds" in values:
        values["thresholds"] = dict(map(_read_threshold, values["thresholds"]))
    return read_records(root, AffdexOptions(**values))


def _read_threshold(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name.strip().lower(), float(number)
    except ValueError:
        raise ValueError(f"expected EMOTION=NUMBER such as joy=40, not {text!r}") from None


CORPUS = register_corpus(
    Corpus(
        name="affdex",
        read=_read_by_flags,
        layout="iMotions / AFFDEX exports beside their videos",
        labels="by `--affdex_task`",
        licence="by the study's consent",
        source="McDuff et al., AFFDEX SDK, CHI EA 2016",
        options=(
            _option("task", "which target columns to write", str, choices=tuple(TASKS)),
            _option("window_seconds", "length of the records"),
            _option("hop_seconds", "from one record to the next"),
            _option("threshold", "the strongest emotion is the label above it, 0 to 100"),
            _option(
                "thresholds",
                "by emotion, for targets of `multilabel`; 50 where not given",
                str,
                many=True,
                metavar="EMOTION=NUMBER",
            ),
            _option("max_gap", "seconds between samples that are interpolated between"),
            _option("tolerance", "seconds for which a single sample stands"),
            _option("min_coverage", "fraction of a record that must be measured"),
            _option("min_attention", "samples below are as if there were no face, 0 to 100"),
            _option("offset", "seconds added to the export's times to give the video's"),
            _option("fps", "of exports that number frames; else the video's own"),
            _option("video_pattern", "of videos' names, as '*interview*'", str, metavar="PATTERN"),
        ),
        max_fps=30.0,
    )
)
