"""AFFDEX measures exported from iMotions, beside the participants' videos.

Source of the measures: McDuff et al., AFFDEX SDK, CHI EA 2016. An export is a table of about 25
samples a second: emotions and engagement 0..100, valence -100..100, attention 0..100 (from the
head's orientation), empty where there is no face and in rows of other sensors. Versions differ, so
encoding, delimiter, decimal sign, the header's place and the columns' spelling are sniffed. Files
called ExportMerge are merges of the others and left out.

A record is a window of a participant's video. Its columns serve three tasks: `label` is the
strongest emotion above a threshold, else neutral; `t_anger` to `t_surprise` are 1 where an emotion
reaches its own threshold; `t_attention`, `t_engagement` (0..1) and `t_valence` (-1..1) are means.
"""

from __future__ import annotations

import codecs
import csv
import fnmatch
import re
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from datasets.annotations import Record
from datasets.labels import canonical
from media.clip import tile_windows
from media.errors import MediaError

if TYPE_CHECKING:
    from media.recording import MediaInfo

LICENCE = "by the study's consent"
EMOTIONS = ("anger", "contempt", "disgust", "fear", "joy", "sadness", "surprise")
SCALES = ("attention", "engagement", "valence")
GRID_SECONDS = 0.04  # at which measures are resampled before the mean of a window is taken
_VIDEO = {".mp4", ".wmv", ".avi", ".mov", ".mkv", ".webm", ".asf"}
_TABLE = {".csv", ".tsv", ".txt"}
_HEAD_BYTES = 1 << 19
_CHUNK_ROWS = 50_000
_DEFAULT_FPS = 30.0
_TIME_NAMES = {"timestamp", "time"}
_FRAME_NAMES = {"frame", "frameindex", "framenumber", "frameno", "framenr"}
_PERSON = ("name", "respondent", "participant")  # metadata, "Respondent" taken off
_NOISE = {"affdex", "affectiva", "emotion", "emotions", "score", "evidence", "value", "ms"}
_NOISE |= {"milliseconds", "s", "sec", "seconds"}
_UUID = re.compile(r"[({\[]?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}[)}\]]?", re.IGNORECASE)


@dataclass(frozen=True)
class AffdexOptions:
    """How samples become labelled windows. Seconds and AFFDEX's own 0..100.

    Args:
        window_seconds, hop_seconds: of the records.
        threshold: what the strongest emotion must exceed, or the window is neutral.
        thresholds: by emotion, what makes `t_<emotion>` 1; 50 where not named.
        max_gap: samples further apart are not interpolated between.
        tolerance: within which a sample stands for a time that cannot be interpolated.
        min_coverage: share of a window that must be measured.
        min_attention: samples with less are as if there were no face.
        fps: of frame-indexed exports; None for the video's own.
        offset: added to the export's times to give the video's.
        video_pattern: of videos' names, where a participant has several, as `*interview*`.

    Raises:
        ValueError: a threshold for what is no emotion of AFFDEX.
    """

    window_seconds: float = 1.0
    hop_seconds: float = 1.0
    threshold: float = 50.0
    thresholds: dict[str, float] = field(default_factory=dict)
    max_gap: float = 0.1
    tolerance: float = 0.04
    min_coverage: float = 0.5
    min_attention: float = 0.0
    fps: float | None = None
    offset: float = 0.0
    video_pattern: str = "*"

    def __post_init__(self) -> None:
        for name in self.thresholds:
            if name not in EMOTIONS:
                raise ValueError(f"unknown emotion {name!r}; choose from {', '.join(EMOTIONS)}")


@dataclass(frozen=True)
class Layout:
    """What was sniffed of an export.

    Args:
        header_line: lines before the header.
        columns: `time` or `frame`, and measures, to the place of their column.
        time_scale: seconds in one unit of `time`.
        about: the metadata rows, by lower-case name.
    """

    encoding: str
    delimiter: str
    header_line: int
    columns: dict[str, int]
    time_scale: float
    about: dict[str, str]


@dataclass(frozen=True)
class Export:
    """Samples of one participant: `times` (M,) seconds, rising; measures (M,), NaN for none."""

    times: np.ndarray
    measures: dict[str, np.ndarray]


def read_records(root: Path, options: AffdexOptions | None = None) -> list[Record]:
    """Labelled windows of every export under a folder that has its participant's video.

    What cannot be used (no video, several, an unreadable table) is named in a warning.

    Raises:
        ValueError: no export could be used, with the reasons.
    """
    options = options or AffdexOptions()
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    videos = [path for path in paths if path.suffix.lower() in _VIDEO]
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


