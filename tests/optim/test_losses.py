"""Criteria against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from optim.losses import (
    balanced_weights,
    build_criterion,
    class_log_prior,
    reconstruction_loss,
)
from optim.options import LossOptions

LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
# Probabilities of the two rows: e^2 / (e^2 + 2) and e / (e + 2) for the higher one.
HIGH = (math.exp(2) / (math.exp(2) + 2), math.e / (math.e + 2))
LOW = (1 / (math.exp(2) + 2), 1 / (math.e + 2))
FIRST, SECOND, _ = torch.eye(3)


def _loss(
    task: str,
    logits: Tensor,
    target: Tensor,
    weights: Tensor | None = None,
    log_prior: Tensor | None = None,
    **options: object,
) -> float:
    criterion = build_criterion(task, LossOptions(**options), weights, log_prior)  # type: ignore[arg-type]
    return float(criterion({"logits": logits}, target)["loss"])


def test_cross_entropy_is_the_mean_surprise() -> None:
    target = torch.stack([FIRST, FIRST])
    expected = -(math.log(HIGH[0]) + math.log(LOW[1])) / 2
    assert _loss("classification", LOGITS, target) == pytest.approx(expected)


def test_soft_labels_weigh_the_surprise_of_each_class() -> None:
    target = torch.tensor([[0.25, 0.75, 0.0], [0.0, 1.0, 0.0]])
    first = -(0.25 * math.log(HIGH[0]) + 0.75 * math.log(LOW[0]))
    expected = (first - math.log(HIGH[1])) / 2
    assert _loss("classification", LOGITS, target) == pytest.approx(expected)


def test_label_smoothing_spreads_a_share_of_the_target() -> None:
    target = torch.stack([FIRST, SECOND])
    losses = [-(0.8 * math.log(h) + 0.2 * math.log(low)) for h, low in zip(HIGH, LOW, strict=True)]
    smoothed = _loss("classification", LOGITS, target, label_smoothing=0.3)
    assert smoothed == pytest.approx(sum(losses) / 2)


def test_class_weights_multiply_the_terms_of_their_class() -> None:
    target = torch.stack([FIRST, SECOND])
    weights = torch.tensor([3.0, 0.5, 1.0])
    expected = -(3 * math.log(HIGH[0]) + 0.5 * math.log(HIGH[1])) / 2
    assert _loss("classification", LOGITS, target, weights=weights) == pytest.approx(expected)


def test_focal_loss_counts_what_is_known_already_less() -> None:
    target = torch.stack([FIRST, FIRST])
    expected = -((1 - HIGH[0]) ** 2 * math.log(HIGH[0]) + (1 - LOW[1]) ** 2 * math.log(LOW[1])) / 2
    focal = {"loss": "focal", "focal_gamma": 2.0}
    assert _loss("classification", LOGITS, target, **focal) == pytest.approx(expected)
    weights = torch.tensor([2.0, 1.0, 1.0])
    weighted = _loss("classification", LOGITS, target, **focal, weights=weights)
    assert weighted == pytest.approx(2 * expected)


def test_focal_loss_without_gamma_is_cross_entropy() -> None:
    target = torch.tensor([[0.25, 0.75, 0.0], [0.0, 1.0, 0.0]])
    plain = _loss("classification", LOGITS, target, label_smoothing=0.1)
    focal = _loss(
        "classification", LOGITS, target, label_smoothing=0.1, loss="focal", focal_gamma=1e-9
    )
    assert focal == pytest.approx(plain)


def test_bce_weighs_the_positives_of_each_label() -> None:
    logits, target = torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]])
    negative = math.log(1 + math.exp(2))
    assert _loss("multilabel", logits, target) == pytest.approx((math.log(2) + negative) / 2)
    weights = torch.tensor([3.0, 7.0])
    weighted = _loss("multilabel", logits, target, weights=weights)
    assert weighted == pytest.approx((3 * math.log(2) + negative) / 2)


def test_smooth_l1_is_square_near_zero_and_straight_beyond() -> None:
    values, target = torch.tensor([[0.5, 3.0]]), torch.tensor([[0.0, 0.0]])
    assert _loss("regression", values, target) == pytest.approx((0.125 + 2.5) / 2)


def test_concordance_loss_is_one_minus_the_coefficient() -> None:
    values = torch.tensor([[1.0], [2.0], [3.0]])
    target = torch.tensor([[2.0], [3.0], [7.0]])
    # Means 2 and 4, variances 2/3 and 14/3, covariance 5/3: 2 * 5/3 / (2/3 + 14/3 + 4).
    expected = 1 - (10 / 3) / (16 / 3 + 4)
    assert _loss("regression", values, target, loss="ccc") == pytest.approx(expected)
    assert _loss("regression", target, target, loss="ccc") == pytest.approx(0, abs=1e-6)
    assert _loss("regression", values[:1], target[:1], loss="ccc") == pytest.approx(1)


def test_heads_of_parts_bear_their_share() -> None:
    target = torch.stack([FIRST, SECOND])
    output = {"logits": LOGITS, "face_logits": LOGITS * 0, "speech_logits": LOGITS * 2}
    criterion = build_criterion("classification", LossOptions(auxiliary=0.4))
    losses = {name: float(value) for name, value in criterion(output, target).items()}
    assert losses["face_logits"] == pytest.approx(math.log(3))
    parts = losses["face_logits"] + losses["speech_logits"]
    assert losses["loss"] == pytest.approx(0.6 * losses["logits"] + 0.2 * parts)
    plain = build_criterion("classification")(output, target)
    assert set(plain) == {"logits", "loss"}


def test_what_is_restored_is_measured_where_there_is_a_picture() -> None:
    target = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    restored = torch.tensor([[[0.0, 1.0], [9.0, 9.0]]])
    assert float(reconstruction_loss(restored, target)) == pytest.approx(0.5)
    output = {"logits": LOGITS, "reconstruction": restored, "reconstruction_target": target}
    criterion = build_criterion("classification", LossOptions(reconstruction=0.1))
    losses = criterion(output, torch.stack([FIRST, SECOND]))
    assert float(losses["loss"]) == pytest.approx(float(losses["logits"]) + 0.05)


def test_parts_of_a_loss_without_effect_are_refused() -> None:
    output = {"logits": LOGITS}
    with pytest.raises(ValueError, match="auxiliary loss has no effect: the model's parts"):
        build_criterion("classification", LossOptions(auxiliary=0.1)).check(output)
    with pytest.raises(ValueError, match="reconstruction loss has no effect: the model restores"):
        build_criterion("classification", LossOptions(reconstruction=0.1)).check(output)


def test_a_loss_of_another_task_is_named() -> None:
    with pytest.raises(ValueError, match="loss ccc is not of multilabel; choose from bce"):
        build_criterion("multilabel", LossOptions(loss="ccc"))
    with pytest.raises(ValueError, match="unknown task 'x'"):
        build_criterion("x")
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\], not 1\.5"):
        LossOptions(label_smoothing=1.5)
    with pytest.raises(ValueError, match="focal_gamma must be 0 or more, not -1"):
        LossOptions(focal_gamma=-1.0)


def test_balanced_weights_even_out_classes_and_positives() -> None:
    targets = torch.tensor([[1.0, 0.0, 0.0]] * 3 + [[0.0, 1.0, 0.0]])
    assert balanced_weights("classification", targets).tolist() == pytest.approx([2 / 3, 2.0, 0.0])
    marks = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    assert balanced_weights("multilabel", marks).tolist() == pytest.approx([2.0, 1.0, 1.0])


def test_logit_adjustment_trains_logits_for_equally_frequent_classes() -> None:
    # Two classes that no input tells apart, three to one: the best logits are equal.
    prior = class_log_prior(torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]]))
    assert prior.exp().tolist() == pytest.approx([0.75, 0.25])
    target = torch.tensor([[0.75, 0.25]])
    logits = torch.zeros(1, 2, requires_grad=True)
    criterion = build_criterion("classification", log_prior=prior)
    criterion({"logits": logits}, target)["loss"].backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6
    expected = _loss("classification", LOGITS[:, :2] + prior, target.expand(2, 2))
    assert _loss(
        "classification", LOGITS[:, :2], target.expand(2, 2), log_prior=prior
    ) == pytest.approx(expected)


def test_the_prior_is_that_of_what_is_drawn() -> None:
    targets = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    prior = class_log_prior(targets, torch.tensor([1.0, 2.0, 5.0]))
    assert prior.exp().tolist() == pytest.approx([0.25, 0.75])
    with pytest.raises(ValueError, match="logit adjustment needs training records of every class"):
        class_log_prior(torch.tensor([[1.0, 0.0]]))
