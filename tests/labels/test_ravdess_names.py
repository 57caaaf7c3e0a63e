"""What RAVDESS's file names tell, and that nothing else is taken for one."""

from __future__ import annotations

import pytest

from labels.clip_names import read_clip_name
from labels.ravdess_names import RavdessName, read_ravdess_name


def test_a_name_tells_what_the_recording_shows() -> None:
    assert read_ravdess_name("02-02-08-02-01-02-24") == RavdessName(
        modality="02",
        performance="02-08-02-01-02-24",
        channel="song",
        emotion="surprised",
        intensity="strong",
        statement=1,
        repetition=2,
        actor="24",
    )


def test_the_recordings_of_one_performance_agree_in_it() -> None:
    names = [read_ravdess_name(f"{modality}-01-03-01-02-01-05") for modality in ("01", "02", "03")]
    assert {name.performance for name in names if name} == {"01-03-01-02-01-05"}
    assert {(name.speaker, name.gender) for name in names if name} == {("ravdess-05", "male")}


@pytest.mark.parametrize(
    "stem",
    [
        "04-01-03-01-02-01-05",  # no such modality
        "01-03-03-01-02-01-05",  # channel
        "01-01-09-01-02-01-05",  # emotion
        "01-01-03-01-02-01",  # a number too few
        "01-01-03-01-02-01-05-01",  # and one too many
        "01-01-03-01-02-01-05_facecroppad",
        "x01-01-03-01-02-01-05",
        "",
    ],
)
def test_other_names_tell_nothing(stem: str) -> None:
    assert read_ravdess_name(stem) is None
    assert read_clip_name(stem).label == ""


def test_a_clip_is_the_same_whatever_the_system_calls_it() -> None:
    names = ("a/01-01-05-01-01-01-12.mp4", "b\\03-01-05-01-01-01-12.wav", "02-01-05-01-01-01-12")
    clips = {read_clip_name(name) for name in names}
    assert [(clip.label, clip.speaker) for clip in clips] == [("angry", "ravdess-12")]
    assert {read_clip_name(f"{name}@2.5").key for name in names} == {f"{clips.pop().key}@2.5"}
