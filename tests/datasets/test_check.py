"""The leak guard: each planted fault is named, a clean corpus passes, and it scales."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from checkpoints.checkpoint import save_checkpoint
from datasets.annotations import SUBSETS, Record, write_annotations
from datasets.check import main
from datasets.fingerprints import (
    SoundPrint,
    find_face_matches,
    find_sound_matches,
    read_face_prints,
    read_sound_print,
)
from datasets.store import StoreWriter
from media.reading import read_recording
from media.recording import Recording
from tests.builders import SMALL, make_checkpoint, without_face, without_sound
from tests.conftest import RATE, WriteMedia

SECONDS = 2.0


def _sound(seed: int, seconds: float = SECONDS) -> np.ndarray:
    """(N,) float32 that rises and falls as speech does, another one for each seed."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    loudness = 0.3 + 0.7 * np.abs(np.sin(2 * np.pi * rng.uniform(1.5, 4) * t + rng.uniform(0, 6)))
    return (0.1 * loudness * rng.standard_normal(len(t))).astype(np.float32)


def _face(seed: int, side: int = SMALL.face_size) -> np.ndarray:
    """(side, side, 3) uint8 of soft blobs, others for each seed."""
    blobs = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(blobs, (side, side), interpolation=cv2.INTER_CUBIC)


def _recording(seed: int) -> Recording:
    times = np.arange(round(SECONDS * 10)) / 10
    noise = np.random.default_rng(seed).integers(0, 8, (len(times), 1, 1, 1), dtype=np.uint8)
    return Recording(
        path=Path(f"{seed}.mp4"),
        duration=SECONDS,
        waveform=(32767 * _sound(seed)).astype(np.int16),
        faces=np.clip(_face(seed)[None].astype(int) + noise, 0, 255).astype(np.uint8),
        face_times=times,
        face_ids=np.zeros(len(times), dtype=np.int32),
        picture_times=times,
    )


