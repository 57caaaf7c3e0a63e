"""Inference over many recordings: each on its own, under a name of its own, and a summary of all.

What goes wrong with a recording, from reading it to printing its summary, is one line on stderr
and the others go on. Only where nothing more can be written does the batch end. A recording's JSON
file is written last, so where it is, all its files are: `--resume` goes by it.
"""

from __future__ import annotations

import csv
import errno
import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from media.errors import MediaError
from media.listing import SUMMARY_NAME, MediaItem, list_media, output_names, where
from recognition.options import InferenceOptions
from recognition.session import Session
from system.command_line import describe_unexpected, print_error
from system.errors import OptionError
from system.files import printable, replacing
from timeline.csv_format import write_csv
from timeline.formats import read_timeline
from timeline.json_format import write_json
from timeline.summary import dominant_shares, summarise
from timeline.table import Timeline

_logger = logging.getLogger(__name__)
# Errors of the system after which no further file can be written either.
_NO_MORE_WRITING = {errno.ENOSPC, errno.EROFS, errno.EDQUOT}
SUMMARY_COLUMNS = (
    "file",
    "output",
    "duration",
    "faces",
    "speech",
    "dominant_emotions",
    "warnings",
    "error",
)


@dataclass(frozen=True)
class Outcome:
    """What became of a recording: whether its timeline is written, and its row of the summary."""

    is_done: bool
    cells: list[str]


def infer_files(
    settings: InferenceOptions,
    session: Session,
    listed: Sequence[MediaItem],
) -> int:
    """Write the timeline of each recording. Returns the exit status.

    A file that fails is one line on stderr and the rest goes on: 1 where some failed, 2 where all.

    Raises:
        OSError: nothing more can be written.
    """
    folder = Path(settings.output)
    names = output_names([item.path for item in listed], lambda name: _owner(folder / name))
    outcomes = [_infer_one(session, item, folder / names[item.path], settings) for item in listed]
    failed = sum(not outcome.is_done for outcome in outcomes)
    if len(listed) > 1:
        path = folder / f"{SUMMARY_NAME}.csv"
        write_summary(outcomes, path)
        _logger.info(f"{len(listed) - failed} of {len(listed)} recordings written to {folder}")
        _logger.info(f"Written: {path}")
    return 0 if not failed else (2 if failed == len(listed) else 1)


def list_recordings(settings: InferenceOptions) -> list[MediaItem]:
    """The recordings that the command line names, once it is known that outputs can be written.

    Raises:
        ValueError: nothing is named, or the outputs do not fit it.
        OSError: the folder for outputs cannot be written.
    """
    listed = list_media(
        settings.media_path, settings.speaker_column, settings.speaker_folder, _logger.info
    )
    if settings.save_plot and len(listed) > 1:
        raise OptionError(
            f"one file for the plot, but {len(listed)} recordings; their plots go to the folder",
            "save_plot",
            "output",
        )
    if Path(settings.output).is_file():
        raise OptionError(f"{settings.output} is a file; give a folder", "output")
    if settings.save_plot:
        from reports.plots import check_figure_format

        check_figure_format(Path(settings.save_plot))
    _check_writable(Path(settings.output))
    return listed


def _check_writable(folder: Path) -> None:
    """Raise OSError, naming the folder, where no file can be written into it."""
    there = folder
    while not there.exists():  # it is made when there is something to write
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, "cannot be written to; give another folder", str(folder))


