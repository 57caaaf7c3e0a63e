"""The default checkpoint says of the demo clip what it said when `tests/stored` was written.

After a change that is meant to change results, write it again:
python -m tests.test_stored_timeline
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from datasets.demo_clip import make_demo_clip
from inference import TrainingAlignedInference
from timeline.csv_format import write_csv
from timeline.formats import read_timeline
from timeline.table import Timeline

STORED = Path(__file__).parent / "stored" / "demo_timeline.csv"
SECONDS = 6.0
TOLERANCE = 0.02  # of probabilities: processors and builds of FFmpeg round differently


def _analyse(folder: Path) -> Timeline:
    clip = make_demo_clip(folder / "demo.mp4", seconds=SECONDS)
    return TrainingAlignedInference(device="cpu").run(clip)


def test_the_default_checkpoint_gives_the_stored_timeline(tmp_path: Path) -> None:
    timeline, stored = _analyse(tmp_path), read_timeline(STORED)
    assert timeline.class_names == stored.class_names
    assert timeline.measures == stored.measures
    for row, known in zip(timeline.rows, stored.rows, strict=True):
        assert (row.start, row.end, row.partial) == (known.start, known.end, known.partial)
        assert (row.face_id, row.modalities) == (known.face_id, known.modalities)
        assert abs(row.face_share - known.face_share) <= 0.05
    np.testing.assert_allclose(timeline.probabilities(), stored.probabilities(), atol=TOLERANCE)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_csv(_analyse(Path(folder)), STORED)
