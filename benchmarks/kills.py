"""Training, preparation and batch inference killed at random moments, and what comes of going on.

`python -m benchmarks.kills --kills 200` makes a small corpus of sounds, runs each task once to its
end, and then again and again in a process that gets SIGKILL after a random time; the same task goes
on until it is done, killed up to three times. Weights, stores and tables must then be, bit for bit,
those of the run that was never killed. What was a temporary file when a process was killed may lie
there, hidden; nothing reads it. A line a round goes to `kills.jsonl`; run again, it goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import time
import wave
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.mutation_seeds import LABELS, SMALL
from checkpoints.checkpoint import Checkpoint, save_checkpoint
from datasets import prepare
from main import main as run_main
from models import build_model
from system.command_line import OneLineParser, exit_status

RATE = 16000
MOST_KILLS = 3  # of a round, before it may go on to its end
Start = Callable[[Path, bool], int]  # a folder, and whether it was begun before; the exit status


@dataclass(frozen=True)
class Task:
    """Something that may be killed.

    Args:
        name: of the task.
        run: begins it in a folder, or goes on there.
        read: what the folder holds in the end, by name.
    """

    name: str
    run: Start
    read: Callable[[Path], dict[str, object]]


def make_corpus(folder: Path, count: int = 24) -> Path:
    """Short sounds of two labels and their annotation file, made where it is missing."""
    table = folder / "list.csv"
    if table.exists():
        return table
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["audio,label,speaker,subset"]
    for number in range(count):
        label = LABELS[number % 2]
        subset = ("training", "training", "validation", "testing")[number // 2 % 4]
        _write_tone(folder / f"{number:02d}.wav", 300 if label == "sad" else 2000, number)
        rows.append(f"{number:02d}.wav,{label},s{number},{subset}")
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return table


def _write_tone(path: Path, pitch: float, seed: int) -> None:
    times = np.arange(round((1.2 + 0.1 * (seed % 5)) * RATE)) / RATE
    noise = np.random.default_rng(seed).normal(0, 0.05, len(times))
    samples = np.round(8000 * (np.sin(2 * np.pi * pitch * times) + noise)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())


def build_tasks(folder: Path) -> list[Task]:
    """The three tasks over one small corpus."""
    table = make_corpus(folder / "corpus")
    manifest = folder / "prepared" / "manifest.csv"
    if not manifest.exists() and _in_child(lambda: _prepare(table, manifest.parent)) != 0:
        raise ValueError(f"{table} cannot be prepared")
    model = folder / "voice.safetensors"
    if not model.exists():
        torch.manual_seed(0)
        network = build_model("speech_cnn", num_classes=len(LABELS)).eval()
        save_checkpoint(Checkpoint(network, LABELS, SMALL), model)
    return [
        Task("preparation", lambda out, _: _prepare(table, out), _read_files),
        Task("inference", lambda out, _: _infer(table.parent, model, out), _read_files),
        Task("training", lambda out, again: _train(manifest, out, again), _read_run),
    ]


def _prepare(table: Path, out: Path) -> int:
    return prepare.main(["annotation", "--root", str(table), "--out", str(out)])


def _infer(media: Path, model: Path, out: Path) -> int:
    arguments = ["--media_path", str(media), "--model_path", str(model), "--output", str(out)]
    return run_main([*arguments, "--no_plot", "--resume"])


def _train(manifest: Path, out: Path, again: bool) -> int:
    if again and (out / "opts.json").exists():
        return run_main(["--resume_path", str(out)])
    shutil.rmtree(out, ignore_errors=True)
    arguments = ["--annotation_path", str(manifest), "--model", "speech_cnn", "--n_epochs", "6"]
    arguments += ["--batch_size", "4", "--ema", "0.9", "--test_subset", "none", "--no_val"]
    return run_main([*arguments, "--result_path", str(out.parent), "--run_name", out.name])


def _read_files(folder: Path) -> dict[str, object]:
    """Bytes of all files that are not hidden."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def _read_run(folder: Path) -> dict[str, object]:
    """Weights, state and log of a run."""
    state = torch.load(folder / "last.pt", weights_only=True)
    found: dict[str, object] = {
        f"{part} {name}": value.numpy().tobytes()
        for part in ("model", "average")
        for name, value in state[part].items()
    }
    found["log"] = (folder / "log.jsonl").read_bytes()
    found["best"] = (folder / "model_best.safetensors").read_bytes()
    return found


