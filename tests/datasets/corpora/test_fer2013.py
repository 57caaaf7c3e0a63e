"""FER2013 in its published forms, and what of it repeats itself."""

from __future__ import annotations

import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets import fer2013_copies
from datasets.annotations import read_annotations
from datasets.corpora import fer2013, read_corpus
from datasets.fer2013_copies import Duplicates, format_duplicates
from datasets.prepare import main as prepare_main


def _pixels(seed: int) -> str:
    return " ".join(map(str, np.random.default_rng(seed).integers(0, 256, 48 * 48)))


def _make_fer_csv(root: Path) -> Path:
    rows = [(3, 1, "Training"), (2, 9, "Training"), (6, 5, "PublicTest"), (4, 9, "PrivateTest")]
    lines = [f"{emotion},{_pixels(seed)},{usage}" for emotion, seed, usage in rows]
    (root / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *lines]) + "\n")
    return root / "fer2013.csv"


def test_fer2013_is_unpacked_from_its_csv_once(tmp_path: Path) -> None:
    table = _make_fer_csv(tmp_path)
    folder = fer2013.unpack_csv(table, tmp_path / "pictures")
    picture = cv2.imread(str(folder / "train/happy/Training_000000.png"), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert " ".join(map(str, picture.ravel())) == _pixels(1)
    table.write_text("")
    assert fer2013.unpack_csv(table, folder) == folder, "what is there is not unpacked again"
    records = {Path(r.video).name: r for r in fer2013.read_records(folder)}
    assert sorted(records) == [
        "PrivateTest_000003.png",
        "PublicTest_000002.png",
        "Training_000000.png",
    ]
    assert [records[name].label for name in sorted(records)] == ["sad", "neutral", "happy"]
    assert records["PublicTest_000002.png"].subset == "validation"


def test_fer2013_csv_takes_the_votes_beside_it(tmp_path: Path) -> None:
    _make_fer_csv(tmp_path)
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt"
    rows = ["Training,a,4,6,0,0,0,0,0,0,0,0", "Training,b,10,0,0,0,0,0,0,0,0,0"]
    rows += ["PublicTest,c,0,0,0,0,0,0,0,0,0,10", "PrivateTest,d,0,0,0,9,1,0,0,0,0,0"]
    (tmp_path / "fer2013new.csv").write_text("\n".join([f"{header},unknown,NF", *rows]))
    records = {Path(r.video).name: r for r in read_corpus("fer2013", tmp_path)}
    assert records["Training_000000.png"].soft == {"neutral": 0.4, "happy": 0.6}
    assert "PublicTest_000002.png" not in records, "not a face"
    assert records["PrivateTest_000003.png"].soft == {"sad": 1.0}
    original = read_corpus("fer2013", tmp_path, original_labels=True)
    assert {Path(r.video).name: r.label for r in original if not r.soft} == {
        "Training_000000.png": "happy",
        "PublicTest_000002.png": "neutral",
        "PrivateTest_000003.png": "sad",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("emotion,pixels\n", "expected the columns emotion, pixels, Usage"),
        ("emotion,pixels,Usage\n", "no rows"),
        ("emotion,pixels,Usage\n7,0 0,Training\n", "line 2: expected an emotion 0..6"),
        ("emotion,pixels,Usage\n3,0 0,Training\n", "line 2: 2 pixels, not 48x48"),
    ],
)
def test_a_bad_fer2013_csv_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "fer2013.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        fer2013.read_records(tmp_path / "fer2013.csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _blobs(seed: int) -> np.ndarray:
    """(48, 48) uint8 of soft blobs, others for each seed."""
    few = np.random.default_rng(seed).integers(0, 256, (6, 6), dtype=np.uint8)
    return cv2.resize(few, (48, 48), interpolation=cv2.INTER_CUBIC)


def _make_fer_copies(root: Path) -> None:
    """One different picture in each subset, and copies of them, as they are and brightened."""
    one, two, three = (_blobs(seed) for seed in range(3))
    pictures = {
        "test/sad/PrivateTest_1.png": one,
        "test/sad/PublicTest_2.png": two,
        "train/sad/Training_3.png": three,
        "train/sad/Training_4.png": three,
        "train/fear/Training_5.png": three // 2 + 40,  # nearly the same within a subset: it stays
        "test/sad/PublicTest_6.png": one // 2 + 60,
        "train/fear/Training_7.png": one,
        "train/sad/Training_8.png": two // 2 + 60,
        "test/sad/PrivateTest_9.png": one,
    }
    for name, picture in pictures.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), picture)


