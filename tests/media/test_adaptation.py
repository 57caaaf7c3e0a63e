"""A speaker's own face as the reference that expressions are seen against."""

from __future__ import annotations

import numpy as np
import pytest

from datasets.annotations import Record
from datasets.mean_faces import MeanFaces
from media.adaptation import LEAST_SECONDS, Prior, Reference, relative_to
from media.landmarks import POINTS, ROWS, LandmarkTrack, build_track, empty_track

ZERO, ONE = np.zeros((POINTS, 2)), np.ones((POINTS, 2))
RNG = np.random.default_rng(0)


def _track(seconds: float, seed: int) -> LandmarkTrack:
    times = np.arange(0, seconds, 1 / 30)
    face = np.random.default_rng(seed).normal(size=(POINTS, 2)) * 30 + 300
    return build_track(np.repeat(face[None], len(times), axis=0), times)


def _faces() -> MeanFaces:
    people = ["a", "a", "b", "b", ""]
    records = [Record("", f"{i}.wav", "happy", speaker=name) for i, name in enumerate(people)]
    tracks = [_track(3.0, seed) for seed in (0, 1, 2, 3)]
    return MeanFaces(records, [*tracks, empty_track()])


def test_a_few_seconds_do_not_stand_for_a_person() -> None:
    reference = Reference(Prior(ZERO))
    reference.add(ONE, LEAST_SECONDS - 0.1)
    assert not reference.is_adapted
    assert np.array_equal(reference.face, ZERO)


def test_the_prior_fades_as_evidence_comes_in() -> None:
    reference = Reference(Prior(ZERO, seconds=5.0))
    shares = []
    for _ in range(20):
        reference.add(ONE, 5.0)
        shares.append(reference.face[0, 0])
    assert shares[0] == pytest.approx(0.5)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(100 / 105)


def test_a_reference_is_taken_from_the_points_that_exist_alone() -> None:
    landmarks = RNG.normal(size=(4, ROWS, 2)).astype(np.float32)
    mask = np.array([True, True, False, True])
    relative = relative_to(landmarks, mask, ONE)
    assert np.allclose(relative[mask, :POINTS], landmarks[mask, :POINTS] - 1)
    assert np.array_equal(relative[:, POINTS:], landmarks[:, POINTS:]), "head motion stays"
    assert np.array_equal(relative[2], landmarks[2])


def test_a_prior_survives_a_checkpoint() -> None:
    prior = Prior(RNG.normal(size=(POINTS, 2)), 7.0)
    again = Prior.from_dict(prior.to_dict())
    assert again.seconds == 7.0
    assert np.allclose(again.face, prior.face, atol=1e-5)
    with pytest.raises(ValueError, match="a mean face of shape"):
        Prior.from_dict({"face": [[0.0, 0.0]], "seconds": 1})


def test_running_references_know_only_what_came_before() -> None:
    faces = _faces()
    prior = faces.prior()
    running = faces.running(prior, seed=1)
    own = dict.fromkeys("ab", 0)
    for clip, speaker in enumerate("aabb"):
        own[speaker] += int(not np.array_equal(running[clip], prior.face))
    assert own == {"a": 1, "b": 1}, "3 s are too few, 6 s are enough"
    assert np.array_equal(running[4], prior.face), "a clip without a face has none"
    later = next(c for c in (0, 1) if not np.array_equal(running[c], prior.face))
    mean = (faces.faces[0][0] + faces.faces[1][0]) / 2
    weight = 6 / (6 + prior.seconds)
    assert np.allclose(running[later], weight * mean + (1 - weight) * prior.face, atol=1e-3)


def test_somebody_elses_clips_are_never_drawn() -> None:
    faces = _faces()
    prior = Prior(ZERO, seconds=1e-9)
    mean_a = (faces.faces[0][0] + faces.faces[1][0]) / 2
    for seed in range(20):
        drawn = faces.drawn(0, prior, np.random.default_rng(seed))
        assert np.allclose(drawn, mean_a, atol=1e-3) or np.array_equal(drawn, ZERO)
