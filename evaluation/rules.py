"""The rules that combine what several classifiers say, for arrays of NumPy and tensors alike.

`mean` of probabilities, `product` (mean of log-probabilities, normalised), `weighted` mean of
probabilities, and `stacking` (a linear layer over all log-probabilities). Where a member is
missing, the others decide. Source of the rules: Kittler et al., On combining classifiers, PAMI
1998; of stacking: Wolpert, Stacked generalization, Neural Networks 1992.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

METHODS = ("mean", "weighted", "product", "stacking")
FITTED_METHODS = ("weighted", "stacking")
FLOOR = 1e-12  # added to a mean of probabilities before its logarithm


def combine_members(
    library: Any,
    method: str,
    log_p: Any,
    present: Any,
    weights: Any,
    stack: Callable[[Any], Any] | None = None,
) -> Any:
    """Combine.

    Args:
        library: `numpy` or `torch`, of which the arrays are.
        method: one of `METHODS`.
        log_p: (N, K, C) log-probabilities of K members; of any value where one is missing.
        present: (N, K) bool, which members said something.
        weights: (K,) of the members; equal ones but for `weighted`.
        stack: (N, K * C) to (N, C), the fitted layer of `stacking`.

    Returns:
        (N, C) log-probabilities, not yet normalised: of the members that are there, equal where
        none is. Stacking falls back to the product rule where one is missing.
    """
    fraction = member_fractions(library, present, weights)[..., None]
    said = library.where(present[..., None], log_p, 0.0)
    if method in ("product", "stacking"):
        combined = library.sum(said * fraction, axis=1)
    else:
        combined = library.log(library.sum(library.exp(said) * fraction, axis=1) + FLOOR)
    if stack is None:
        return combined
    stacked = stack(said.reshape(-1, said.shape[1] * said.shape[2]))
    return library.where(library.all(present, axis=1)[:, None], stacked, combined)


def member_fractions(library: Any, present: Any, weights: Any) -> Any:
    """(N, K) what counts of each member: of sum 1 over those that are there, 0 where none is."""
    weighted = present * weights
    known = library.sum(weighted, axis=1, keepdims=True) > 0
    # A member of no weight still decides where it is the only one there.
    weighted = library.where(known, weighted, present * library.ones_like(weighted))
    return weighted / library.clip(library.sum(weighted, axis=1, keepdims=True), FLOOR, None)
