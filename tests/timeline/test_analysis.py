"""The timelines of an analysis cover its recording, each by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from timeline.analysis import FOLLOWED, Analysis
from timeline.row import TimelineRow
from timeline.table import Timeline


def _timeline(seconds: int) -> Timeline:
    rows = tuple(
        TimelineRow(float(i), i + 1.0, False, 0, 1.0, "video", np.array([0.25, 0.75]))
        for i in range(seconds)
    )
    return Timeline(rows, ("sad", "happy"), "talk.mp4", float(seconds), 1.0, 1.0)


def test_each_identity_has_a_timeline_of_the_whole_recording() -> None:
    whole = _timeline(3)
    analysis = Analysis(Path("talk.mp4"), 3.0, {}, (), {FOLLOWED: whole, 1: _timeline(3)})
    analysis.check()
    assert analysis.timeline is whole


def test_a_timeline_that_does_not_cover_the_recording_is_refused_by_name() -> None:
    analysis = Analysis(Path("talk.mp4"), 3.0, {}, (), {FOLLOWED: _timeline(3), 1: _timeline(2)})
    with pytest.raises(ValueError, match=r"timeline of face 1 lasts 2\.000 s, the recording 3\.0"):
        analysis.check()
    broken = replace(_timeline(3), rows=_timeline(3).rows[1:])
    with pytest.raises(ValueError, match="timeline of followed face: no row covers"):
        replace(analysis, timelines={FOLLOWED: broken}).check()
    with pytest.raises(ValueError, match="there is no timeline"):
        replace(analysis, timelines={}).check()
