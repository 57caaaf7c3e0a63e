"""Memory in training: freed memory is used again, the largest batch that fits is found, and what
helps is told where a batch does not fit."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from system.errors import OptionError

LARGEST = 1024  # more leave an epoch too few steps
_SHARE = 0.5  # of the memory that is free, which `auto` plans for on the processor
_BESIDE = 1.5  # what a step takes beside what it keeps for its gradient, as a factor
_COPIES = 4  # of the parameters: with gradients and two moments of Adam
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_NEVER = 2**31 - 1  # bytes at the end of the heap that are too few to be given back


def keep_freed_memory() -> bool:
    """Let glibc's allocator keep what a step frees for the next step.

    It gives large blocks back to the system at once, and each new one is then faulted in page by
    page: a sixth of the time of a training step of EfficientFace.

    Returns:
        Whether there was such an allocator to ask.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator, or the processor's allocator, had nothing left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Tell what helps where memory ends.

    Raises:
        ValueError: in place of the error of the allocator.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OptionError(
            "out of memory: take smaller batches, or `auto` (accumulated, the step stays as "
            "large), or compute large blocks twice",
            "batch_size",
            "accumulate",
            "gradient_checkpointing",
        ) from error


def largest_batch(fits: Callable[[int], bool], most: int) -> int:
    """The largest power of two from 2 on that fits and is not above `most` or `LARGEST`.

    Args:
        fits: asked for 2, 4, 8, … until it says no. Batch normalisation cannot train on 1.

    Raises:
        ValueError: not even 2 fit.
    """
    if not fits(2):
        raise OptionError(
            "out of memory with two clips: take batches of 1 and accumulate them, compute large "
            "blocks twice, take fewer frames, or a smaller model",
            "batch_size",
            "accumulate",
            "gradient_checkpointing",
            "sample_duration",
        )
    size = 2
    while 2 * size <= min(most, LARGEST) and fits(2 * size):
        size *= 2
    return size


def runs_on_device(step: Callable[[int], None], device: torch.device) -> Callable[[int], bool]:
    """Whether a real step of a batch runs on an accelerator without an end of its memory.

    Args:
        step: trains once on a batch of that size.
    """

    def fits(size: int) -> bool:
        try:
            step(size)
            torch.cuda.synchronize(device)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            torch.cuda.empty_cache()
        return True

    return fits


def fits_in_memory(
    model: nn.Module, forward: Callable[[int], None], free: int | None = None
) -> Callable[[int], bool]:
    """Whether a batch is estimated to take no more than half of the memory that is free.

    On the processor an end of memory kills the run, so nothing is tried: what a forward pass of two
    clips keeps for its gradient is counted, and taken in proportion, half as much again for what it
    needs beside; parameters count four times, for gradients and the optimizer.

    Args:
        forward: computes a loss of a batch of that size, with gradients.
        free: bytes; None to ask the system.
    """
    kept = kept_bytes(lambda: forward(2), model) / 2
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    budget = _SHARE * (free_memory() if free is None else free)
    return lambda size: _COPIES * parameters + size * kept * _BESIDE <= budget


def kept_bytes(compute: Callable[[], None], model: nn.Module) -> int:
    """Bytes that a computation keeps for its gradient, a model's own parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        compute()
    return sum(kept.values())


def free_memory() -> int:
    """Bytes of the machine's memory that can be used, or of a container's where that is less."""
    if _MEMINFO.exists():
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    else:
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
        free = min(free, int(text) - int(used.read_text()))
    return max(0, free)
