"""Any checkpoint that is read, published ones too, to a file of ours to pass on.

python -m convert results/RUN/model_best.safetensors face.safetensors --half
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from checkpoint import load_checkpoint, save_checkpoint
from command_line import OneLineParser, exit_status


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = OneLineParser(prog="python -m convert", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="ours, or one published by others")
    parser.add_argument("output", type=Path, help="a .safetensors file")
    parser.add_argument("--half", action="store_true", help="store weights in 16 bits")
    parser.add_argument("--uncalibrated", action="store_true", help="leave its calibration out")
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
    save_checkpoint(checkpoint, options.output, half=options.half)
    digest = hashlib.sha256(options.output.read_bytes()).hexdigest()
    print(f"{options.output}: {options.output.stat().st_size:,} bytes, SHA-256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
