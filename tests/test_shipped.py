"""The shipped checkpoints: they load, fit the size, and know their labels by real clips."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from checkpoint import Checkpoint, load_checkpoint
from datasets.labels import SEVEN, canonical
from datasets.ravdess import read_records
from datasets.splits import PROTOCOLS
from inference import TrainingAlignedInference
from media.clip import ClipConfig, tile_windows
from media.preprocess import preprocess
from media.recording import read_recording
from opts import DEFAULT_CHECKPOINT, SHIPPED
from timeline import Timeline

SHARED = Path(__file__).parent.parent.parent / "shared" / "data"
needs_data = pytest.mark.skipif(not SHARED.exists(), reason="the real data are not beside us")
FILES = sorted(SHIPPED.glob("*.safetensors"))
MOST_BYTES = 20_000_000


def test_the_default_is_shipped_and_all_fit_the_size() -> None:
    assert DEFAULT_CHECKPOINT in FILES
    assert sum(path.stat().st_size for path in FILES) < MOST_BYTES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_checkpoint_says_what_it_is(path: Path) -> None:
    checkpoint = load_checkpoint(path)
    assert checkpoint.class_names == SEVEN
    assert "ravdess-01" not in checkpoint.info["training_speakers"]
    assert checkpoint.info["licence"]
    card = (SHIPPED / "README.md").read_text()
    assert hashlib.sha256(path.read_bytes()).hexdigest() in card, "the card names another file"


def test_the_card_names_no_file_that_is_not_there() -> None:
    named = set(re.findall(r"`(\w+\.safetensors)`", (SHIPPED / "README.md").read_text()))
    assert named == {path.name for path in FILES}


@torch.no_grad()
def _log_probabilities(checkpoint: Checkpoint, recording: object, config: ClipConfig) -> np.ndarray:
    """(C,) mean over the windows of a recording in which the model has anything to go by."""
    windows = tile_windows(recording.duration, config.window_seconds, config.window_seconds)  # type: ignore[attr-defined]
    clips = [recording.cut(window, config) for window in windows]  # type: ignore[attr-defined]
    heard = [clip for clip in clips if clip.has_speech or clip.face_mask.any()]
    samples = [preprocess(clip, config, checkpoint.model.inputs) for clip in heard]
    inputs = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    return checkpoint.model(**inputs)["logits"].log_softmax(dim=-1).mean(dim=0).numpy()


def _assert_labels_are_in_order(counts: np.ndarray, least_accuracy: float) -> None:
    accuracy = np.trace(counts) / counts.sum()
    assert accuracy > least_accuracy, f"{accuracy:.3f}"
    _, best = linear_sum_assignment(-counts)
    assert list(best) == list(range(len(SEVEN))), "another order of the labels would fit better"


@needs_data
@pytest.mark.data
def test_speech_labels_are_in_order_by_real_recordings_of_unseen_actors() -> None:
    checkpoint = load_checkpoint(SHIPPED / "speech.safetensors")
    unseen = {f"ravdess-{actor:02d}" for actor in (1, *PROTOCOLS["ravdess_icpr22"].testing)}
    assert not unseen & set(checkpoint.info["training_speakers"])
    counts = np.zeros((7, 7))
    for record in read_records(SHARED / "ravdess_speech"):
        if record.speaker in unseen:
            recording = read_recording(Path(record.audio), checkpoint.clip_config, None)
            said = _log_probabilities(checkpoint, recording, checkpoint.clip_config).argmax()
            label = "neutral" if record.label == "calm" else record.label
            counts[SEVEN.index(label), said] += 1
    _assert_labels_are_in_order(counts, least_accuracy=0.45)


@needs_data
@pytest.mark.data
def test_face_labels_are_in_order_by_real_pictures() -> None:
    checkpoint = load_checkpoint(SHIPPED / "face.safetensors")
    side = checkpoint.clip_config.face_size
    seen: Counter[str] = Counter()
    counts = np.zeros((7, 7))
    with tarfile.open(SHARED / "fer2013.tar.xz") as archive:
        for member in archive:
            label = canonical(Path(member.name).parent.name)
            if "PrivateTest" not in member.name or seen[label] >= 40:
                continue
            seen[label] += 1
            data = np.frombuffer(archive.extractfile(member).read(), np.uint8)  # type: ignore[union-attr]
            picture = cv2.resize(cv2.imdecode(data, cv2.IMREAD_COLOR), (side, side))
            counts[SEVEN.index(label), _see(checkpoint, picture[..., ::-1])] += 1
    assert seen.total() == 7 * 40
    _assert_labels_are_in_order(counts, least_accuracy=0.45)


@torch.no_grad()
def _see(checkpoint: Checkpoint, picture: np.ndarray) -> int:
    from media.preprocess import _normalise_faces

    mask = np.ones(1, dtype=bool)
    face = _normalise_faces(np.ascontiguousarray(picture)[None], mask, checkpoint.clip_config)
    return int(checkpoint.model(face[None])["logits"].argmax())


@pytest.fixture(scope="module")
def engine() -> TrainingAlignedInference:
    return TrainingAlignedInference()


def _real_clips() -> list[Path]:
    return sorted([*SHARED.glob("media/*"), *SHARED.glob("ravdess_av/*/*.mp4")])


@needs_data
@pytest.mark.data
@pytest.mark.parametrize("path", _real_clips(), ids=lambda path: path.name)
def test_every_real_clip_gives_rows_that_tile_it(
    engine: TrainingAlignedInference, path: Path
) -> None:
    timeline: Timeline = engine.run(path)
    timeline.check()
    recording = read_recording(path, engine.config, None)
    assert timeline.duration == pytest.approx(recording.duration, abs=0.05)
