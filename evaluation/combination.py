"""Rules that combine the probabilities of several classifiers, and how their weights are fitted.

`mean` of probabilities, `product` (mean of log-probabilities, normalised), `weighted` mean of
probabilities, and `stacking` (a linear layer over all log-probabilities). What members say of a
clip may come from anywhere: a model in this project, or another framework's table. Source of the
rules: Kittler et al., On combining classifiers, PAMI 1998; of stacking: Wolpert, Stacked
generalization, Neural Networks 1992.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

METHODS = ("mean", "weighted", "product", "stacking")
FITTED_METHODS = ("weighted", "stacking")
DECAYS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # pulls towards the product rule that stacking may choose
FLOOR = 1e-12  # added to a mean of probabilities before its logarithm


@dataclass(frozen=True)
class Combination:
    """A rule with its fitted numbers.

    Args:
        method: one of `METHODS`.
        weights: (K,) of the members, for `weighted`; sum 1.
        matrix: (C, K * C) for `stacking`, columns by member, then class.
        bias: (C,) for `stacking`.
        decay: strength of the pull towards the product rule that `stacking` was fitted with.
    """

    method: str
    weights: np.ndarray | None = None
    matrix: np.ndarray | None = None
    bias: np.ndarray | None = None
    decay: float | None = None

    def apply(self, log_p: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
        """Combine.

        Args:
            log_p: (N, K, C) log-probabilities of K members; of any value where one is missing.
            present: (N, K) bool, which members said something; None for all.

        Returns:
            (N, C) log-probabilities: of the members that are there, uniform where none is.
            Stacking falls back to the product rule where one is missing.
        """
        there = np.ones(log_p.shape[:2], dtype=bool) if present is None else present
        share = there * (self.weights if self.weights is not None else 1.0)
        # A member of no weight still decides where it is the only one there.
        share = np.where(share.sum(axis=1, keepdims=True) > 0, share, there.astype(float))
        share = (share / np.maximum(share.sum(axis=1, keepdims=True), FLOOR))[..., None]
        said = np.where(there[..., None], log_p, 0.0)
        if self.method in ("product", "stacking"):
            combined = (said * share).sum(axis=1)
        else:
            combined = np.log((np.exp(said) * share).sum(axis=1) + FLOOR)
        if self.matrix is not None:
            stacked = said.reshape(len(said), -1) @ self.matrix.T + self.bias
            combined = np.where(there.all(axis=1, keepdims=True), stacked, combined)
        from scipy.special import log_softmax  # here and below, as scipy takes long to import

        return log_softmax(combined, axis=1)


def combine(
    log_p: np.ndarray,
    present: np.ndarray | None = None,
    method: str = "product",
    weights: Sequence[float] | None = None,
) -> np.ndarray:
    """(N, K, C) log-probabilities by a rule that needs no fitting, or by given weights -> (N, C).

    Raises:
        ValueError: unknown method, weights missing or unfit, or a method that must be fitted.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method '{method}'; choose from {', '.join(METHODS)}")
    if method == "stacking":
        raise ValueError("stacking has to be fitted; use fit_combination")
    if method != "weighted":
        return Combination(method).apply(log_p, present)
    given = np.asarray([] if weights is None else weights, dtype=float)
    if given.shape != (log_p.shape[1],) or (given < 0).any() or not given.sum() > 0:
        raise ValueError(f"weighted needs {log_p.shape[1]} weights of 0 or more, not {weights}")
    return Combination(method, weights=given / given.sum()).apply(log_p, present)


