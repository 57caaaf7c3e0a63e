"""Intervals cover, tests keep their size, and known examples come out as published."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from evaluation.statistics import (
    accuracy_shares,
    bootstrap_interval,
    cohens_d,
    first_of_each_performance,
    has_width,
    holm,
    mcnemar,
    permutation_test,
    rank_systems,
    score_interval,
    uar_shares,
)

# Area under the curve of four variants of C4.5 on 14 data sets: Demsar (JMLR 2006), table 6. Two
# equal printed values of the last but one row are ranked 2 and 3 there, hence its fourth digit.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def _mean_of(values: np.ndarray) -> Callable[[np.ndarray], float]:
    return lambda rows: float(values[rows].mean())


def _correct_by_speaker(
    random: np.random.Generator, n_speakers: int, clips: int = 40
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) correct or not, (N,) speakers whose ability varies; half is right on average."""
    ability = 1 / (1 + np.exp(-random.normal(0, 0.7, n_speakers)))
    return random.binomial(1, np.repeat(ability, clips)), np.repeat(np.arange(n_speakers), clips)


@pytest.mark.parametrize("n_speakers", [24, 8, 4])
def test_intervals_hold_the_truth_95_times_in_100_with_few_speakers(n_speakers: int) -> None:
    random = np.random.default_rng(n_speakers)
    held = []
    for _ in range(250):
        correct, speakers = _correct_by_speaker(random, n_speakers)
        low, high = bootstrap_interval(_mean_of(correct), speakers, n_resamples=120)
        held.append(low <= 0.5 <= high)
    assert 0.90 <= np.mean(held) <= 0.99


def test_clips_taken_for_independent_would_not_cover() -> None:
    random = np.random.default_rng(3)
    held = []
    for _ in range(100):
        correct, _ = _correct_by_speaker(random, 8)
        low, high = bootstrap_interval(
            _mean_of(correct),
            np.arange(len(correct)),
            n_resamples=60,
        )
        held.append(low <= 0.5 <= high)
    assert np.mean(held) < 0.7


def test_an_interval_of_equal_speakers_is_that_of_their_mean() -> None:
    """Two clips a speaker: the bootstrap's standard error is the textbook one of a mean."""
    means = np.array([0.2, 0.4, 0.5, 0.9, 0.6])
    values, speakers = np.repeat(means, 2), np.repeat(list("abcde"), 2)
    low, high = bootstrap_interval(_mean_of(values), speakers, n_resamples=20_000)
    half = 2.776 * means.std(ddof=1) / np.sqrt(5)  # t of 4 degrees of freedom
    assert (high - low) / 2 == pytest.approx(half, rel=0.03)
    assert (high + low) / 2 == pytest.approx(means.mean())


def test_a_performance_recorded_twice_counts_once() -> None:
    speakers = ["a", "a", "a", "b", "b"]
    performances = ["1", "1", "", "1", ""]
    assert first_of_each_performance(speakers, performances).tolist() == [0, 2, 3, 4]
    values = np.array([1.0, 0.0, 0.0, 1.0, 0.0])  # row 1 is row 0 again
    once = bootstrap_interval(_mean_of(values), speakers, performances)
    without = [0, 2, 3, 4]
    expected = bootstrap_interval(_mean_of(values[without]), np.array(speakers)[without])
    assert once == pytest.approx(expected)
    with pytest.raises(ValueError, match="1 performances for 5 rows"):
        first_of_each_performance(speakers, ["1"])


def test_an_interval_needs_two_speakers_and_a_share_stays_between_0_and_1() -> None:
    def mean(rows: np.ndarray) -> float:
        return float(np.array([1.0, 1.0, 0.9, 1.0])[rows].mean())

    assert np.isnan(bootstrap_interval(mean, ["a"] * 4)).all()
    low, high = score_interval(mean, ["a", "a", "b", "b"])
    assert (low > 0, high) == (True, 1.0)
    with pytest.raises(ValueError, match="between 0 and 1, not 95"):
        bootstrap_interval(mean, ["a"] * 4, level=95)


def test_mcnemar_agrees_with_a_hand_computed_table() -> None:
    """1 against 6: two-sided exact 2 (1 + 7) / 128, less the 7 / 128 of the observed table."""
    first = np.array([1] * 1 + [0] * 6 + [1] * 10, dtype=bool)
    second = np.array([0] * 1 + [1] * 6 + [1] * 10, dtype=bool)
    test = mcnemar(first, second)
    assert (test.only_first, test.only_second) == (1, 6)
    assert test.p_value == pytest.approx((2 * 8 - 7) / 128)
    assert test.odds_ratio == pytest.approx(1 / 6)
    assert test.cohens_g == pytest.approx(1 / 7 - 0.5)
    same = mcnemar(first, first)
    assert (same.p_value, same.odds_ratio, same.cohens_g) == (1.0, 1.0, 0.0)


