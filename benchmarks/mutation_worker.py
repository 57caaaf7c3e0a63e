"""Reads damaged files that it is named on stdin, and answers each with a line of JSON.

Begun by `benchmarks.mutations`. It answers as honestly as it can: an error that a user would see as
one line is `refused`; every other is a `traceback`.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.mutation_seeds import make_model
from media.errors import MediaError

Read = Callable[[Path], str]  # raises what a user would see; returns what was read


def build_reader(kind: str, folder: Path) -> Read:
    """What reads files of a kind and checks what comes of it."""
    if kind == "media":
        return _media_reader(make_model(folder / "model.safetensors"))
    return {
        "annotations": _read_annotations,
        "checkpoints": _read_checkpoint,
        "recipes": _read_recipe,
    }[kind]


def _media_reader(model: Path) -> Read:
    from inference import TrainingAlignedInference
    from timeline.csv_format import write_csv
    from timeline.formats import read_timeline
    from timeline.json_format import write_json
    from timeline.summary import summarise

    engine = TrainingAlignedInference(model, "cpu", hop_seconds=0.5)

    def read(path: Path) -> str:
        timeline = engine.run(path)
        with tempfile.TemporaryDirectory() as folder:
            for write, name in ((write_csv, "a.csv"), (write_json, "a.json")):
                write(timeline, Path(folder) / name)
                again = read_timeline(Path(folder) / name)
                assert len(again.rows) == len(timeline.rows), "rows are lost in the file"
        values = timeline.probabilities()
        known = ~np.isnan(values).any(axis=1)
        assert np.isfinite(values[known]).all(), "probabilities that are not finite"
        assert len(summarise(timeline).splitlines()) > 1
        return f"{len(timeline.rows)} rows; {'; '.join(timeline.warnings)}"

    return read


def _read_annotations(path: Path) -> str:
    from datasets.annotations import read_annotations, write_annotations
    from datasets.subsets import find_gaps

    records = read_annotations(path)
    again = path.with_name(f"{path.name}.again.csv")
    try:
        write_annotations(records, again)
        back = read_annotations(again)
    finally:
        again.unlink(missing_ok=True)
    assert [r.key for r in back] == [r.key for r in records], "paths change in the manifest"
    assert [r.label for r in back] == [r.label for r in records], "labels change in the manifest"
    find_gaps(records, ("happy", "sad"), ("validation", "testing"))
    return f"{len(records)} records"


def _read_checkpoint(path: Path) -> str:
    from checkpoints.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    assert checkpoint.class_names
    return checkpoint.model.name


def _read_recipe(path: Path) -> str:
    from opts import parse_options

    recipe = path.rename(path.with_suffix(".toml"))
    try:
        options = parse_options(["--recipe", str(recipe), "--annotation_path", "x.csv"])
    finally:
        recipe.rename(path)
    return options.model.model


def answer(read: Read, path: Path) -> dict[str, object]:
    """Outcome, what is said, and the most memory that this process ever had."""
    outcome, text = "read", ""
    try:
        text = read(path)
    except (ValueError, MediaError, OSError) as error:
        outcome, text = "refused", str(error)
        if "\n" in text:
            outcome = "several lines"
        elif path.stem not in text:
            outcome = "no file named"
    except SystemExit as stop:
        outcome = "refused" if stop.code == 2 else f"exit {stop.code}"
    except BaseException as error:  # noqa: BLE001 - all others are faults, and told
        place = traceback.extract_tb(error.__traceback__)[-1]
        outcome = "traceback"
        text = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"outcome": outcome, "text": text[:500], "megabytes": kilobytes / 1024}


def main() -> None:
    """Answer until stdin ends. What libraries print goes to stderr."""
    answers, sys.stdout = sys.stdout, sys.stderr
    kind, folder = sys.argv[1], Path(sys.argv[2])
    read = build_reader(kind, folder)
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(answer(read, Path(line.rstrip("\n")))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
