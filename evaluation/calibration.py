"""Probabilities that mean what they say, and sets of classes that hold the true one.

Temperature and vector scaling (Guo et al. 2017) and split conformal prediction, both fitted on
records that the model was not trained on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax

CALIBRATION_METHODS = ("temperature", "vector")
CONFORMAL_METHODS = ("lac", "aps")
COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # that conformal sets can be asked for
_SCALE_RANGE = (0.05, 20.0)  # of what logits are multiplied by; 1 changes nothing
_RIDGE = 1e-3  # holds back the vector where a class has few records or none


@dataclass(frozen=True)
class Calibration:
    """Probabilities are softmax(scale * log-probabilities + bias).

    Args:
        method: `temperature` (one scale, 1 / temperature, and no bias) or `vector`.
        scale: (C,) factors.
        bias: (C,) terms.
    """

    method: str
    scale: tuple[float, ...]
    bias: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.method not in CALIBRATION_METHODS:
            known = ", ".join(CALIBRATION_METHODS)
            raise ValueError(f"unknown calibration '{self.method}'; choose from {known}")
        if not self.scale or len(self.scale) != len(self.bias):
            raise ValueError(
                f"a calibration of {len(self.scale)} scales and {len(self.bias)} biases"
            )
        if not np.isfinite([*self.scale, *self.bias]).all():
            raise ValueError("a calibration whose scale or bias is not finite")

    @property
    def temperature(self) -> float:
        """Above 1 the model was too sure of itself. Of a vector: of the geometric mean scale."""
        return float(np.exp(-np.log(self.scale).mean()))

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """(..., C) logits or log-probabilities, which give the same, to probabilities.

        Raises:
            ValueError: the number of classes is another.
        """
        if logits.shape[-1] != len(self.scale):
            raise ValueError(
                f"a calibration of {len(self.scale)} classes on logits of {logits.shape[-1]}"
            )
        log_p = log_softmax(np.asarray(logits, dtype=np.float64), axis=-1)
        return softmax(log_p * np.array(self.scale) + np.array(self.bias), axis=-1)

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint's metadata."""
        return {"method": self.method, "scale": list(self.scale), "bias": list(self.bias)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """What `to_dict` gave.

        Raises:
            ValueError: it is not that.
        """
        try:
            scale = tuple(float(value) for value in values["scale"])
            bias = tuple(float(value) for value in values["bias"])
            return cls(str(values["method"]), scale, bias)
        except (KeyError, TypeError) as error:
            raise ValueError(f"no calibration of method, scale and bias: {values}") from error


def fit_calibration(
    logits: np.ndarray, labels: np.ndarray, method: str = "temperature"
) -> Calibration:
    """`fit_temperature` or `fit_vector`, by name.

    Raises:
        ValueError: the method is unknown, or the arrays do not go together.
    """
    if method not in CALIBRATION_METHODS:
        known = ", ".join(CALIBRATION_METHODS)
        raise ValueError(f"unknown calibration '{method}'; choose from {known}")
    return (
        fit_temperature(logits, labels) if method == "temperature" else fit_vector(logits, labels)
    )


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """The one temperature, between 0.05 and 20, of least log-loss.

    Args:
        logits: (N, C) logits or log-probabilities of records not trained on.
        labels: (N,) true class indices.

    Raises:
        ValueError: the arrays do not go together.
    """
    from scipy.optimize import minimize_scalar  # here and below, as it takes long to import

    log_p = _checked_log_p(logits, labels)
    rows = np.arange(len(labels))

    def loss(log_scale: float) -> float:
        return -float(log_softmax(log_p * math.exp(log_scale), axis=1)[rows, labels].mean())

    low, high = (math.log(end) for end in _SCALE_RANGE)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    classes = log_p.shape[1]
    return Calibration("temperature", (math.exp(found.x),) * classes, (0.0,) * classes)


def fit_vector(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """A scale and a bias for each class, of least log-loss with a small ridge towards 1 and 0.

    Args:
        logits: (N, C) logits or log-probabilities of records not trained on.
        labels: (N,) true class indices.

    Raises:
        ValueError: the arrays do not go together.
    """
    from scipy.optimize import minimize

    log_p = _checked_log_p(logits, labels)
    count, classes = log_p.shape
    truth = np.eye(classes)[labels]
    unchanged = np.concatenate([np.ones(classes), np.zeros(classes)])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = log_softmax(log_p * parameters[:classes] + parameters[classes:], axis=1)
        slope = (np.exp(scaled) - truth) / count  # (N, C)
        away = parameters - unchanged
        gradient = np.concatenate([(slope * log_p).sum(axis=0), slope.sum(axis=0)])
        value = -(scaled * truth).sum() / count + _RIDGE * (away**2).sum()
        return float(value), gradient + 2 * _RIDGE * away

    bounds = [_SCALE_RANGE] * classes + [(None, None)] * classes
    found = minimize(loss, unchanged, jac=True, method="L-BFGS-B", bounds=bounds)
    return Calibration(
        "vector", tuple(found.x[:classes].tolist()), tuple(found.x[classes:].tolist())
    )


@dataclass(frozen=True)
class ConformalRule:
    """Which classes remain possible, so that a chosen share of sets holds the true class.

    The promise is for records drawn like those it was fitted on, on average over records; with
    new speakers it is an aim, to be measured.

    Args:
        method: `lac`, all classes of a probability of at least 1 - quantile, least ambiguous
            (Sadinle et al. 2019); or `aps`, the most probable classes until what is left out
            is improbable, adaptive (Romano et al. 2020, without randomisation: sets are never
            empty and hold the true class at least as often as promised).
        coverage: share of sets that are to hold the true class, above 0 and below 1.
        quantile: of the scores of `conformal_scores`, in 0 to 1.
    """

    method: str
    coverage: float
    quantile: float

    def __post_init__(self) -> None:
        _check_conformal(self.method, self.coverage)

    def sets(self, probabilities: np.ndarray) -> np.ndarray:
        """(N, C) bool: the classes that remain possible."""
        return prediction_sets(probabilities, self.quantile, self.method)

    def uncertain(self, probabilities: np.ndarray) -> np.ndarray:
        """(N,) bool: not exactly one class remains possible at this coverage."""
        return self.sets(probabilities).sum(axis=1) != 1

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint's metadata."""
        return {"method": self.method, "coverage": self.coverage, "quantile": self.quantile}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ConformalRule:
        """What `to_dict` gave.

        Raises:
            ValueError: it is not that.
        """
        try:
            numbers = float(values["coverage"]), float(values["quantile"])
            return cls(str(values["method"]), *numbers)
        except (KeyError, TypeError) as error:
            raise ValueError(f"no rule of method, coverage and quantile: {values}") from error


def fit_conformal(
    probabilities: np.ndarray, labels: np.ndarray, coverage: float = 0.9, method: str = "lac"
) -> ConformalRule:
    """Split conformal prediction: the finite-sample quantile of the true classes' scores.

    With so few records that the quantile does not exist, every class remains possible always.

    Args:
        probabilities: (N, C), calibrated or not, of records not trained on.
        labels: (N,) true class indices.

    Raises:
        ValueError: the method or the coverage is none, or the arrays do not go together.
    """
    _check_conformal(method, coverage)
    _check_shapes(probabilities, labels)
    scores = conformal_scores(probabilities, method)[np.arange(len(labels)), labels]
    rank = math.ceil((len(scores) + 1) * coverage)
    quantile = float(np.sort(scores)[rank - 1]) if rank <= len(scores) else 1.0
    return ConformalRule(method, coverage, quantile)


def conformal_scores(probabilities: np.ndarray, method: str = "lac") -> np.ndarray:
    """(N, C) how strange each class would be, 0 to 1.

    `lac`: 1 - its probability. `aps`: the sum of the probabilities above its own.
    """
    if method == "lac":
        return 1.0 - probabilities
    order = np.argsort(-probabilities, axis=1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=1)
    above = np.cumsum(ranked, axis=1) - ranked
    scores = np.empty_like(above)
    np.put_along_axis(scores, order, np.clip(above, 0.0, 1.0), axis=1)
    return scores


def prediction_sets(probabilities: np.ndarray, quantile: float, method: str = "lac") -> np.ndarray:
    """(N, C) bool: the classes whose score is no more than the quantile."""
    return conformal_scores(probabilities, method) <= quantile


def set_coverage(sets: np.ndarray, labels: np.ndarray) -> float:
    """Share of (N, C) sets that hold the true class."""
    return float(sets[np.arange(len(labels)), labels].mean())


def _checked_log_p(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    _check_shapes(logits, labels)
    return np.asarray(log_softmax(np.asarray(logits, dtype=np.float64), axis=1))


def _check_shapes(scores: np.ndarray, labels: np.ndarray) -> None:
    if scores.ndim != 2 or labels.shape != (len(scores),):
        raise ValueError(f"scores of shape {scores.shape} for labels of shape {labels.shape}")
    if not len(labels):
        raise ValueError("nothing to calibrate on: no record of validation")
    if not np.isfinite(scores).all():
        raise ValueError("scores to calibrate on are not all finite")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(f"labels {labels.min()} to {labels.max()} for {scores.shape[1]} classes")


def _check_conformal(method: str, coverage: float) -> None:
    if method not in CONFORMAL_METHODS:
        known = ", ".join(CONFORMAL_METHODS)
        raise ValueError(f"unknown prediction sets '{method}'; choose from {known}")
    if not 0 < coverage < 1:
        raise ValueError(f"a coverage of {coverage} is not between 0 and 1")
