"""The store of prepared clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from datasets.store import ClipStore, StoreWriter
from media.configuration import ClipConfig
from tests.builders import (
    SMALL,
    make_recording,
    without_sound,
)


def test_a_store_gives_back_what_was_put_in(tmp_path: Path) -> None:
    recordings = {"a": make_recording(1), "b": without_sound(make_recording(2, "sad"))}
    with StoreWriter(tmp_path, SMALL) as writer:
        for key, recording in recordings.items():
            writer.add(key, recording)
    store = ClipStore(tmp_path)
    for key, recording in recordings.items():
        stored = store.recording(key)
        for name in ("faces", "waveform", "face_times", "face_ids", "picture_times"):
            assert np.array_equal(getattr(stored, name), getattr(recording, name)), name
        assert stored.duration == recording.duration


def test_a_half_written_record_is_cut_off(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, SMALL) as writer:
        writer.add("a", make_recording(1))
    for name in ("faces", "waveform", "index.jsonl"):
        with (tmp_path / name).open("ab") as file:
            file.write(b"\x07{" * 11)  # what a writer leaves that is killed before its index line
    assert set(ClipStore(tmp_path)._entries) == {"a"}
    with StoreWriter(tmp_path, SMALL) as writer:
        assert writer.keys == {"a"}
        writer.add("b", make_recording(2, "sad"))
    assert np.array_equal(ClipStore(tmp_path).recording("b").faces, make_recording(2, "sad").faces)


def test_a_store_refuses_other_constants_and_names_both(tmp_path: Path) -> None:
    StoreWriter(tmp_path, SMALL).close()
    with pytest.raises(ValueError, match="face_size is 32 here and 48 there"):
        StoreWriter(tmp_path, ClipConfig(face_size=48, pictures=3))
