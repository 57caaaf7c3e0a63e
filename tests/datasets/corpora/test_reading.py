"""Readers of the corpora, on small ones made in their published layouts."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import pytest

from datasets.annotations import SUBSETS, read_annotations, write_annotations
from datasets.corpora import CORPORA, cremad, own_folder, ravdess, read_corpus
from datasets.splits import check_speakers, split_by_ratio
from labels.emotions import SIX

EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")
SUMMARY = (
    '"","FileName","VoiceVote","VoiceLevel","FaceVote","FaceLevel",'
    '"MultiModalVote","MultiModalLevel"\n'
    '"1","1001_DFA_ANG_XX","N","69.1","A","92.22","D","64.78"\n'
    '"2","1001_IEO_HAP_LO","H:N","48.25:77.25","H","57","F:H","57.38:50"\n'
    '"3","1002_DFA_FEA_XX","A:D","37.2:58.6","F","45.5","D:S","44.2:40"\n'
)
VOTES = (
    '"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote"\n'
    '"100001",1,0,0,0,9,0,"1001_DFA_ANG_XX",10,0.9,"N"\n'
    '"200001",8,2,0,0,0,0,"1001_DFA_ANG_XX",10,0.8,"A"\n'
    '"300001",3,6,0,0,1,0,"1001_DFA_ANG_XX",10,0.6,"D"\n'
)
DEMOGRAPHICS = (
    '"ActorID","Age","Sex","Race","Ethnicity"\n'
    '1001,51,"Male","Caucasian","Not Hispanic"\n'
    '1002,21,"Female","Asian","Hispanic"\n'
)


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _make_cremad(root: Path, votes: bool = True) -> None:
    names = ("1001_DFA_ANG_XX", "1001_IEO_HAP_LO", "1002_DFA_FEA_XX")
    _touch(root, *(f"VideoFlash/{name}.flv" for name in names))
    _touch(root, *(f"AudioWAV/{name}.wav" for name in names))
    _touch(root, *(f"AudioMP3/{name}.mp3" for name in names), "AudioMP3/1040_ITH_SAD_X.mp3")
    (root / "VideoDemographics.csv").write_text(DEMOGRAPHICS)
    (root / "processedResults").mkdir()
    (root / "processedResults" / "summaryTable.csv").write_text(SUMMARY)
    if votes:
        (root / "processedResults" / "tabulatedVotes.csv").write_text(VOTES)


def test_cremad_is_read_in_its_own_layout(tmp_path: Path) -> None:
    _make_cremad(tmp_path)
    records = {record.extra["performance"]: record for record in cremad.read_records(tmp_path)}
    assert len(records) == 4
    angry = records["1001_DFA_ANG_XX"]
    assert (Path(angry.video).suffix, Path(angry.audio).suffix) == (".flv", ".wav")
    assert (angry.label, angry.speaker, angry.soft) == ("angry", "cremad-1001", {})
    assert angry.extra["scored"] == "intended"
    assert [angry.extra[n] for n in ("gender", "age", "race")] == ["male", "51", "Caucasian"]
    assert [angry.extra[f"perceived_{n}"] for n in ("audio", "video", "both")] == [
        "neutral",
        "angry",
        "disgust",
    ]
    shares = {n: v for n, v in angry.extra.items() if n.startswith("perceived_share_") and float(v)}
    assert shares == {
        "perceived_share_angry": "0.3000",
        "perceived_share_disgust": "0.6000",
        "perceived_share_neutral": "0.1000",
    }
    assert angry.extra["perceived"] == "disgust", "of the clip's face and sound"
    assert records["1001_IEO_HAP_LO"].extra["perceived_audio"] == "happy:neutral"
    assert records["1001_IEO_HAP_LO"].extra["intensity"] == "low"
    only_sound = records["1040_ITH_SAD_X"]
    assert "perceived" not in only_sound.extra, "raters did not judge it"
    assert (only_sound.video, Path(only_sound.audio).suffix) == ("", ".mp3")


def test_cremad_votes_are_soft_labels(tmp_path: Path) -> None:
    _make_cremad(tmp_path)
    records = {r.extra["performance"]: r for r in cremad.read_records(tmp_path, "perceived")}
    angry = records["1001_DFA_ANG_XX"]
    assert (angry.label, angry.extra["intended"]) == ("disgust", "angry")
    assert angry.soft == pytest.approx({"angry": 0.3, "disgust": 0.6, "neutral": 0.1})
    assert angry.extra["scored"] == "perceived_both"
    happy = records["1001_IEO_HAP_LO"]
    assert happy.label == "happy", "a tie is read as the intended emotion"
    assert happy.soft == pytest.approx({"fearful": 0.5, "happy": 0.5})
    assert "1002_DFA_FEA_XX" not in records, "raters were of two other minds"


def test_cremad_is_read_from_one_flat_folder_of_wavs(tmp_path: Path) -> None:
    _touch(tmp_path, "1001_DFA_ANG_XX.wav", "1091_WSI_NEU_XX.WAV", "1001_notes.wav")
    records = cremad.read_records(tmp_path)
    assert [record.label for record in records] == ["angry", "neutral"]
    assert not any(record.video for record in records)
    assert not any(name.startswith("perceived_share") for name in records[0].extra)
    with pytest.raises(ValueError, match=r"no summaryTable\.csv"):
        cremad.read_records(tmp_path, "perceived")
    (tmp_path / "summaryTable.csv").write_text(SUMMARY)
    (angry,) = cremad.read_records(tmp_path, "perceived")
    assert (angry.label, angry.soft) == ("neutral", {"neutral": 1.0}), "judged by the sound"
    assert angry.extra["perceived"] == "neutral"
    (tmp_path / "summaryTable.csv").write_text("FileName,VoiceVote\n")
    with pytest.raises(ValueError, match="has no column FaceVote, MultiModalVote"):
        cremad.read_records(tmp_path)


def test_ravdess_is_read_in_every_layout(tmp_path: Path) -> None:
    _touch(
        tmp_path,
        "Actor_01/01-01-03-01-01-01-01.mp4",
        "Video_Speech_Actor_01/Actor_01/02-01-03-01-01-01-01.mp4",  # its silent twin
        "Audio_Speech_Actors_01-24/Actor_01/03-01-03-01-01-01-01.wav",
        "audio_speech_actors_01-24/Actor_01/03-01-03-01-01-01-01.wav",  # Kaggle holds all twice
        "ACTOR02/02-01-05-02-02-02-02.MP4",
        "Audio_Speech_Actors_01-24/Actor_03/03-01-08-01-01-01-03.WAV",
        "Video_Song_Actor_04/Actor_04/01-02-04-01-01-01-04.mp4",
        "Actor_01/._01-01-03-01-01-01-01.mp4",
    )
    records = {r.extra["performance"]: r for r in read_corpus("ravdess", tmp_path)}
    assert sorted(records) == ["01-03-01-01-01-01", "01-05-02-02-02-02", "01-08-01-01-01-03"]
    assert Path(records["01-03-01-01-01-01"].video).name.startswith("01-")
    silent, heard = records["01-05-02-02-02-02"], records["01-08-01-01-01-03"]
    assert (silent.label, Path(silent.video).suffix, silent.audio) == ("angry", ".MP4", "")
    assert (heard.label, heard.video, Path(heard.audio).suffix) == ("surprised", "", ".WAV")
    assert (silent.extra["intensity"], silent.extra["gender"]) == ("strong", "female")
    songs = [r for r in read_corpus("ravdess_song", tmp_path) if r.extra["channel"] == "song"]
    assert [record.label for record in songs] == ["sad"]
    assert len(read_corpus("ravdess", tmp_path, song=True)) == 4, "as --song asks for"


def _make_both(root: Path) -> None:
    for actor in range(1, 25):
        names = [f"03-01-{emotion:02d}-01-01-01-{actor:02d}.wav" for emotion in range(1, 9)]
        _touch(root, *(f"RAVDESS/Actor_{actor:02d}/{name}" for name in names))
    rows = ["ActorID,Age,Sex,Race,Ethnicity"]
    for actor in range(1001, 1031):
        emotions = EMOTIONS if actor % 5 else EMOTIONS[:3]  # some actors lack emotions
        _touch(root, *(f"CREMA-D/AudioWAV/{actor}_DFA_{name}_XX.wav" for name in emotions))
        rows.append(f"{actor},30,{'Male' if actor < 1016 else 'Female'},Unknown,Unknown")
    (root / "CREMA-D" / "VideoDemographics.csv").write_text("\n".join(rows) + "\n")


def test_the_combined_corpus_has_six_classes_and_even_sides(tmp_path: Path) -> None:
    _make_both(tmp_path)
    records = read_corpus("combined", tmp_path)
    assert {record.label for record in records} == set(SIX)
    assert Counter(r.extra["original"] for r in records if r.label == "neutral")["calm"] == 24
    split = split_by_ratio(records, 0.2, 0.2, seed=3)
    check_speakers(split)
    people = {(r.subset, r.dataset, r.extra["gender"], r.speaker) for r in split}
    counts = Counter(person[:3] for person in people)
    for subset in SUBSETS[1:]:
        for gender in ("male", "female"):
            assert counts[subset, "ravdess", gender] in (2, 3), "a fifth of 12"
            assert counts[subset, "cremad", gender] in (2, 3, 4), "a fifth of 15"
    for subset in SUBSETS:
        labels = Counter(r.label for r in split if r.subset == subset and r.dataset == "cremad")
        assert labels["sad"] / labels.total() == pytest.approx(0.148, abs=0.04)


def test_own_folders_of_classes_warn_of_missing_speakers(tmp_path: Path) -> None:
    _touch(tmp_path, "Happiness/a.mp4", "sad/b.WAV", "sad/c.png", "sad/notes.txt")
    with pytest.warns(UserWarning, match="3 of 3 records in .* have no speaker"):
        records = read_corpus("own_folder", tmp_path)
    assert [record.label for record in records] == ["happy", "sad", "sad"]
    assert [Path(r.video or r.audio).name for r in records] == ["a.mp4", "b.WAV", "c.png"]
    assert records[1].video == ""


def test_an_own_table_with_speakers_is_taken_quietly(tmp_path: Path) -> None:
    text = "video,label,speaker\nx/a.mp4,joy,anna\nx/b.mp4,sad,ben\n"
    (tmp_path / "labels.csv").write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = own_folder.read_records(tmp_path)
    assert [(r.label, r.speaker, r.dataset) for r in records] == [
        ("happy", "anna", "own"),
        ("sad", "ben", "own"),
    ]
    assert records[0].video == str(tmp_path / "x" / "a.mp4")
    (tmp_path / "other.csv").write_text(text)
    with pytest.raises(ValueError, match=r"several tables \(labels\.csv, other\.csv\)"):
        own_folder.read_records(tmp_path)
    assert len(own_folder.read_records(tmp_path / "other.csv")) == 2


@pytest.mark.parametrize("name", sorted(set(CORPORA) - {"annotation"}))
def test_every_corpus_says_what_it_looked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no .* {tmp_path}"):
        read_corpus(name, tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        read_corpus(name, tmp_path / "absent")
    assert CORPORA[name].licence
    assert CORPORA[name].cropped_faces == (name in ("fer2013", "faces_extra"))


def test_an_unknown_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown corpus 'tess'; choose from affdex, "):
        read_corpus("tess", tmp_path)


def test_columns_of_a_corpus_outlive_the_manifest(tmp_path: Path) -> None:
    _make_cremad(tmp_path)
    records = cremad.read_records(tmp_path, "perceived")
    write_annotations(records, tmp_path / "manifest.csv")
    back = read_annotations(tmp_path / "manifest.csv")
    assert [r.extra for r in back] == [r.extra for r in records]
    assert back[0].soft == pytest.approx(records[0].soft)


def test_crowd_labels_are_no_targets_where_the_intended_are_asked_for(tmp_path: Path) -> None:
    _make_cremad(tmp_path)
    _touch(tmp_path, "Actor_01/03-01-05-01-01-01-01.wav")
    write_annotations(read_corpus("combined", tmp_path), tmp_path / "manifest.csv")
    heard = {r.extra["performance"]: r for r in read_annotations(tmp_path / "manifest.csv")}
    assert not any(record.soft for record in heard.values())
    assert heard["1001_DFA_ANG_XX"].extra["perceived_share_disgust"] == "0.6000"
    assert heard["01-05-01-01-01-01"].extra["perceived"] == ""


@pytest.mark.data
def test_all_ravdess_speech_is_found(real_data: Path) -> None:
    records = ravdess.read_records(real_data / "ravdess_speech")
    assert len(records) == len({r.extra["performance"] for r in records}) == 1440
    assert Counter(r.label for r in records) == Counter(
        dict.fromkeys(("calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"), 192)
        | {"neutral": 96}
    )
    videos = ravdess.read_records(real_data / "ravdess_av")
    assert len(videos) == 5
    assert {r.extra["performance"] for r in videos} <= {r.extra["performance"] for r in records}
