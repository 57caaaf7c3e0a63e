"""Which model to deploy, in plain sentences made of the numbers of a comparison."""

from __future__ import annotations

import math
from typing import Any

from evaluation.comparison import SIGNIFICANT

WORTHWHILE = 0.9  # of the best model's cost: what costs more than this is not cheaper
_UNITS = {"latency_ms_batch1": "ms", "flops": "FLOPs", "parameters": "parameters"}
_UNITS["file_bytes"] = "bytes"


def recommend(analysis: dict[str, Any], points: float = 2.0) -> list[str]:
    """Sentences: the best score, the cheapest model that is as good, the cheapest near it.

    Args:
        analysis: of `compare_runs`.
        points: of UAR (in percent) that the last may lie below the best, and that the second may
            lose at most, for certain, to be recommended without a caveat.
    """
    models = sorted(analysis["models"], key=lambda m: -m["scores"]["uar"]["value"])
    best = models[0]
    kind = "speakers" if analysis["intervals_by"] == "speaker" else "clips taken as independent"
    sentences = [
        f"{best['name']} has the best UAR, {_score(best)}, on {analysis['clips']} clips "
        f"({analysis['units']} {kind})."
    ]
    worse = [m for m in models[1:] if _p_value(analysis, best, m) < SIGNIFICANT]
    apart = [m for m in models[1:] if m not in worse and _lead(analysis, best, m)[0] > 0]
    alike = [m for m in models[1:] if m not in worse and m not in apart]
    if worse:
        sentences.append(
            f"It is significantly better than {_list(worse)} (permutation test, Holm-adjusted "
            f"p < {SIGNIFICANT:g})."
        )
    if apart:
        sentences.append(
            f"The 95 % interval of its lead over {_list(apart)} lies above 0, though the adjusted "
            "test does not reach 5 %; that counts as worse here."
        )
    if not worse and not apart:
        sentences.append("No other model differs from it significantly at 5 %.")
    if analysis["cost"] is None:
        return [*sentences, "No cost is known of all models, so none can be recommended by cost."]
    key = analysis["cost"]["key"]
    sentences += _cheapest_alike(analysis, best, alike, points)
    near = [m for m in models if _gap(best, m) <= points + 1e-9]
    fastest = min(near, key=lambda m: m["efficiency"][key])
    word = "Fastest" if key == "latency_ms_batch1" else "Cheapest"
    sentences.append(
        f"{word} within {points:g} points of the best: {fastest['name']}, "
        f"{_cost(fastest, key)}, UAR {_percent(fastest)} ({_gap(best, fastest):.1f} points below)."
    )
    return sentences


def _cheapest_alike(
    analysis: dict[str, Any], best: dict[str, Any], alike: list[dict[str, Any]], points: float
) -> list[str]:
    key = analysis["cost"]["key"]
    most = WORTHWHILE * best["efficiency"][key]
    cheaper = [m for m in alike if m["efficiency"][key] <= most]
    if not cheaper:
        return [
            f"No model that is not significantly worse costs at least a tenth less than its "
            f"{_cost(best, key)}: deploy {best['name']}."
        ]
    model = min(cheaper, key=lambda m: m["efficiency"][key])
    low, high = _lead(analysis, best, model)
    ratio = best["efficiency"][key] / model["efficiency"][key]
    safe = high <= points
    verb = "deploy" if safe else "the candidate is"
    sentence = (
        f"If cost matters, {verb} {model['name']}: the cheapest "
        f"model not significantly worse than the best, {_cost(model, key)} against "
        f"{_cost(best, key)} ({ratio:.3g} times less), UAR {_percent(model)}, "
        f"{_gap(best, model):.1f} points below (p = {_p_value(analysis, best, model):.2g})."
    )
    if safe:
        return [sentence]
    if high == math.inf:
        return [sentence, "How much worse it may be is not known: test it on more speakers first."]
    return [
        sentence,
        f"The 95 % interval of its loss is {low:+.1f} to {high:+.1f} points, which is more than "
        f"{points:g} allow: not significantly worse is no proof of being as good, so test it on "
        "more speakers first.",
    ]


def find_pair(analysis: dict[str, Any], one: str, two: str) -> dict[str, Any]:
    """The comparison of two models, in whichever order it stands."""
    return next(p for p in analysis["pairs"] if {p["first"], p["second"]} == {one, two})


def _p_value(analysis: dict[str, Any], one: dict[str, Any], two: dict[str, Any]) -> float:
    return float(find_pair(analysis, one["name"], two["name"])["uar"]["p_holm"])


def _lead(
    analysis: dict[str, Any], best: dict[str, Any], model: dict[str, Any]
) -> tuple[float, float]:
    """95 % interval of the best's lead in points of UAR; infinite where it is not known."""
    pair = find_pair(analysis, best["name"], model["name"])
    low, high = pair["uar"]["low"], pair["uar"]["high"]
    if low is None or high is None:
        return -math.inf, math.inf
    return (100 * low, 100 * high) if pair["first"] == best["name"] else (-100 * high, -100 * low)


def _gap(best: dict[str, Any], model: dict[str, Any]) -> float:
    """Points of UAR below the best."""
    return float(100 * (best["scores"]["uar"]["value"] - model["scores"]["uar"]["value"]))


def _percent(model: dict[str, Any]) -> str:
    return f"{model['scores']['uar']['value']:.1%}".replace("%", " %")


def _score(model: dict[str, Any]) -> str:
    uar = model["scores"]["uar"]
    if uar["low"] is None:
        return _percent(model)
    return f"{_percent(model)} (95 % interval {100 * uar['low']:.1f} to {100 * uar['high']:.1f})"


def _cost(model: dict[str, Any], key: str) -> str:
    return f"{short_number(model['efficiency'][key])} {_UNITS[key]}"


def short_number(value: float) -> str:
    """Three digits, with k, M, G or T from a thousand on."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _list(models: list[dict[str, Any]]) -> str:
    names = [model["name"] for model in models]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
