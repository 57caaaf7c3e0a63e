"""Annotation files: one table a corpus, whose columns and paths stay what they are."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from datasets.annotations import (
    COLUMNS,
    Record,
    read_annotations,
    tell_spellings,
    write_annotations,
)


def _header(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return next(csv.reader(file))


def test_a_manifest_has_the_columns_of_every_corpus(tmp_path: Path) -> None:
    records = [
        Record("a.mp4", "", "sad", speaker="s", dataset="ravdess", extra={"gender": "female"}),
        Record("b.mp4", "", "sad", soft={"sad": 0.75, "happy": 0.25}, extra={"performance": "9"}),
    ]
    write_annotations(records, tmp_path / "manifest.csv")
    header = _header(tmp_path / "manifest.csv")
    assert header == [*COLUMNS, "performance", "p_sad", "p_happy"]
    assert COLUMNS[-4:] == ("speaker", "gender", "corpus", "subset")
    known, unknown = read_annotations(tmp_path / "manifest.csv")
    assert (known.dataset, known.extra) == ("ravdess", {"gender": "female", "performance": ""})
    assert (unknown.dataset, unknown.extra) == ("", {"performance": "9"}), "gender is not known"


@pytest.mark.parametrize("header", ["corpus", "dataset", "dataset,corpus"])
def test_the_corpus_is_read_under_either_name(tmp_path: Path, header: str) -> None:
    cells = "other,ravdess" if "," in header else "ravdess"
    (tmp_path / "list.csv").write_text(f"video,label,{header}\na.mp4,sad,{cells}\n")
    (record,) = read_annotations(tmp_path / "list.csv")
    assert (record.dataset, record.extra) == ("ravdess", {})


def test_a_linked_file_keeps_the_name_it_was_prepared_under(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.mp4").touch()
    (tmp_path / "corpus").mkdir()
    link = tmp_path / "corpus" / "a.mp4"
    link.symlink_to(tmp_path / "elsewhere.mp4")
    record = Record(str(link), "", "sad")
    for folder in (tmp_path / "corpus", tmp_path):
        write_annotations([record], folder / "manifest.csv")
        (back,) = read_annotations(folder / "manifest.csv")
        assert back.key == record.key
    (tmp_path / "way").symlink_to(tmp_path / "corpus")
    (back,) = read_annotations(tmp_path / "way" / "manifest.csv")
    assert back.key == record.key, "however the manifest is reached"


def _read(tmp_path: Path, text: str | bytes) -> list[Record]:
    path = tmp_path / "list.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_annotations(path)


EXPORTS = {
    "R": '"","video","label","speaker","subset"\n"1","a.mp4","happy","1","training"\n',
    "quotes": '"video","label","speaker","subset"\n"a.mp4","happy","1","training"\n',
    "semicolon": "video;label;speaker;subset\na.mp4;happy;1;training\n",
    "tab": "video\tlabel\tspeaker\tsubset\r\na.mp4\thappy\t1\ttraining\r\n",
    "space": "video, label, speaker, subset\na.mp4, happy, 1, training\n",
    "capitals": "Video,Label,SPEAKER,Subset\na.mp4,Happy,1,Training\n",
    "mark": "\ufeffvideo,label,speaker,subset\na.mp4,happy,1,training\n",
    "quoted mark": '\ufeff"label","video","speaker","subset"\n"happy","a.mp4","1","training"\n',
    "empty columns": "video,label,speaker,subset,,\na.mp4,happy,1,training,,\n,,,,,\n",
    "old Mac": "video,label,speaker,subset\ra.mp4,happy,1,training\r",
}


@pytest.mark.parametrize("text", EXPORTS.values(), ids=EXPORTS)
def test_a_table_is_read_as_people_export_it(tmp_path: Path, text: str) -> None:
    expected = Record(str(tmp_path / "a.mp4"), "", "happy", speaker="1", subset="training")
    assert _read(tmp_path, text) == [expected]
    assert _read(tmp_path, text.encode("utf-16")) == [expected]


def test_fields_may_hold_what_separates_lines_and_fields(tmp_path: Path) -> None:
    (record,) = _read(tmp_path, 'video,label,note\n"a,1.mp4",sad,"one\u2028two\nthree"\n')
    assert (record.video, record.extra) == (
        str(tmp_path / "a,1.mp4"),
        {"note": "one\u2028two\nthree"},
    )


def test_a_decimal_comma_is_read_where_it_separates_nothing(tmp_path: Path) -> None:
    (record,) = _read(tmp_path, "video;label;start;end;p_happy\na.mp4;sad;0,5;1,25;0,75\n")
    assert (record.start, record.end, record.soft) == (0.5, 1.25, {"happy": 0.75})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "video,label,speaker,subset\na.mp4,happy,1,training\nb.mp4,sad,2,training,comment\n",
            "line 3: has 5 fields under a header of 4 columns; quote a field",
        ),
        ("video,label,speaker\na.mp4,happy\n", "line 2: has 2 fields under a header of 3 columns"),
        ("video,label\na.mp4,\n", "line 2, column label: is empty"),
        ("video,label,end\na.mp4,sad,nan\n", "line 2, column end: must be a number of seconds"),
        ("video,label,start\na.mp4,sad,-1\n", "line 2, column start: must be a number of seconds"),
        (
            "video,label,start\na.mp4,sad,0:01\n",
            "line 2: could not convert '0:01' in column start to a number",
        ),
        ("video,label,start,end\n\na.mp4,sad,0.9,0.2\n", "line 3: the end, 0.2 s, is not after"),
        ("video,label,p_happy\na.mp4,sad,-0.3\n", "line 2, column p_happy: must be a fraction"),
        ("video,label,p_happy\na.mp4,sad,nan\n", "line 2, column p_happy: must be a fraction"),
        ("video,label,p_happy,p_sad\na.mp4,sad,0,0\n", "line 2: all soft labels are 0"),
        ("video,label,subset\na.mp4,sad,dev\n", "line 2: unknown subset 'dev'"),
        ("video,label,Label\na.mp4,sad,sad\n", "two columns are called 'label'"),
        (
            'video,label\na.mp4,"sad\nb.mp4,sad\n',
            "line 3: unexpected end of data; check the quotes",
        ),
        (b"video,label\na.mp4,tr\xe8s\n", "line 2, column label: is not in UTF-8; save"),
        ("a.npy;b.wav;3;training\na.npy;b.wav;3;dev\n", "line 2: unknown subset 'dev'"),
        ("version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ("video,label\n", "has a header and no rows"),
        (b"\0" * 200_000, "line 1: expected"),
    ],
)
def test_a_line_that_cannot_be_read_is_named_with_the_remedy(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=rf"list\.csv.*{message}"):
        _read(tmp_path, text)


def test_only_columns_of_classes_are_soft_labels(tmp_path: Path) -> None:
    header = "video,label,p_id,p_Fear,p_boredom,p_value"
    (record,) = _read(tmp_path, f"{header}\na.mp4,boredom,7,0.25,0.75,x\n")
    assert record.soft == {"fearful": 0.25, "boredom": 0.75}
    assert record.extra == {"p_id": "7", "p_value": "x"}


def test_a_name_that_is_not_utf8_comes_back_from_the_table(tmp_path: Path) -> None:
    record = Record(str(tmp_path / os.fsdecode(b"caf\xe9.mp4")), "", "sad")
    write_annotations([record], tmp_path / "list.csv")
    assert read_annotations(tmp_path / "list.csv") == [record]


def test_labels_of_other_spelling_are_told(tmp_path: Path) -> None:
    names = [
        "scared",
        "afraid",
        "fear",
        "disgusting",
        "disgusted",
        "surprise",
        "joy",
        "happiness",
        "anger",
        "sadness",
    ]
    rows = "".join(f"a.mp4,{name}\n" for name in [*names, "Happy", "contempt", "calm"])
    records = _read(tmp_path, f"video,label\n{rows}")
    assert [record.label for record in records] == (
        ["fearful"] * 3 + ["disgust"] * 2 + ["surprised", "happy", "happy", "angry", "sad", "happy"]
    ) + ["contempt", "calm"]
    told = tell_spellings(records)
    assert len(told) == len(names)
    assert "label scared is read as fearful (1 records)" in told