def fit_combination(
    log_p: np.ndarray,
    targets: np.ndarray,
    method: str,
    groups: Sequence[str] | np.ndarray | None = None,
) -> Combination:
    """Fit a rule on clips of which all members say something, none of them trained on.

    Args:
        log_p: (N, K, C) log-probabilities.
        targets: (N,) class indices, or (N, C) probabilities.
        method: one of `METHODS`; the first and third have nothing to fit.
        groups: (N,) speakers, kept together when stacking chooses its decay; None for clips.

    Raises:
        ValueError: unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method '{method}'; choose from {', '.join(METHODS)}")
    truth = np.eye(log_p.shape[2])[targets] if np.ndim(targets) == 1 else np.asarray(targets)
    if method == "weighted":
        return Combination(method, weights=fit_weights(log_p, truth))
    if method == "stacking":
        decay = choose_decay(log_p, truth, groups)
        matrix, bias = fit_stack(log_p, truth, decay)
        return Combination(method, matrix=matrix, bias=bias, decay=decay)
    return Combination(method)


def fit_weights(log_p: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(K,) weights of least cross-entropy, which is convex in them: one best point.

    In steps of a percent for two members, by sequential quadratic programming for more.

    Args:
        log_p: (N, K, C).
        truth: (N, C) probabilities.
    """
    from scipy.optimize import LinearConstraint, minimize

    p, members = np.exp(log_p), log_p.shape[1]

    def loss(weights: np.ndarray) -> float:
        mixed = np.log(np.einsum("nkc,k->nc", p, weights) + FLOOR)
        return float(-(truth * mixed).sum(axis=1).mean())

    if members == 2:
        grid = [np.array([share, 1 - share]) for share in np.linspace(0, 1, 101)]
        return min(grid, key=loss)
    found = minimize(
        loss,
        np.full(members, 1 / members),
        method="SLSQP",
        bounds=[(0, 1)] * members,
        constraints=LinearConstraint(np.ones((1, members)), 1, 1),
        options={"ftol": 1e-10, "maxiter": 500},
    )
    weights = np.clip(found.x, 0, 1)
    return weights / weights.sum()


def fit_stack(
    log_p: np.ndarray, truth: np.ndarray, decay: float = 1e-2
) -> tuple[np.ndarray, np.ndarray]:
    """Multinomial logistic regression, drawn towards the product rule that it starts from.

    Args:
        log_p: (N, K, C).
        truth: (N, C) probabilities.
        decay: weight of the squared distance from the product rule, against mean cross-entropy.

    Returns:
        (C, K * C) matrix, (C,) bias.
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    count, members, classes = log_p.shape
    features = log_p.reshape(count, -1)
    start = np.tile(np.eye(classes), (1, members)) / members

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        matrix, bias = flat[: start.size].reshape(start.shape), flat[start.size :]
        said = log_softmax(features @ matrix.T + bias, axis=1)
        value = -(truth * said).sum(axis=1).mean() + decay * ((matrix - start) ** 2).sum()
        error = (np.exp(said) - truth) / count
        slope = error.T @ features + 2 * decay * (matrix - start)
        return float(value), np.concatenate([slope.ravel(), error.sum(axis=0)])

    first = np.concatenate([start.ravel(), np.zeros(classes)])
    found = minimize(loss, first, jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return found.x[: start.size].reshape(start.shape), found.x[start.size :]


def choose_decay(
    log_p: np.ndarray, truth: np.ndarray, groups: Sequence[str] | np.ndarray | None = None
) -> float:
    """Of `DECAYS`, that of least cross-entropy on groups left out in turn (at most five folds)."""
    # Here, as inference needs none of it and it takes two seconds to import.
    from sklearn.model_selection import GroupKFold

    kept = np.arange(len(log_p)) if groups is None else np.unique(groups, return_inverse=True)[1]
    folds = min(5, len(np.unique(kept)))
    if folds < 2:
        return max(DECAYS)
    losses = np.zeros(len(DECAYS))
    for fitted, held in GroupKFold(folds).split(log_p, groups=kept):
        for place, decay in enumerate(DECAYS):
            matrix, bias = fit_stack(log_p[fitted], truth[fitted], decay)
            said = Combination("stacking", matrix=matrix, bias=bias).apply(log_p[held])
            losses[place] -= (truth[held] * said).sum()
    return DECAYS[int(losses.argmin())]
