"""Tables of a comparison as Markdown, LaTeX and HTML, from the same cells."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.decisions import MEASURE_NAMES, MEASURES
from reports.recommendation import short_number

_EFFICIENCY = {
    "parameters": "parameters",
    "trainable": "trainable",
    "flops": "FLOPs",
    "file_bytes": "bytes",
    "latency_ms_batch1": "ms/window",
    "throughput_windows_per_s": "windows/s",
    "peak_memory_mb": "peak MB",
    "device": "device",
}
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {c: "\\" + c for c in "&%$#_{}"}


@dataclass(frozen=True)
class Table:
    """Rows of text under a header.

    Args:
        caption: what it shows, one or two sentences.
        header: of the columns; the first holds names.
        rows: as many cells each.
    """

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def score_table(analysis: dict[str, Any]) -> Table:
    """Scores with intervals, and those costs that any model knows, a row a model."""
    models = analysis["models"]
    known = [key for key in _EFFICIENCY if any(key in m["efficiency"] for m in models)]
    rows = [
        (
            model["name"],
            *(score_cell(model["scores"][measure]) for measure in MEASURES),
            *(_cost_cell(model["efficiency"].get(key)) for key in known),
        )
        for model in models
    ]
    by = "speakers" if analysis["intervals_by"] == "speaker" else "clips, speakers being unknown"
    return Table(
        f"Scores (%) on {analysis['clips']} common clips of {analysis['units']} {by}, "
        f"{len(analysis['classes'])} classes; 95 % intervals by bootstrap over "
        f"{by.split(',')[0]}.",
        ("model", *(MEASURE_NAMES[m] for m in MEASURES), *(_EFFICIENCY[key] for key in known)),
        tuple(rows),
    )


def pair_table(analysis: dict[str, Any]) -> Table:
    """Paired tests and effect sizes, a row a pair."""
    rows = []
    for pair in analysis["pairs"]:
        uar, test = pair["uar"], pair["mcnemar"]
        rows.append(
            (
                f"{pair['first']} − {pair['second']}",
                _difference_cell(uar),
                p_cell(uar["p_holm"]),
                _number_cell(uar["cohens_d"]),
                _difference_cell(pair["accuracy"]),
                p_cell(pair["accuracy"]["p_holm"]),
                f"{test['only_first']} : {test['only_second']}",
                _number_cell(test["odds_ratio"]),
                _number_cell(test["cohens_g"]),
                p_cell(test["p_holm"]),
            )
        )
    unit = analysis["intervals_by"]
    return Table(
        f"Differences in points on the same clips. p: sign-flip permutation test by {unit}; d: "
        f"Cohen's d over {unit}s; right alone: clips only one gets right; OR, g, McNemar p: of "
        "these, mid-p, taking clips for independent. All p Holm-adjusted.",
        ("pair", "UAR", "p", "d", "accuracy", "p", "right alone", "OR", "g", "McNemar p"),
        tuple(rows),
    )


def crema_table(analysis: dict[str, Any]) -> Table | None:
    """CREMA-D against both labels beside people's rate; None where no run holds both."""
    rows = []
    for model in analysis["models"]:
        scores = model["crema_d"]
        if scores is None:
            continue
        human = "unknown input" if scores["human"] is None else f"{100 * scores['human']:.1f}"
        sides = [scores["intended"], scores["perceived"]]
        cells = [score_cell(side[m]) for side in sides for m in ("accuracy", "uar")]
        counts = f"{sides[0]['clips']} / {sides[1]['clips']}"
        rows.append((model["name"], *cells, counts, scores["shown"] or "?", human))
    if not rows:
        return None
    source = next(m["crema_d"]["source"] for m in analysis["models"] if m["crema_d"])
    return Table(
        f"CREMA-D against the intended and the perceived emotion (%). Human: people's recognition "
        f"of the intended emotion from the same modality ({source}).",
        (
            "model",
            "intended acc.",
            "intended UAR",
            "perceived acc.",
            "perceived UAR",
            "clips",
            "shown",
            "human",
        ),
        tuple(rows),
    )


def comparison_tables(analysis: dict[str, Any]) -> list[Table]:
    """All tables of an analysis, in the order of reading."""
    crema = crema_table(analysis)
    return [score_table(analysis), pair_table(analysis), *([crema] if crema else [])]


def to_markdown(tables: Sequence[Table]) -> str:
    """Pipe tables under their captions."""
    parts = []
    for table in tables:
        lines = [table.header, tuple("---" for _ in table.header), *table.rows]
        body = "\n".join("| " + " | ".join(_escape_pipes(line)) + " |" for line in lines)
        parts.append(f"{table.caption}\n\n{body}\n")
    return "\n".join(parts)


def to_latex(tables: Sequence[Table]) -> str:
    """`table` environments for booktabs, scaled down to the column where they are wider."""
    parts = []
    for table in tables:
        lines = [
            " & ".join(map(_escape_latex, row)) + r" \\" for row in (table.header, *table.rows)
        ]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    rf"\caption{{{_escape_latex(table.caption)}}}",
                    r"\centering\small",
                    r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
                    rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
                    r"\toprule",
                    lines[0],
                    r"\midrule",
                    *lines[1:],
                    r"\bottomrule",
                    r"\end{tabular}}",
                    r"\end{table}",
                ]
            )
        )
    head = "% needs \\usepackage{booktabs,graphicx}\n"
    return head + "\n\n".join(parts) + "\n"


def to_html(table: Table) -> str:
    """A `table` element."""
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.header)
    body = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
        + "</tr>\n"
        for row in table.rows
    )
    caption = f"<caption>{html.escape(table.caption)}</caption>"
    return (
        f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def score_cell(score: dict[str, Any]) -> str:
    """`71.2 [66.0, 76.1]` in percent."""
    value = f"{100 * score['value']:.1f}"
    if score["low"] is None:
        return value
    return f"{value} [{100 * score['low']:.1f}, {100 * score['high']:.1f}]"


def p_cell(value: float) -> str:
    """Three decimals, or `< .001`."""
    return "< .001" if value < 0.001 else f"{value:.3f}"


def _difference_cell(entry: dict[str, Any]) -> str:
    value = f"{100 * entry['difference']:+.1f}"
    if entry["low"] is None:
        return value
    return f"{value} [{100 * entry['low']:+.1f}, {100 * entry['high']:+.1f}]"


def _number_cell(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _cost_cell(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else short_number(float(value))


def _escape_pipes(row: Sequence[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in row]


def _escape_latex(text: str) -> str:
    escaped = "".join(_LATEX.get(letter, letter) for letter in text)
    return escaped.replace("−", "$-$").replace("–", "--").replace("<", "$<$")
