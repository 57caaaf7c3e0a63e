"""One self-contained HTML page of a comparison: no other file, no script, light or dark."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reports.tables import comparison_tables, to_html

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .5rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #8886; white-space: nowrap; }
td { text-align: right; } th { text-align: left; } thead th { border-bottom: 2px solid #8888; }
.note { border-left: 4px solid #d55e00; padding-left: .75rem; }
img { max-width: 100%; width: 34rem; background: #fff; padding: .5rem; }
"""


def build_page(analysis: dict[str, Any], sentences: Sequence[str], figure: Path) -> str:
    """The page.

    Args:
        analysis: of `compare_runs`.
        sentences: the recommendation.
        figure: PNG, which is put into the page.
    """
    names = ", ".join(model["name"] for model in analysis["models"])
    picture = base64.b64encode(figure.read_bytes()).decode("ascii")
    notes = "".join(f'<p class="note">{html.escape(note)}</p>\n' for note in analysis["notes"])
    advice = "".join(f"<li>{html.escape(sentence)}</li>\n" for sentence in sentences)
    scores, *others = comparison_tables(analysis)
    tests = "\n".join(to_html(table) for table in others)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Comparison of {html.escape(names)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Comparison of {len(analysis["models"])} models</h1>
{notes}<h2>Which to deploy</h2>
<ul>
{advice}</ul>
<h2>Scores and cost</h2>
{to_html(scores)}
<h2>Figure</h2>
<img alt="Scores with intervals, differences, ranks and cost of {html.escape(names)}"
 src="data:image/png;base64,{picture}">
<h2>Tests</h2>
{tests}
<p>{html.escape(_ranking_text(analysis))}</p>
</body>
</html>
"""


def _ranking_text(analysis: dict[str, Any]) -> str:
    ranking = analysis["ranking"]
    if ranking is None:
        return (
            "Ranks (Friedman, Nemenyi) need three models or more and clips of two known speakers "
            "or more."
        )
    f = "infinite" if ranking["f"] is None else f"{ranking['f']:.2f}"
    ranks = ", ".join(f"{name} {rank:.2f}" for name, rank in ranking["mean_ranks"].items())
    return (
        f"Mean ranks over {ranking['blocks']} speakers by UAR (1 is best): {ranks}. Friedman "
        f"F = {f}, p = {ranking['f_p']:.3g} (Iman and Davenport); ranks further apart than the "
        f"critical difference of {ranking['critical_difference']:.2f} differ at 5 % (Nemenyi; "
        "Demšar 2006)."
    )
