"""Running an iterator ahead of its reader, in a thread: decoding beside face detection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
_PATIENCE = 0.1  # seconds between looks at whether the reader has left


@dataclass(frozen=True)
class _End:
    """Closes the queue: nothing more comes, or `error` came instead."""

    error: BaseException | None = None


@contextmanager
def running_ahead(items: Iterable[Item], most: int) -> Iterator[Iterator[Item]]:
    """The same items in the same order, made in a thread up to `most` ahead of the reader.

    An error of the maker is raised in the reader, in its turn. When the block is left, however
    early, the thread has ended.
    """
    ahead = _Ahead(items, most)
    thread = Thread(target=ahead.make, daemon=True)
    thread.start()
    try:
        yield ahead.read()
    finally:
        ahead.stop.set()
        thread.join()


class _Ahead(Generic[Item]):
    def __init__(self, items: Iterable[Item], most: int) -> None:
        self.stop = Event()
        self._items = items
        self._queue: Queue[Item | _End] = Queue(most)

    def make(self) -> None:
        """What the thread does."""
        end = _End()
        try:
            for item in self._items:
                if not self._put(item):
                    return
        except BaseException as error:  # noqa: BLE001 - it is raised again where it is read
            end = _End(error)
        self._put(end)

    def _put(self, item: Item | _End) -> bool:
        """Hand on; false where the reader has left."""
        while not self.stop.is_set():
            try:
                self._queue.put(item, timeout=_PATIENCE)
            except Full:
                continue
            return True
        return False

    def read(self) -> Iterator[Item]:
        while not isinstance(item := self._queue.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
