"""Names of emotions and their order. The one place where a label list is written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

RAVDESS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
SIX = ("neutral", "happy", "sad", "angry", "fearful", "disgust")
SEVEN = ("neutral", "happy", "sad", "angry", "fearful", "disgust", "surprised")
AFFECTNET7 = ("neutral", "happy", "sad", "surprised", "fearful", "disgust", "angry")

CLASS_SETS = {"ravdess8": RAVDESS, "seven": SEVEN, "six": SIX}
EMOTIONS = (*RAVDESS, "contempt")  # in the order of `auto`
_MERGED = {
    "calm": "neutral"
}  # where a class set has no place for the first, it reads as the second
_SPELLINGS = {
    "anger": "angry",
    "afraid": "fearful",
    "fear": "fearful",
    "scared": "fearful",
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "surprise": "surprised",
    "disgusted": "disgust",
    "disgusting": "disgust",
    "calmness": "calm",
    "contemptuous": "contempt",
}


def canonical(name: str) -> str:
    """One spelling per emotion: `Anger` -> `angry`. Unknown names pass in lower case."""
    lowered = name.strip().lower()
    return _SPELLINGS.get(lowered, lowered)


def resolve_classes(wanted: str, present: Iterable[str]) -> tuple[str, ...]:
    """The ordered class names of a run.

    Args:
        wanted: `auto` (the labels present, emotions in RAVDESS's order, others by alphabet), the
            name of a class set, or a comma-separated list.
        present: labels of the annotation file.

    Raises:
        ValueError: unknown set, or fewer than two classes.
    """
    if wanted == "auto":
        found = set(present)
        known = tuple(name for name in EMOTIONS if name in found)
        classes = known + tuple(sorted(found - set(known)))
    elif wanted in CLASS_SETS:
        classes = CLASS_SETS[wanted]
    elif "," in wanted:
        classes = tuple(canonical(name) for name in wanted.split(","))
    else:
        sets = ", ".join(CLASS_SETS)
        raise ValueError(
            f"unknown classes {wanted!r}; give auto, {sets}, or a comma-separated list"
        )
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise ValueError(f"classes must be two or more different names, not {', '.join(classes)}")
    return classes


def class_index(label: str, classes: tuple[str, ...]) -> int | None:
    """Index of a label among the classes, merged where the set has no place for it, or None."""
    for name in (label, _MERGED.get(label)):
        if name in classes:
            return classes.index(name)
    return None


def describe_unplaced(labels: Iterable[str], classes: tuple[str, ...]) -> str:
    """How many labels have no place among the classes, by name: `81 boredom, 3 contempt`."""
    counts = Counter(label for label in labels if class_index(label, classes) is None)
    return ", ".join(f"{count} {label}" for label, count in sorted(counts.items()))
