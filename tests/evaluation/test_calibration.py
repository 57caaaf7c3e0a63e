"""Calibration finds what was done to logits; prediction sets hold what they promise."""

import json

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from evaluation.calibration import (
    Calibration,
    ConformalRule,
    conformal_scores,
    fit_calibration,
    fit_conformal,
    fit_temperature,
    fit_vector,
    prediction_sets,
    set_coverage,
)
from evaluation.metrics import calibration_error


def _labelled(count: int, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is the truth, and labels drawn by it."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=1.5, size=(count, classes))
    draws = random.uniform(size=(count, 1))
    labels = (softmax(logits, axis=1).cumsum(axis=1) < draws).sum(axis=1)
    return logits, np.minimum(labels, classes - 1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_of_synthetic_logits_is_recovered(temperature: float) -> None:
    logits, labels = _labelled(20_000)
    fit = fit_temperature(logits * temperature, labels)
    assert fit.temperature == pytest.approx(temperature, rel=0.03)
    before = calibration_error(softmax(logits * temperature, axis=1), labels)
    after = calibration_error(fit.apply(logits * temperature), labels)
    assert after < 0.012
    if temperature != 1.0:
        assert after < 0.25 * before


def test_scales_and_biases_of_synthetic_logits_are_recovered() -> None:
    logits, labels = _labelled(40_000, classes=3, seed=1)
    log_p = log_softmax(logits, axis=1)
    bias = np.array([0.5, 0.0, -0.5])
    fit = fit_vector(log_softmax((log_p - bias) / 0.5, axis=1), labels)
    assert fit.method == "vector"
    np.testing.assert_allclose(fit.apply((log_p - bias) / 0.5), np.exp(log_p), atol=0.03)
    np.testing.assert_allclose(np.array(fit.bias) - np.mean(fit.bias), bias, atol=0.08)


def test_a_class_without_records_does_not_upset_the_vector() -> None:
    logits, labels = _labelled(300, classes=4)
    kept = labels != 3
    fit = fit_vector(logits[kept], labels[kept])
    probabilities = fit.apply(logits)
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)


def test_temperature_keeps_the_order_of_classes() -> None:
    logits, labels = _labelled(200)
    probabilities = fit_temperature(logits * 4, labels).apply(logits)
    assert (probabilities.argsort(axis=1) == logits.argsort(axis=1)).all()


def test_logits_and_log_probabilities_give_the_same() -> None:
    logits, labels = _labelled(200)
    for method in ("temperature", "vector"):
        fit = fit_calibration(logits, labels, method)
        shifted = logits + np.arange(200)[:, None]
        np.testing.assert_allclose(fit.apply(shifted), fit.apply(log_softmax(logits, axis=1)))
        assert fit_calibration(shifted, labels, method).scale == pytest.approx(fit.scale, rel=1e-3)


def test_one_window_is_calibrated_as_many() -> None:
    fit = Calibration("vector", (0.5, 1.0), (0.1, 0.0))
    logits = np.array([[2.0, 1.0], [0.0, 3.0]])
    np.testing.assert_array_equal(fit.apply(logits[0]), fit.apply(logits)[0])


def test_calibration_and_rule_come_back_from_json() -> None:
    fit = Calibration("vector", (0.5, 1.25), (0.1, -0.1))
    assert Calibration.from_dict(json.loads(json.dumps(fit.to_dict()))) == fit
    rule = ConformalRule("aps", 0.9, 0.4)
    assert ConformalRule.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule


@pytest.mark.parametrize("method", ["lac", "aps"])
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_sets_hold_the_true_class_as_often_as_promised(method: str, coverage: float) -> None:
    found = []
    for seed in range(60):
        logits, labels = _labelled(400, seed=seed)
        probabilities = softmax(logits * 3, axis=1)  # the promise holds uncalibrated, too
        rule = fit_conformal(probabilities[:200], labels[:200], coverage, method)
        found.append(set_coverage(rule.sets(probabilities[200:]), labels[200:]))
    spread = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) > coverage - 3 * spread
    if method == "lac":  # without ties, at most 1 / (n + 1) more than promised
        assert np.mean(found) < coverage + 1 / 201 + 3 * spread


def test_the_quantile_is_that_of_finite_samples() -> None:
    probabilities = np.array([[1 - s, s] for s in (0.1, 0.2, 0.3, 0.4)])
    labels = np.zeros(4, dtype=int)
    # ceil(5 * 0.6) = 3: the third smallest score.
    assert fit_conformal(probabilities, labels, 0.6).quantile == pytest.approx(0.3)
    # ceil(5 * 0.9) = 5 of 4: no such score, so all classes remain possible.
    rule = fit_conformal(probabilities, labels, 0.9)
    assert rule.sets(np.array([[1.0, 0.0]])).all()


def test_sets_are_worked_by_hand() -> None:
    probabilities = np.array([[0.6, 0.3, 0.1], [0.4, 0.35, 0.25]])
    np.testing.assert_allclose(conformal_scores(probabilities, "aps")[0], [0.0, 0.6, 0.9])
    assert prediction_sets(probabilities, 0.65).tolist() == [
        [True, False, False],
        [True, True, False],
    ]
    assert prediction_sets(probabilities, 0.6, "aps").tolist() == [
        [True, True, False],
        [True, True, False],
    ]


def test_a_window_is_uncertain_unless_one_class_remains() -> None:
    probabilities = np.array([[0.9, 0.05, 0.05], [0.5, 0.45, 0.05], [0.34, 0.33, 0.33]])
    assert ConformalRule("lac", 0.9, 0.6).uncertain(probabilities).tolist() == [False, True, True]
    assert ConformalRule("aps", 0.9, 0.5).uncertain(probabilities).tolist() == [False, True, True]


def test_sets_of_aps_are_never_empty() -> None:
    probabilities = softmax(_labelled(500)[0], axis=1)
    assert prediction_sets(probabilities, 0.0, "aps").sum(axis=1).min() == 1


@pytest.mark.parametrize("fit", [fit_temperature, fit_vector, fit_conformal])
def test_what_cannot_be_fitted_on_is_refused_by_name(fit) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="no record of validation"):
        fit(np.zeros((0, 3)), np.zeros(0, dtype=int))
    with pytest.raises(ValueError, match="labels 0 to 3 for 3 classes"):
        fit(np.zeros((2, 3)), np.array([0, 3]))
    with pytest.raises(ValueError, match="not all finite"):
        fit(np.array([[0.0, np.nan]]), np.array([0]))
    with pytest.raises(ValueError, match=r"shape \(2, 3\) for labels of shape \(1,\)"):
        fit(np.zeros((2, 3)), np.array([0]))


def test_what_is_no_calibration_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="choose from temperature, vector"):
        fit_calibration(np.zeros((1, 2)), np.zeros(1, dtype=int), "isotonic")
    with pytest.raises(ValueError, match="no calibration of method, scale and bias"):
        Calibration.from_dict({"method": "vector"})
    with pytest.raises(ValueError, match="2 classes on logits of 3"):
        Calibration("temperature", (1.0, 1.0), (0.0, 0.0)).apply(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="not finite"):
        Calibration("temperature", (float("nan"),), (0.0,))
    with pytest.raises(ValueError, match="choose from lac, aps"):
        ConformalRule("raps", 0.9, 0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit_conformal(np.ones((1, 1)), np.zeros(1, dtype=int), 1.0)