def read_layout(path: Path) -> Layout:
    """Encoding, delimiter, header and metadata of an export.

    Raises:
        ValueError: no header with times or frames, or one without AFFDEX's measures.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    encoding = _sniff_encoding(head)
    lines = head.decode(encoding, errors="replace").splitlines()
    for (number, line), delimiter in product(enumerate(lines), ",;\t"):
        cells = next(csv.reader([line], delimiter=delimiter), [])
        columns = _find_columns(cells)
        if _is_header(cells, columns):
            if not any(name in columns for name in EMOTIONS):
                raise ValueError(f"{path}: its header has no AFFDEX column such as Joy")
            scale = _time_scale(cells[columns["time"]]) if "time" in columns else 1.0
            about = _read_about(lines[:number])
            return Layout(encoding, delimiter, number, columns, scale, about)
    raise ValueError(f"{path}: no header row that holds Row and Timestamp")


def read_export(path: Path, layout: Layout, fps: float = _DEFAULT_FPS) -> Export:
    """Samples in which any measure is given, in the order of time.

    Args:
        path: the export, read in chunks.
        layout: of it.
        fps: frame k of a frame-indexed export is k / fps seconds from the start.

    Raises:
        ValueError: no row holds a time and a measure.
    """
    names = sorted(layout.columns, key=lambda name: layout.columns[name])
    with path.open(encoding=layout.encoding, errors="replace", newline="") as file:
        for _ in range(layout.header_line + 1):
            file.readline()
        chunks = pd.read_csv(
            file,
            sep=layout.delimiter,
            header=None,
            names=names,
            usecols=sorted(layout.columns.values()),
            dtype=str,
            chunksize=_CHUNK_ROWS,
        )
        table = _join_chunks(chunks, names)
    clock = "time" if "time" in table else "frame"
    table = table.drop_duplicates(clock).sort_values(clock)
    if not len(table):
        raise ValueError(f"{path}: no row holds a time and an AFFDEX measure")
    unit = layout.time_scale if clock == "time" else 1.0 / fps
    measures = {name: table[name].to_numpy() for name in (*EMOTIONS, *SCALES) if name in table}
    return Export(table[clock].to_numpy() * unit, measures)


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
        columns = {**_targets(means, options), "coverage": f"{coverage:.2f}"}
        windows.append((window.start, window.end, _dominant(means, options.threshold), columns))
    return windows


def _read_participant(path: Path, videos: list[Path], options: AffdexOptions) -> list[Record]:
    # Imported where there is work: face detection comes with it and takes seconds.
    from media.recording import probe

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


def _sniff_encoding(head: bytes) -> str:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _plain(cell: str) -> str:
    """A column's name without case, spaces, units and the sensor's name."""
    words = re.findall(r"[a-z]+", cell.lower())
    return "".join(word for word in words if word not in _NOISE)


def _find_columns(cells: Sequence[str]) -> dict[str, int]:
    """Place of the first column of each name that is used."""
    columns: dict[str, int] = {}
    for place, cell in enumerate(cells):
        name = _plain(cell)
        if name in _TIME_NAMES:
            columns.setdefault("time", place)
        elif name in _FRAME_NAMES:
            columns.setdefault("frame", place)
        elif name in EMOTIONS or name in SCALES:
            columns.setdefault(name, place)
    return columns


def _is_header(cells: Sequence[str], columns: dict[str, int]) -> bool:
    meant = any(_plain(cell) == "row" for cell in cells) or any(n in columns for n in EMOTIONS)
    return meant and ("time" in columns or "frame" in columns)


def _time_scale(cell: str) -> float:
    """Seconds in one unit of a time column: milliseconds, if its name does not say seconds."""
    return 1.0 if {"s", "sec", "seconds"} & set(re.findall(r"[a-z]+", cell.lower())) else 1e-3


def _read_about(lines: Iterable[str]) -> dict[str, str]:
    """Metadata rows `name<delimiter>value`, with or without `#` and `Respondent`."""
    about: dict[str, str] = {}
    for line in lines:
        name, *rest = re.split(r"[,;\t:]", line, maxsplit=1)
        key = name.strip(' "#').lower().removeprefix("respondent ")
        value = re.split(r'"?[,;\t]', rest[0].strip(' ",;\t:'))[0] if rest else ""
        if key and value:
            about.setdefault(key, value.lower() if key == "gender" else value)
    return about


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


def _join_chunks(chunks: Iterable[pd.DataFrame], names: list[str]) -> pd.DataFrame:
    """Rows that hold a time and a measure, as numbers; a decimal comma is read as a point."""
    kept = []
    clock = "time" if "time" in names else "frame"
    for chunk in chunks:
        points = chunk.apply(lambda column: column.str.replace(",", "."))
        numbers = points.apply(pd.to_numeric, errors="coerce")
        measured = numbers[[n for n in names if n in EMOTIONS]].notna().any(axis=1)
        kept.append(numbers[measured & numbers[clock].notna()])
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=names)


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
    limits = {name: options.thresholds.get(name, 50.0) for name in EMOTIONS}
    return {
        f"t_{name}": f"{value / 100:.4f}" if name in SCALES else str(int(value >= limits[name]))
        for name, value in means.items()
    }