def _infer_one(
    session: Session,
    item: MediaItem,
    base: Path,
    settings: InferenceOptions,
) -> Outcome:
    """Its outputs are written whole, or not at all."""
    try:
        known = _finished(session, item, base, settings) if settings.resume else None
        if known is not None:
            _logger.info(f"{printable(item.path)}: done before, unchanged")
            return Outcome(True, _summary_cells(item.path, base.name, known))
        source = _read_source(item.path)
        timeline = replace(_run_with_bar(session, item), source=source)
        written = _write_outputs(timeline, base, settings)
        _logger.info(printable(item.path))
        _logger.info(summarise(timeline))
        _logger.info("Written: " + ", ".join(printable(path) for path in written) + "\n")
    except (MediaError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno in _NO_MORE_WRITING:
            raise
        return _fail(item.path, base.name, str(error))
    except Exception as error:  # noqa: BLE001 - a fault of ours must not end the others
        return _fail(item.path, base.name, describe_unexpected(error))
    return Outcome(True, _summary_cells(item.path, base.name, timeline))


def _fail(path: Path, name: str, text: str) -> Outcome:
    print_error(_naming_file(text, path))
    line = " ".join(printable(text).splitlines())
    empty = [""] * (len(SUMMARY_COLUMNS) - 3)
    return Outcome(False, [where(path), printable(name), *empty, line])


def _naming_file(text: str, path: Path) -> str:
    """An error's line, which must say whose it is."""
    return text if path.name in text else f"{printable(path)}: {text}"


def _run_with_bar(session: Session, item: MediaItem) -> Timeline:
    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    name = printable(item.path.name)
    with tqdm(total=1.0, desc=name, bar_format=form, leave=False, disable=None) as bar:
        return session.analyse(item.path, lambda done: _advance(bar, done), item.speaker).timeline


def _advance(bar: tqdm, done: float) -> None:
    bar.update(max(0.0, min(1.0, done) - bar.n))


def _read_source(path: Path) -> dict[str, Any]:
    """Which file of which folder, and what tells whether it was changed since."""
    folder, name = where(path.parent), printable(path.name)
    if not path.exists():
        return {"folder": folder, "file": name}  # the reader of media says why
    stat = path.stat()
    return {"folder": folder, "file": name, "size": stat.st_size, "modified": stat.st_mtime_ns}


def _owner(base: Path) -> str | None:
    """The recording whose files have that name already; None where there are none that say so."""
    source = _read_json(base).get("source", {})
    if not isinstance(source, Mapping) or not {"folder", "file"} <= set(source):
        return None
    return str(Path(source["folder"]) / source["file"])


def _read_json(base: Path) -> dict[str, Any]:
    """What lies in the JSON file of that name; nothing where it is missing or no such file."""
    try:
        content = json.loads(_files_of(base)[1].read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _files_of(base: Path) -> list[Path]:
    """CSV, JSON and plot of a name. The name may hold points, so no suffix is replaced."""
    return [base.with_name(f"{base.name}{suffix}") for suffix in (".csv", ".json", ".png")]


def _finished(
    session: Session, item: MediaItem, base: Path, settings: InferenceOptions
) -> Timeline | None:
    """The timeline of an earlier run, if the same command on the same file would repeat it."""
    table, content, plot = _files_of(base)
    if not item.path.is_file() or not table.is_file() or not content.is_file():
        return None
    if not settings.no_plot and not Path(settings.save_plot or plot).is_file():
        return None
    try:
        timeline = read_timeline(content)
    except ValueError:
        return None
    same = json.loads(json.dumps(session.recogniser.identity())) == timeline.checkpoint
    same &= session.recogniser.hop_seconds == timeline.hop_seconds
    return timeline if same and timeline.source == _read_source(item.path) else None


def _write_outputs(timeline: Timeline, base: Path, settings: InferenceOptions) -> list[Path]:
    table, content, plot = _files_of(base)
    with ExitStack() as stack:  # left from the last to the first: the JSON is there when all is
        whole_content = stack.enter_context(replacing(content))
        whole_table = stack.enter_context(replacing(table))
        write_json(timeline, whole_content)
        write_csv(timeline, whole_table)
        if settings.no_plot:
            return [table, content]
        from reports.plots import plot_timeline, write_figure  # matplotlib takes its time

        plot = Path(settings.save_plot or plot)
        write_figure(plot_timeline(timeline, settings.plot_style), plot)
    return [table, content, plot]


def write_summary(outcomes: Sequence[Outcome], path: Path) -> None:
    """A row for each recording. Faces and speech are fractions of the time in which they are."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(SUMMARY_COLUMNS)
        writer.writerows(outcome.cells for outcome in outcomes)


def _summary_cells(path: Path, name: str, timeline: Timeline) -> list[str]:
    lengths = [row.end - row.start for row in timeline.rows]
    faces, speech = (
        sum(n for n, row in zip(lengths, timeline.rows, strict=True) if kind in row.modalities)
        / sum(lengths)
        for kind in ("video", "audio")
    )
    return [
        where(path),
        printable(name),
        f"{timeline.duration:.3f}",
        f"{faces:.3f}",
        f"{speech:.3f}",
        "; ".join(f"{emotion} {share:.2f}" for emotion, share in dominant_shares(timeline)),
        "; ".join(timeline.warnings),
        "",
    ]
