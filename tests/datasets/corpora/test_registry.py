"""What every registered corpus promises, and a corpus that is added from outside."""

from __future__ import annotations

import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.annotations import Record, read_annotations
from datasets.corpora import (
    CORPORA,
    Corpus,
    CorpusOption,
    format_corpora,
    read_corpus,
    register_corpus,
)
from datasets.prepare import main, parse_options
from datasets.store import ClipStore
from labels.emotions import canonical

ROOT = Path(__file__).parents[3]
RAVDESS_NAMES = ("Actor_01/01-01-03-01-01-01-01.mp4", "Actor_02/03-01-08-01-01-01-02.wav")
CREMAD_NAMES = ("VideoFlash/1001_DFA_ANG_XX.flv", "AudioWAV/1001_DFA_ANG_XX.wav")
CREMAD_NAMES += ("AudioWAV/1002_DFA_HAP_LO.wav",)
VOTES = "FileName,VoiceVote,FaceVote,MultiModalVote\n1001_DFA_ANG_XX,N,A,D\n1002_DFA_HAP_LO,S,H,H\n"
INDEX = "audio,label,speaker,gender,corpus,language\n"
INDEX += "a.wav,boredom,emodb-03,male,emodb,de\nb.wav,sad,urdu-SM1,male,urdu,ur\n"
EXPORT = "Row,Timestamp,Joy,Anger\n1,0,90,0\n2,500,90,0\n3,990,90,0\n"

Files = dict[str, str | bytes]


@dataclass(frozen=True)
class Layout:
    """Files of a corpus as it is published, and what a reader finds in them, in any order."""

    files: Files
    labels: tuple[str, ...]
    speakers: tuple[str, ...]


def _empty(*names: str) -> Files:
    return dict.fromkeys(names, "")


def _png(seed: int) -> bytes:
    picture = np.random.default_rng(seed).integers(0, 256, (48, 48), dtype=np.uint8)
    return cv2.imencode(".png", picture)[1].tobytes()


FER = {"train/happy/Training_1.png": _png(1), "test/surprise/PrivateTest_2.png": _png(2)}
RAVDESS = Layout(_empty(*RAVDESS_NAMES), ("happy", "surprised"), ("ravdess-01", "ravdess-02"))
CREMAD = Layout(_empty(*CREMAD_NAMES), ("angry", "happy"), ("cremad-1001", "cremad-1002"))
LAYOUTS = {
    "affdex": Layout({"P01.csv": EXPORT, "P01.mp4": ""}, ("happy",), ("affdex-P01",)),
    "annotation": Layout({"": "audio,label,speaker\na.wav,joy,anna\n"}, ("happy",), ("anna",)),
    "ased": Layout(_empty("Anger/a5-03-01-02-50.wav"), ("angry",), ("ased-50",)),
    "combined": Layout(
        {**_empty("R/01-01-02-01-01-01-01.mp4", "R/01-01-08-01-01-01-01.mp4"), **CREMAD.files},
        ("neutral", "angry", "happy"),
        ("ravdess-01", "cremad-1001", "cremad-1002"),
    ),
    "cremad": CREMAD,
    "cremad_perceived": replace(
        CREMAD,
        files={**CREMAD.files, "processedResults/summaryTable.csv": VOTES},
        labels=("disgust", "sad"),
    ),
    "emodb": Layout(_empty("wav/03a01Lb.wav"), ("boredom",), ("emodb-03",)),
    "faces_extra": Layout(
        {"index.csv": "video,label,speaker\nhappy/0000.jpg,happy,faces-1\n"},
        ("happy",),
        ("faces-1",),
    ),
    "fer2013": Layout(FER, ("happy", "surprised"), ("", "")),
    "nemo": Layout(_empty("samples/EB0_anger_1.wav"), ("angry",), ("nemo-EB0",)),
    "own_folder": Layout(
        {"labels.csv": "video,label,speaker\na.mp4,joy,anna\n"}, ("happy",), ("anna",)
    ),
    "ravdess": RAVDESS,
    "ravdess_song": Layout(
        _empty(*RAVDESS_NAMES, "Actor_04/01-02-04-01-01-01-04.mp4"),
        (*RAVDESS.labels, "sad"),
        (*RAVDESS.speakers, "ravdess-04"),
    ),
    "speech_corpora": Layout({"index.csv": INDEX}, ("boredom", "sad"), ("emodb-03", "urdu-SM1")),
    "urdu": Layout(_empty("Angry/SM1_F10_A010.wav"), ("angry",), ("urdu-SM1",)),
}


def _lay_out(root: Path, files: Files) -> Path:
    for name, content in files.items():
        path = root / name if name else root  # a table alone
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


