"""The largest batch that fits, and what is said where none does."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from system.memory import (
    LARGEST,
    explain_out_of_memory,
    fits_in_memory,
    free_memory,
    is_out_of_memory,
    kept_bytes,
    largest_batch,
    runs_on_device,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("limit", "most", "size"),
    [(100, 1000, 64), (10_000, 50, 32), (10**9, 10**9, LARGEST), (3, 9, 2)],
)
def test_the_largest_power_of_two_that_fits_is_found(limit: int, most: int, size: int) -> None:
    assert largest_batch(lambda wanted: wanted <= limit, most) == size


# What glibc's malloc tells: blocks that it had from the system one by one, and bytes kept free.
MAPPED = """
import ctypes, torch
from system.memory import keep_freed_memory
class Told(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
        "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]
mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Told
assert not {keep} or keep_freed_memory()
before = mallinfo2().hblks
block = torch.zeros(1 << 24)
mapped = mallinfo2().hblks - before
del block
print(mapped, mallinfo2().fordblks)
"""


def _has_mallinfo2() -> bool:
    return hasattr(ctypes.CDLL(None), "mallinfo2") if platform.system() == "Linux" else False


@pytest.mark.skipif(not _has_mallinfo2(), reason="another allocator")
def test_the_allocator_uses_freed_memory_again() -> None:
    kept, given_back = (
        subprocess.check_output([sys.executable, "-c", MAPPED.format(keep=keep)], cwd=ROOT).split()
        for keep in (True, False)
    )
    size = 1 << 26  # bytes of the block
    assert (int(kept[0]), int(given_back[0])) == (0, 1), "blocks from the system one by one"
    assert int(kept[1]) >= size > int(given_back[1]), "bytes that are free for the next step"


def test_where_not_even_two_clips_fit_the_remedy_is_told() -> None:
    with pytest.raises(ValueError, match="with two clips: take batches of 1 and accumulate them"):
        largest_batch(lambda _: False, 100)


def test_an_end_of_memory_is_one_line_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="take smaller batches"), explain_out_of_memory():
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory():
        raise RuntimeError("shapes do not match")
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 TB"))


def test_what_is_kept_for_the_gradient_grows_with_the_batch() -> None:
    model = nn.Sequential(nn.Linear(10, 100), nn.Tanh(), nn.Linear(100, 1))

    def keep(size: int) -> int:
        x = torch.zeros(size, 10)
        return kept_bytes(lambda: model(x).sum().backward(), model)

    # The input and what tanh gives, four bytes each; the weights are not counted.
    assert keep(4) == 4 * (10 + 100) * 4
    assert keep(8) == 2 * keep(4)


def test_on_the_processor_half_of_free_memory_is_the_limit() -> None:
    model = nn.Sequential(nn.Linear(10, 100), nn.Tanh(), nn.Linear(100, 1))
    parameters = sum(p.numel() for p in model.parameters()) * 4
    each = (10 + 100) * 4
    free = 2 * (4 * parameters + round(1.5 * each * 20))
    fits = fits_in_memory(model, lambda size: model(torch.zeros(size, 10)).sum().backward(), free)
    assert largest_batch(fits, 1000) == 16
    assert fits(20)
    assert not fits(21)
    assert 0 < free_memory() < 2**60


@pytest.mark.cuda
def test_on_an_accelerator_a_real_step_decides() -> None:
    device = torch.device("cuda")
    total = torch.cuda.get_device_properties(device).total_memory

    def step(size: int) -> None:
        torch.zeros(size * (total // 10), dtype=torch.uint8, device=device)

    assert largest_batch(runs_on_device(step, device), 1000) == 8
