"""Readers of EmoDB, nEMO, ASED, URDU and the faces beside them, in their layouts and by index."""

from __future__ import annotations

import wave
from collections import Counter
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from datasets.annotations import Record, read_annotations
from datasets.check import find_faults, find_shared_names, read_contents
from datasets.copies import without_copies
from datasets.corpora import (
    CORPORA,
    ased,
    emodb,
    faces_extra,
    nemo,
    read_corpus,
    speech_corpora,
    urdu,
)
from datasets.prepare import main as prepare_main
from datasets.store import ClipStore
from labels.emotions import SEVEN, describe_unplaced

INDEX = "audio,label,speaker,gender,corpus,language\n"


def _write_sound(path: Path, seed: int, seconds: float = 1.0, silence: float = 0.0) -> Path:
    """Noise of its own for each seed, with as much silence before and after it as asked for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 5000, round(16000 * seconds))
    still = np.zeros(round(16000 * silence))
    samples = np.concatenate([still, noise, still]).clip(-32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.tobytes())
    return path


def _make_sounds(root: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        _write_sound(root / name, seed)


def _make_index(root: Path) -> Path:
    """Two speakers of each corpus, one of them of each label; ASED's last sound is a copy."""
    lines = []
    for corpus, language in (("emodb", "de"), ("nemo", "pl"), ("ased", "am"), ("urdu", "ur")):
        for speaker in range(2):
            for label in ("happy", "sad", "boredom" if corpus == "emodb" else "angry"):
                name = f"{corpus}/{speaker}_{label}.wav"
                _write_sound(root / name, seed=len(lines))
                gender = ("male", "female")[speaker]
                lines.append(f"{name},{label},{corpus}-{speaker},{gender},{corpus},{language}\n")
    copied = root / "ased" / "copy.wav"
    copied.write_bytes((root / "ased" / "1_angry.wav").read_bytes())
    lines.append("ased/copy.wav,angry,ased-1,female,ased,am\n")
    (root / "index.csv").write_text(INDEX + "".join(lines))
    return root


