"""The look of every figure: one colour, hatch, line and marker for each emotion, and paper type.

The colours were searched for the largest smallest CIELAB distance between any two of them, as seen
with normal sight and under the deuteranopia and protanopia of Machado et al. (2009);
tests/reports/test_plots.py computes it again. Hatches, lines and markers carry a figure printed in
grey.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any, cast

import matplotlib as mpl
from matplotlib.colors import to_hex, to_rgb

LineStyle = str | tuple[float, tuple[float, ...]]

EMOTION_COLOURS: dict[str, str] = {
    "neutral": "#bebdb6",
    "calm": "#7fe0ef",
    "happy": "#fdd33b",
    "sad": "#266bbf",
    "angry": "#c80a28",
    "fearful": "#59356a",
    "disgust": "#3d9159",
    "surprised": "#df7112",
    "contempt": "#bc85b4",
}
EMOTION_HATCHES: dict[str, str] = {
    "neutral": "",
    "calm": "---",
    "happy": "....",
    "sad": "\\\\\\",
    "angry": "///",
    "fearful": "xxx",
    "disgust": "|||",
    "surprised": "ooo",
    "contempt": "+++",
}
EMOTION_LINES: dict[str, LineStyle] = {
    "neutral": "-",
    "calm": (0, (6, 1.5)),
    "happy": "-",
    "sad": (0, (4, 1.5)),
    "angry": "-",
    "fearful": (0, (4, 1, 1, 1)),
    "disgust": (0, (2, 1)),
    "surprised": (0, (6, 1, 1, 1, 1, 1)),
    "contempt": (0, (1, 1)),
}
EMOTION_MARKERS: dict[str, str] = {
    "neutral": "s",
    "calm": "D",
    "happy": "o",
    "sad": "v",
    "angry": "^",
    "fearful": "X",
    "disgust": "P",
    "surprised": "*",
    "contempt": "h",
}
SYNONYMS: dict[str, str] = {
    "anger": "angry",
    "disgusted": "disgust",
    "fear": "fearful",
    "happiness": "happy",
    "sadness": "sad",
    "surprise": "surprised",
}
MM = 1 / 25.4  # inches
MOST_MARKERS = 40  # points on a line beyond which markers would hide it
INK = "#2b2b2b"
FAINT_INK = "#777777"
GAP_COLOUR = "#c9c9c9"  # of the light hatch where nothing was recognised
PRESENT_COLOUR = "#55636e"  # of a modality that is there
ABSENT_COLOUR = "#f0f0ee"
SERIES_COLOURS = {"train": "#8a8f94", "val": "#266bbf", "uar": "#df7112"}
# Okabe and Ito (2008): for speakers and other groups that are not emotions.
GROUP_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#5c5c5c")
GROUP_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
DARK_LUMINANCE = 0.3  # relative luminance under which text on a colour is white

PAPER: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Helvetica", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 7.0,
    "axes.titlesize": 8.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 7.0,
    "axes.linewidth": 0.5,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "text.color": INK,
    "text.parse_math": False,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.2,
    "legend.handletextpad": 0.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.0,
    "hatch.linewidth": 0.35,
    "grid.linewidth": 0.4,
    "grid.color": "#e4e4e4",
    "figure.facecolor": "white",
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "svg.hashsalt": "emofuse",
}


@dataclass(frozen=True)
class EmotionStyle:
    """How one emotion is drawn."""

    colour: str
    hatch: str
    line: LineStyle
    marker: str


# For labels outside the nine. A figure of more unknown labels than these repeats them.
UNKNOWN_STYLES = (
    EmotionStyle("#8c6d46", "//", "-", "<"),
    EmotionStyle("#1d3b3a", "\\\\", (0, (5, 2)), ">"),
    EmotionStyle("#a3b18a", "..", (0, (3, 1)), "d"),
    EmotionStyle("#e5989b", "++", (0, (1, 1.5)), "p"),
)


def emotion_styles(class_names: Sequence[str]) -> dict[str, EmotionStyle]:
    """A style for each label, the same in every figure of the same labels."""
    unknown = cycle(UNKNOWN_STYLES)
    return {name: _known_style(name) or next(unknown) for name in class_names}


def group_styles(names: Sequence[str]) -> dict[str, EmotionStyle]:
    """A colour and a marker for each group; 56 groups before a pair is repeated."""
    colours, markers = len(GROUP_COLOURS), len(GROUP_MARKERS)
    return {
        name: EmotionStyle(
            GROUP_COLOURS[place % colours], "", "-", GROUP_MARKERS[place // colours % markers]
        )
        for place, name in enumerate(names)
    }


def short_names(names: Sequence[str]) -> list[str]:
    """Speakers without `corpus/` in front, where all are of one corpus."""
    corpora = {name.rpartition("/")[0] for name in names}
    return [name.rpartition("/")[2] if len(corpora) == 1 else name for name in names]


def text_colour(background: str) -> str:
    """White on dark colours and ink on light ones."""
    red, green, blue = (channel**2.2 for channel in to_rgb(background))
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "white" if luminance < DARK_LUMINANCE else INK


def hatch_colour(background: str) -> str:
    """A quiet hatch on a colour: a third of the way from it to the colour of text on it."""
    pairs = zip(to_rgb(background), to_rgb(text_colour(background)), strict=True)
    red, green, blue = (0.67 * low + 0.33 * high for low, high in pairs)
    return to_hex((red, green, blue))


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw what is made inside as for a paper, and leave the caller's settings as they were."""
    with mpl.rc_context(cast(Any, PAPER)):
        yield


def _known_style(label: str) -> EmotionStyle | None:
    name = SYNONYMS.get(label.lower(), label.lower())
    if name not in EMOTION_COLOURS:
        return None
    return EmotionStyle(
        colour=EMOTION_COLOURS[name],
        hatch=EMOTION_HATCHES[name],
        line=EMOTION_LINES[name],
        marker=EMOTION_MARKERS[name],
    )
