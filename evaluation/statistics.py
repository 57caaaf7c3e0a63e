"""Intervals and tests for scores on clips of few speakers.

Clips of one speaker are alike, so speakers are the unit that is resampled, flipped and ranked.

Interval: the score plus or minus Student's t (speakers - 1 degrees of freedom) times the standard
error of a bootstrap over speakers, widened by sqrt(S / (S - 1)), since S resampled speakers spread
less than S new ones. Share of 95 % intervals of UAR that held the truth (simulated speakers whose
ability varies, 8 classes, 64 clips each, 400 runs; tests/evaluation/test_statistics.py repeats it
smaller):

    speakers        24     8      4      2
    percentile      .92    .88    .80    .50
    BCa             .92    .88    .80    .50
    this one        .94    .955   .95    .95

Percentile and BCa cannot leave the range of the few speakers there are, so they are not offered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

MOST_EXACT = 14  # speakers up to which all 2**S sign flips are counted
_DRAWS_AT_ONCE = 500
_EQUAL = 1e-12  # scores that differ less are the same but for rounding
Score = Callable[[np.ndarray], float]


def bootstrap_interval(
    values_fn: Score,
    speakers: Sequence[str] | np.ndarray,
    performances: Sequence[str] | np.ndarray | None = None,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Confidence interval of a score for new speakers. The ends may leave the score's range.

    Args:
        values_fn: score of rows, given their indices (repeated as drawn); NaN where it is not
            defined for them, which leaves a resample out.
        speakers: (N,) who is in each row.
        performances: (N,) rows of one speaker with equal, non-empty values are recordings of one
            performance; the first of them counts, the others do not.
        n_resamples: bootstrap draws.
        level: nominal coverage.
        seed: of the draws.

    Returns:
        Lower and upper end; NaN with fewer than two speakers or a score that is not defined.

    Raises:
        ValueError: `level` is not between 0 and 1, or the lengths differ.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    kept = first_of_each_performance(speakers, performances)
    names, place = np.unique(np.asarray(speakers, dtype=str)[kept], return_inverse=True)
    if len(names) < 2:
        return float("nan"), float("nan")
    rows = [kept[place == index] for index in range(len(names))]
    random = np.random.default_rng(seed)
    draws = random.integers(0, len(rows), (n_resamples, len(rows)))
    if len(kept) == len(names):  # a row a speaker: no list of many small arrays
        ordered = np.concatenate(rows)
        values = np.array([values_fn(ordered[draw]) for draw in draws])
    else:
        values = np.array([values_fn(np.concatenate([rows[s] for s in draw])) for draw in draws])
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return float("nan"), float("nan")
    spread = float(values.std(ddof=1)) * np.sqrt(len(rows) / (len(rows) - 1))
    half = float(stats.t.ppf((1 + level) / 2, len(rows) - 1) * spread)
    middle = values_fn(kept)
    return middle - half, middle + half


def score_interval(
    values_fn: Score,
    speakers: Sequence[str] | np.ndarray,
    performances: Sequence[str] | np.ndarray | None = None,
) -> tuple[float, float]:
    """`bootstrap_interval` at 95 % of a score between 0 and 1 (accuracy, UAR, F1), cut to that."""
    low, high = bootstrap_interval(values_fn, speakers, performances)
    return float(np.maximum(low, 0.0)), float(np.minimum(high, 1.0))


def has_width(low: float, high: float) -> bool:
    """Whether two ends make an interval. Speakers who are all equal tell of no spread."""
    return bool(high - low > _EQUAL)


def first_of_each_performance(
    speakers: Sequence[str] | np.ndarray, performances: Sequence[str] | np.ndarray | None
) -> np.ndarray:
    """Ascending indices of the rows that count: all but repeated recordings of a performance.

    Raises:
        ValueError: the lengths differ.
    """
    if performances is None:
        return np.arange(len(speakers))
    if len(performances) != len(speakers):
        raise ValueError(f"{len(performances)} performances for {len(speakers)} rows")
    seen: set[tuple[str, str]] = set()
    kept = []
    for row, pair in enumerate(zip(map(str, speakers), map(str, performances), strict=True)):
        if pair[1] and pair in seen:
            continue
        seen.add(pair)
        kept.append(row)
    return np.array(kept, dtype=int)


@dataclass(frozen=True)
class McNemar:
    """Clips that only one of two systems gets right.

    Args:
        only_first, only_second: their numbers.
        p_value: mid-p, two-sided (Fagerland, Lydersen and Laake 2013). It takes clips for
            independent: with several clips a speaker it is too small.
        odds_ratio: only_first / only_second, 1/2 added to each where one is 0.
        cohens_g: share of `only_first` among both, less 1/2 (Cohen 1988: .05 small, .15 medium,
            .25 large).
    """

    only_first: int
    only_second: int
    p_value: float
    odds_ratio: float
    cohens_g: float


def mcnemar(first_correct: np.ndarray, second_correct: np.ndarray) -> McNemar:
    """McNemar's test of two systems on the same clips.

    Args:
        first_correct, second_correct: (N,) bool.
    """
    first, second = np.asarray(first_correct, dtype=bool), np.asarray(second_correct, dtype=bool)
    b, c = int((first & ~second).sum()), int((second & ~first).sum())
    total = b + c
    tail = stats.binom.cdf(min(b, c), total, 0.5)
    p_value = 2 * tail - stats.binom.pmf(min(b, c), total, 0.5)
    half = 0.5 if 0 in (b, c) else 0.0
    return McNemar(
        only_first=b,
        only_second=c,
        p_value=float(min(1.0, p_value)) if b != c else 1.0,
        odds_ratio=(b + half) / (c + half),
        cohens_g=b / total - 0.5 if total else 0.0,
    )


def permutation_test(
    differences: np.ndarray,
    speakers: Sequence[str] | np.ndarray,
    n_draws: int = 10_000,
    seed: int = 0,
) -> float:
    """Two-sided p-value of a sum of differences whose signs flip by whole speakers.

    Under the null hypothesis the two systems may be exchanged for any speaker. Exact up to
    `MOST_EXACT` speakers, else Monte Carlo with the observed signs counted. No p-value is below
    2 / 2**S: with 5 speakers or fewer nothing reaches 5 %.

    scipy.stats.permutation_test agrees where no flips tie (see the tests), and is not used: it
    misses ties where the observed sum is 0 but for rounding, refuses a single speaker, doubles the
    noise of its draws, and takes 5 to 14 times as long.

    Args:
        differences: (N,) of each row, first system less second, scaled so that the sum over rows
            is the difference of scores (see `accuracy_shares`, `uar_shares`).
        speakers: (N,).
        n_draws: where not exact.
        seed: of the draws.
    """
    names, place = np.unique(np.asarray(speakers, dtype=str), return_inverse=True)
    sums = np.bincount(place, weights=differences, minlength=len(names))
    observed = abs(sums.sum()) - 1e-12
    if len(names) <= MOST_EXACT:
        bits = np.arange(2 ** len(names))[:, None] >> np.arange(len(names)) & 1
        return float((np.abs((2 * bits - 1) @ sums) >= observed).mean())
    random, hits = np.random.default_rng(seed), 0
    for start in range(0, n_draws, _DRAWS_AT_ONCE):
        count = min(_DRAWS_AT_ONCE, n_draws - start)
        signs = 2 * random.integers(0, 2, (count, len(names)), dtype=np.int8) - 1
        hits += int((np.abs(signs @ sums) >= observed).sum())
    return (hits + 1) / (n_draws + 1)


def accuracy_shares(targets: np.ndarray) -> np.ndarray:
    """(N,) what a correct row adds to accuracy."""
    return np.full(len(targets), 1 / max(1, len(targets)))


def uar_shares(targets: np.ndarray) -> np.ndarray:
    """(N,) what a correct row adds to unweighted average recall of (N,) class indices."""
    _, place, counts = np.unique(targets, return_inverse=True, return_counts=True)
    return 1 / (len(counts) * counts[place])


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, the family-wise error held (Holm 1979)."""
    order = np.argsort(p_values)
    steps = np.asarray(p_values, dtype=float)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(value) for value in adjusted]


