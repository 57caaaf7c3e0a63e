"""Records without the silence at their ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from datasets.annotations import Record
from datasets.store import ClipStore


def trim_silence(record: Record, store: ClipStore, below_peak_db: float) -> Record:
    """The record without the leading and trailing sound that lies far below its loudest part."""
    waveform = store.recording(record.key).waveform
    frame = store.config.sample_rate // 100
    frames = waveform[: len(waveform) // frame * frame].reshape(-1, frame).astype(np.float64)
    if not frames.size or not frames.any():
        return record
    level = 10 * np.log10((frames**2).mean(axis=1) + 1e-3)
    loud = np.flatnonzero(level > level.max() - below_peak_db)
    start, end = loud[0] / 100.0, (loud[-1] + 1) / 100.0
    return replace(record, start=round(float(start), 3), end=round(float(end), 3))
