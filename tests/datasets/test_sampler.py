"""The order in which training draws records."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.annotations import read_annotations, write_annotations
from datasets.sampler import EpochSampler, draw_weights
from datasets.samples import ClipDataset, SampleOptions
from tests.builders import LABELS, SMALL, make_corpus, open_stores

# 90 records of corpus a (80 of class 0 and 10 of class 1), 10 of corpus b (2 and 8)
CLASSES = [0] * 80 + [1] * 10 + [0] * 2 + [1] * 8
CORPORA = ["a"] * 90 + ["b"] * 10


def _fractions(balance: float, balance_corpora: float) -> dict[tuple[str, int], float]:
    """How much of what is drawn is of each corpus and class."""
    weights = draw_weights(CLASSES, CORPORA, balance, balance_corpora)
    weights = weights / weights.sum()
    groups = list(zip(CORPORA, CLASSES, strict=True))
    return {
        group: float(sum(w for w, g in zip(weights, groups, strict=True) if g == group))
        for group in set(groups)
    }


def test_even_corpora_keep_their_own_classes() -> None:
    found = _fractions(0.0, 1.0)
    assert found["a", 0] + found["a", 1] == pytest.approx(0.5)
    assert found["a", 0] == pytest.approx(0.5 * 80 / 90)
    assert found["b", 0] == pytest.approx(0.5 * 2 / 10)


def test_even_corpora_and_classes_are_even_within_each_corpus() -> None:
    assert _fractions(1.0, 1.0) == pytest.approx(
        {("a", 0): 0.25, ("a", 1): 0.25, ("b", 0): 0.25, ("b", 1): 0.25}
    )


def test_half_balance_goes_with_the_root_of_the_counts() -> None:
    found = _fractions(0.5, 0.5)
    assert (found["a", 0] + found["a", 1]) / (found["b", 0] + found["b", 1]) == pytest.approx(3)
    assert found["a", 0] / found["a", 1] == pytest.approx(np.sqrt(8))


def test_without_corpora_classes_are_balanced_over_all_records() -> None:
    found = _fractions(1.0, 0.0)
    assert found["a", 0] + found["b", 0] == pytest.approx(0.5)
    assert found["a", 0] / found["b", 0] == pytest.approx(40)


def test_one_corpus_has_nothing_to_balance() -> None:
    with pytest.raises(ValueError, match="no effect: all training records are of corpus 'a'"):
        draw_weights([0, 1], ["a", "a"], 0.0, 1.0)


def test_draws_follow_the_weights_and_repeat_for_an_epoch(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path, per_subset=10)
    records = read_annotations(manifest)[:10]
    records = [
        type(r)(r.video, r.audio, r.label, speaker=r.speaker, dataset="ab"[i == 9])
        for i, r in enumerate(records)
    ]
    write_annotations(records, manifest)
    stores = open_stores(manifest)
    dataset = ClipDataset(records, stores, SMALL, LABELS, ("speech",), SampleOptions(train=True))
    sampler = EpochSampler(dataset, seed=1, balance_corpora=1.0)
    counts: Counter[bool] = Counter()
    for epoch in range(100):
        dataset.set_epoch(epoch)
        assert list(sampler) == list(sampler)
        counts.update(index == 9 for index in sampler)
    assert counts[True] / counts.total() == pytest.approx(0.5, abs=0.05)
    plain = EpochSampler(dataset, seed=1)
    assert sorted(plain) == list(range(10)), "without balance each record once"
    assert torch.equal(torch.tensor(list(plain)), torch.tensor(list(plain)))
