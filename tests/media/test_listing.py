"""Files, folders, globs and tables to the recordings that are read, and the names of outputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from main import main
from media.listing import MediaItem, list_media, output_names
from opts import parse_options


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("anna/2.mov", "anna/1.mp4", "ben/1.MP4", "ben/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_a_folder_gives_its_media_files_in_order_and_once(folder: Path) -> None:
    listed = list_media([str(folder), str(folder / "anna" / "1.mp4")])
    assert [str(item.path.relative_to(folder)) for item in listed] == [
        "anna/1.mp4",
        "anna/2.mov",
        "ben/1.MP4",
    ]
    assert {item.speaker for item in listed} == {None}


def test_a_folder_can_stand_for_a_speaker(folder: Path) -> None:
    listed = list_media([str(folder)], by_folder=True)
    assert listed[0].speaker == listed[1].speaker != listed[2].speaker


def test_a_table_names_files_beside_it_and_their_speakers(folder: Path) -> None:
    table = folder / "list.csv"
    table.write_text("media,who,note\nben/1.MP4,B,x\nanna/1.mp4,,y\n,C,empty\n")
    assert list_media([str(table)], "who") == [
        MediaItem(folder / "ben" / "1.MP4", "B"),
        MediaItem(folder / "anna" / "1.mp4", None),
    ]
    with pytest.raises(ValueError, match="no column 'speaker'; it has: media, who, note"):
        list_media([str(table)], "speaker")
    with pytest.raises(ValueError, match="a column of speakers is one of CSV tables"):
        list_media([str(folder / "anna")], "who")
    table.write_text("media,who\n")
    with pytest.raises(ValueError, match="names no media file"):
        list_media([str(table)], "who")
    table.write_bytes(b"media,who\na.mp4,\xff\xfe\n")
    with pytest.raises(ValueError, match="line 2, column who: is not in UTF-8"):
        list_media([str(table)], "who")


def test_a_pattern_that_names_nothing_is_an_error(folder: Path) -> None:
    with pytest.raises(ValueError, match="names no media file"):
        list_media([str(folder / "*.avi")])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--speaker_folder", "--adapt", "none"], "--speaker_folder has no effect with --adapt"),
        (["--speaker_column", "who", "--adapt", "none"], "has no effect with --adapt none"),
        (["--speaker_column", "who", "--speaker_folder"], "not both"),
    ],
)
def test_a_speaker_without_adaptation_is_refused(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--media_path", "x.mp4", *flags]) == 2
    assert message in capsys.readouterr().err


def test_outputs_of_equal_names_do_not_meet() -> None:
    paths = [Path("a/x.mp4"), Path("b/x.mp4"), Path("b/x.mov"), Path("c/y.mp4")]
    names = output_names(paths)
    assert names[paths[3]] == "y"
    assert len(set(names.values())) == 4


@pytest.mark.parametrize("flags", [["--speaker_folder"], ["--speaker_column", "who"]])
def test_who_names_the_speaker_wants_faces_seen_against_their_own_mean(flags: list[str]) -> None:
    options = parse_options(["--media_path", "a.csv", *flags])
    assert options.infer_extras["adapt"] == "recording"
    assert "adapt" not in parse_options(["--media_path", "a.csv"]).infer_extras
