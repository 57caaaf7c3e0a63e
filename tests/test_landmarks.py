"""Landmark tracks: their two sources, and what normalising takes away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from datasets.landmarks import (
    LEFT_CORNER,
    RIGHT_CORNER,
    LandmarkTrack,
    normalise,
    read_openface,
    read_ravdess_archive,
    sample_track,
)


def _faces(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(100, 300, (count, 68, 2)).astype(np.float32)


def test_normalising_takes_place_size_and_tilt_away() -> None:
    points = _faces(3)
    turn = np.radians(25)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    moved = 2.5 * points @ rotation.T + [40, -70]
    assert np.allclose(normalise(moved), normalise(points), atol=1e-4)
    result = normalise(points)
    assert result.shape == (3, 68, 2)
    assert result.dtype == np.float32
    assert np.allclose(result[:, LEFT_CORNER], [-0.5, 0], atol=1e-6)
    assert np.allclose(result[:, RIGHT_CORNER], [0.5, 0], atol=1e-6)


def test_normalising_keeps_up_and_down() -> None:
    points = np.zeros((1, 68, 2))
    points[0, LEFT_CORNER], points[0, RIGHT_CORNER], points[0, 8] = (10, 5), (20, 5), (15, 25)
    assert normalise(points)[0, 8].tolist() == [0.0, 2.0], "the chin is below, y down"


def test_points_that_cannot_be_normalised_are_named() -> None:
    points = _faces(3)
    points[1, LEFT_CORNER] = points[1, RIGHT_CORNER]
    with pytest.raises(ValueError, match="coincide in picture 1"):
        normalise(points)
    with pytest.raises(ValueError, match=r"expected points of shape \(T, 68, 2\), not \(68, 2\)"):
        normalise(points[0])


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
    points = np.zeros((4, 68, 2), np.float32) + np.array([0, 1, 5, 6])[:, None, None]
    track = LandmarkTrack(points, np.array([0.0, 0.04, 0.54, 0.58]))
    sampled, known = sample_track(track, np.array([0.0, 0.01, 0.3, 0.56, 0.6, 2.0]))
    assert known.tolist() == [True, True, False, True, True, False]
    assert sampled[:, 0, 0] == pytest.approx([0, 0.25, 0, 5.5, 6, 0])
    empty = LandmarkTrack(points[:0], np.zeros(0))
    assert not sample_track(empty, np.array([0.5]))[1].any()


@pytest.mark.data
def test_the_real_archive_holds_every_speech_clip(real_data: Path) -> None:
    tracks = read_ravdess_archive(real_data / "ravdess_landmarks68.npz")
    assert len(tracks) == 1440
    assert sum(len(track.times) for track in tracks.values()) == 159_696
    track = tracks["02-01-01-01-01-01-01"]
    assert track.points.min() > 0
    assert track.points.max() < 1280
    assert track.times[-1] == pytest.approx(3.3, abs=0.3)
    normal = normalise(track.points)
    assert (normal[:, 8, 1] > 0.5).all(), "the chin is well below the eyes"
    assert (normal[:, 27:31, 0].mean(axis=1) < 0.2).all(), "the nose lies between them"
