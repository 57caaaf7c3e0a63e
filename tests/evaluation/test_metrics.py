"""Scores agree with scikit-learn, with cases worked by hand and with known identities."""

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.datasets import make_multilabel_classification

from evaluation.metrics import (
    calibration_error,
    classification_report,
    classification_scores,
    concordance,
    confusion_matrix,
    multilabel_scores,
    probability_scores,
    ranking_by_class,
    regression_scores,
    reliability,
    wilson_interval,
)

NAMES = ("a", "b", "c", "d")


def _random_case(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    labels = random.choice(4, count, p=[0.55, 0.25, 0.15, 0.05])
    logits = random.normal(size=(count, 4)) + 1.2 * np.eye(4)[labels]
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True), labels


def test_class_scores_agree_with_scikit_learn() -> None:
    probabilities, labels = _random_case()
    predicted = probabilities.argmax(axis=1)
    scores = classification_scores(np.log(probabilities), labels, NAMES)
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    assert scores["uar"] == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    assert scores["kappa"] == pytest.approx(sk.cohen_kappa_score(labels, predicted))
    for key, function, average in (
        ("macro_f1", sk.f1_score, "macro"),
        ("weighted_f1", sk.f1_score, "weighted"),
        ("macro_precision", sk.precision_score, "macro"),
        ("weighted_precision", sk.precision_score, "weighted"),
    ):
        assert scores[key] == pytest.approx(function(labels, predicted, average=average)), key
    report = classification_report(probabilities, labels, NAMES)
    theirs = sk.classification_report(labels, predicted, output_dict=True)
    for number, name in enumerate(NAMES):
        row, their_row = report["classes"][name], theirs[str(number)]
        assert row["support"] == their_row["support"]
        assert row["f1"] == pytest.approx(their_row["f1-score"])
    assert report["weighted"]["recall"] == pytest.approx(scores["accuracy"])
    assert report["macro"]["recall"] == pytest.approx(scores["uar"])


def test_probability_scores_agree_with_scikit_learn() -> None:
    probabilities, labels = _random_case()
    scores = probability_scores(probabilities, labels)
    assert scores["log_loss"] == pytest.approx(
        -np.log(probabilities[np.arange(len(labels)), labels]).mean()
    )
    assert scores["roc_auc"] == pytest.approx(
        sk.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    )
    truth = np.eye(4)[labels]
    assert scores["average_precision"] == pytest.approx(
        sk.average_precision_score(truth, probabilities, average="macro")
    )
    two = probabilities[:, :2] / probabilities[:, :2].sum(axis=1, keepdims=True)
    binary = (labels == 1).astype(int)
    assert probability_scores(two, binary)["brier"] == pytest.approx(
        2 * sk.brier_score_loss(binary, two[:, 1])
    )


@pytest.mark.parametrize("classes", [2, 4, 8])
def test_always_the_same_class_has_uar_of_one_over_classes_and_no_kappa_over_chance(
    classes: int,
) -> None:
    labels = np.repeat(np.arange(classes), np.arange(1, classes + 1))
    constant = np.zeros((len(labels), classes))
    constant[:, 0] = 1
    scores = classification_scores(constant, labels, tuple(map(str, range(classes))))
    assert scores["uar"] == pytest.approx(1 / classes)
    assert scores["kappa"] == pytest.approx(0.0)


def test_a_class_that_does_not_occur_is_left_out_and_not_counted_as_zero() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.1, 0.2, 0.7]])
    names = ("a", "b", "c")
    scores = classification_scores(np.log(probabilities), labels, names)
    assert scores["uar"] == pytest.approx((1 + 0.5) / 2)
    assert scores["recall"] == {"a": 1.0, "b": 0.5}
    assert scores["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert probability_scores(probabilities, labels)["roc_auc"] == pytest.approx((1 + 0.875) / 2)
    report = classification_report(probabilities, labels, names)
    assert report["classes"]["c"] == {
        "precision": None,
        "recall": None,
        "f1": None,
        "roc_auc": None,
        "average_precision": None,
        "support": 0,
    }
    assert report["macro"]["recall"] == scores["uar"]
    assert confusion_matrix(np.log(probabilities), labels).tolist() == [
        [2, 0, 0],
        [0, 1, 1],
        [0, 0, 0],
    ]


def test_a_subset_of_one_class_has_no_kappa_and_no_roc_area() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2]])
    labels = np.array([0, 0])
    assert classification_scores(probabilities, labels, ("a", "b"))["kappa"] is None
    scores = probability_scores(probabilities, labels)
    assert scores["roc_auc"] is None
    assert scores["average_precision"] == 1.0
    assert ranking_by_class(probabilities, np.eye(2)[labels])[1] == [1.0, None]


def test_calibration_error_is_worked_by_hand() -> None:
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.35, 0.65]])
    labels = np.array([0, 1, 0, 0])
    # Two at .95, one right; two at .65, one right.
    expected = 0.5 * abs(0.95 - 0.5) + 0.5 * abs(0.65 - 0.5)
    assert calibration_error(probabilities, labels, bins=10) == pytest.approx(expected)
    assert calibration_error(probabilities, labels, bins=2, adaptive=True) == pytest.approx(
        expected
    )
    confidence, accuracy, counts = reliability(probabilities, labels, 10)
    np.testing.assert_allclose(confidence, [0.65, 0.95])
    np.testing.assert_allclose(accuracy, [0.5, 0.5])
    assert counts.tolist() == [2, 2]


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_perfectly_calibrated_toy_has_no_calibration_error(adaptive: bool) -> None:
    probabilities = np.repeat([[0.6, 0.4], [0.9, 0.1]], 10, axis=0)
    labels = np.array([0] * 6 + [1] * 4 + [0] * 9 + [1])
    assert calibration_error(probabilities, labels, 2 if adaptive else 15, adaptive) < 1e-12


