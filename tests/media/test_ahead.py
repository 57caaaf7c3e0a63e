"""Running ahead: same order, bounded, errors in their turn, and no thread left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from media.ahead import running_ahead


def test_items_come_in_order() -> None:
    with running_ahead(range(100), most=3) as items:
        assert list(items) == list(range(100))


def test_the_maker_is_never_further_ahead_than_allowed() -> None:
    made = 0

    def make() -> Iterator[int]:
        nonlocal made
        while made < 50:
            made += 1
            yield made

    with running_ahead(make(), most=4) as items:
        for read, _ in enumerate(items, start=1):
            time.sleep(0.001)
            assert made - read <= 4 + 2, "4 in the queue, one being handed on, one being made"


def test_an_error_is_raised_after_what_came_before_it() -> None:
    def make() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with running_ahead(make(), most=4) as items:
        assert next(items) == 1
        with pytest.raises(ValueError, match="broken"):
            next(items)


def test_leaving_early_ends_the_thread() -> None:
    before = threading.active_count()
    with running_ahead(iter(int, 1), most=2) as items:
        assert next(items) == 0
    assert threading.active_count() == before
