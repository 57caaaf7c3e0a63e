"""Tables that iMotions exports: rows of several sensors, of which AFFDEX's measures are read.

Versions differ, so encoding, delimiter, decimal sign, the header's place and the columns' spelling
are sniffed. Rows of metadata (study, respondent, sensor) come before the header; rows of slide
events and of other sensors have AFFDEX's columns empty. Files of many megabytes are read in chunks.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

EMOTIONS = ("anger", "contempt", "disgust", "fear", "joy", "sadness", "surprise")
SCALES = ("attention", "engagement", "valence")
_HEAD_BYTES = 1 << 19
_CHUNK_ROWS = 50_000
_TIME_NAMES = {"timestamp", "time"}
_FRAME_NAMES = {"frame", "frameindex", "framenumber", "frameno", "framenr"}
_NOISE = {"affdex", "affectiva", "emotion", "emotions", "score", "evidence", "value", "ms"}
_NOISE |= {"milliseconds", "s", "sec", "seconds"}


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


def read_export(path: Path, layout: Layout, fps: float = 30.0) -> Export:
    """Samples in which any measure is given, in the order of time.

    Args:
        path: the export, read in chunks.
        layout: of it.
        fps: frame k of a frame-indexed export is k / fps seconds from the start.

    Raises:
        ValueError: no row holds a time and a measure.
    """
    import pandas as pd  # slow to import, and only exports need it

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


def _join_chunks(chunks: Iterable[pd.DataFrame], names: list[str]) -> pd.DataFrame:
    """Rows that hold a time and a measure, as numbers; a decimal comma is read as a point."""
    import pandas as pd

    kept = []
    clock = "time" if "time" in names else "frame"
    for chunk in chunks:
        points = chunk.apply(lambda column: column.str.replace(",", "."))
        numbers = points.apply(pd.to_numeric, errors="coerce")
        measured = numbers[[n for n in names if n in EMOTIONS]].notna().any(axis=1)
        kept.append(numbers[measured & numbers[clock].notna()])
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=names)
