"""Class names: one spelling each, and one order."""

from __future__ import annotations

import pytest

from labels.emotions import RAVDESS, SEVEN, canonical, class_index, resolve_classes


def test_classes_keep_one_order_and_merge_calm() -> None:
    assert resolve_classes("auto", ["sad", "happy", "zeal", "neutral"]) == (
        "neutral",
        "happy",
        "sad",
        "zeal",
    )
    assert class_index("calm", SEVEN) == SEVEN.index("neutral")
    assert class_index("calm", RAVDESS) == 1
    assert class_index("contempt", SEVEN) is None
    assert canonical("Fear") == "fearful"
    with pytest.raises(ValueError, match="unknown classes 'nine'"):
        resolve_classes("nine", ["sad"])