def test_fer2013_copies_across_subsets_are_left_out(tmp_path: Path) -> None:
    _make_fer_copies(tmp_path)
    found: list[Duplicates] = []
    records = fer2013.read_records(tmp_path, report=found.append)
    names = sorted(Path(record.video).stem for record in records)
    assert names == ["PrivateTest_1", "PublicTest_2", "Training_3", "Training_5"]
    assert len(found) == 1, "pictures are compared once"
    assert len(fer2013.read_records(tmp_path, keep_duplicates=True)) == 9


def test_fer2013_is_compared_again_only_where_a_picture_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_fer_copies(tmp_path)
    known = tmp_path / "out" / "copies.json"
    first = fer2013.read_records(tmp_path, cache=known)
    compared: list[int] = []
    real = fer2013_copies.compare
    monkeypatch.setattr(fer2013_copies, "compare", lambda paths: compared.append(1) or real(paths))
    found: list[Duplicates] = []
    assert fer2013.read_records(tmp_path, cache=known, report=found.append) == first
    assert not compared
    assert found == [real(fer2013._list_pictures(tmp_path))]
    fer2013._list_pictures(tmp_path)[0].touch()
    assert fer2013.read_records(tmp_path, cache=known) == first
    assert compared == [1]
    known.write_text("half a fi")
    fer2013.read_records(tmp_path, cache=known)
    assert compared == [1, 1]


def test_fer2013_duplicates_are_counted_and_told(tmp_path: Path) -> None:
    _make_fer_copies(tmp_path)
    found = fer2013.find_duplicates(tmp_path)
    assert (found.pictures, found.unique, found.conflicting) == (9, 6, 1)
    assert found.within == {"training": 1, "testing": 1}
    assert found.across == {("testing", "training"): 1}
    # the brightened copy of one with it, of which testing holds two and training one
    assert found.near == {
        ("testing", "validation"): 2,
        ("training", "validation"): 2,
    }
    repeats = {copy.stem: one.stem for copy, one in found.repeats.items()}
    assert repeats == {
        "PrivateTest_9": "PrivateTest_1",
        "PublicTest_6": "PrivateTest_1",
        "Training_4": "Training_3",
        "Training_7": "PrivateTest_1",
        "Training_8": "PublicTest_2",
    }
    lines = format_duplicates(found, keep=False).splitlines()
    assert lines[0] == "FER2013: 9 pictures, 6 different; 1 stand under several classes"
    assert "validation and testing: 0 the same, 2 pairs nearly the same" in lines
    assert lines[-1] == "left out: training 3, validation 1, testing 1"


def test_preparing_fer2013_tells_of_duplicates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _make_fer_copies(tmp_path / "raw")
    arguments = ["fer2013", "--root", str(tmp_path / "raw"), "--face_size", "32", "--out"]
    assert prepare_main([*arguments, str(tmp_path / "some")]) == 0
    assert "left out: training 3, validation 1, testing 1" in capsys.readouterr().out
    assert prepare_main([*arguments, str(tmp_path / "all"), "--keep_duplicates"]) == 0
    assert "kept: all" in capsys.readouterr().out
    counts = [len(read_annotations(tmp_path / n / "manifest.csv")) for n in ("some", "all")]
    assert counts == [4, 9]


def test_a_damaged_fer2013_picture_is_left_to_preparing(tmp_path: Path) -> None:
    _make_fer_copies(tmp_path)
    (tmp_path / "train/sad/Training_0.png").write_bytes(b"no picture")
    (tmp_path / "train/sad/Training_00.png").touch()
    names = {Path(record.video).stem for record in fer2013.read_records(tmp_path)}
    assert {"Training_0", "Training_00"} <= names


@pytest.mark.data
@pytest.mark.slow
def test_the_real_fer2013_holds_its_known_duplicates(real_data: Path, tmp_path: Path) -> None:
    with tarfile.open(real_data / "fer2013.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    found = fer2013.find_duplicates(tmp_path)
    assert (found.pictures, found.unique) == (35_887, 34_034)
    assert found.across[("testing", "training")] == 278
    assert found.near[("testing", "training")] > 400
