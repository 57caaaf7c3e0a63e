"""Folders of one's own: every file is a record or told of, and no class is invented."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets.corpora.own_folder import read_records
from media.suffixes import MEDIA, PICTURE, SOUND, VIDEO, find_media

pytestmark = pytest.mark.filterwarnings("ignore:.* have no speaker")


def _make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def _read(root: Path) -> list[tuple[str, ...]]:
    """(label, subset, video, audio) of each record with paths under the root."""
    records = read_records(root)
    return [
        (r.label, r.subset, r.video.removeprefix(f"{root}/"), r.audio.removeprefix(f"{root}/"))
        for r in records
    ]


def test_folders_below_a_class_are_of_that_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    _make(tmp_path, "neutral/actor1/01.mp4", "Happiness/05.wmv", "sad/a/b/02.wav")
    records = _read(tmp_path)
    assert records == [
        ("happy", "", "Happiness/05.wmv", ""),
        ("neutral", "", "neutral/actor1/01.mp4", ""),
        ("sad", "", "", "sad/a/b/02.wav"),
    ]
    assert caplog.messages == [
        "3 files taken as 3 records: 1 happy, 1 neutral, 1 sad",
        "folder Happiness is read as happy",
    ]


def test_folders_of_subsets_above_the_classes_are_no_classes(tmp_path: Path) -> None:
    _make(tmp_path, "train/happy/1.png", "train/sad/2.png", "val/happy/3.png", "Test/sad/4.png")
    records = _read(tmp_path)
    assert sorted(records) == [
        ("happy", "training", "train/happy/1.png", ""),
        ("happy", "validation", "val/happy/3.png", ""),
        ("sad", "testing", "Test/sad/4.png", ""),
        ("sad", "training", "train/sad/2.png", ""),
    ]


def test_what_systems_and_editors_leave_is_no_class_and_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    _make(
        tmp_path,
        ".ipynb_checkpoints/01-checkpoint.mp4",
        "__MACOSX/happy/01.mp4",
        "happy/01.mp4",
        "happy/._01.mp4",
        "happy/.DS_Store",
        "happy/notes.txt",
        "loose.mp4",
    )
    records = _read(tmp_path)
    assert records == [("happy", "", "happy/01.mp4", "")]
    assert (
        caplog.messages[1] == "left: 2 hidden, 2 hidden folder, 1 .txt, 1 in no folder of a class"
    )


def test_every_suffix_that_can_be_read_is_taken_in_any_case(tmp_path: Path) -> None:
    names = [f"happy/{i}{suffix}" for i, suffix in enumerate(sorted(MEDIA))]
    _make(tmp_path, *names, "happy/x.MPEG")
    assert len(_read(tmp_path)) == len(MEDIA) + 1


def test_pictures_and_sound_of_one_name_are_one_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    _make(tmp_path, "happy/01.mp4", "happy/01.wav", "happy/02.wav", "sad/01.wav", "sad/2.1.mp4")
    records = _read(tmp_path)
    assert sorted(records) == [
        ("happy", "", "", "happy/02.wav"),
        ("happy", "", "happy/01.mp4", "happy/01.wav"),
        ("sad", "", "", "sad/01.wav"),
        ("sad", "", "sad/2.1.mp4", ""),
    ]
    assert caplog.messages[0] == "5 files taken as 4 records: 2 happy, 2 sad"


def test_several_videos_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    _make(tmp_path, "happy/01.mp4", "happy/01.avi", "happy/01.wav")
    assert len(_read(tmp_path)) == 3


def test_classes_of_other_names_are_the_outermost_folders(tmp_path: Path) -> None:
    _make(tmp_path, "bored/x/1.mp4", "keen/2.mp4")
    assert [record[0] for record in _read(tmp_path)] == ["bored", "keen"]


def test_emotions_at_several_depths_are_refused(tmp_path: Path) -> None:
    _make(tmp_path, "happy/1.mp4", "actor/sad/2.mp4")
    with pytest.raises(ValueError, match="of different depth, as happy and actor/sad; put all"):
        read_records(tmp_path)


def test_a_folder_without_media_says_what_there_is(tmp_path: Path) -> None:
    _make(tmp_path, "happy/1.txt", "happy/.x")
    with pytest.raises(ValueError, match=r"no files such as happy/clip.mp4 .* \(there are 1 \.txt"):
        read_records(tmp_path)


def test_no_suffix_is_of_two_kinds() -> None:
    assert not VIDEO & SOUND
    assert not (VIDEO | SOUND) & PICTURE
    wanted = ".mxf .aiff .m2ts .vob .mka .ogv .3g2 .asf .f4v .qt .au .caf .w64 .oga .m2v .gif"
    assert set(wanted.split()) <= MEDIA
    assert {".wmv", ".mpeg", ".ts", ".3gp", ".aac", ".wma", ".png", ".jpg", ".webp"} <= MEDIA


def test_links_to_folders_are_not_followed_but_told(tmp_path: Path) -> None:
    _make(tmp_path, "happy/1.mp4")
    (tmp_path / "round").symlink_to(tmp_path)
    found = find_media(tmp_path)
    assert [path.name for path in found.files] == ["1.mp4"]
    assert found.tell_left() == "1 linked folder"
