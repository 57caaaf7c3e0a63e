"""The comparison of preparing with the straightforward recipe does the same work twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import prepare_speed
from benchmarks.prepare_speed import Speed, list_clips, measure
from media.configuration import ClipConfig

CONFIG = ClipConfig(face_size=32, pictures=3)


def test_both_recipes_find_the_faces_of_a_clip(talking_face: Path) -> None:
    speed = measure([talking_face], CONFIG)
    assert speed.clips == 1
    assert speed.our_faces == 60, "of every picture"
    assert speed.reference_faces == 9, "of three pictures in each of three windows"
    assert speed.ours > 0
    assert speed.reference > 0


def test_folders_are_searched_for_videos(tmp_path: Path) -> None:
    for name in ("b.mp4", "deep/a.MOV", "notes.txt"):
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "clips" / name).touch()
    single = tmp_path / "single.bin"
    found = list_clips([tmp_path / "clips", single])
    assert [path.name for path in found] == ["b.mp4", "a.MOV", "single.bin"]


@pytest.mark.parametrize(("seconds", "status"), [(0.4, 0), (0.29, 1)])
def test_a_missed_target_is_status_1(
    seconds: float,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    speed = Speed(2, 0.1, seconds, 60, 30)
    monkeypatch.setattr(prepare_speed, "measure", lambda *_: speed)
    assert prepare_speed.main(["clip.mp4", "--threads", "1"]) == status
    assert ("MISSED" in capsys.readouterr().out) == bool(status)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.mp4"], "absent.mp4"),
        (["absent.mp4", "--threads", "0"], "--threads must be 1 or more, not 0"),
        (["."], "no clips to measure"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert prepare_speed.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
