"""How wide text is on paper, and text that fits. Lengths are inches."""

from __future__ import annotations

from functools import lru_cache

from matplotlib.textpath import TextPath

BOLD = 1.12  # bold letters are wider by about as much


@lru_cache(maxsize=256)
def text_width(text: str, points: float) -> float:
    """Width of a text on paper."""
    return float(TextPath((0, 0), text, size=points, usetex=False).get_extents().width) / 72


def shorten(text: str, points: float, room: float) -> str:
    """The bold text, its middle replaced by an ellipsis as far as the room on paper asks."""
    width = text_width(text, points)
    kept, shown = min(len(text), int(len(text) * room / width) + 1), text
    while kept > 8 and text_width(shown, points) * BOLD > room:
        kept -= 1
        shown = f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"
    return shown
