"""Batches of recordings: one bad file harms no other, names stay apart, and a run can go on."""

from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from checkpoints.checkpoint import save_checkpoint
from main import main
from media.listing import output_names, where
from recognition import batch
from recognition.batch import SUMMARY_COLUMNS
from recognition.session import Session
from tests.builders import make_checkpoint
from tests.conftest import RATE, WriteMedia
from timeline.formats import read_timeline

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def voice_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that only hears: no detector, so files are quick."""
    path = tmp_path_factory.mktemp("model") / "voice.safetensors"
    save_checkpoint(make_checkpoint("speech_cnn"), path)
    return path


@pytest.fixture(scope="module")
def tone(tmp_path_factory: pytest.TempPathFactory, write_media: WriteMedia) -> bytes:
    path = tmp_path_factory.mktemp("tone") / "tone.wav"
    sound = 0.3 * np.sin(np.arange(2 * RATE) * 0.2).astype(np.float32)
    return write_media(path, sound=sound, audio_codec="pcm_s16le").read_bytes()


def _put(folder: Path, content: bytes, *names: str) -> None:
    for name in names:
        path = Path(os.fsdecode(os.fsencode(folder) + b"/" + os.fsencode(name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _run(model: Path, media: Path, out: Path, *flags: str) -> int:
    paths = ["--media_path", str(media), "--output", str(out), "--model_path", str(model)]
    return main([*paths, "--no_plot", *flags])


def _summary(out: Path) -> list[dict[str, str]]:
    with (out / "summary.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


LONG = ["長" * 82, "a" * 251, "é" * 125 + "x", "長" * 82 + "b"]


def test_names_of_any_legal_length_and_bytes_are_written(
    tmp_path: Path, voice_model: Path, tone: bytes
) -> None:
    odd = os.fsdecode(b"caf\xe9")
    _put(tmp_path / "in", tone, *(f"{name}.wav" for name in LONG), f"{odd}.wav", "plain.wav")
    assert _run(voice_model, tmp_path / "in", tmp_path / "out") == 0
    rows = _summary(tmp_path / "out")
    assert len(rows) == 6
    assert not any(row["error"] for row in rows)
    assert any("caf\\xe9.wav" in row["file"] for row in rows)
    tables = sorted((tmp_path / "out").glob("*.json"))
    assert len(tables) == 6
    assert all(path.with_suffix(".csv").exists() for path in tables)
    assert {read_timeline(path).source["file"] for path in tables} >= {f"{LONG[1]}.wav"}
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_a_console_without_the_letters_of_a_name_shows_their_codes(
    tmp_path: Path, voice_model: Path, tone: bytes
) -> None:
    _put(tmp_path / "in", tone, "名前.wav", "z.wav")
    code = (
        "import sys; import recognition.batch; from main import main; "
        "sys.exit(main(['--media_path', sys.argv[1], '--output', sys.argv[2], "
        "'--model_path', sys.argv[3], '--no_plot']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "in", tmp_path / "out", voice_model],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert rb"\u540d\u524d.wav" in done.stdout
    assert {p.name for p in (tmp_path / "out").glob("*.json")} == {"名前.json", "z.json"}


def test_an_error_in_writing_one_file_is_that_files_alone(
    tmp_path: Path,
    voice_model: Path,
    tone: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _put(tmp_path / "in", tone, "a.wav", "b.wav", "c.wav")
    write = batch.write_csv

    def refuse_b(timeline: object, path: Path) -> None:
        if timeline.media == "b.wav":  # type: ignore[attr-defined]
            raise OSError(errno.ENAMETOOLONG, "File name too long", "b.csv")
        write(timeline, path)  # type: ignore[arg-type]

    monkeypatch.setattr(batch, "write_csv", refuse_b)
    assert _run(voice_model, tmp_path / "in", tmp_path / "out") == 1
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"a.csv", "a.json", "c.csv", "c.json", "summary.csv"}
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert "b.wav" in errors[0]
    assert [row["error"] != "" for row in _summary(tmp_path / "out")] == [False, True, False]


def test_an_error_in_printing_one_file_is_that_files_alone(
    tmp_path: Path, voice_model: Path, tone: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(tmp_path / "in", tone, "a.wav", "b.wav")
    tell = batch.summarise

    def fail_once(timeline: object) -> str:
        if timeline.media == "a.wav":  # type: ignore[attr-defined]
            raise UnicodeEncodeError("charmap", "a", 0, 1, "no such letter")
        return tell(timeline)  # type: ignore[arg-type]

    monkeypatch.setattr(batch, "summarise", fail_once)
    assert _run(voice_model, tmp_path / "in", tmp_path / "out") == 1
    assert (tmp_path / "out" / "b.json").exists()


def test_a_full_disk_ends_the_batch_in_one_line_that_names_the_file(
    tmp_path: Path,
    voice_model: Path,
    tone: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _put(tmp_path / "in", tone, "a.wav", "b.wav", "c.wav")
    assert _run(voice_model, tmp_path / "in" / "a.wav", tmp_path / "out") == 0
    capsys.readouterr()
    before = (tmp_path / "out" / "a.json").read_bytes()
    write = Path.write_text

    def full(path: Path, text: str, **options: str) -> int:
        write(path, text[: len(text) // 2], **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert _run(voice_model, tmp_path / "in", tmp_path / "out") == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert "No space left on device" in errors[0]
    assert "a.json" in errors[0]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"a.csv", "a.json"}
    assert (tmp_path / "out" / "a.json").read_bytes() == before


def test_an_output_that_cannot_be_written_is_told_before_any_work(
    tmp_path: Path,
    voice_model: Path,
    tone: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _put(tmp_path / "in", tone, "a.wav")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, as in containers, may write
    monkeypatch.setattr(Session, "analyse", lambda *_: pytest.fail("it ran"))
    assert _run(voice_model, tmp_path / "in", tmp_path / "out") == 2
    assert "out" in capsys.readouterr().err


def test_every_recording_has_outputs_of_its_own_that_say_whose_they_are(
    tmp_path: Path, voice_model: Path, tone: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("x/same.wav", "y/same.wav", "y/same_wav_2.wav", "y/summary.wav")
    _put(tmp_path / "in", tone, *names)
    assert _run(voice_model, tmp_path / "in", tmp_path / "out") == 0
    contents = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json")]
    folders = {(Path(c["source"]["folder"]).name, c["source"]["file"]) for c in contents}
    assert folders == {("x", "same.wav"), ("y", "same.wav"), ("y", "same_wav_2.wav")} | {
        ("y", "summary.wav")
    }
    assert len(list((tmp_path / "out").glob("*.csv"))) == 5  # and the summary
    shown = capsys.readouterr().out
    assert all(str(tmp_path / "in" / name) in shown for name in names)


def test_a_name_stays_when_files_are_added_and_is_never_taken_over(
    tmp_path: Path, voice_model: Path, tone: bytes
) -> None:
    _put(tmp_path / "in", tone, "y/same.wav")
    out = tmp_path / "out"
    assert _run(voice_model, tmp_path / "in", out) == 0
    first = {path.name for path in out.glob("*.json")}
    assert first == {"same.json"}
    _put(tmp_path / "in", tone, "a/same.wav", "z/SAME.wav")
    assert _run(voice_model, tmp_path / "in", out) == 0
    assert json.loads((out / "same.json").read_text())["source"]["folder"].endswith("y")
    second = {path.name for path in out.glob("*.json")}
    assert len(second) == 3
    assert _run(voice_model, tmp_path / "in" / "a", out) == 0
    assert {path.name for path in out.glob("*.json")} == second


def test_names_do_not_depend_on_what_other_files_there_are() -> None:
    paths = [Path(f"{folder}/same.wav") for folder in "abc"]
    names = output_names(paths)
    assert len(set(names.values())) == 3
    assert output_names(paths[1:])[paths[1]] == names[paths[1]]
    assert output_names([Path("x.mp4"), Path("x.MP4")]).keys() == {Path("x.mp4"), Path("x.MP4")}
    clash = Path(f"c/{names[paths[0]]}.wav")
    assert len(set(output_names([*paths, clash]).values())) == 4
    assert output_names([paths[0]], {"same": where(paths[1])}.get)[paths[0]] == names[paths[0]]
    assert output_names(paths, {"same": where(paths[1])}.get)[paths[1]] == "same"


def test_a_second_run_leaves_out_what_is_done_and_unchanged(
    tmp_path: Path, voice_model: Path, tone: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(tmp_path / "in", tone, "a.wav", "b.wav", "c.wav")
    out = tmp_path / "out"
    assert _run(voice_model, tmp_path / "in", out) == 0
    tables = {path.name: path.read_bytes() for path in out.iterdir()}
    ran: list[str] = []
    analyse = Session.analyse

    def note(session: Session, path: Path, *rest: object) -> object:
        ran.append(Path(path).name)
        return analyse(session, path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "analyse", note)
    assert _run(voice_model, tmp_path / "in", out, "--resume") == 0
    assert ran == []
    assert {path.name: path.read_bytes() for path in out.iterdir()} == tables
    (out / "b.json").unlink()  # as if killed before
    (out / "a.csv").unlink()
    _put(tmp_path / "in", tone[:-4000], "c.wav")
    assert _run(voice_model, tmp_path / "in", out, "--resume") == 0
    assert ran == ["a.wav", "b.wav", "c.wav"]
    ran.clear()
    assert _run(voice_model, tmp_path / "in", out, "--resume", "--hop_seconds", "0.5") == 0
    assert len(ran) == 3, "another hop is another result"


def test_the_summary_tells_of_each_recording_what_was_found(
    tmp_path: Path, voice_model: Path, tone: bytes
) -> None:
    _put(tmp_path / "in", tone, "a.wav")
    _put(tmp_path / "in", b"no sound", "b.wav")
    assert _run(voice_model, tmp_path / "in", tmp_path / "out") == 1
    good, bad = _summary(tmp_path / "out")
    assert tuple(good) == SUMMARY_COLUMNS
    assert good["file"] == str(tmp_path / "in" / "a.wav")
    assert (good["duration"], good["faces"], good["speech"]) == ("2.000", "0.000", "1.000")
    assert good["dominant_emotions"].split()[0] in ("happy", "sad")
    assert (bad["duration"], good["error"]) == ("", "")
    assert "cannot be read" in bad["error"]


@pytest.mark.parametrize("adapting", [["--adapt", "recording"], ["--speaker_folder"]])
def test_resuming_does_not_go_with_what_is_learned_from_file_to_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], adapting: list[str]
) -> None:
    flags = ["--media_path", "x.mp4", "--resume", *adapting]
    assert main([*flags, "--output", str(tmp_path)]) == 2
    assert "--resume does not go with --adapt" in capsys.readouterr().err


def test_what_is_left_of_a_folder_is_told_with_counts(
    tmp_path: Path, voice_model: Path, tone: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    _put(tmp_path / "in", tone, "ok.wav", "._ok.wav", ".cache/x.wav", "a.txt", "b.txt", "c")
    assert _run(voice_model, tmp_path / "in", tmp_path / "out") == 0
    told = capsys.readouterr().out.splitlines()[0]
    assert told.endswith("1 media files; left: 2 .txt, 1 hidden, 1 hidden folder, 1 without suffix")


def test_the_error_of_a_file_always_says_whose_it_is() -> None:
    assert batch._naming_file("x.wav: bad", Path("x.wav")) == "x.wav: bad"
    assert batch._naming_file("bad", Path("y/x.wav")) == "y/x.wav: bad"


def test_a_fault_of_ours_in_one_file_does_not_end_the_others(
    tmp_path: Path,
    voice_model: Path,
    tone: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _put(tmp_path / "in", tone, "a.wav", "b.wav")
    analyse = Session.analyse

    def fail_once(session: Session, path: Path, *rest: object) -> object:
        if path.name == "a.wav":
            raise KeyError("no such thing")
        return analyse(session, path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "analyse", fail_once)
    assert _run(voice_model, tmp_path / "in", tmp_path / "out") == 1
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert "a.wav: unexpected KeyError ('no such thing') at test_batch.py:" in error
    assert (tmp_path / "out" / "b.json").exists()
