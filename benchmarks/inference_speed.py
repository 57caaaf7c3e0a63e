"""How fast and small inference is, against the reference recipe: what `make bench` runs.

It times whole processes (`main.py` and `benchmarks.reference`, alternately, on one clip of 1280x720
made by looping real clips), compares the peak memory of `main.py` on a long clip with that on the
short one, and says where the time inside a warm process goes. Status 1 where a target is missed.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch

import media.ahead
from benchmarks.clips import loop_packets, make_clip
from checkpoints.shipped import DEFAULT_CHECKPOINT
from datasets.demo_clip import make_demo_clip
from inference import TrainingAlignedInference
from media.demux import Damage, choose_streams, decode_packet, open_media, read_packets
from media.faces import MtcnnDetector
from media.video import Picture
from system.command_line import OneLineParser
from system.files import write_json
from timeline.table import CLASS_PREFIX

ROOT = Path(__file__).parent.parent
REAL_CLIPS = ROOT.parent / "shared" / "data" / "ravdess_av"  # 01-*: those with sound
WARM_SECONDS = 3.0
LEAST_SPEED_UP, MOST_MEMORY = 5.0, 1.15  # the targets
# Runs a command and prints its status, seconds and peak memory (kB; bytes on macOS). A process
# between, because a child's peak starts from that of the process it was forked from.
_LAUNCHER = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
status = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([status, seconds, peak]))
"""