def test_a_bin_holds_its_upper_edge() -> None:
    probabilities = np.array([[0.5, 0.5, 0.0], [0.45, 0.4, 0.15]])
    assert reliability(probabilities, np.array([0, 0]), 10)[2].tolist() == [2]


def test_full_confidence_falls_into_the_last_bin() -> None:
    confidence, _, counts = reliability(np.array([[1.0, 0.0]]), np.array([0]), 10)
    assert (confidence.tolist(), counts.tolist()) == ([1.0], [1])


def test_multilabel_scores_agree_with_scikit_learn() -> None:
    _, truth = make_multilabel_classification(200, n_classes=4, random_state=0)
    random = np.random.default_rng(0)
    probabilities = np.clip(0.6 * truth + random.uniform(0, 0.6, truth.shape), 0, 1)
    predicted = (probabilities >= 0.5).astype(int)
    scores = multilabel_scores(probabilities, truth, NAMES)
    for key, average, empty in (
        ("micro_f1", "micro", 0.0),
        ("macro_f1", "macro", 0.0),
        ("samples_f1", "samples", 1.0),
    ):
        theirs = sk.f1_score(truth, predicted, average=average, zero_division=empty)
        assert scores[key] == pytest.approx(theirs), key
    assert scores["average_precision"] == pytest.approx(
        sk.average_precision_score(truth, probabilities)
    )
    assert scores["exact_match"] == pytest.approx(sk.accuracy_score(truth, predicted))


def test_a_single_label_is_a_multilabel_task_too() -> None:
    scores = multilabel_scores(np.array([[0.9], [0.2], [0.7]]), np.array([[1], [0], [0]]), ("a",))
    assert scores["labels"]["a"]["precision"] == pytest.approx(0.5)
    assert scores["micro_f1"] == pytest.approx(2 / 3)
    assert scores["samples_f1"] == pytest.approx((1 + 1 + 0) / 3)


def test_a_label_without_a_true_clip_is_left_out_of_the_means() -> None:
    probabilities = np.array([[0.9, 0.9], [0.2, 0.1]])
    scores = multilabel_scores(probabilities, np.array([[1, 0], [0, 0]]), ("a", "b"))
    assert scores["macro_f1"] == scores["average_precision"] == 1.0
    assert scores["labels"]["b"]["f1"] is None


def test_concordance_loses_exactly_what_a_shift_costs() -> None:
    targets = np.random.default_rng(1).normal(size=500)
    variance, shift = targets.var(), 0.7
    assert concordance(targets, targets) == pytest.approx(1.0)
    assert concordance(-targets + 2 * targets.mean(), targets) == pytest.approx(-1.0)
    assert concordance(targets + shift, targets) == pytest.approx(
        2 * variance / (2 * variance + shift**2)
    )
    scaled = (targets - targets.mean()) * 3 + targets.mean()
    assert concordance(scaled, targets) == pytest.approx(2 * 3 / (9 + 1))


def test_regression_scores_are_worked_by_hand_and_agree_with_scikit_learn() -> None:
    targets = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    values = np.array([[0.5, 1.0], [1.0, 1.0], [2.5, 2.0]])
    scores = regression_scores(values, targets, ("arousal", "valence"))
    arousal, valence = scores["targets"]["arousal"], scores["targets"]["valence"]
    assert arousal["mae"] == pytest.approx(sk.mean_absolute_error(targets[:, 0], values[:, 0]))
    assert arousal["rmse"] == pytest.approx(sk.root_mean_squared_error(targets[:, 0], values[:, 0]))
    assert arousal["pearson"] == pytest.approx(np.corrcoef(values[:, 0], targets[:, 0])[0, 1])
    assert valence["pearson"] is None  # a constant correlates with nothing
    assert scores["pearson"] == arousal["pearson"]
    assert scores["mae"] == pytest.approx((arousal["mae"] + valence["mae"]) / 2)
    assert concordance(np.ones(3), np.ones(3)) is None


def test_an_interval_of_a_share_is_wilsons() -> None:
    # Newcombe (1998), table I: 81 of 263, 95 %.
    low, high = wilson_interval(81, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_classes_that_the_test_lacks_are_left_out_of_means_but_cost_where_answered() -> None:
    answers, labels = np.array([0, 0, 3, 1]), np.array([0, 0, 1, 1])
    scores = classification_scores(np.log(0.9 * np.eye(4)[answers] + 0.025), labels, NAMES)
    assert scores["recall"] == {"a": 1.0, "b": 0.5}, "of four classes, two occur"
    assert scores["uar"] == pytest.approx((1.0 + 0.5) / 2)
    assert scores["macro_f1"] == pytest.approx((1.0 + 2 / 3) / 2)
    assert scores["accuracy"] == 0.75, "the answer d is wrong, though nothing is d"
