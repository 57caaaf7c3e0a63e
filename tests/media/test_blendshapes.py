"""Blendshapes on their way from a mesh track to samples and columns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.annotations import Record, read_annotations
from datasets.augment import AugmentOptions, mirror_face
from datasets.mean_faces import MeanFaces
from datasets.samples import ClipDataset, SampleOptions, measure_faces
from datasets.store import ClipStore, StoreWriter, lacks
from media.adaptation import KnownFaces, Prior, Reference
from media.blendshapes import (
    BLENDSHAPES,
    MIRRORED,
    MIRRORED_SIGNS,
    STILL_GAP,
    VALUES,
    describe_windows,
    empty_meshes,
)
from media.clip import Recording, Window
from media.landmarks import LandmarkTrack
from media.preprocess import preprocess
from tests.builders import LABELS, SMALL, make_corpus, make_meshes, make_recording, open_stores


def _dataset(manifest: Path, **options: object) -> ClipDataset:
    stores = open_stores(manifest)
    records = read_annotations(manifest)
    chosen = SampleOptions(**options)  # type: ignore[arg-type]
    return ClipDataset(records, stores, stores.config, LABELS, ("blendshapes",), chosen)


def _still() -> Recording:
    recording = make_recording(0, seconds=1.0)
    return replace(recording, meshes=make_meshes(0, True, np.zeros(1), STILL_GAP))


def test_a_store_gives_meshes_back(tmp_path: Path) -> None:
    recording = make_recording(0)
    points = replace(recording.landmarks, max_gap=0.15)
    with StoreWriter(tmp_path, SMALL) as writer:
        writer.add("a", replace(recording, landmarks=points))
        writer.add("b", replace(recording, meshes=empty_meshes()))
        writer.add("c", _still())
    store = ClipStore(tmp_path)
    again = store.recording("a")
    for name in ("blendshapes", "head_poses", "presence", "times", "ids"):
        assert np.array_equal(getattr(again.meshes, name), getattr(recording.meshes, name))
    assert again.meshes.max_gap == again.landmarks.max_gap == 0.15
    assert not len(store.recording("b").meshes.times)
    assert store.recording("c").meshes.max_gap == STILL_GAP
    assert not lacks(tmp_path, "blendshapes")


def test_a_store_of_an_older_version_is_read(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, SMALL) as writer:
        writer.add("a", replace(make_recording(0), meshes=empty_meshes()))
    for name in ("blendshapes", "head_poses", "mesh_presence", "mesh_times", "mesh_ids"):
        (tmp_path / name).unlink()
    index = tmp_path / "index.jsonl"
    line = json.loads(index.read_text())
    line["spans"] = {n: s for n, s in line["spans"].items() if (tmp_path / n).exists()}
    del line["gaps"]
    index.write_text(json.dumps(line) + "\n")
    recording = ClipStore(tmp_path).recording("a")
    assert len(recording.landmarks.times) == 38
    assert recording.landmarks.max_gap == 0.1
    assert not len(recording.meshes.times)
    assert lacks(tmp_path, "blendshapes")


def test_meshes_are_cut_by_the_same_times_as_pictures() -> None:
    times = np.arange(0.02, 3, 0.1)
    meshes = make_meshes(0, True, times)
    meshes.head_poses[:, 0] = times
    clip = replace(make_recording(0, seconds=3), meshes=meshes).cut(Window(1.0, 2.0), SMALL)
    assert clip.blendshapes.shape == (10, VALUES)
    assert clip.blendshapes_mask.all()
    assert np.allclose(clip.blendshapes[:, 52], 1.05 + np.arange(10) / 10, atol=1e-4)


def test_where_the_face_has_left_steps_are_masked() -> None:
    times = np.arange(0.0, 1.5, 0.1)
    recording = replace(make_recording(0, seconds=3), meshes=make_meshes(0, True, times))
    clip = recording.cut(Window(1.0, 2.0), SMALL)
    assert clip.blendshapes_mask.tolist() == [True] * 6 + [False] * 4, "1.4 s and 0.15 s more"
    assert not clip.blendshapes[6:].any()
    short = recording.cut(Window(1.0, 1.25, partial=True), SMALL)
    assert short.blendshapes_mask.tolist() == [True, True, *[False] * 8]


def test_a_window_shorter_than_a_step_has_one_in_its_middle() -> None:
    times = np.arange(0.0, 1.5, 0.1)
    meshes = make_meshes(0, True, times)
    meshes.head_poses[:, 0] = times
    config = replace(SMALL, window_seconds=0.04)
    clip = replace(make_recording(0), meshes=meshes).cut(Window(0.4, 0.44), config)
    assert clip.blendshapes_mask.tolist() == [True]
    assert clip.blendshapes[0, 52] == pytest.approx(0.42, abs=1e-5)


def test_another_person_has_other_meshes() -> None:
    recording = make_recording(0)
    strangers = replace(recording.meshes, ids=recording.meshes.ids + 1)
    clip = replace(recording, meshes=strangers).cut(Window(0.0, 1.0), SMALL)
    assert clip.face_id == 0
    assert not clip.blendshapes_mask.any()


def test_a_still_fills_the_window() -> None:
    clip = _still().cut(Window(0.0, 1.0), SMALL)
    assert clip.blendshapes_mask.all()
    assert (clip.blendshapes == clip.blendshapes[0]).all()
    assert clip.blendshapes[0, BLENDSHAPES.index("mouthSmileLeft")] > 0.6


def test_a_mirrored_face_smiles_on_the_other_side() -> None:
    values = torch.zeros(1, VALUES)
    values[0, BLENDSHAPES.index("mouthSmileLeft")] = 0.9
    values[0, 52:] = torch.tensor([0.1, 0.2, 0.3])
    mirrored = mirror_face({"blendshapes": values}, 1.0, np.random.default_rng(0))["blendshapes"]
    assert mirrored[0, BLENDSHAPES.index("mouthSmileRight")] == pytest.approx(0.9)
    assert mirrored[0, BLENDSHAPES.index("mouthSmileLeft")] == 0
    assert mirrored[0, 52:].tolist() == pytest.approx([-0.1, 0.2, -0.3])
    assert np.array_equal(MIRRORED[MIRRORED], np.arange(VALUES))
    moved = [name for i, name in enumerate(BLENDSHAPES) if MIRRORED[i] != i]
    assert len(moved) == 40
    assert all(name.endswith(("Left", "Right")) for name in moved)
    assert len(MIRRORED_SIGNS) == VALUES


def test_training_and_inference_see_the_same_values(tmp_path: Path) -> None:
    sample = _dataset(make_corpus(tmp_path, per_subset=2))[0]
    recording = make_recording(0, "happy")
    clip = recording.cut(Window(0.0, 1.0), SMALL)
    again = preprocess(clip, SMALL, ("blendshapes",))
    assert sample["inputs"].keys() == again.keys()
    for name, value in again.items():
        assert torch.equal(sample["inputs"][name], value), name


def test_samples_are_seen_against_a_mean(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path, per_subset=2)
    plain = _dataset(manifest)[0]["inputs"]["blendshapes"]
    records, stores = read_annotations(manifest), open_stores(manifest)
    prior = measure_faces(records, stores, "blendshapes").prior()
    unknown = _dataset(manifest, priors={"blendshapes": prior})[0]["inputs"]["blendshapes"]
    assert torch.allclose(unknown, plain - torch.from_numpy(prior.face.astype(np.float32)))
    sure = {"blendshapes": replace(prior, seconds=1e-9)}
    known = _dataset(manifest, priors=sure, adapt=True)[0]["inputs"]["blendshapes"]
    assert torch.equal(known, unknown), "1.5 s are too few to stand for a person"


def test_in_training_values_are_drawn_against_other_clips_and_mirrored(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path, per_subset=2)
    prior = Prior(np.zeros(VALUES, np.float32))
    options = {"train": True, "augment": AugmentOptions(), "priors": {"blendshapes": prior}}
    dataset = _dataset(manifest, **options)
    seen = []
    for epoch in range(8):
        dataset.set_epoch(epoch)
        seen.append(dataset[0]["inputs"]["blendshapes"][0, 52].item() > 0)
    assert len({*seen}) == 2, "yaw changes its sign in a mirror"


def test_stills_without_speakers_have_their_mean_as_prior() -> None:
    records = [Record("", f"{i}.jpg", "happy") for i in range(3)]
    tracks = [make_meshes(seed, True, np.zeros(1), STILL_GAP) for seed in (0, 1)]
    prior = MeanFaces(records, [*tracks, empty_meshes()]).prior()
    assert prior.face.shape == (VALUES,)
    assert np.allclose(prior.face, (tracks[0].values[0] + tracks[1].values[0]) / 2)
    named = [*[Record("", f"{i}.mp4", "sad", speaker="anna") for i in (3, 4)], records[0]]
    films = [make_meshes(seed, False, np.arange(10) / 10) for seed in (2, 3)]
    anna = (films[0].values.mean(axis=0) + films[1].values.mean(axis=0)) / 2
    prior = MeanFaces(named, [*films, tracks[0]]).prior()
    assert np.allclose(prior.face, (anna + tracks[0].values[0]) / 2), "each counts as a person"
    points = [LandmarkTrack(np.zeros((0, 68, 2), np.float32), np.zeros(0), np.zeros(0, np.int32))]
    with pytest.raises(ValueError, match="landmarks and a speaker, or with blendshapes"):
        MeanFaces(records[:1], points).prior()


def test_each_modality_of_a_face_has_its_own_reference() -> None:
    priors = {"landmarks": Prior(np.zeros((68, 2))), "blendshapes": Prior(np.zeros(VALUES))}
    speakers: dict[tuple[str, str], Reference] = {}
    known = KnownFaces(priors, speakers, "anna")
    known.reference("blendshapes", 0, seen=True).add(np.ones(VALUES), 10.0)
    assert known.reference("blendshapes", 0, seen=True).is_adapted
    assert not known.reference("landmarks", 0, seen=True).is_adapted
    of_nobody = KnownFaces(priors, speakers)
    assert not of_nobody.reference("blendshapes", 3, seen=True).is_adapted
    later = KnownFaces(priors, speakers, "anna")
    assert later.reference("blendshapes", 7, seen=True).is_adapted
    assert not later.reference("blendshapes", 8, seen=True).is_adapted, "somebody else"


def test_windows_are_described_in_scores_and_degrees() -> None:
    values = np.zeros((4, VALUES), np.float32)
    values[:2, BLENDSHAPES.index("jawOpen")] = [0.2, 0.4]
    values[:2, 52] = np.radians(30)
    known = np.array([True, True, False, False])
    columns = describe_windows([(values, known), (values, np.zeros(4, bool))])
    assert columns["blendshape_jawOpen"][0] == pytest.approx(0.3)
    assert columns["head_yaw"][0] == pytest.approx(30, abs=1e-4)
    assert np.isnan([column[1] for column in columns.values()]).all()
    assert len(columns) == 51 + 3
    assert "blendshape__neutral" not in columns
