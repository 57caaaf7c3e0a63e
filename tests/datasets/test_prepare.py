"""Preparation: the same store however it is made, also when killed, and no work done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets import preparation, prepare
from datasets.annotations import Record, read_annotations, write_annotations
from datasets.demo_clip import read_portrait
from datasets.parallel import spread_work
from datasets.sources import SourceLedger
from datasets.store import ClipStore, StoreWriter
from media.blendshapes import BLENDSHAPES
from media.clip import Window

ROOT = Path(__file__).parents[2]
RATE = 16000


def _write_sound(path: Path, seed: int, samples: int = 3000) -> None:
    values = np.random.default_rng(seed).integers(-9000, 9000, samples, dtype=np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(values.tobytes())


def _make_list(folder: Path, count: int) -> Path:
    """An annotation file of so many short sounds."""
    records = []
    for index in range(count):
        _write_sound(folder / f"{index:04d}.wav", index, 3000 + index)
        audio, subset = str(folder / f"{index:04d}.wav"), ("training", "testing")[index % 2]
        records.append(Record("", audio, "sad", speaker=f"s{index}", subset=subset))
    write_annotations(records, folder / "list.csv")
    return folder / "list.csv"


def _arguments(listed: Path, out: Path, *more: str) -> list[str]:
    return ["annotation", "--root", str(listed), "--out", str(out), "--face_size", "32", *more]


def _content(out: Path) -> dict[str, bytes]:
    """What a prepared folder holds, by file."""
    files = [path for path in out.rglob("*") if path.is_file()]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def _refuse(*_: object) -> None:
    pytest.fail("a file was decoded again")


def test_a_second_run_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = _arguments(_make_list(tmp_path, 4), tmp_path / "out")
    assert prepare.main(arguments) == 0
    before = _content(tmp_path / "out")
    monkeypatch.setattr(preparation, "read_source", _refuse)
    assert prepare.main(arguments) == 0
    assert _content(tmp_path / "out") == before


def test_a_touched_file_is_not_decoded_again_but_a_changed_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = _arguments(_make_list(tmp_path, 3), tmp_path / "out")
    assert prepare.main(arguments) == 0
    os.utime(tmp_path / "0001.wav", ns=(1, 1))
    with monkeypatch.context() as patch:
        patch.setattr(preparation, "read_source", _refuse)
        assert prepare.main(arguments) == 0
    _write_sound(tmp_path / "0001.wav", seed=99, samples=5000)
    assert prepare.main(arguments) == 0
    records = read_annotations(tmp_path / "out" / "manifest.csv")
    store = ClipStore(tmp_path / "out" / "clips")
    assert [store.count(record.key, "waveform") for record in records] == [3000, 5000, 3002]
    assert len(store) == 3


def test_each_recording_has_a_hash_also_in_a_store_made_before(tmp_path: Path) -> None:
    arguments = _arguments(_make_list(tmp_path, 3), tmp_path / "out")
    assert prepare.main(arguments) == 0
    ledger = tmp_path / "out" / "clips" / "sources.jsonl"
    whole = ledger.read_bytes()
    assert [len(json.loads(line)["sha256"]) for line in whole.splitlines()] == [64] * 3
    ledger.unlink()
    assert prepare.main(arguments) == 0
    assert ledger.read_bytes() == whole
    ledger.write_bytes(whole[:-10])
    (tmp_path / "0002.wav").unlink()
    assert len(SourceLedger(tmp_path / "out" / "clips")._sources) == 2, "half a line is cut off"
    assert prepare.main(arguments) == 0, "what was prepared of a file that is gone stays"


def test_a_run_goes_on_where_an_earlier_one_was_cut(tmp_path: Path) -> None:
    listed = _make_list(tmp_path, 6)
    assert prepare.main(_arguments(listed, tmp_path / "whole")) == 0
    assert prepare.main(_arguments(listed, tmp_path / "cut")) == 0
    clips = tmp_path / "cut" / "clips"
    for name, length in (("index.jsonl", 1300), ("sources.jsonl", 500), ("waveform", 20_000)):
        with (clips / name).open("r+b") as file:
            file.truncate(length)
    assert prepare.main(_arguments(listed, tmp_path / "cut")) == 0
    assert _content(tmp_path / "cut") == _content(tmp_path / "whole")


def test_a_store_with_other_constants_is_left_alone(tmp_path: Path) -> None:
    listed = _make_list(tmp_path, 2)
    assert prepare.main(_arguments(listed, tmp_path / "out")) == 0
    assert prepare.main([*_arguments(listed, tmp_path / "out"), "--sample_rate", "22050"]) == 2


def test_work_is_given_back_in_order() -> None:
    assert list(spread_work(abs, [-3, 2, -1])) == [3, 2, 1]


def _count_threads(_: int) -> tuple[int, int, str]:
    import torch

    return cv2.getNumThreads(), torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]


@pytest.mark.slow
def test_each_of_several_workers_keeps_to_one_thread() -> None:
    assert set(spread_work(_count_threads, range(4), workers=2)) == {(1, 1, "1")}


def test_preparing_starts_without_torch_and_pandas() -> None:
    code = "import sys, datasets.prepare; sys.exit(str({'torch', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.strip() == "set()", "they take seconds to import"


def test_ray_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = _arguments(_make_list(tmp_path, 1), tmp_path / "out", "--ray", "local")
    assert prepare.main(arguments) == 2
    assert "pip install 'emofuse[ray]'" in capsys.readouterr().err


@pytest.mark.slow
def test_two_workers_make_the_same_store_as_one(tmp_path: Path) -> None:
    listed = _make_list(tmp_path, 20)
    assert prepare.main(_arguments(listed, tmp_path / "one")) == 0
    assert prepare.main(_arguments(listed, tmp_path / "two", "--workers", "2")) == 0
    assert _content(tmp_path / "one") == _content(tmp_path / "two")


@pytest.mark.slow
def test_ray_makes_the_same_store_as_one_process(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'emofuse[ray]'")
    listed = _make_list(tmp_path, 20)
    (tmp_path / "0007.wav").write_bytes(b"broken")
    assert prepare.main(_arguments(listed, tmp_path / "one")) == 1
    assert prepare.main(_arguments(listed, tmp_path / "ray", "--ray", "local")) == 1
    assert _content(tmp_path / "one") == _content(tmp_path / "ray")


@pytest.mark.slow
def test_a_killed_run_leaves_a_store_that_the_next_completes(tmp_path: Path) -> None:
    listed, count = _make_list(tmp_path, 600), 600
    assert prepare.main(_arguments(listed, tmp_path / "whole")) == 0
    index = tmp_path / "killed" / "clips" / "index.jsonl"
    kills = 0
    for share in (0.1, 0.4, 0.7):
        _kill_at(index, round(share * count), _arguments(listed, tmp_path / "killed"))
        held = len(index.read_bytes().splitlines())
        kills += held < count
    assert kills, "every run ended before it was killed"
    assert prepare.main(_arguments(listed, tmp_path / "killed")) == 0
    assert _content(tmp_path / "killed") == _content(tmp_path / "whole")
    with StoreWriter(index.parent, ClipStore(index.parent).config) as writer:
        assert len(writer.keys) == count


def _kill_at(index: Path, lines: int, arguments: list[str]) -> None:
    """Run the command line and kill it as soon as the index holds so many lines."""
    command = [sys.executable, "-m", "datasets.prepare", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if index.exists() and index.read_bytes().count(b"\n") >= lines:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """A folder of three pictures: a smiling face of 48 and of 110 pixels, and a wall."""
    portrait = read_portrait()[62:172, 170:280, ::-1]
    small = cv2.resize(portrait, (48, 48), interpolation=cv2.INTER_AREA)
    wall = np.random.default_rng(0).integers(90, 110, (64, 64, 3), dtype=np.uint8)
    folder = tmp_path / "faces" / "happy"
    folder.mkdir(parents=True)
    for name, picture in (("large", portrait), ("small", small), ("wall", wall)):
        cv2.imwrite(str(folder / f"{name}.png"), picture)
    return tmp_path / "faces"


@pytest.mark.filterwarnings("ignore:.*have no speaker")
def test_stills_of_faces_are_prepared_with_their_mesh(faces: Path, tmp_path: Path) -> None:
    arguments = ["own_folder", "--root", str(faces), "--out", str(tmp_path / "out")]
    arguments += ["--face_size", "32", "--detector", "whole"]
    assert prepare.main([*arguments, "--mesh"]) == 0
    store = ClipStore(tmp_path / "out" / "clips")
    records = read_annotations(tmp_path / "out" / "manifest.csv")
    found = {Path(record.video).stem: store.recording(record.key) for record in records}
    smiles = [BLENDSHAPES.index(name) for name in ("mouthSmileLeft", "mouthSmileRight")]
    for name in ("large", "small"):
        assert found[name].meshes.blendshapes[:, smiles].min() > 0.5, name
        clip = found[name].cut(Window(0.0, 1.0), store.config)
        assert clip.blendshapes_mask.all()
        assert clip.points_mask.all()
    assert not len(found["wall"].meshes.times)
    assert prepare.main([*arguments, "--mesh", "--mesh_rate", "5"]) == 2, "another rate"


@pytest.mark.filterwarnings("ignore:.*have no speaker")
def test_a_store_without_meshes_is_not_taken_for_one_with(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["own_folder", "--root", str(faces), "--out", str(tmp_path / "out")]
    arguments += ["--face_size", "32", "--detector", "whole"]
    assert prepare.main(arguments) == 0
    assert prepare.main([*arguments, "--mesh"]) == 2
    assert "was prepared without blendshapes" in capsys.readouterr().err


def test_a_name_that_is_not_utf8_is_prepared_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "sad").mkdir()
    _write_sound(tmp_path / "sad" / os.fsdecode(b"caf\xe9.wav"), 1)
    _write_sound(tmp_path / "sad" / f"{'長' * 82}.wav", 2)
    (tmp_path / "happy").mkdir()
    _write_sound(tmp_path / "happy" / "a.wav", 3)
    arguments = ["own_folder", "--root", str(tmp_path), "--face_size", "32", "--split", "keep"]
    with pytest.warns(UserWarning, match="no speaker"):
        assert prepare.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    records = read_annotations(tmp_path / "out" / "manifest.csv")
    store = ClipStore(tmp_path / "out" / "clips")
    assert len(records) == 3
    assert all(len(store.recording(record.key).waveform) == 3000 for record in records)


def test_stretches_outside_their_recordings_fail_by_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _write_sound(tmp_path / "a.wav", 1)
    lines = ["audio,label,speaker,subset,start,end", "a.wav,sad,1,training,0,0.1"]
    lines += ["a.wav,sad,1,training,5,9", "a.wav,sad,1,training,0,150"]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    assert prepare.main(_arguments(tmp_path / "list.csv", tmp_path / "out")) == 1
    errors = capsys.readouterr().err
    assert "list.csv, line 3: 5 s to 9 s is not within the 0.188 s of a.wav; correct" in errors
    assert "list.csv, line 4: " in errors
    assert "milliseconds" in errors
    (kept,) = read_annotations(tmp_path / "out" / "manifest.csv")
    assert (kept.start, kept.end) == (0.0, 0.1)


def test_a_folder_belongs_to_one_corpus_and_its_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (tmp_path / name for name in ("first", "second"))
    for folder, count in ((first, 6), (second, 2)):
        folder.mkdir()
        _make_list(folder, count)
    out = tmp_path / "out"
    assert prepare.main(_arguments(first / "list.csv", out)) == 0
    before = _content(out)
    capsys.readouterr()
    assert prepare.main(_arguments(second / "list.csv", out)) == 2
    error = capsys.readouterr().err
    assert "second" in error
    assert (
        "prepare into another folder, or let this corpus take its place (--out, --replace)" in error
    )
    assert _content(out) == before
    assert prepare.main(_arguments(first / "list.csv", out, "--split", "ratio")) == 0
    (out / "corpus.json").unlink()  # as a folder that was prepared by an earlier version
    assert prepare.main(_arguments(second / "list.csv", out)) == 2
    assert prepare.main(_arguments(first / "list.csv", out)) == 0
    assert prepare.main(_arguments(second / "list.csv", out, "--replace")) == 0
    assert len(read_annotations(out / "manifest.csv")) == 2


def test_a_silent_recording_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(bytes(2 * RATE))
    (tmp_path / "list.csv").write_text("audio,label,subset\na.wav,sad,training\n")
    assert prepare.main(_arguments(tmp_path / "list.csv", tmp_path / "out")) == 0
    assert "note: a.wav: its sound is silent from begin to end" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_the_store_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = _make_list(tmp_path, 4)
    whole = tmp_path / "whole"
    assert prepare.main(_arguments(listed, whole)) == 0
    add, added = StoreWriter.add, []

    def fill(writer: StoreWriter, key: str, recording: object) -> None:
        if len(added) == 2:
            data = writer._data["waveform"]

            class Full:
                def __getattr__(self, name: str) -> object:
                    return getattr(data, name)

                def write(self, _: bytes) -> None:
                    data.write(b"half")
                    raise OSError(28, "No space left on device")

            writer._data["waveform"] = Full()
        added.append(key)
        add(writer, key, recording)  # type: ignore[arg-type]

    monkeypatch.setattr(StoreWriter, "add", fill)
    assert prepare.main(_arguments(listed, tmp_path / "out")) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: [Errno 28] No space left on device")
    assert error.endswith("waveform'")
    monkeypatch.setattr(StoreWriter, "add", add)
    assert prepare.main(_arguments(listed, tmp_path / "out")) == 0
    same, expected = _content(tmp_path / "out"), _content(whole)
    assert {n: v for n, v in same.items() if n != "corpus.json"} == {
        n: v for n, v in expected.items() if n != "corpus.json"
    }
