"""Damaged files by the thousand through what reads them: no hang, no traceback, nothing invented.

`python -m benchmarks.mutations media --count 10000 --output results/mutations` writes a line a file
to `media.jsonl` and a report to `media.md`; run again, it goes on where it was. What is allowed is
a valid result (rows that tile the recording, and come back from the files that they are written to)
or one line that names the file. A fault is anything else: another error, a process that dies, one
that takes longer than the time limit or more memory than the bound. Each case is known by its
number: `--only 123` runs it alone and keeps the damaged file.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from system.command_line import OneLineParser, exit_status

KINDS = ("media", "annotations", "checkpoints", "recipes")
GOOD = ("read", "refused")
START_SECONDS = 900.0  # that a worker may take to start, on a machine with other work
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Result:
    """What became of a case: `read` or `refused`, or a fault with its `text`."""

    number: int
    seed: str
    mutation: str
    outcome: str
    seconds: float
    megabytes: float
    text: str = ""


class Worker:
    """A process that reads damaged files; begun anew where it hangs, dies or grows too large."""

    def __init__(self, kind: str, folder: Path, limit: float, bound: float) -> None:
        self._command = [sys.executable, "-m", "benchmarks.mutation_worker", kind, str(folder)]
        self._limit, self._bound = limit, bound
        self._process: subprocess.Popen[str] | None = None

    def run(self, path: Path) -> tuple[str, float, float, str]:
        """Outcome, seconds, megabytes and what is said of a file."""
        process = self._process or self._start()
        start = time.monotonic()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            line = _read_line(process.stdout, self._limit)
        except BrokenPipeError:
            line = ""
        seconds = time.monotonic() - start
        if line is None:
            self.stop()
            return "hang", seconds, 0.0, f"no answer within {self._limit:g} s"
        if not line:
            status = process.wait()
            self.stop()
            return "died", seconds, 0.0, f"the process ended with status {status}"
        answer = json.loads(line)
        megabytes = float(answer["megabytes"])
        if megabytes > self._bound:
            self.stop()
            return "memory", seconds, megabytes, f"more than {self._bound:g} MB"
        return answer["outcome"], seconds, megabytes, answer["text"]

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            self._command,
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        if not _read_line(self._process.stdout, START_SECONDS):
            raise ValueError(f"the worker does not start: {' '.join(self._command)}")
        return self._process


def _read_line(stream: IO[str], seconds: float) -> str | None:
    """The next line; None where there is none in that time."""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        return stream.readline() if selector.select(seconds) else None


def run_campaign(options: argparse.Namespace) -> int:
    """Run what is left of a campaign. Returns 1 where there are faults."""
    from benchmarks.mutation_seeds import make_seeds
    from benchmarks.mutators import mutate

    out: Path = options.output
    seeds = make_seeds(options.kind, out / "seeds" / options.kind)
    log = out / f"{options.kind}.jsonl"
    known = _read_results(log)
    done = {result.number for result in known}
    numbers = options.only or [n for n in range(options.count) if n not in done]
    worker = Worker(options.kind, out, options.limit_seconds, options.limit_megabytes)
    try:
        for number in numbers:
            seed = seeds[number % len(seeds)]
            content, mutation = mutate(seed.read_bytes(), options.kind, (options.seed, number))
            path = out / f"case-{number}{''.join(seed.suffixes)}"
            path.write_bytes(content)
            outcome, seconds, megabytes, text = worker.run(path)
            result = Result(
                number, seed.name, mutation, outcome, round(seconds, 3), megabytes, text
            )
            if not options.only:
                with log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(result)) + "\n")
                known.append(result)
            if outcome not in GOOD or options.only:
                print(f"{number}: {outcome} ({seed.name}, {mutation}): {text}")
            if not options.only and outcome in GOOD:
                path.unlink()
    finally:
        worker.stop()
    report = format_report(known, options.kind)
    (out / f"{options.kind}.md").write_text(report, encoding="utf-8")
    print(report)
    return int(any(result.outcome not in GOOD for result in known))


def _read_results(path: Path) -> list[Result]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [Result(**json.loads(line)) for line in lines]


def format_report(results: Sequence[Result], kind: str) -> str:
    """Counts by outcome and by damage, the slowest and largest, and each fault."""
    outcomes = Counter(result.outcome for result in results)
    lines = [f"# {len(results)} mutated {kind}", ""]
    lines += [f"- {outcome}: {count}" for outcome, count in outcomes.most_common()]
    if results:
        slowest = max(results, key=lambda result: result.seconds)
        largest = max(results, key=lambda result: result.megabytes)
        lines += [
            f"- slowest: {slowest.seconds:.1f} s (case {slowest.number}, {slowest.seed})",
            f"- most memory: {largest.megabytes:.0f} MB (case {largest.number}, {largest.seed})",
        ]
    table = Counter((result.mutation, result.outcome) for result in results)
    lines += ["", "| damage | read | refused | faults |", "|---|---|---|---|"]
    for mutation in sorted({result.mutation for result in results}):
        good = [table[mutation, outcome] for outcome in GOOD]
        total = sum(count for (name, _), count in table.items() if name == mutation)
        lines.append(f"| {mutation} | {good[0]} | {good[1]} | {total - sum(good)} |")
    faults = [result for result in results if result.outcome not in GOOD]
    lines += ["", f"{len(faults)} faults"]
    lines += [f"- {r.number}: {r.outcome}, {r.seed}, {r.mutation}: {r.text}" for r in faults]
    return "\n".join(lines) + "\n"


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of `python -m benchmarks.mutations`."""
    parser = OneLineParser(prog="python -m benchmarks.mutations", description=__doc__)
    add = parser.add_argument
    add("kind", choices=KINDS, help="what is damaged")
    add("--count", type=int, default=300, help="cases in all")
    add("--seed", type=int, default=1, help="of every random draw")
    add("--output", type=Path, default=Path("results/mutations"), help="folder of the campaign")
    add("--limit_seconds", type=float, default=60.0, help="a file may take")
    add("--limit_megabytes", type=float, default=3000.0, help="the process may take at its most")
    add("--only", type=int, nargs="+", help="numbers of cases to run again, kept as files")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit status: 0 no fault, 1 faults, 2 something the user can put right."""
    options = parse_options(arguments)
    return exit_status(
        lambda: run_campaign(options), "interrupted; run again, it goes on from here"
    )


if __name__ == "__main__":
    sys.exit(main())
