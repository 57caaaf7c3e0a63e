"""The order in which training draws records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from datasets.samples import ClipDataset


class EpochSampler(Sampler[int]):
    """A random order that depends on the seed and on the dataset's epoch alone.

    With `balance` above 0, records are drawn with replacement, each class of n records by a share
    in proportion to n ** (1 - balance).
    """

    def __init__(self, dataset: ClipDataset, seed: int, balance: float = 0.0) -> None:
        self._dataset, self._seed = dataset, seed
        self._weights = draw_weights(dataset.labels, balance) if balance else None

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 100_003 + self._dataset.epoch)
        if self._weights is None:
            return iter(torch.randperm(len(self), generator=generator).tolist())
        drawn = torch.multinomial(self._weights, len(self), replacement=True, generator=generator)
        return iter(drawn.tolist())


def draw_weights(labels: Sequence[int], balance: float) -> torch.Tensor:
    """(N,) relative frequencies with which records of those class indices are drawn."""
    index = torch.tensor(labels)
    return index.bincount()[index].double() ** -balance