def cohens_d(differences: np.ndarray) -> float:
    """Mean of paired differences over their standard deviation; NaN where they do not vary."""
    values = np.asarray(differences, dtype=float)
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return float(values.mean()) / spread if spread > 0 else float("nan")


@dataclass(frozen=True)
class Ranking:
    """Friedman's test and Nemenyi's critical difference (Demsar, JMLR 2006).

    Args:
        mean_ranks: (M,) of the systems, 1 the best; ties share their ranks.
        chi_square, chi_square_p: Friedman's statistic, M - 1 degrees of freedom.
        f, f_p: Iman and Davenport's F, less conservative; infinite where all blocks agree.
        critical_difference: mean ranks further apart than this differ at 5 %.
        blocks: speakers or corpora that ranked the systems.
    """

    mean_ranks: tuple[float, ...]
    chi_square: float
    chi_square_p: float
    f: float
    f_p: float
    critical_difference: float
    blocks: int

    def cliques(self) -> list[tuple[int, ...]]:
        """Largest groups of systems, best first, that lie within the critical difference."""
        order = [int(index) for index in np.argsort(self.mean_ranks, kind="stable")]
        groups: list[tuple[int, ...]] = []
        for start, first in enumerate(order):
            limit = self.mean_ranks[first] + self.critical_difference
            group = tuple(i for i in order[start:] if self.mean_ranks[i] <= limit)
            if len(group) > 1 and not (groups and set(group) <= set(groups[-1])):
                groups.append(group)
        return groups


def rank_systems(scores: np.ndarray, alpha: float = 0.05) -> Ranking:
    """Friedman's test with Nemenyi's critical difference.

    Args:
        scores: (blocks, M) scores, the higher the better.
        alpha: of the critical difference.

    Raises:
        ValueError: fewer than two blocks or three systems.
    """
    blocks, systems = scores.shape
    if blocks < 2 or systems < 3:
        raise ValueError(f"ranking takes 2 blocks and 3 systems or more, not {blocks}, {systems}")
    mean_ranks = stats.rankdata(-scores, axis=1).mean(axis=0)
    scale = 12 * blocks / (systems * (systems + 1))
    chi_square = scale * float((mean_ranks**2).sum() - systems * (systems + 1) ** 2 / 4)
    chi_square = max(0.0, chi_square)
    rest = blocks * (systems - 1) - chi_square
    f = (blocks - 1) * chi_square / rest if rest > 1e-9 else float("inf")
    q = stats.studentized_range.ppf(1 - alpha, systems, np.inf) / np.sqrt(2)
    return Ranking(
        mean_ranks=tuple(float(rank) for rank in mean_ranks),
        chi_square=chi_square,
        chi_square_p=float(stats.chi2.sf(chi_square, systems - 1)),
        f=f,
        f_p=float(stats.f.sf(f, systems - 1, (systems - 1) * (blocks - 1))),
        critical_difference=float(q * np.sqrt(systems * (systems + 1) / (6 * blocks))),
        blocks=blocks,
    )