@pytest.mark.parametrize("name", sorted(CORPORA))
def test_every_corpus_is_read_in_its_documented_layout(name: str, tmp_path: Path) -> None:
    layout, corpus = LAYOUTS[name], CORPORA[name]
    records = read_corpus(name, _lay_out(tmp_path / "corpus", layout.files))
    assert sorted(record.label for record in records) == sorted(layout.labels)
    assert sorted(record.speaker for record in records) == sorted(layout.speakers)
    assert all(canonical(record.label) == record.label for record in records)
    assert not corpus.classes or {record.label for record in records} <= set(corpus.classes)


@pytest.mark.parametrize("name", sorted(CORPORA))
def test_every_corpus_states_its_terms_and_whom_to_cite(name: str) -> None:
    corpus = CORPORA[name]
    assert corpus.licence
    assert corpus.source or name in ("annotation", "own_folder")
    assert all(link.startswith("http") for link in corpus.links)
    assert corpus.name == name


def test_the_documentation_lists_what_can_be_read() -> None:
    page = (ROOT / "docs" / "corpora.md").read_text()
    assert format_corpora() in page, "copy the output of `python -m datasets.corpora` into it"


def test_the_command_line_takes_every_corpus_and_its_options() -> None:
    for corpus in CORPORA.values():
        options = parse_options([corpus.name, "--root", "a", "--out", "b"])
        assert options.corpus == corpus.name
        assert all(getattr(options, option.name) in (None, False) for option in corpus.options)


def _write_tone(path: Path, hertz: float) -> None:
    times = np.arange(8000) / 16000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((8000 * np.sin(2 * np.pi * hertz * times)).astype(np.int16).tobytes())


def _read_tones(
    root: Path, pitch: str = "all", report: Callable[[str], None] | None = None
) -> list[Record]:
    records = [
        Record("", str(path), "happy" if path.stem > "m" else "sad", speaker=path.parent.name)
        for path in sorted(root.glob("*/*.wav"))
        if pitch in ("all", path.stem)
    ]
    if report:
        report(f"{len(records)} tones found")
    return [replace(record, dataset="tones") for record in records]


@pytest.fixture
def tones(monkeypatch: pytest.MonkeyPatch) -> Iterator[Corpus]:
    """A corpus from outside, for as long as a test runs."""
    corpus = Corpus(
        name="tones",
        read=_read_tones,
        layout="`PERSON/low.wav` and `PERSON/no.wav`",
        labels="2: happy, sad",
        licence="public domain",
        classes=("happy", "sad"),
        options=(CorpusOption("pitch", "only these", str, choices=("low", "no")),),
        reports=True,
    )
    before = dict(CORPORA)
    yield register_corpus(corpus)
    CORPORA.clear()
    CORPORA.update(before)


def _make_tones(root: Path) -> None:
    for person in ("anna", "ben", "carla"):
        (root / person).mkdir(parents=True)
        for name, hertz in (("low", 200), ("no", 900)):
            _write_tone(root / person / f"{name}.wav", hertz)


def test_a_corpus_from_outside_is_prepared_like_any_other(
    tones: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _make_tones(tmp_path / "in")
    arguments = ["tones", "--root", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--split_ratio", "0.34", "0.34"]) == 0
    assert "6 tones found" in capsys.readouterr().out
    records = read_annotations(tmp_path / "out" / "manifest.csv")
    assert {(r.label, r.speaker, r.dataset) for r in records} == {
        (label, person, "tones")
        for label in ("happy", "sad")
        for person in ("anna", "ben", "carla")
    }
    assert {record.subset for record in records} == {"training", "validation", "testing"}
    store = ClipStore(tmp_path / "out" / "clips")
    assert [store.count(record.key, "waveform") for record in records] == [8000] * 6
    assert main([*arguments[:3], "--out", str(tmp_path / "low"), "--pitch", "low"]) == 0
    assert {r.label for r in read_annotations(tmp_path / "low" / "manifest.csv")} == {"sad"}


def test_its_options_are_refused_for_others(
    tones: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["emodb", "--root", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--pitch", "low"]) == 2
    assert "pitch is of tones only, not of emodb" in capsys.readouterr().err


def test_a_name_is_given_once(tones: Corpus) -> None:
    with pytest.raises(ValueError, match="two corpora are called tones"):
        register_corpus(tones)
    other = replace(tones, name="more", options=(CorpusOption("pitch", "a switch"),))
    with pytest.raises(ValueError, match="option pitch of more takes other values"):
        register_corpus(other)
    assert "more" not in CORPORA