def test_mcnemar_rejects_5_times_in_100_where_clips_are_independent() -> None:
    random = np.random.default_rng(0)
    tables = random.binomial(1, 0.6, (1500, 2, 120)).astype(bool)
    rejected = np.mean([mcnemar(first, second).p_value < 0.05 for first, second in tables])
    assert 0.03 <= rejected <= 0.065


@pytest.mark.parametrize("n_speakers", [8, 24])
def test_permutation_by_speaker_rejects_5_times_in_100_where_mcnemar_does_not(
    n_speakers: int,
) -> None:
    """One system is better for half of the speakers, the other for the rest: no difference."""
    random = np.random.default_rng(n_speakers)
    by_speaker, by_clip = [], []
    for _ in range(300):
        speakers = np.repeat(np.arange(n_speakers), 40)
        pair = [
            random.binomial(1, 1 / (1 + np.exp(-np.repeat(random.normal(0, 0.7, n_speakers), 40))))
            for _ in range(2)
        ]
        difference = (pair[0] - pair[1]) / len(speakers)
        by_speaker.append(permutation_test(difference, speakers, n_draws=400) < 0.05)
        by_clip.append(mcnemar(*pair).p_value < 0.05)
    assert 0.02 <= np.mean(by_speaker) <= 0.085
    assert np.mean(by_clip) > 0.2


def test_permutation_counts_every_flip_of_few_speakers() -> None:
    differences, speakers = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), list("abcdef")
    assert permutation_test(differences, speakers) == pytest.approx(2 / 64)
    differences[0] = -1.0  # sums of 19 and 21 upwards: 2 of 64 each way
    assert permutation_test(differences, speakers) == pytest.approx(4 / 64)
    assert permutation_test(np.zeros(6), speakers) == 1.0


@pytest.mark.parametrize("n_speakers", [2, 6, 10])
def test_permutation_agrees_with_scipy_where_no_flips_tie(n_speakers: int) -> None:
    random = np.random.default_rng(n_speakers)
    for shift in (0.0, 0.5, 1.5):
        sums = random.normal(shift, 1, n_speakers)
        theirs = stats.permutation_test(
            (sums,), np.sum, permutation_type="samples", n_resamples=np.inf
        )
        ours = permutation_test(sums, [str(name) for name in range(n_speakers)])
        assert ours == pytest.approx(theirs.pvalue)


def test_permutation_counts_ties_that_differ_by_rounding_and_takes_one_speaker() -> None:
    balanced = np.array([-0.1, -0.2, 0.3])  # 5.6e-17 in all: every flip is at least as far from 0
    assert permutation_test(balanced, list("abc")) == 1.0
    assert permutation_test(np.ones(2), ["a", "a"]) == 1.0


def test_shares_add_up_to_the_scores() -> None:
    targets = np.array([0, 0, 0, 1, 2, 2])
    correct = np.array([1, 0, 1, 1, 0, 1])
    assert accuracy_shares(targets) @ correct == pytest.approx(4 / 6)
    assert uar_shares(targets) @ correct == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)


def test_holm_steps_down_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_cohens_d_is_the_mean_over_the_spread_of_differences() -> None:
    assert cohens_d(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0)
    assert np.isnan(cohens_d(np.array([1.0, 1.0])))


def test_ranking_comes_out_as_published_by_demsar() -> None:
    ranking = rank_systems(DEMSAR)
    assert np.round(ranking.mean_ranks, 3).tolist() == [3.143, 2.0, 2.893, 1.964]
    assert ranking.chi_square == pytest.approx(9.28, abs=0.01)
    assert ranking.f == pytest.approx(3.69, abs=0.01)
    assert ranking.f_p == pytest.approx(0.02, abs=0.005)
    assert ranking.critical_difference == pytest.approx(1.25, abs=0.01)
    assert ranking.cliques() == [(3, 1, 2, 0)]
    strict = rank_systems(DEMSAR, alpha=0.10)
    assert strict.critical_difference == pytest.approx(1.12, abs=0.01)
    assert strict.cliques() == [(3, 1, 2), (2, 0)]


def test_a_ranking_needs_blocks_and_systems() -> None:
    with pytest.raises(ValueError, match="2 blocks and 3 systems"):
        rank_systems(DEMSAR[:, :2])
    agreed = rank_systems(np.tile([3.0, 2.0, 1.0], (5, 1)))
    assert agreed.mean_ranks == (1.0, 2.0, 3.0)
    assert agreed.f_p == 0.0


def test_speakers_who_are_all_equal_have_no_interval() -> None:
    values = np.array([1.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    ends = bootstrap_interval(_mean_of(values), list("aaabbb"))
    assert ends == pytest.approx((1 / 3, 1 / 3))
    assert not has_width(*ends)
    assert not has_width(float("nan"), float("nan"))
    assert has_width(0.2, 0.4)
