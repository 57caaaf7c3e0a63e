"""Small recordings, stores and checkpoints that tests are made of."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from checkpoints.checkpoint import Checkpoint
from datasets.annotations import Record, write_annotations
from datasets.samples import StoreSet
from datasets.store import StoreWriter
from media.blendshapes import BLENDSHAPES, MeshTrack
from media.configuration import ClipConfig
from media.landmarks import POINTS, LandmarkTrack, build_track
from media.recording import Recording
from models import EmotionModel, WhisperSpeech, build_model

SMALL = ClipConfig(face_size=32, pictures=3)
LABELS = ("happy", "sad")


def make_recording(
    seed: int, label: str = "happy", seconds: float = 1.5, config: ClipConfig = SMALL
) -> Recording:
    """A recording whose label shows: happy is bright and high, sad is dark and low."""
    rng = np.random.default_rng(seed)
    happy = label == "happy"
    times = np.arange(round(seconds * 10)) / 10.0
    side = config.face_size
    faces = rng.integers(0, 60, (len(times), side, side, 3)) + (180 if happy else 10)
    t = np.arange(round(seconds * config.sample_rate)) / config.sample_rate
    tone = np.sin(2 * np.pi * (2000 if happy else 300) * t) + 0.05 * rng.standard_normal(len(t))
    return Recording(
        path=Path(f"{label}-{seed}.mp4"),
        duration=seconds,
        waveform=(8000 * tone).astype(np.int16),
        faces=faces.astype(np.uint8),
        face_times=times,
        face_ids=np.zeros(len(times), dtype=np.int32),
        picture_times=times,
        landmarks=_make_landmarks(rng, happy, seconds),
        meshes=make_meshes(seed, happy, np.arange(round(seconds * 10)) / 10),
    )


def _make_landmarks(rng: np.random.Generator, happy: bool, seconds: float) -> LandmarkTrack:
    """One face for all, whose mouth is wide where it is happy."""
    times = np.arange(round(seconds * 25)) / 25
    face = np.random.default_rng(7).normal(size=(POINTS, 2)) * 30 + 300
    face[48:, 0] = 300 + (face[48:, 0] - 300) * (2.0 if happy else 0.5)
    return build_track(face + rng.normal(size=(len(times), POINTS, 2)), times)


def make_meshes(seed: int, happy: bool, times: np.ndarray, gap: float = 0.15) -> MeshTrack:
    """Faces that smile where they are happy."""
    rng = np.random.default_rng(seed)
    blendshapes = rng.uniform(0.0, 0.1, (len(times), len(BLENDSHAPES)))
    smiles = [BLENDSHAPES.index(name) for name in ("mouthSmileLeft", "mouthSmileRight")]
    blendshapes[:, smiles] += 0.7 * happy
    return MeshTrack(
        blendshapes=blendshapes.astype(np.float32),
        head_poses=rng.normal(0.0, 0.1, (len(times), 3)).astype(np.float32),
        presence=np.ones(len(times), np.float32),
        times=times.astype(np.float64),
        ids=np.zeros(len(times), np.int32),
        max_gap=gap,
    )


def without_sound(recording: Recording) -> Recording:
    return replace(recording, waveform=np.zeros(0, dtype=np.int16))


def without_face(recording: Recording) -> Recording:
    return replace(
        recording,
        faces=recording.faces[:0],
        face_times=recording.face_times[:0],
        face_ids=recording.face_ids[:0],
    )


def make_corpus(folder: Path, per_subset: int = 4, config: ClipConfig = SMALL) -> Path:
    """A manifest and its store: `per_subset` clips of either label in turn. Returns the manifest.

    Each subset has speakers of its own.
    """
    records = []
    with StoreWriter(folder / "clips", config) as writer:
        for s, subset in enumerate(("training", "validation", "testing")):
            for i in range(per_subset):
                label = LABELS[i % 2]
                record = Record(
                    video=str(folder / f"{subset}-{i}.mp4"),
                    audio="",
                    label=label,
                    speaker=f"speaker-{s}{i}",
                    dataset="made",
                    subset=subset,
                )
                writer.add(record.key, make_recording(10 * s + i, label, config=config))
                records.append(record)
    write_annotations(records, folder / "manifest.csv")
    return folder / "manifest.csv"


def open_stores(manifest: Path) -> StoreSet:
    return StoreSet([manifest.parent / "clips"])


def make_checkpoint(name: str = "multimodalcnn", config: ClipConfig = SMALL) -> Checkpoint:
    return Checkpoint(build_model(name, num_classes=2).eval(), LABELS, config)


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def table_row(clip: str, true: str, happy: float, **more: str) -> dict[str, Any]:
    return {
        "clip": clip,
        "speaker": "s1",
        "target": true,
        **more,
        "p_happy": happy,
        "p_sad": 1 - happy,
    }


def whisper_model(**arguments: Any) -> WhisperSpeech:
    torch.manual_seed(0)
    model = build_model("whisper_speech", **{"num_classes": 2, **arguments}).eval()
    assert isinstance(model, WhisperSpeech)
    return model


def speech_blocks(batch: int = 2, blocks: int = 2, length: int = 60) -> dict[str, Tensor]:
    torch.manual_seed(1)
    speech = torch.rand(batch, blocks, 80, length) * 2 - 0.75
    return {"speech": speech, "speech_mask": torch.ones(batch, blocks * length // 2) > 0}


@torch.no_grad()
def whisper_logits(model: EmotionModel, inputs: dict[str, Tensor]) -> Tensor:
    return model.eval()(**inputs)["logits"]


def make_fer(root: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = {
        "train/happy/Training_1.jpg": 1,
        "train/fear/Training_2.jpg": 2,
        "train/happy/Training_3.jpg": 9,  # the same picture as PrivateTest_9
        "test/happy/PublicTest_5.jpg": 5,
        "test/sad/PrivateTest_9.jpg": 9,
    }
    images = {seed: rng.integers(0, 255, (48, 48), dtype=np.uint8) for seed in (1, 2, 5, 9)}
    for name, seed in pictures.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), images[seed])
    header = (
        "path,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,not_a_face"
    )
    rows = [
        "train/happy/Training_1.jpg,1,7,2,0,0,0,0,0,0,0",
        "train/fear/Training_2.jpg,0,0,0,0,0,0,0,0,9,1",
    ]
    (root / "ferplus_votes.csv").write_text("\n".join([header, *rows]) + "\n")
