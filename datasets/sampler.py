"""The order in which training draws records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from datasets.samples import ClipDataset
from system.errors import OptionError


class EpochSampler(Sampler[int]):
    """A random order that depends on the seed and on the dataset's epoch alone.

    With `balance` or `balance_corpora` above 0, records are drawn with replacement, see
    `draw_weights`.

    Raises:
        ValueError: `balance_corpora` where all records are of one corpus.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        seed: int,
        balance: float = 0.0,
        balance_corpora: float = 0.0,
    ) -> None:
        self._dataset, self._seed = dataset, seed
        self._weights: torch.Tensor | None = None
        if balance or balance_corpora:
            corpora = [record.dataset for record in dataset.records]
            self._weights = draw_weights(dataset.labels, corpora, balance, balance_corpora)

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 100_003 + self._dataset.epoch)
        if self._weights is None:
            return iter(torch.randperm(len(self), generator=generator).tolist())
        drawn = torch.multinomial(self._weights, len(self), replacement=True, generator=generator)
        return iter(drawn.tolist())


def draw_weights(
    labels: Sequence[int], corpora: Sequence[str], balance: float, balance_corpora: float
) -> torch.Tensor:
    """(R,) float64, how often each record is drawn, relative to the others.

    With `balance_corpora` at 0, a class of n records is drawn in proportion to n ** (1 - balance).
    Above 0, a corpus of n records is drawn in proportion to n ** (1 - balance_corpora), and the
    same holds for the classes within each corpus with `balance`.

    Args:
        labels: class index of each record.
        corpora: of each record.

    Raises:
        ValueError: `balance_corpora` above 0 and all records of one corpus.
    """
    classes = torch.tensor(labels)
    if not balance_corpora:
        return _class_weights(classes, balance)
    names = sorted(set(corpora))
    if len(names) < 2:
        raise OptionError(
            f"balancing corpora has no effect: all training records are of corpus {names[0]!r}",
            "balance_corpora",
        )
    weights = torch.zeros(len(classes), dtype=torch.float64)
    for name in names:
        mine = torch.tensor([corpus == name for corpus in corpora])
        within = _class_weights(classes[mine], balance)
        weights[mine] = within / within.sum() * float(mine.sum()) ** (1 - balance_corpora)
    return weights


def _class_weights(classes: torch.Tensor, balance: float) -> torch.Tensor:
    """(R,) float64: n ** -balance of the n records in each record's class."""
    return classes.bincount()[classes].double() ** -balance
