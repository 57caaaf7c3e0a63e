"""Compare runs: `python -m reports.compare results/a results/b --output results/model_comparison`.

Writes `model_comparison.png`, `detailed_analysis.json`, `index.html`, `table.tex` and `table.md`
from what the run folders hold. Needs no torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation.comparison import compare_runs, read_runs
from reports.comparison_figure import plot_comparison
from reports.page import build_page
from reports.plots import write_figure
from reports.recommendation import recommend
from reports.tables import comparison_tables, to_latex, to_markdown
from system.command_line import OneLineParser, print_error
from system.files import replacing, write_json


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status."""
    options = _parser().parse_args(argv)
    try:
        analysis = compare_runs(read_runs(options.runs, options.subset))
        sentences = recommend(analysis, options.within_points)
        write_comparison(analysis, sentences, options.output)
    except (ValueError, OSError) as error:
        print_error(error)
        return 2
    for line in (*analysis["notes"], *sentences):
        print(line)
    print(f"wrote {options.output / 'index.html'}")
    return 0


def write_comparison(analysis: dict[str, Any], sentences: Sequence[str], folder: Path) -> None:
    """Write the five files of a comparison.

    Args:
        analysis: of `compare_runs`.
        sentences: of `recommend`.
        folder: is made where it is not there.
    """
    figure = folder / "model_comparison.png"
    write_figure(plot_comparison(analysis), figure)
    write_json({**analysis, "recommendation": list(sentences)}, folder / "detailed_analysis.json")
    tables = comparison_tables(analysis)
    _write(to_markdown(tables), folder / "table.md")
    _write(to_latex(tables), folder / "table.tex")
    _write(build_page(analysis, sentences, figure), folder / "index.html")


def _write(text: str, path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="python -m reports.compare", description="Compare runs on the clips all have scored."
    )
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--subset", default="testing", help="whose predictions to compare")
    parser.add_argument("--output", type=Path, default=Path("results/model_comparison"))
    parser.add_argument(
        "--within_points",
        "--within-points",
        type=float,
        default=2.0,
        help="UAR that the fastest recommended model may lie below the best",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