@dataclass(frozen=True)
class Figure:
    """A measured number, and the target it must reach, if there is one."""

    name: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool:
        """Also true where there is no target."""
        low = self.at_least is None or self.value >= self.at_least
        return low and (self.at_most is None or self.value <= self.at_most)

    @property
    def target(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"


@dataclass(frozen=True)
class Clips:
    """What is measured on; `source` says whether the clips are real or synthetic."""

    source: str
    warm: Path
    short: Path
    long: Path


@dataclass(frozen=True)
class ProcessRun:
    """Wall time and peak memory of a process that has ended."""

    seconds: float
    peak_mb: float


@dataclass
class Bench:
    """Options of a measurement."""

    seconds: float = 60.0
    long_seconds: float = 600.0
    runs: int = 2
    model_path: Path = DEFAULT_CHECKPOINT
    output: Path = ROOT / "results" / "bench"
    threads: int = field(
        default_factory=lambda: int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns 0, 1 where a target is missed, or 2 where nothing can be measured."""
    bench = parse_bench(arguments)
    try:
        if not bench.model_path.is_file():
            raise ValueError(f"no checkpoint at {bench.model_path}; give one as --model_path")
        clips = prepare_clips(bench)
        figures = measure(bench, clips)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return report(figures, bench, clips.source)


def parse_bench(arguments: Sequence[str] | None = None) -> Bench:
    """Options from a command line."""
    parser = OneLineParser("python -m benchmarks.inference_speed", description=__doc__)
    default = Bench()
    parser.add_argument("--seconds", type=float, default=default.seconds, help="of the timed clip")
    parser.add_argument(
        "--long_seconds", type=float, default=default.long_seconds, help="of the memory's long clip"
    )
    parser.add_argument("--runs", type=int, default=default.runs, help="the best of them counts")
    parser.add_argument("--model_path", type=Path, default=default.model_path, help="checkpoint")
    parser.add_argument("--output", type=Path, default=default.output, help="folder")
    parser.add_argument("--threads", type=int, default=default.threads, help="of each process")
    bench = Bench(**vars(parser.parse_args(arguments)))
    if bench.runs < 1 or bench.threads < 1 or not 0 < bench.seconds <= bench.long_seconds:
        parser.error("it needs a run, a thread, and 0 < --seconds <= --long_seconds")
    bench.output, bench.model_path = bench.output.resolve(), bench.model_path.resolve()
    return bench


def prepare_clips(bench: Bench) -> Clips:
    """Make the clips that are not there yet."""
    sources, source = sorted(REAL_CLIPS.glob("*/01-*.mp4")), "real"
    if not sources:
        source = "synthetic"
        print("the real clips are not there: a synthetic demo clip is looped instead")
        sources = [_once(bench.output / "demo.mp4", make_demo_clip)]
    short = _once(
        bench.output / f"{source}_{bench.seconds:g}s.mp4",
        lambda path: make_clip(sources, bench.seconds, path),
    )
    long = _once(
        bench.output / f"{source}_{bench.seconds:g}s_to_{bench.long_seconds:g}s.mp4",
        lambda path: loop_packets(short, bench.long_seconds, path),
    )
    warm_seconds = min(WARM_SECONDS, bench.seconds)
    warm = _once(
        bench.output / f"{source}_{warm_seconds:g}s.mp4",
        lambda path: make_clip(sources, warm_seconds, path),
    )
    return Clips(source, warm, short, long)


def _once(path: Path, make: Callable[[Path], object]) -> Path:
    if not path.exists():
        print(f"making {path.name}")
        make(path)
    return path


def measure(bench: Bench, clips: Clips) -> list[Figure]:
    """All figures. Runs of both programs take turns, so that a busy machine slows both."""
    ours_csv = bench.output / "ours" / f"{clips.short.stem}.csv"
    reference_csv = bench.output / "reference.csv"
    _run_ours(bench, clips.warm)
    _run_reference(bench, clips.warm, reference_csv)
    ours, reference = [], []
    for run in range(bench.runs):
        print(f"run {run + 1} of {bench.runs}: {clips.short.name}")
        ours.append(_run_ours(bench, clips.short))
        reference.append(_run_reference(bench, clips.short, reference_csv))
        print(f"  ours {ours[-1].seconds:.1f} s, reference {reference[-1].seconds:.1f} s")
    print(f"memory: {clips.long.name}")
    long = _run_ours(bench, clips.long)
    print("in one process")
    return [
        *compare_speed(ours, reference),
        *compare_memory(ours, long, bench),
        Figure("same dominant class", 100 * agreement(ours_csv, reference_csv), "%"),
        *split_time(bench, clips),
    ]


def compare_speed(ours: list[ProcessRun], reference: list[ProcessRun]) -> list[Figure]:
    """Best whole-process times and their ratio."""
    best, other = (min(run.seconds for run in runs) for runs in (ours, reference))
    return [
        Figure("ours, whole process", best, "s"),
        Figure("reference, whole process", other, "s"),
        Figure("speed-up", other / best, "x", at_least=LEAST_SPEED_UP),
    ]


def compare_memory(ours: list[ProcessRun], long: ProcessRun, bench: Bench) -> list[Figure]:
    """Peak memory on both clips and its ratio."""
    short = statistics.mean(run.peak_mb for run in ours)
    return [
        Figure(f"peak memory, {bench.seconds:g} s", short, "MB"),
        Figure(f"peak memory, {bench.long_seconds:g} s", long.peak_mb, "MB"),
        Figure("memory ratio", long.peak_mb / short, "x", at_most=MOST_MEMORY),
    ]


def agreement(ours_csv: Path, reference_csv: Path) -> float:
    """Share of windows in which both tables have the same dominant class.

    A window that only one of them has counts as different.
    """
    ours, reference = (_dominant(pd.read_csv(path)) for path in (ours_csv, reference_csv))
    shared = min(len(ours), len(reference))
    same = int((ours[:shared] == reference[:shared]).sum())
    return same / max(len(ours), len(reference))


def _dominant(table: pd.DataFrame) -> np.ndarray:
    """(W,) names of the columns, empty where nothing was recognised."""
    columns = [name for name in table.columns if name.startswith(CLASS_PREFIX)]
    values = table[columns].to_numpy(dtype=float)
    known = ~np.isnan(values).any(axis=1)
    return np.where(known, np.array(columns)[np.nan_to_num(values).argmax(axis=1)], "")


def _run_ours(bench: Bench, clip: Path) -> ProcessRun:
    output = ["--no_plot", "--output", str(bench.output / "ours")]
    model = ["--model_path", str(bench.model_path)]
    return run_process(
        [sys.executable, "main.py", "--media_path", str(clip), *model, *output], bench
    )


def _run_reference(bench: Bench, clip: Path, output: Path) -> ProcessRun:
    module = [sys.executable, "-m", "benchmarks.reference", str(clip)]
    model = ["--model_path", str(bench.model_path)]
    return run_process([*module, *model, "--output", str(output)], bench)


def run_process(command: list[str], bench: Bench) -> ProcessRun:
    """Run a command in the project's folder on the bench's number of threads.

    Raises:
        ValueError: it failed; the message is its last line on stderr.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    done = subprocess.run(
        [sys.executable, "-c", _LAUNCHER, *command],
        cwd=ROOT,
        env={**os.environ, **dict.fromkeys(names, str(bench.threads))},
        capture_output=True,
        text=True,
        check=False,
    )
    status, seconds, peak = json.loads(done.stdout)
    if status:
        raise ValueError(f"{' '.join(command)} failed: {done.stderr.strip().splitlines()[-1:]}")
    return ProcessRun(seconds, peak / (2**20 if sys.platform == "darwin" else 2**10))


def split_time(bench: Bench, clips: Clips) -> list[Figure]:
    """Where the time of one process goes that has run before.

    The decoder works in threads of its own beside the rest: only what is waited for it counts, and
    decoding alone is timed apart.
    """
    torch.set_num_threads(bench.threads)
    engine = TrainingAlignedInference(bench.model_path)
    engine.run(clips.warm)
    spent: defaultdict[str, float] = defaultdict(float)
    with ExitStack() as stack:
        for part, owner, name in (
            ("wait for decode", media.ahead.Queue, "get"),
            ("detect", MtcnnDetector, "detect"),
            ("reduce and crop", Picture, "reduce"),
            ("reduce and crop", Picture, "crop"),
            ("model", engine.checkpoint.model, "forward"),
        ):
            timed = _timed(getattr(owner, name), part, spent)
            stack.enter_context(mock.patch.object(owner, name, timed))
        start = time.perf_counter()
        engine.run(clips.short)
        total = time.perf_counter() - start
    both = spent["wait for decode"] + spent["detect"]
    return [
        Figure("ours, in a warm process", total, "s"),
        *(Figure(f"  {part}", seconds, "s") for part, seconds in spent.items()),
        Figure("  other", total - sum(spent.values()), "s"),
        Figure("decode and detect", 100 * both / total, "%"),
        Figure("decoding alone", _time_decoding(clips.short), "s"),
    ]


def _timed(function: Callable[..., Any], part: str, spent: dict[str, float]) -> Callable[..., Any]:
    @wraps(function)
    def timed(*arguments: Any, **named: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            spent[part] += time.perf_counter() - start

    return timed


def _time_decoding(clip: Path) -> float:
    start = time.perf_counter()
    with open_media(clip) as container:
        streams, damage = choose_streams(container, clip), Damage()
        for packet in read_packets(container, [s for s in streams if s is not None], damage):
            decode_packet(packet, damage)
    return time.perf_counter() - start


def report(figures: list[Figure], bench: Bench, source: str) -> int:
    """Print the table, write `bench.json`. Returns 1 where a target is missed, else 0."""
    print(f"\n{format_table(figures)}\n\n{source} clips, {bench.threads} threads")
    values = {
        "figures": [
            {
                "name": figure.name.strip(),
                "value": round(figure.value, 4),
                "unit": figure.unit,
                "target": figure.target or None,
                "met": figure.met,
            }
            for figure in figures
        ],
        "clips": source,
        "seconds": bench.seconds,
        "long_seconds": bench.long_seconds,
        "runs": bench.runs,
        "threads": bench.threads,
        "model": bench.model_path.name,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
    }
    write_json(values, bench.output / "bench.json")
    return 0 if all(figure.met for figure in figures) else 1


def format_table(figures: list[Figure]) -> str:
    """A line per figure: name, value, target, and whether it is met."""
    width = max(len(figure.name) for figure in figures)
    lines = []
    for figure in figures:
        verdict = "" if not figure.target else ("met" if figure.met else "MISSED")
        value = f"{figure.value:8.2f} {figure.unit:<2}"
        lines.append(f"{figure.name:<{width}} {value}  {figure.target:<8}{verdict}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
