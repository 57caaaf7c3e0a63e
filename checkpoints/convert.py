"""Convert any checkpoint that can be read, published ones too, to a file in our format.

python -m checkpoints.convert results/RUN/model_best.safetensors face.safetensors --half

With `--calibrate_on` the temperature is fitted on a table of predictions, such as the pooled
`windows_testing.csv` of a cross-validation that leaves each corpus out: then probabilities mean
something on people, languages and recordings that took no part in training.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from evaluation.predictions import read_predictions
from system.command_line import OneLineParser, exit_status


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = OneLineParser(prog="python -m checkpoints.convert", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="ours, or one published by others")
    parser.add_argument("output", type=Path, help="a .safetensors file")
    parser.add_argument("--half", action="store_true", help="store weights in 16 bits")
    calibration = parser.add_mutually_exclusive_group()
    calibration.add_argument("--uncalibrated", action="store_true", help="without a calibration")
    calibration.add_argument(
        "--calibrate_on", type=Path, metavar="TABLE", help="predictions to fit the temperature on"
    )
    parser.add_argument("--num_heads", type=int, default=1, help="of a published fusion")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status: a user's mistake is one line and 2."""
    options = parse_options(arguments)
    return exit_status(lambda: _convert(options))


def _convert(options: argparse.Namespace) -> int:
    if options.output.suffix != ".safetensors":
        raise ValueError(f"{options.output}: checkpoints are .safetensors files")
    checkpoint = load_checkpoint(options.checkpoint, options.num_heads)
    if options.uncalibrated:
        checkpoint = replace(checkpoint, calibration=None, conformal=())
    if options.calibrate_on:
        checkpoint = _calibrate(checkpoint, options.calibrate_on)
    save_checkpoint(checkpoint, options.output, half=options.half)
    digest = hashlib.sha256(options.output.read_bytes()).hexdigest()
    print(f"{options.output}: {options.output.stat().st_size:,} bytes, SHA-256 {digest}")
    return 0


def _calibrate(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """With the temperature and the conformal rules that suit a table of predictions."""
    table = read_predictions(path)
    if table.class_names != checkpoint.class_names:
        raise ValueError(
            f"{path} is of {', '.join(table.class_names)}, and the checkpoint knows "
            f"{', '.join(checkpoint.class_names)}"
        )
    calibrated = checkpoint.calibrated(table.log_probabilities, table.targets)
    assert calibrated.calibration is not None
    temperature = calibrated.calibration.temperature
    print(f"temperature {temperature:.2f}, fitted on {len(table)} rows of {path}")
    return calibrated


if __name__ == "__main__":
    sys.exit(main())
