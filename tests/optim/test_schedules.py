"""Learning rates over time: a pure function of the step, warm-up included."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau

from optim.options import LR_SCHEDULES, FitOptions
from optim.schedules import SCHEDULES, Schedule


def _optimizer(
    *rates: float, kind: type[torch.optim.Optimizer] = torch.optim.AdamW
) -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    extra = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    return kind(groups, lr=1.0, **extra)  # type: ignore[call-arg]


def _rates(options: FitOptions, steps_per_epoch: int, count: int) -> list[float]:
    optimizer = _optimizer(1.0)
    schedule = Schedule(optimizer, options, steps_per_epoch)
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step()
    return rates


def test_every_schedule_is_a_flag_and_every_flag_a_schedule() -> None:
    assert set(SCHEDULES) == set(LR_SCHEDULES)


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({"lr_schedule": "constant"}, [1, 1, 1, 1, 1, 1]),
        ({"lr_schedule": "step", "lr_steps": [1, 2]}, [1, 1, 0.1, 0.1, 0.01, 0.01]),
        ({"lr_schedule": "cosine"}, [1, 0.933, 0.75, 0.5, 0.25, 0.067]),
        ({"lr_schedule": "warm_restarts", "restart_epochs": 1}, [1, 0.5, 1, 0.5, 1, 0.5]),
        ({"lr_schedule": "constant", "warmup_epochs": 1.5}, [0.25, 0.5, 0.75, 1, 1, 1]),
        ({"lr_schedule": "cosine", "warmup_epochs": 1}, [1 / 3, 2 / 3, 1, 0.854, 0.5, 0.146]),
        (
            {"lr_schedule": "warm_restarts", "restart_epochs": 1, "warmup_epochs": 1},
            [1 / 3, 2 / 3, 1, 0.5, 1, 0.5],
        ),
        ({"lr_schedule": "cosine", "begin_epoch": 3}, [0.25, 0.067]),
    ],
)
def test_rates_of_three_epochs_of_two_steps(options: dict[str, object], rates: list[float]) -> None:
    found = _rates(FitOptions(n_epochs=3, **options), 2, len(rates))  # type: ignore[arg-type]
    assert found == pytest.approx(rates, abs=1e-3)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_one_cycle_is_that_of_torch(kind: type[torch.optim.Optimizer]) -> None:
    ours, theirs = _optimizer(0.1, kind=kind), _optimizer(0.1, kind=kind)
    options = FitOptions(lr_schedule="onecycle", n_epochs=4)
    schedule = Schedule(ours, options, 5)
    reference = OneCycleLR(theirs, 0.1, total_steps=21)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimizer is not stepped
        for _ in range(20):
            for name in ("lr", "momentum" if kind is torch.optim.SGD else "betas"):
                group, wanted = ours.param_groups[0][name], theirs.param_groups[0][name]
                assert group == pytest.approx(wanted), name
            schedule.step()
            reference.step()


def test_cosine_is_that_of_torch() -> None:
    optimizer = _optimizer(0.3)
    reference = CosineAnnealingLR(optimizer, T_max=12)
    wanted = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(12):
            wanted.append(optimizer.param_groups[0]["lr"] / 0.3)
            reference.step()
    assert _rates(FitOptions(lr_schedule="cosine", n_epochs=4), 3, 12) == pytest.approx(wanted)


def test_a_plateau_lowers_the_rate_when_torch_would() -> None:
    losses = [1.0, 0.9, 0.95, 0.93, 0.91, 0.8, 0.8, 0.8, 0.8, 0.79999, 0.7]
    ours, theirs = _optimizer(1.0), _optimizer(1.0)
    schedule = Schedule(ours, FitOptions(lr_schedule="plateau", lr_patience=2), 1)
    reference = ReduceLROnPlateau(theirs, patience=2)
    for loss in losses:
        schedule.step()
        schedule.end_epoch(loss)
        reference.step(loss)
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"])
    assert ours.param_groups[0]["lr"] < 1


def test_groups_keep_their_ratio() -> None:
    optimizer = _optimizer(1.0, 10.0)
    schedule = Schedule(optimizer, FitOptions(lr_schedule="cosine", n_epochs=2), 1)
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 5.0])


def test_a_schedule_goes_on_where_it_was() -> None:
    options = FitOptions(lr_schedule="plateau", lr_patience=0, warmup_epochs=0.5)
    first, again = _optimizer(1.0), _optimizer(1.0)
    one, other = Schedule(first, options, 4), Schedule(again, options, 4)
    for loss in (1.0, 1.0, 1.0):
        one.step()
        one.end_epoch(loss)
    other.load_state_dict(one.state_dict())
    assert again.param_groups[0]["lr"] == first.param_groups[0]["lr"] == pytest.approx(0.01)