def test_emodb_is_read_by_file_name(tmp_path: Path) -> None:
    names = [f"wav/{n}.wav" for n in ("03a01Fa", "08b10Ld", "16a05Wb", "03a01Nc", "13a02Ea")]
    for name in (*names, "wav/11a07Ab.wav", "wav/12b02Tc.wav", "labsil/03a01Fa.labsil", "x.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    records = {Path(r.audio).stem: r for r in emodb.read_records(tmp_path)}
    assert {name: r.label for name, r in records.items()} == {
        "03a01Fa": "happy",
        "08b10Ld": "boredom",
        "16a05Wb": "angry",
        "03a01Nc": "neutral",
        "13a02Ea": "disgust",
        "11a07Ab": "fearful",
        "12b02Tc": "sad",
    }
    happy = records["03a01Fa"]
    assert (happy.speaker, happy.dataset, happy.video) == ("emodb-03", "emodb", "")
    assert happy.extra == {
        "gender": "male",
        "language": "de",
        "statement": "a01",
        "repetition": "a",
    }
    assert records["08b10Ld"].extra["gender"] == "female"


def test_nemo_takes_gender_and_age_from_its_table(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    for name in ("WR0_surprised_64", "EB0_anger_1", "EB0_fear_2", "notes_about_1"):
        (tmp_path / "samples" / f"{name}.wav").touch()
    assert "gender" not in nemo.read_records(tmp_path)[0].extra, "there is no table yet"
    (tmp_path / "data.tsv").write_text(
        "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage\n"
        'WR0_surprised_64.wav\tsurprised\t„Ród" smoka.\tród smoka\t        WR0\tmale\t23\n'
        "EB0_anger_1.wav\tanger\tLubię.\tlubię\t        EB0\tfemale\t27\n",
        encoding="utf-8",
    )
    records = nemo.read_records(tmp_path)
    assert [(r.label, r.speaker, r.extra["gender"], r.extra["age"]) for r in records] == [
        ("angry", "nemo-EB0", "female", "27"),
        ("fearful", "nemo-EB0", "female", "27"),
        ("surprised", "nemo-WR0", "male", "23"),
    ]
    assert {r.extra["language"] for r in records} == {"pl"}
    (tmp_path / "data.tsv").write_text("file_id\temotion\n")
    with pytest.raises(ValueError, match="has no column age, gender, speaker_id"):
        nemo.read_records(tmp_path)


def test_ased_leaves_out_copies_and_settles_genders(tmp_path: Path) -> None:
    names = ("n1-01-01-02-42", "f2-03-01-01-09", "h3-01-02-01-09", "S4-04-02-02-09")
    _make_sounds(tmp_path, *(f"{i}X/{name}.wav" for i, name in enumerate(names)))
    _write_sound(tmp_path / "0X" / "n1-01-02-02-42.wav", seed=0)
    said: list[str] = []
    records = {Path(r.audio).stem: r for r in ased.read_records(tmp_path, report=said.append)}
    assert sorted(records) == sorted(names), "the second repetition has the first one's sound"
    assert said == ["ased: 1 recordings left out, copies of others under another name"]
    assert [records[n].label for n in names] == ["neutral", "fearful", "happy", "sad"]
    sad = records["S4-04-02-02-09"]
    assert (sad.speaker, sad.extra["gender"]) == ("ased-09", "female"), "as two of three names say"
    assert (sad.extra["repetition"], sad.extra["language"]) == ("2", "am")
    assert len(ased.read_records(tmp_path, keep_duplicates=True)) == 5


def test_urdu_names_speaker_and_emotion(tmp_path: Path) -> None:
    for name in ("Angry/SM1_F10_A010", "Happy/SF6/SF6_F1_H01", "Sad/SM24_F2_S014", "Sad/README"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.wav").touch()
    records = urdu.read_records(tmp_path)
    assert [(r.label, r.speaker, r.extra["gender"]) for r in records] == [
        ("angry", "urdu-SM1", "male"),
        ("happy", "urdu-SF6", "female"),
        ("sad", "urdu-SM24", "male"),
    ]


@pytest.mark.parametrize(
    ("corpus", "name"),
    [
        (emodb, "03a01Fa"),
        (nemo, "EB0_anger_1"),
        (ased, "a5-03-01-02-50"),
        (urdu, "SM1_F10_A010"),
    ],
)
def test_any_sound_file_of_a_corpus_is_read_but_no_hidden_one(
    corpus: ModuleType, name: str, tmp_path: Path
) -> None:
    for file in (f"{name}.OGG", f"._{name}.wav", f".trash/{name}.wav", f"{name}.txt"):
        path = tmp_path / "a" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (record,) = corpus.read_records(tmp_path)
    assert record.audio == str(tmp_path / "a" / f"{name}.OGG")


def test_the_index_keeps_each_record_in_its_corpus(tmp_path: Path) -> None:
    _make_index(tmp_path)
    said: list[str] = []
    records = read_corpus("speech_corpora", tmp_path, report=said.append)
    assert Counter(r.dataset for r in records) == dict.fromkeys(speech_corpora.LICENCES, 6)
    assert said == ["ased: 1 recordings left out, copies of others under another name"]
    assert {CORPORA[r.dataset].licence for r in records} == set(speech_corpora.LICENCES.values())
    assert {r.extra["language"] for r in records if r.dataset == "nemo"} == {"pl"}
    chosen = read_corpus("speech_corpora", tmp_path / "index.csv", corpora=["urdu"])
    assert {record.speaker for record in chosen} == {"urdu-0", "urdu-1"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.wav,happy,tess-1,female,tess,en\n", "is of corpus 'tess'; known are emodb"),
        ("a.wav,happy,03,male,emodb,de\n", "speaker '03' of a.wav must start with emodb-"),
        ("a.wav,happy,,male,emodb,de\n", "speaker '' of a.wav must start with emodb-"),
    ],
)
def test_a_strange_row_of_the_index_is_named(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "index.csv").write_text(INDEX + row)
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        speech_corpora.read_records(tmp_path)


def test_a_corpus_that_the_index_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text(f"{INDEX}a.wav,happy,emodb-03,male,emodb,de\n")
    with pytest.raises(ValueError, match="no row of urdu in "):
        speech_corpora.read_records(tmp_path, corpora=["urdu"])


def test_the_same_sound_in_two_corpora_is_no_copy(tmp_path: Path) -> None:
    sound = str(_write_sound(tmp_path / "a.wav", seed=0))
    (tmp_path / "broken.wav").touch()
    records = [Record("", sound, "happy", dataset=name) for name in ("emodb", "urdu", "urdu")]
    broken = Record("", str(tmp_path / "broken.wav"), "happy", dataset="urdu")
    assert without_copies([*records, broken, broken]) == [*records[:2], broken, broken]


def test_faces_of_the_index_are_of_their_corpus(tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text("video,label,speaker\nangry/0.jpg,angry,faces_extra-1\n")
    (record,) = faces_extra.read_records(tmp_path)
    assert (record.video, record.dataset) == (str(tmp_path / "angry" / "0.jpg"), "faces_extra")
    assert "LFW" in CORPORA["faces_extra"].licence


def test_faces_are_prepared_whole(tmp_path: Path) -> None:
    (tmp_path / "angry").mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "angry" / "0.png"), picture)
    (tmp_path / "index.csv").write_text("video,label,speaker\nangry/0.png,angry,faces_extra-1\n")
    out = tmp_path / "out"
    arguments = ["faces_extra", "--root", str(tmp_path), "--out", str(out), "--split", "keep"]
    assert prepare_main([*arguments, "--face_size", "96"]) == 0
    (record,) = read_annotations(out / "manifest.csv")
    assert ClipStore(out / "clips").recording(record.key).faces.shape == (1, 96, 96, 3)


def test_boredom_is_counted_where_seven_classes_have_no_place_for_it() -> None:
    labels = ["boredom", "happy", "calm", "boredom", "contempt"]
    assert describe_unplaced(labels, SEVEN) == "2 boredom, 1 contempt"
    assert describe_unplaced(["calm", "sad"], SEVEN) == ""


def test_an_index_is_prepared_trimmed_and_free_of_leaks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _make_index(tmp_path / "speech")
    _write_sound(tmp_path / "speech" / "emodb" / "0_happy.wav", seed=99, silence=0.5)
    manifests = []
    for corpora in (["emodb", "nemo"], ["ased", "urdu"]):
        out = tmp_path / corpora[0]
        arguments = ["--root", str(tmp_path / "speech"), "--out", str(out), "--corpora", *corpora]
        arguments += ["--trim_silence_db", "35", "--split_ratio", "0.25", "0.25"]
        assert prepare_main(["speech_corpora", *arguments]) == 0
        manifests.append(out / "manifest.csv")
    assert "ased: 1 recordings left out" in capsys.readouterr().out
    trimmed = next(r for r in read_annotations(manifests[0]) if "emodb/0_happy" in r.audio)
    assert (trimmed.start, trimmed.end) == (
        pytest.approx(0.5, abs=0.02),
        pytest.approx(1.5, abs=0.02),
    )
    pairs = [read_contents(manifest) for manifest in manifests]
    records = [record for found, _ in pairs for record in found]
    contents = [content for _, found in pairs for content in found]
    assert {fault.kind for fault in find_faults(records, contents)} <= {"class"}
    assert find_shared_names(records) == []


def test_a_speaker_that_two_corpora_name_alike_is_noted() -> None:
    records = [Record("", f"{n}.wav", "happy", speaker="1", dataset=n) for n in ("mine", "yours")]
    (note,) = find_shared_names([*records, Record("", "c.wav", "sad")])
    assert note.startswith("speaker 1 is of mine and yours: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["emodb", "--corpora", "emodb"], "--corpora is of speech_corpora only, not of emodb"),
        (["urdu", "--keep_duplicates"], "--keep_duplicates is of ased, fer2013, speech_corpora"),
    ],
)
def test_flags_of_other_corpora_are_refused(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = ["--root", str(tmp_path), "--out", str(tmp_path / "out")]
    assert prepare_main([*arguments, *rest]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.data
def test_the_shared_speech_corpora_are_as_they_are_described(real_data: Path) -> None:
    root, said = real_data / "speech_corpora", list[str]()
    all_records = speech_corpora.read_records(root, keep_duplicates=True)
    counts = Counter(record.dataset for record in all_records)
    assert counts == {"emodb": 535, "nemo": 2273, "ased": 2474, "urdu": 400}
    people = {record.speaker for record in all_records}
    found = Counter(name.split("-")[0] for name in people)
    assert found == {"emodb": 10, "nemo": 9, "ased": 65, "urdu": 29}
    assert Counter(r.label for r in all_records if r.dataset == "emodb") == {
        **{"angry": 127, "boredom": 81, "neutral": 79, "happy": 71},
        **{"fearful": 69, "sad": 62, "disgust": 46},
    }
    assert Counter(r.label for r in all_records if r.dataset == "nemo") == {
        **{"neutral": 396, "sad": 396, "happy": 382, "angry": 381},
        **{"fearful": 369, "surprised": 349},
    }
    assert Counter(r.label for r in all_records if r.dataset == "ased") == {
        **{"neutral": 522, "fearful": 510, "happy": 486, "angry": 486, "sad": 470}
    }
    labels = Counter(r.label for r in all_records if r.dataset == "urdu")
    assert labels == dict.fromkeys(("angry", "happy", "neutral", "sad"), 100)
    assert find_shared_names(all_records) == []
    kept = speech_corpora.read_records(root, corpora=["ased"], report=said.append)
    assert (len(kept), said) == (
        2470,
        ["ased: 4 recordings left out, copies of others under another name"],
    )


@pytest.mark.data
@pytest.mark.parametrize("name", sorted(speech_corpora.LICENCES))
def test_file_names_and_index_agree(real_data: Path, name: str) -> None:
    root = real_data / "speech_corpora"
    options = {"keep_duplicates": True} if name == "ased" else {}
    by_name = {Path(r.audio).name: r for r in read_corpus(name, root / name, **options)}
    listed = speech_corpora.read_records(root, [name], keep_duplicates=True)
    index = {Path(r.audio).name: r for r in listed}
    assert by_name.keys() == index.keys()
    for file, record in by_name.items():
        other = index[file]
        assert (record.label, record.speaker) == (other.label, other.speaker)
        assert record.extra["language"] == other.extra["language"]
        assert record.extra.get("gender", other.extra["gender"]) == other.extra["gender"]


@pytest.mark.data
def test_the_shared_faces_are_as_they_are_described(real_data: Path) -> None:
    records = faces_extra.read_records(real_data / "faces_extra")
    assert all(Path(record.video).is_file() for record in records)
    assert Counter(r.label for r in records) == {
        **{"neutral": 1000, "happy": 1000, "surprised": 367, "sad": 268},
        **{"angry": 252, "disgust": 208, "fearful": 21},
    }
