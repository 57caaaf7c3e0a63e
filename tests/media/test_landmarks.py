"""Landmark tracks: their sources, sampling in time, and what normalising takes away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from datasets.augment import mirror_face
from datasets.landmarks import read_openface, read_ravdess_archive
from media.landmarks import (
    ANYBODY,
    LEFT_CORNERS,
    MAX_GAP,
    MIRRORED,
    POINTS,
    RIGHT_CORNERS,
    ROWS,
    SMOOTHING,
    build_track,
    empty_track,
    normalise,
    sample_track,
)


def _faces(count: int) -> np.ndarray:
    """(count, 68, 2) float32 of one random shape that trembles, eyes 40 pixels apart."""
    draw = np.random.default_rng(0)
    shape = draw.uniform(100, 300, (POINTS, 2))
    shape[list(LEFT_CORNERS)], shape[list(RIGHT_CORNERS)] = (180, 150), (220, 150)
    return (shape + draw.normal(0, 1, (count, POINTS, 2))).astype(np.float32)


def _all(points: np.ndarray) -> np.ndarray:
    return np.ones(len(points), dtype=bool)


def test_normalising_takes_place_and_size_away() -> None:
    points = _faces(8)
    result = normalise(points, _all(points))
    assert result.shape == (8, ROWS, 2)
    assert result.dtype == np.float32
    assert np.allclose(normalise(2.5 * points + [40, -70], _all(points)), result, atol=1e-5)


def test_normalising_takes_tilt_away_and_tells_it_apart() -> None:
    points = _faces(8)
    turn = np.radians(25)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    result, turned = (normalise(p, _all(points)) for p in (points, points @ rotation.T))
    assert np.allclose(turned[:, :POINTS], result[:, :POINTS], atol=1e-4)
    assert np.allclose(turned[:, -1, 0] - result[:, -1, 0], turn, atol=1e-5)
    assert np.allclose(turned[:, -1, 1], result[:, -1, 1], atol=1e-5)


def test_the_eyes_are_level_and_a_unit_apart_in_the_median_picture() -> None:
    points = np.repeat(_faces(1), 12, axis=0)
    points[9:] *= 0.5  # a shorter line of the eyes, as in a turn of the head
    result = normalise(points, _all(points))
    left, right = (result[:, list(c)].mean(axis=1) for c in (LEFT_CORNERS, RIGHT_CORNERS))
    assert np.allclose(left[:4], [-0.5, 0], atol=1e-6)
    assert np.allclose(right[:4], [0.5, 0], atol=1e-6)
    assert np.allclose(right[11], [0.25, 0], atol=1e-6)
    assert result[[0, 11], -1, 1] == pytest.approx([0, np.log(0.5)], abs=1e-5)


def test_normalising_keeps_up_and_down() -> None:
    points = np.zeros((1, POINTS, 2))
    points[0, list(LEFT_CORNERS)], points[0, list(RIGHT_CORNERS)] = (10, 5), (20, 5)
    points[0, 8] = (15, 25)
    assert normalise(points, _all(points))[0, 8].tolist() == [0.0, 2.0], "the chin below, y down"


def test_steps_without_points_are_zero_and_touch_no_other() -> None:
    points = _faces(30)
    mask = np.ones(30, dtype=bool)
    mask[10:20] = False
    result = normalise(points, mask)
    points[~mask] = 1e6
    assert np.array_equal(normalise(points, mask), result)
    assert not result[~mask].any()
    assert result[mask].any(axis=(1, 2)).all()
    assert not normalise(points, np.zeros(30, dtype=bool)).any()


def test_trembling_is_averaged_over_neighbours() -> None:
    still = np.repeat(_faces(1), 40, axis=0)
    tremble = np.random.default_rng(1).normal(0, 1, still.shape)
    noise = normalise(still + tremble, _all(still)) - normalise(still, _all(still))
    spread = noise[:, 8].std() * 40  # pixels, of the chin
    assert spread < 1.6 / np.sqrt(SMOOTHING) + 0.3


def test_points_that_cannot_be_normalised_are_named() -> None:
    points = np.repeat(_faces(1), 9, axis=0)
    points[2:, list(LEFT_CORNERS)] = points[2:, list(RIGHT_CORNERS)]
    with pytest.raises(ValueError, match="coincide in step 4"):
        normalise(points, _all(points))
    with pytest.raises(ValueError, match=r"expected points of shape \(S, 68, 2\), not \(68, 2\)"):
        normalise(points[0], _all(points))


def test_a_mirrored_face_normalises_to_the_mirrored_points() -> None:
    points = _faces(6)
    assert np.array_equal(MIRRORED[MIRRORED], np.arange(POINTS))
    seen = points[:, MIRRORED] * [-1, 1]
    result = torch.from_numpy(normalise(points, _all(points)))
    rng = np.random.default_rng(0)
    mirrored = mirror_face({"landmarks": result}, 1.0, rng)["landmarks"]
    assert np.allclose(mirrored, normalise(seen, _all(points)), atol=1e-5)


def test_a_track_gives_the_entries_of_one_face() -> None:
    points = _faces(4)
    track = replace(build_track(points, np.arange(4)), ids=np.array([3, 3, 5, 3], np.int32))
    assert track.of(3).times.tolist() == [0, 1, 3]
    assert np.array_equal(track.of(5).points, points[2:3])
    assert track.of(None) is track
    assert build_track(points, np.arange(4)).ids.tolist() == [ANYBODY] * 4
    assert len(build_track(points, np.arange(4)).of(7).times) == 4, "ANYBODY goes with everybody"


def test_the_archive_of_differences_is_summed(tmp_path: Path) -> None:
    points = _faces(5).astype(np.int16)
    np.savez(
        tmp_path / "a.npz",
        delta=np.diff(points, axis=0, prepend=np.zeros_like(points[:1])),
        names=np.array(["02-01-01-01-01-01-01", "02-01-02-01-01-01-01"]),
        offsets=np.array([0, 2, 5]),
    )
    tracks = read_ravdess_archive(tmp_path / "a.npz")
    assert np.array_equal(tracks["02-01-02-01-01-01-01"].points, points[2:])
    assert tracks["02-01-01-01-01-01-01"].times.tolist() == [0.0, pytest.approx(1001 / 30000)]
    np.savez(tmp_path / "b.npz", delta=points)
    with pytest.raises(ValueError, match=r"b\.npz is no archive"):
        read_ravdess_archive(tmp_path / "b.npz")


def _write_openface(path: Path, points: np.ndarray, blanks: bool = True) -> None:
    count = len(points)
    table = {"frame": range(1, count + 1), "face_id": [0] * count}
    table |= {"timestamp": np.arange(count) / 25, "confidence": 0.98, "success": 1}
    table |= {f"x_{i}": points[:, i, 0] for i in range(68)}
    table |= {f"y_{i}": points[:, i, 1] for i in range(68)}
    frame = pd.DataFrame(table)
    frame.loc[1, "success"] = 0
    frame.loc[2, "confidence"] = 0.3
    other = frame.iloc[:1].assign(face_id=1, timestamp=0.5)
    frame = pd.concat([frame, other])
    frame.columns = [f" {name}" if blanks and i else name for i, name in enumerate(frame)]
    frame.to_csv(path, index=False)


@pytest.mark.parametrize("blanks", [True, False])
def test_openface_leaves_out_what_it_is_not_sure_of(tmp_path: Path, blanks: bool) -> None:
    points = _faces(6)
    _write_openface(tmp_path / "a.csv", points, blanks)
    track = read_openface(tmp_path / "a.csv")
    assert np.allclose(track.points, points[[0, 3, 4, 5]])
    assert track.points.dtype == np.float32
    assert track.times == pytest.approx([0.0, 0.12, 0.16, 0.2])
    with pytest.raises(ValueError, match=r"a success of confidence 0\.99"):
        read_openface(tmp_path / "a.csv", min_confidence=0.99)


def test_a_table_without_landmarks_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("frame, timestamp, confidence, success\n1, 0, 1, 1\n")
    with pytest.raises(ValueError, match="has no column x_0"):
        read_openface(tmp_path / "a.csv")
    with pytest.raises(ValueError, match="cannot read"):
        read_openface(tmp_path / "absent.csv")


def test_a_track_is_sampled_between_its_pictures_only() -> None:
    points = np.zeros((4, POINTS, 2), np.float32) + np.array([0, 1, 5, 6])[:, None, None]
    track = build_track(points, np.array([0.0, 0.04, 0.54, 0.58]))
    times = np.array([0.0, 0.01, 0.3, 0.56, 0.6, 0.58 + 2 * MAX_GAP])
    sampled, known = sample_track(track, times)
    assert known.tolist() == [True, True, False, True, True, False]
    assert sampled[:, 0, 0] == pytest.approx([0, 0.25, 0, 5.5, 6, 0])
    assert not sample_track(empty_track(), np.array([0.5]))[1].any()


@pytest.mark.data
def test_the_real_archive_holds_every_speech_clip(real_data: Path) -> None:
    tracks = read_ravdess_archive(real_data / "ravdess_landmarks68.npz")
    assert len(tracks) == 1440
    assert sum(len(track.times) for track in tracks.values()) == 159_696
    track = tracks["02-01-01-01-01-01-01"]
    assert track.points.min() > 0
    assert track.points.max() < 1280
    assert track.times[-1] == pytest.approx(3.3, abs=0.3)
    normal = normalise(track.points, _all(track.points))
    assert (normal[:, 8, 1] > 0.5).all(), "the chin is well below the eyes"
    assert (normal[:, 27:31, 0].mean(axis=1) < 0.2).all(), "the nose lies between them"