def _in_child(run: Callable[[], int], kill_after: float | None = None) -> int | None:
    """Exit status of `run` in a process of its own; None where it was killed before its end."""
    child = os.fork()
    if child == 0:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        status = 70
        try:
            status = run()
        finally:
            os._exit(status)
    if kill_after is not None:
        deadline = time.monotonic() + kill_after
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None if code == -signal.SIGKILL else code


def run_round(task: Task, folder: Path, seconds: float, draw: random.Random) -> tuple[int, int]:
    """Kill a task at random moments until it is done. Returns kills and the last exit status."""
    shutil.rmtree(folder, ignore_errors=True)
    kills = 0
    while True:
        may_kill = kills < MOST_KILLS
        after = draw.uniform(0, 1.05 * seconds) if may_kill else None
        status = _in_child(lambda: task.run(folder, folder.exists()), after)
        if status is not None:
            return kills, status
        kills += 1


def run_campaign(options: argparse.Namespace) -> int:
    """Returns 1 where a killed task came to another end than one never killed."""
    out: Path = options.output
    out.mkdir(parents=True, exist_ok=True)
    tasks = build_tasks(out)
    log = out / "kills.jsonl"
    rounds = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    whole = {task.name: _run_whole(task, out / "work" / task.name) for task in tasks}
    while sum(line["kills"] for line in rounds) < options.kills:
        number = len(rounds)
        task = tasks[number % len(tasks)]
        folder = out / "work" / task.name
        draw = random.Random(options.seed * 100_003 + number)
        wanted, seconds = whole[task.name]
        kills, status = run_round(task, folder, seconds, draw)
        found = task.read(folder) if status == 0 else {}
        same = found == wanted
        line = {"task": task.name, "kills": kills, "status": status, "same": same}
        if not same:
            line["differs"] = _differences(found, wanted)
            folder.rename(out / f"differs-{number}")
            print(f"{number}: {line}")
        rounds.append(line)
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    return _report(rounds)


def _run_whole(task: Task, folder: Path) -> tuple[dict[str, object], float]:
    """What a task that is never killed leaves, and the seconds that it takes."""
    shutil.rmtree(folder, ignore_errors=True)
    start = time.monotonic()
    if _in_child(lambda: task.run(folder, False)) != 0:
        raise ValueError(f"{task.name} fails without being killed")
    return task.read(folder), time.monotonic() - start


def _differences(found: dict[str, object], wanted: dict[str, object]) -> list[str]:
    names = sorted(set(found) | set(wanted))
    return [name for name in names if found.get(name) != wanted.get(name)][:10]


def _report(rounds: Sequence[dict[str, object]]) -> int:
    kills: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for line in rounds:
        kills[str(line["task"])] += int(str(line["kills"]))
        wrong[str(line["task"])] += not line["same"]
    for name, count in kills.items():
        print(f"{name}: {count} kills, {wrong[name]} rounds came to another end")
    print(f"{sum(kills.values())} kills in {len(rounds)} rounds, {sum(wrong.values())} wrong")
    return int(any(wrong.values()))


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line of `python -m benchmarks.kills`."""
    parser = OneLineParser(prog="python -m benchmarks.kills", description=__doc__)
    add = parser.add_argument
    add("--kills", type=int, default=200, help="in all")
    add("--seed", type=int, default=1, help="of the moments")
    add("--output", type=Path, default=Path("results/kills"), help="folder of the campaign")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Exit status: 0 all the same, 1 not, 2 something the user can put right."""
    options = parse_options(arguments)
    return exit_status(lambda: run_campaign(options), "interrupted; run again to go on")


if __name__ == "__main__":
    sys.exit(main())
