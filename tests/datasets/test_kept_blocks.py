"""Encoded blocks of sound that are kept on disk for later runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from datasets.kept_blocks import KeptBlocks
from media.clip import tile_windows
from media.preprocess import preprocess
from models.whisper_speech import CLIPS
from tests.builders import SMALL, make_recording
from tests.builders import whisper_logits as _logits
from tests.builders import whisper_model as _model

CONFIG = replace(SMALL, **CLIPS, speech_context_seconds=1.0)
pytestmark = pytest.mark.usefixtures("small_whisper")


def test_kept_blocks_are_encoded_once_and_read_by_later_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model(frames_joined=4)
    recording = replace(make_recording(0, seconds=7.0), duration=7.0)
    clips = [recording.cut(w, CONFIG) for w in tile_windows(7.0, 1.0, 0.5)]
    kept = KeptBlocks(model, CONFIG, torch.device("cpu"), tmp_path)
    first = [kept.inputs("a", clip, CONFIG) for clip in clips]
    for clip, inputs in zip(clips, first, strict=True):
        plain = preprocess(clip, CONFIG, ("speech",))
        assert torch.equal(inputs["speech_mask"], plain["speech_mask"])
        batch, other = ({n: v[None] for n, v in x.items()} for x in (inputs, plain))
        torch.testing.assert_close(
            _logits(model, batch), _logits(model, other), atol=5e-3, rtol=0.0
        )
    monkeypatch.setattr(model, "encode_blocks", None)  # is not called again
    later = KeptBlocks(model, CONFIG, torch.device("cpu"), tmp_path)
    for clip, inputs in zip(clips, first, strict=True):
        assert torch.equal(later.inputs("a", clip, CONFIG)["speech"], inputs["speech"])


def test_kept_blocks_of_another_encoder_are_not_read(tmp_path: Path) -> None:
    model, clip = _model(), make_recording(0).cut(tile_windows(1.0, 1.0, 1.0)[0], CONFIG)
    KeptBlocks(model, CONFIG, torch.device("cpu"), tmp_path).inputs("a", clip, CONFIG)
    with torch.no_grad():
        model.encoder.conv1.bias += 1.0
    KeptBlocks(model, CONFIG, torch.device("cpu"), tmp_path).inputs("a", clip, CONFIG)
    assert len({path.name.split("-")[0] for path in tmp_path.glob("*.f16")}) == 2


def test_a_block_half_written_by_a_killed_run_is_not_read(tmp_path: Path) -> None:
    model = _model()
    clips = [
        make_recording(0, seconds=7.0).cut(w, CONFIG) for w in tile_windows(7.0, 1.0, 1.0)[::5]
    ]
    kept = KeptBlocks(model, CONFIG, torch.device("cpu"), tmp_path)
    whole = [kept.inputs("a", clip, CONFIG)["speech"] for clip in clips]
    (index,) = tmp_path.glob("*.jsonl")
    index.write_bytes(index.read_bytes()[:-3])
    again = KeptBlocks(model, CONFIG, torch.device("cpu"), tmp_path)
    for clip, speech in zip(clips, whole, strict=True):
        assert torch.equal(again.inputs("a", clip, CONFIG)["speech"], speech)
