"""Landmarks from a corpus to a model's inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.annotations import Record, read_annotations, write_annotations
from datasets.augment import AugmentOptions, swap_identity
from datasets.landmarks import find_tracks
from datasets.mean_faces import MeanFaces
from datasets.preparation import DetectionOptions, prepare_records
from datasets.samples import ClipDataset, SampleOptions, StoreSet
from datasets.store import ClipStore, StoreWriter, lacks
from media.configuration import ClipConfig
from media.landmarks import POINTS, build_track, empty_track
from tests.builders import LABELS, SMALL, make_recording

RNG = np.random.default_rng(0)
FACE = RNG.normal(size=(POINTS, 2)) * 30 + 300


def _track(seconds: float, shift: float = 0.0) -> np.ndarray:
    times = np.arange(0, seconds, 1 / 25)
    return build_track(FACE + shift + times[:, None, None], times)


def _corpus(folder: Path) -> Path:
    records = []
    with StoreWriter(folder / "clips", SMALL) as writer:
        for i in range(4):
            label = LABELS[i % 2]
            record = Record(f"{folder}/{i}.mp4", "", label, speaker=str(i), subset="training")
            shape = RNG.normal(size=(POINTS, 2))
            track = _track(1.5)
            track = replace(track, points=(track.points + shape).astype(np.float32))
            writer.add(record.key, replace(make_recording(i, label), landmarks=track))
            records.append(record)
    write_annotations(records, folder / "manifest.csv")
    return folder / "manifest.csv"


def _dataset(manifest: Path, **options: object) -> ClipDataset:
    stores = StoreSet([manifest.parent / "clips"])
    return ClipDataset(
        read_annotations(manifest),
        stores,
        stores.config,
        LABELS,
        ("landmarks",),
        SampleOptions(**options),  # type: ignore[arg-type]
    )


def test_a_store_gives_landmarks_back(tmp_path: Path) -> None:
    track = _track(1.5)
    with StoreWriter(tmp_path, SMALL) as writer:
        writer.add("a", replace(make_recording(0), landmarks=track))
        writer.add("b", replace(make_recording(1), landmarks=empty_track()))
    store = ClipStore(tmp_path)
    again = store.recording("a").landmarks
    assert np.array_equal(again.points, track.points)
    assert np.array_equal(again.times, track.times)
    assert (again.ids == track.ids).all()
    assert not len(store.recording("b").landmarks.times)
    assert not lacks(tmp_path, "landmarks")
    with StoreWriter(tmp_path / "other", SMALL) as writer:
        writer.add("b", replace(make_recording(1), landmarks=empty_track()))
    assert lacks(tmp_path / "other", "landmarks")


def test_samples_hold_landmarks_and_say_which_steps_exist(tmp_path: Path) -> None:
    sample = _dataset(_corpus(tmp_path))[1]
    assert (sample["start"], sample["end"]) == (1.0, 1.5)
    inputs = sample["inputs"]
    assert inputs["landmarks"].shape == (30, POINTS + 2, 2)
    assert inputs["landmarks_mask"].tolist() == [True] * 15 + [False] * 15
    assert not inputs["landmarks"][15:].any()


def test_a_record_in_one_piece_has_all_its_steps(tmp_path: Path) -> None:
    dataset = _dataset(_corpus(tmp_path), whole=True)
    assert len(dataset) == 4
    assert dataset[0]["inputs"]["landmarks"].shape[0] == 45
    assert dataset[0]["inputs"]["landmarks_mask"].all()


def test_another_face_moves_as_the_first_did() -> None:
    landmarks = torch.from_numpy(RNG.normal(size=(5, POINTS + 2, 2)).astype(np.float32))
    inputs = {"landmarks": landmarks, "landmarks_mask": torch.tensor([True] * 4 + [False])}
    faces = {"a": np.zeros((POINTS, 2)), "b": np.ones((POINTS, 2))}
    swapped = swap_identity(inputs, "a", faces, 1.0, np.random.default_rng(0))["landmarks"]
    assert torch.allclose(swapped[:4, :POINTS], landmarks[:4, :POINTS] + 1)
    assert torch.equal(swapped[:4, POINTS:], landmarks[:4, POINTS:]), "the head's motion stays"
    assert torch.equal(swapped[4], landmarks[4])
    kept = swap_identity(inputs, "a", faces, 0.0, np.random.default_rng(0))
    assert kept["landmarks"] is landmarks


def test_training_swaps_faces_and_scoring_does_not(tmp_path: Path) -> None:
    manifest = _corpus(tmp_path)
    only_swap = dict.fromkeys(AugmentOptions.__dataclass_fields__, 0.0)
    only_swap |= {"mask_mels": 0, "mask_frames": 0, "swap": 1.0}
    plain = _dataset(manifest, train=True, augment=None)[0]["inputs"]["landmarks"]
    swapped = _dataset(manifest, train=True, augment=AugmentOptions(**only_swap))
    assert not torch.allclose(swapped[0]["inputs"]["landmarks"], plain, atol=1e-3)
    scored = _dataset(manifest, train=False, augment=AugmentOptions(**only_swap))
    unchanged = _dataset(manifest, train=False)
    for a, b in zip(scored, unchanged, strict=False):
        assert torch.equal(a["inputs"]["landmarks"], b["inputs"]["landmarks"])


def test_tracks_are_found_by_performance_and_prepared(tmp_path: Path) -> None:
    points = (FACE + np.arange(40)[:, None, None]).astype(np.int16)
    delta = np.diff(points, axis=0, prepend=np.zeros((1, POINTS, 2), np.int16))
    names = np.array(["02-01-05-01-01-01-07"])
    np.savez(tmp_path / "tracks.npz", delta=delta, names=names, offsets=np.array([0, 40]))
    speech = tmp_path / "03-01-05-01-01-01-07.wav"
    other = tmp_path / "03-01-05-01-01-02-07.wav"
    import soundfile

    for path in (speech, other):
        soundfile.write(path, 0.1 * RNG.standard_normal(16000), 16000)
    records = [Record("", str(path), "angry") for path in (speech, other)]
    tracks = find_tracks(tmp_path / "tracks.npz", records)
    assert list(tracks) == [records[0].key]
    config = ClipConfig(face_size=32)
    failures = prepare_records(records, tmp_path / "clips", config, DetectionOptions(tracks=tracks))
    assert not failures
    store = ClipStore(tmp_path / "clips")
    assert store.count(records[0].key, "landmarks") == 40
    assert store.count(records[1].key, "landmarks") == 0


def test_a_source_without_any_track_is_refused(tmp_path: Path) -> None:
    record = Record("", "03-01-05-01-01-01-07.wav", "angry")
    with pytest.raises(ValueError, match="holds no track of any of the records"):
        find_tracks(tmp_path, [record])
    with pytest.raises(ValueError, match=r"give mesh, dlib, an \.npz archive"):
        find_tracks(tmp_path / "nothing.txt", [record])


def test_an_adapted_model_sees_faces_against_their_own(tmp_path: Path) -> None:
    manifest = _corpus(tmp_path)
    records = read_annotations(manifest)
    stores = StoreSet([manifest.parent / "clips"])
    tracks = [stores.of(r.key).recording(r.key).landmarks for r in records]
    faces = MeanFaces(records, tracks)
    prior = faces.prior()
    plain = _dataset(manifest)[0]["inputs"]["landmarks"]
    unknown = _dataset(manifest, priors={"landmarks": prior})[0]["inputs"]["landmarks"]
    expected = plain[:, :POINTS] - torch.from_numpy(prior.face.astype(np.float32))
    assert torch.allclose(unknown[:, :POINTS], expected, atol=1e-5)
    assert torch.equal(unknown[:, POINTS:], plain[:, POINTS:])
    known = _dataset(manifest, priors={"landmarks": replace(prior, seconds=1e-9)}, adapt=True)
    assert len(known) == 8
    short = known[0]["inputs"]["landmarks"]
    assert torch.allclose(short, unknown, atol=1e-5), "1.5 s of a face are too few"
