"""Scores of a confusion matrix, worked by hand; classes that do not occur have no part."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation import confusion

# Class 0: 3 of 4 right. Class 1: 1 of 2 right. Class 2 does not occur, but is predicted once.
COUNTS = np.array([[3, 0, 1], [1, 1, 0], [0, 0, 0]])


def test_pairs_are_counted_with_true_classes_in_rows() -> None:
    targets = np.array([0, 0, 0, 0, 1, 1])
    predicted = np.array([0, 0, 0, 2, 0, 1])
    assert confusion.count_pairs(targets, predicted, 3).tolist() == COUNTS.tolist()


def test_means_over_classes_leave_out_those_that_do_not_occur() -> None:
    assert confusion.accuracy(COUNTS) == pytest.approx(4 / 6)
    assert confusion.recalls(COUNTS)[:2].tolist() == [0.75, 0.5]
    assert math.isnan(confusion.recalls(COUNTS)[2])
    assert confusion.uar(COUNTS) == pytest.approx((0.75 + 0.5) / 2)
    assert confusion.macro_f1(COUNTS) == pytest.approx((6 / 8 + 2 / 3) / 2)


def test_a_class_never_predicted_has_precision_0() -> None:
    assert confusion.precisions(np.array([[2, 0], [1, 0]])).tolist() == [2 / 3, 0.0]


def test_kappa_is_undefined_where_one_class_is_true_and_predicted_always() -> None:
    assert confusion.kappa(np.array([[5, 0], [0, 0]])) is None
    assert confusion.kappa(np.array([[2, 2], [2, 2]])) == pytest.approx(0.0)
    assert confusion.kappa(np.array([[2, 0], [0, 2]])) == pytest.approx(1.0)


def test_no_clip_has_no_score() -> None:
    nothing = np.zeros((2, 2), dtype=int)
    assert math.isnan(confusion.uar(nothing))
    assert math.isnan(confusion.accuracy(nothing))
