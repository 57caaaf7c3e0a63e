"""Work on many files: here, in several processes, or on a Ray cluster, with results in order.

Ray is optional (`pip install emofuse[ray]`, Moritz et al., OSDI 2018). Its nodes must see the
project and the media under the same paths, as over a shared file system.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import cv2

from system.errors import OptionError

LOCAL = "local"  # the address that starts a Ray of two workers on this machine
_LOCAL_WORKERS = 2
_PENDING_PER_WORKER = 4
_PROJECT = Path(__file__).resolve().parents[1]

Item = TypeVar("Item")
Result = TypeVar("Result")


def spread_work(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int = 1,
    ray_address: str | None = None,
) -> Iterator[Result]:
    """`work` of each item, in the order of the items, wherever it is done.

    Args:
        work: a function (or partial) that other processes can import.
        items: what it is called with.
        workers: processes on this machine; 1 works in this one.
        ray_address: of a Ray cluster, `auto`, or `local`; then `workers` does not count.

    Raises:
        ValueError: Ray is asked for and cannot be imported or reached.
    """
    if ray_address is not None:
        yield from _spread_on_ray(work, items, ray_address)
    elif workers <= 1:
        yield from map(work, items)
    else:
        with ProcessPoolExecutor(workers, get_context("spawn"), use_one_thread) as pool:
            limit = workers * _PENDING_PER_WORKER
            futures = _keep_pending(lambda item: pool.submit(work_on, work, item), items, limit)
            try:
                yield from (future.result() for future in futures)
            except BrokenProcessPool as error:
                raise OptionError(
                    "a process that decodes died, from a damaged file or for want of memory: use "
                    "a single one to see at which file; what was done is kept",
                    "workers",
                ) from error


def _keep_pending(
    submit: Callable[[Item], Any], items: Sequence[Item], limit: int
) -> Iterator[Any]:
    """Handles of submitted work, in order; at most `limit` are under way."""
    queue = iter(items)
    waiting = deque(submit(item) for item in islice(queue, limit))
    while waiting:
        yield waiting.popleft()
        waiting.extend(submit(item) for item in islice(queue, 1))


def _spread_on_ray(
    work: Callable[[Item], Result], items: Sequence[Item], address: str
) -> Iterator[Result]:
    ray = _start_ray(address)
    try:
        remote = ray.remote(num_cpus=1)(work_on)
        limit = _PENDING_PER_WORKER * max(1, int(ray.cluster_resources().get("CPU", 1)))
        shared = ray.put(work)
        for handle in _keep_pending(lambda item: remote.remote(shared, item), items, limit):
            yield ray.get(handle)
    finally:
        ray.shutdown()


def work_on(work: Callable[[Item], Result], item: Item) -> Result:
    """What a worker runs: `work` with one thread, as the other cores have workers of their own."""
    use_one_thread()
    return work(item)


def use_one_thread() -> None:
    """Keep this process to one thread in OpenCV and torch, also where torch comes later."""
    os.environ["OMP_NUM_THREADS"] = "1"
    cv2.setNumThreads(1)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _start_ray(address: str) -> Any:
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise OptionError("Ray is not installed: pip install 'emofuse[ray]'", "ray") from error
    paths = [str(_PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}}
    own = {"num_cpus": _LOCAL_WORKERS} if address == LOCAL else {}
    try:
        ray.init(
            address=address,
            runtime_env=environment,
            include_dashboard=False,
            log_to_driver=False,
            **own,
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise OptionError(f"no Ray cluster can be reached at {address}: {error}", "ray") from error
    return ray
