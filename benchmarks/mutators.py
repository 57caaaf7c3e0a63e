"""Ways to damage a file, each drawn from a random generator: the same seed, the same damage."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Mutator = Callable[[bytearray, np.random.Generator], bytearray]
_SIZES = (0, 1, 7, 8, 2**15 - 1, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_TEXTS = ("nan", "-1", "1e400", "inf", "0x10", "9" * 40, "training", "'''", "\\u", "[" * 2000)
_WORDS = [text.encode("utf-8", "surrogateescape") for text in (*_TEXTS, *'";,\n\0[{=_\u2028\udcff')]


def flip_bits(content: bytearray, random: np.random.Generator) -> bytearray:
    """Invert 1 to 300 bits anywhere."""
    for place in random.integers(0, 8 * len(content), int(10 ** random.uniform(0, 2.5))):
        content[place // 8] ^= 1 << (place % 8)
    return content


def flip_bits_of_the_head(content: bytearray, random: np.random.Generator) -> bytearray:
    """Invert 1 to 30 bits of the first kilobyte, where headers are."""
    head = bytearray(content[:1024])
    for place in random.integers(0, 8 * len(head), int(10 ** random.uniform(0, 1.5))):
        head[place // 8] ^= 1 << (place % 8)
    return head + content[1024:]


def truncate(content: bytearray, random: np.random.Generator) -> bytearray:
    return content[: random.integers(0, len(content))]


def fill(content: bytearray, random: np.random.Generator) -> bytearray:
    """Zeros, ones or noise in place of a stretch."""
    start, length = _stretch(content, random)
    kinds = (bytes(length), b"\xff" * length, random.bytes(length))
    content[start : start + length] = kinds[random.integers(len(kinds))]
    return content


def drop(content: bytearray, random: np.random.Generator) -> bytearray:
    start, length = _stretch(content, random)
    del content[start : start + length]
    return content


def repeat(content: bytearray, random: np.random.Generator) -> bytearray:
    start, length = _stretch(content, random)
    part = content[start : start + length] * int(random.integers(1, 8))
    content[start:start] = part[:1_000_000]
    return content


def swap_stretches(content: bytearray, random: np.random.Generator) -> bytearray:
    """Exchange two stretches of the same length."""
    _, length = _stretch(content, random)
    one, other = random.integers(0, max(1, len(content) - length), 2)
    first, second = content[one : one + length], content[other : other + length]
    content[one : one + length], content[other : other + length] = second, first
    return content


def swap_atoms(content: bytearray, random: np.random.Generator) -> bytearray:
    """Exchange two boxes of an MP4 or MOV file (of any depth 1 or 2); else two stretches."""
    boxes = find_boxes(bytes(content))
    if len(boxes) < 2:
        return swap_stretches(content, random)
    (a, b), (c, d) = sorted(boxes[i] for i in random.choice(len(boxes), 2, replace=False))
    if b > c:  # one within the other
        return swap_stretches(content, random)
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def find_boxes(content: bytes, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """Begin and end of the boxes of an ISO base media file, with those in `moov` and `trak`."""
    end = len(content) if end is None else end
    boxes = []
    while start + 8 <= end:
        size, kind = (
            int.from_bytes(content[start : start + 4], "big"),
            content[start + 4 : start + 8],
        )
        if size < 8 or start + size > end or not kind.isalnum():
            break
        boxes.append((start, start + size))
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            boxes += find_boxes(content, start + 8, start + size)
        start += size
    return boxes


def set_sizes(content: bytearray, random: np.random.Generator) -> bytearray:
    """Extreme numbers in place of 1 to 4 words of four bytes, mostly where headers are."""
    for _ in range(random.integers(1, 5)):
        within = len(content) if random.random() < 0.3 else min(len(content), 2048)
        place = int(random.integers(0, max(1, within - 4)))
        value = _SIZES[random.integers(len(_SIZES))]
        big = value.to_bytes(4, "big")
        content[place : place + 4] = big if random.random() < 0.5 else big[::-1]
    return content


def insert_words(content: bytearray, random: np.random.Generator) -> bytearray:
    """What text files trip over, at 1 to 5 places."""
    for _ in range(random.integers(1, 6)):
        place = int(random.integers(0, len(content) + 1))
        content[place:place] = _WORDS[random.integers(len(_WORDS))]
    return content


def _stretch(content: bytearray, random: np.random.Generator) -> tuple[int, int]:
    """Where a stretch begins and how long it is: up to a quarter of the file, mostly short."""
    length = max(1, int(len(content) / 4 * random.random() ** 3))
    return int(random.integers(0, max(1, len(content) - length))), length


BINARY: tuple[Mutator, ...] = (
    flip_bits,
    flip_bits_of_the_head,
    truncate,
    fill,
    drop,
    repeat,
    swap_stretches,
    swap_atoms,
    set_sizes,
)
TEXT: tuple[Mutator, ...] = (*BINARY, insert_words, insert_words, insert_words, insert_words)


def mutate(content: bytes, kind: str, seed: tuple[int, ...]) -> tuple[bytes, str]:
    """The damaged content, and the name of what was done to it."""
    random = np.random.default_rng(seed)
    choices = TEXT if kind in ("annotations", "recipes") else BINARY
    mutator = choices[random.integers(len(choices))]
    changed = bytes(mutator(bytearray(content), random)) if content else content
    return changed, mutator.__name__