@dataclass
class Corpus:
    """Twelve clean recordings, two of either label in each subset, before a fault is planted."""

    folder: Path
    records: list[Record]
    recordings: list[Recording]

    def write(self) -> str:
        """Store and manifest; returns the manifest's path."""
        with StoreWriter(self.folder / "clips", SMALL) as writer:
            for record, recording in zip(self.records, self.recordings, strict=True):
                if record.key not in writer.keys:
                    writer.add(record.key, recording)
        write_annotations(self.records, self.folder / "manifest.csv")
        return str(self.folder / "manifest.csv")

    def change(self, index: int, **values: Any) -> None:
        self.records[index] = replace(self.records[index], **values)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    records = [
        Record(
            video=str(tmp_path / f"{i}.mp4"),
            audio="",
            label=("happy", "sad")[i % 2],
            speaker=f"s{i // 2}",
            dataset="made",
            subset=SUBSETS[i // 4],
        )
        for i in range(12)
    ]
    return Corpus(tmp_path, records, [_recording(i) for i in range(12)])


def test_a_clean_corpus_passes(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([corpus.write()]) == 0
    table = {
        line.rsplit(maxsplit=3)[0]: line.split()[-3:]
        for line in capsys.readouterr().out.splitlines()
        if len(line.split()) > 3
    }
    assert table["class happy"] == ["2", "2", "2"]
    assert table["speakers"] == ["2", "2", "2"]
    assert table["records a speaker"] == ["2/2/2"] * 3


def _share_speaker(corpus: Corpus) -> None:
    corpus.change(11, speaker="s0")


def _name_twins(corpus: Corpus) -> None:
    for index, name in ((0, "01-01-03-01-01-01-07.mp4"), (11, "02-01-03-01-01-01-07.mp4")):
        corpus.change(index, video=str(corpus.folder / name), speaker="")


def _copy_sound(corpus: Corpus) -> None:
    shifted = np.roll(corpus.recordings[1].waveform, 333) // 2
    corpus.recordings[9] = replace(corpus.recordings[9], waveform=shifted)


def _copy_face(corpus: Corpus) -> None:
    small = cv2.resize(_face(2), (24, 24), interpolation=cv2.INTER_AREA)
    dim = (cv2.resize(small, (32, 32)) * 0.7).astype(np.uint8)
    still = replace(without_sound(corpus.recordings[6]), faces=dim[None], face_times=np.zeros(1))
    corpus.recordings[6] = replace(still, face_ids=np.zeros(1), picture_times=np.zeros(1))


def _share_file(corpus: Corpus) -> None:
    corpus.change(4, video=corpus.records[0].video, start=1.0, end=1.2)


def _drop_class(corpus: Corpus) -> None:
    for index in (5, 7):
        corpus.change(index, label="happy")


def _cut_sound(corpus: Corpus) -> None:
    short = corpus.recordings[3].waveform[: round(1.7 * RATE)]
    corpus.recordings[3] = replace(corpus.recordings[3], waveform=short)


@pytest.mark.parametrize(
    ("plant", "line"),
    [
        (_share_speaker, "speaker: s0 stands in training (0.mp4) and testing (11.mp4)"),
        (_name_twins, "performance: 01-03-01-01-01-07 stands in training (01-01-03-"),
        (_copy_sound, "sound: 1.mp4 (training) and 9.mp4 (testing) have the same sound"),
        (_copy_face, "faces: 2.mp4 (training) and 6.mp4 (validation) have the same faces"),
        (_share_file, "0.mp4 stands in training (0.mp4) and validation (0.mp4)"),
        (_drop_class, "class: validation has no sad"),
        (_cut_sound, "length: 3.mp4: sound lasts 1.70 s and pictures 2.00 s"),
    ],
)
def test_a_planted_fault_is_named_and_alone(
    corpus: Corpus, capsys: pytest.CaptureFixture[str], plant: Callable[[Corpus], None], line: str
) -> None:
    plant(corpus)
    assert main([corpus.write()]) == 1
    faults = capsys.readouterr().out.splitlines()
    assert any(line in fault for fault in faults)
    assert faults[-1].startswith("faults: 1 ")
    assert not any(fault.startswith("note: ") for fault in faults), "notes are on one subset"


def test_performances_are_known_by_their_column_too(
    corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in (0, 11):
        corpus.change(index, extra={"performance": "take-9"}, speaker="")
    assert main([corpus.write()]) == 1
    out = capsys.readouterr().out
    assert "performance: take-9 stands in training (0.mp4) and testing (11.mp4)" in out


def test_copies_within_a_subset_are_noted_and_no_fault(
    corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in (1, 3):  # of s0 and s1, both in training
        sound = np.roll(corpus.recordings[0].waveform, 160 * index)
        corpus.recordings[index] = replace(corpus.recordings[index], waveform=sound)
    for index in (9, 11):  # of s4 and s5, both in testing
        faces = corpus.recordings[8].faces
        corpus.recordings[index] = replace(corpus.recordings[index], faces=faces)
    assert main([corpus.write()]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: sound: 3 pairs agree within training, as 0.mp4 and 1.mp4",
        "note: faces: 2 pairs agree within testing, as 8.mp4 and 11.mp4",
    ], "faces of one speaker, 8 and 9, are not compared"


def test_a_foreign_checkpoint_is_told_as_such(
    corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    path = corpus.folder / "lt_1head_moddrop_2.pth"
    torch.save({"state_dict": {"weight": torch.zeros(2)}}, path)
    assert main([corpus.write(), "--model_path", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "is a foreign checkpoint and names no classes" in line


def test_what_no_store_holds_is_named(corpus: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = corpus.write()
    absent = replace(corpus.records[0], video=str(corpus.folder / "broken.mp4"))
    write_annotations([*corpus.records, absent], Path(manifest))
    assert main([manifest]) == 1
    assert "decode: broken.mp4: not in" in capsys.readouterr().out


def test_label_order_is_compared_with_the_checkpoint(
    corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, path = corpus.write(), corpus.folder / "model.safetensors"
    save_checkpoint(make_checkpoint("speech_cnn"), path)
    assert main([manifest, "--model_path", str(path)]) == 0
    save_checkpoint(replace(make_checkpoint("speech_cnn"), class_names=("sad", "happy")), path)
    assert main([manifest, "--model_path", str(path)]) == 1
    assert "order is happy, sad here and sad, happy in the checkpoint" in capsys.readouterr().out
    save_checkpoint(replace(make_checkpoint("speech_cnn"), class_names=("happy", "angry")), path)
    assert main([manifest, "--model_path", str(path)]) == 1
    assert "labels: the checkpoint has no place for sad" in capsys.readouterr().out
    assert main([manifest, "--model_path", manifest]) == 2


def test_silent_and_faceless_recordings_match_nothing(
    corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    hush = np.random.default_rng(0).integers(-3, 4, round(SECONDS * RATE)).astype(np.int16)
    for index, recording in enumerate(corpus.recordings):
        silent = replace(recording, waveform=hush * (index % 4 > 0))
        dark = replace(silent, faces=np.zeros_like(recording.faces) + _face(0) // 64)
        corpus.recordings[index] = dark if index % 3 else without_face(silent)
    assert main([corpus.write()]) == 0
    assert "faults: none" in capsys.readouterr().out


def test_files_are_decoded_where_there_is_no_store(
    tmp_path: Path, write_media: WriteMedia, capsys: pytest.CaptureFixture[str]
) -> None:
    write_media(tmp_path / "a.wav", sound=_sound(1), audio_codec="pcm_s16le")
    write_media(tmp_path / "b.m4a", sound=_sound(1), audio_codec="aac")
    (tmp_path / "c.wav").write_bytes(b"no sound")
    records = [
        Record("", str(tmp_path / name), "sad", subset=subset)
        for name, subset in (("a.wav", "training"), ("b.m4a", "testing"), ("c.wav", "testing"))
    ]
    write_annotations(records, tmp_path / "manifest.csv")
    assert main([str(tmp_path / "manifest.csv")]) == 1
    out = capsys.readouterr().out
    assert "sound: a.wav (training) and b.m4a (testing) have the same sound" in out
    assert "decode: " in out
    assert "c.wav" in out


@pytest.mark.parametrize(
    ("suffix", "codec", "rate"), [("m4a", "aac", 16000), ("mp3", "libmp3lame", 22050)]
)
def test_sound_is_known_again_after_codec_resampling_and_shift(
    tmp_path: Path, write_media: WriteMedia, suffix: str, codec: str, rate: int
) -> None:
    sound = _sound(5, 3.0)
    path = write_media(tmp_path / f"a.{suffix}", sound=sound[2000:], audio_codec=codec)
    config = replace(SMALL, sample_rate=rate)
    copy = read_sound_print(read_recording(path, config, None).waveform, rate)
    original = read_sound_print((32767 * sound).astype(np.int16), RATE)
    other = read_sound_print((32767 * _sound(6, 3.0)).astype(np.int16), RATE)
    (match,) = find_sound_matches([original, other, copy], np.array([0, 0, 1]))
    assert (match.first, match.second) == (0, 2)
    assert match.agreement > 0.85


@pytest.mark.data
def test_ravdess_sound_from_video_is_that_of_its_audio_file(real_data: Path) -> None:
    videos = sorted((real_data / "ravdess_av" / "Actor_01").glob("01-*.mp4"))
    sounds = sorted((real_data / "ravdess_speech" / "Actor_01").glob("03-*.flac"))
    paths = [*videos, *sounds]
    prints = [
        read_sound_print(read_recording(path, SMALL, None).waveform, SMALL.sample_rate)
        for path in paths
    ]
    matches = find_sound_matches(prints, np.array([0] * len(videos) + [1] * len(sounds)))
    assert len(matches) == len(videos) == 3
    for match in matches:
        assert paths[match.first].stem[3:] == paths[match.second].stem[3:]


def test_a_compressed_face_is_known_again_and_another_is_not() -> None:
    faces = [_face(seed, 96) for seed in range(40)]
    _, packed = cv2.imencode(".jpg", faces[7], [cv2.IMWRITE_JPEG_QUALITY, 30])
    faces.append(cv2.imdecode(packed, cv2.IMREAD_COLOR))
    prints = [read_face_prints(face[None], np.arange(1)) for face in faces]
    (match,) = find_face_matches(prints, np.arange(41) // 40)
    assert (match.first, match.second) == (7, 40)


def test_twenty_thousand_fingerprints_are_compared_in_seconds() -> None:
    rng = np.random.default_rng(0)
    count, copies = 20_000, 100
    words = rng.integers(0, 2**32, (count, 60), dtype=np.uint32)
    words[-copies:] = words[:copies]
    words[-copies:, ::3] ^= np.uint32(0b1001)
    prints = [SoundPrint(row, np.ones(60, dtype=bool)) for row in words]
    vectors = rng.standard_normal((count, 256)).astype(np.float32)
    vectors[-copies:] = vectors[:copies] + 0.1 * vectors[copies : 2 * copies]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    sides = np.arange(count) % 2
    sides[-copies:] = 1 - sides[:copies]
    planted = {(i, count - copies + i) for i in range(copies)}
    start = time.process_time()  # of this process, whatever else the machine does
    for matches in (
        find_sound_matches(prints, sides),
        find_face_matches([vector[None] for vector in vectors], sides),
    ):
        assert {(match.first, match.second) for match in matches} == planted
    assert time.process_time() - start < 30, "all pairs take minutes"
