"""Annotation files, splits by speaker, and the samples drawn from a store."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.annotations import Record, read_annotations, write_annotations
from datasets.augment import AugmentOptions
from datasets.prepare import main as prepare_main
from datasets.samples import ClipDataset, SampleOptions, collate
from datasets.splits import check_speakers, split_by_ids, split_by_ratio
from datasets.store import ClipStore, StoreWriter
from tests.builders import (
    LABELS,
    SMALL,
    make_corpus,
    make_recording,
    open_stores,
    without_face,
    without_sound,
)
from tests.builders import make_fer as _make_fer


def test_the_legacy_lines_are_read(tmp_path: Path) -> None:
    line = (
        "Actor_05/01-01-03-01-01-01-05_facecroppad.npy;Actor_05/03-01-03-01-01-01-05.wav;3;testing"
    )
    (tmp_path / "annotations.txt").write_text(line + "\n")
    (record,) = read_annotations(tmp_path / "annotations.txt")
    assert record.label == "happy"  # labels are counted from 1: 3 is happy
    assert (record.subset, record.speaker) == ("testing", "05")
    assert Path(record.video) == tmp_path / "Actor_05/01-01-03-01-01-01-05_facecroppad.npy"


def test_a_written_table_reads_back(tmp_path: Path) -> None:
    record = Record(
        video=str(tmp_path / "a.mp4"),
        audio="",
        label="sad",
        start=0.5,
        end=2.25,
        speaker="s1",
        dataset="own",
        subset="training",
        soft={"sad": 0.75, "neutral": 0.25},
        extra={"gender": "female"},
    )
    write_annotations([record], tmp_path / "m.csv")
    assert read_annotations(tmp_path / "m.csv") == [record]
    assert "\na.mp4," in (tmp_path / "m.csv").read_text(), "paths are relative to the file"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("video,label\n", "no rows"),
        ("video,label,subset\na.mp4,happy,maybe\n", "line 2: unknown subset 'maybe'"),
        ("video,label,start\na.mp4,happy,soon\n", "line 2: could not convert"),
        ("a.npy;b.wav;9;training\n", "label 9 is not in 1..8"),
        ("just some words\n", "line 1: expected `video;audio;label;subset`"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=message.replace(".", r"\.").replace("?", r"\?")):
        read_annotations(tmp_path / "a.csv")


def _people(count: int) -> list[Record]:
    return [Record("", f"{i}.wav", "sad", speaker=f"ravdess-{i:02d}") for i in range(1, count + 1)]


def test_splits_keep_a_speaker_on_one_side() -> None:
    records = split_by_ids(_people(24) * 2, validation=[11, 13], testing=["ravdess-05", 10])
    check_speakers(records)
    sides = {record.speaker: record.subset for record in records}
    assert sides["ravdess-05"] == sides["ravdess-10"] == "testing"
    assert sides["ravdess-11"] == "validation"
    assert sides["ravdess-01"] == "training"
    with pytest.raises(ValueError, match="no speaker 99"):
        split_by_ids(records, [99], [])
    with pytest.raises(ValueError, match="ravdess-05 stands in validation and in testing"):
        split_by_ids(records, [5], [5])


def test_ratio_splits_are_seeded_and_leave_training_the_rest() -> None:
    first = split_by_ratio(_people(10), 0.2, 0.3, seed=3)
    assert [r.subset for r in first] == [r.subset for r in split_by_ratio(_people(10), 0.2, 0.3, 3)]
    assert [r.subset for r in first] != [r.subset for r in split_by_ratio(_people(10), 0.2, 0.3, 4)]
    assert sorted(r.subset for r in first).count("testing") == 3
    with pytest.raises(ValueError, match="too few to split"):
        split_by_ratio(_people(2), 0.4, 0.4)


def test_a_leaking_speaker_is_named() -> None:
    one, two = split_by_ids(_people(2), [], [2])
    leaked = Record("", "x.wav", "sad", speaker=one.speaker, subset="testing")
    with pytest.raises(ValueError, match="speaker ravdess-01 stands in training and testing"):
        check_speakers([one, two, leaked])


def _dataset(manifest: Path, subset: str = "training", **options: object) -> ClipDataset:
    records = [r for r in read_annotations(manifest) if r.subset == subset]
    return ClipDataset(
        records,
        open_stores(manifest),
        SMALL,
        LABELS,
        ("face", "speech"),
        SampleOptions(**options),  # type: ignore[arg-type]
    )


def test_validation_windows_cover_a_record(tmp_path: Path) -> None:
    dataset = _dataset(make_corpus(tmp_path), "validation")
    assert len(dataset) == 4 * 2, "1.5 s make a window and a tail of half a window"
    assert [dataset[i]["record"] for i in range(4)] == [0, 0, 1, 1]


def test_training_draws_anew_each_epoch_and_again_alike(tmp_path: Path) -> None:
    dataset = _dataset(make_corpus(tmp_path), train=True, augment=AugmentOptions())
    dataset.set_epoch(1)
    first, again = dataset[0]["inputs"], dataset[0]["inputs"]
    dataset.set_epoch(2)
    other = dataset[0]["inputs"]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["speech"], other["speech"])


def test_pairs_are_completed_within_label_and_subset(tmp_path: Path) -> None:
    records = []
    with StoreWriter(tmp_path / "clips", SMALL) as writer:
        for i, change in enumerate([without_sound, without_face] * 2):
            label = LABELS[i // 2]
            record = Record(f"{tmp_path}/{i}.mp4", "", label, subset="training")
            writer.add(record.key, change(make_recording(i, label)))
            records.append(record)
    write_annotations(records, tmp_path / "manifest.csv")
    alone = _dataset(tmp_path / "manifest.csv", train=True)
    pairing = read_annotations(tmp_path / "manifest.csv")
    paired = _dataset(tmp_path / "manifest.csv", train=True, pairing=pairing)
    assert not alone[0]["inputs"]["speech_mask"].any()
    for i in range(4):
        inputs = paired[i]["inputs"]
        assert inputs["speech_mask"].any()
        assert inputs["face_mask"].any()
        bright = inputs["face"][inputs["face_mask"]].mean() > 0
        assert bright == (LABELS[i // 2] == "happy"), "the paired face has the record's label"


def test_samples_of_values_have_targets_and_no_class(tmp_path: Path) -> None:
    manifest = make_corpus(tmp_path)
    records = read_annotations(manifest)
    records = [
        replace(record, extra={"target_valence": f"{index / 10}" if index != 2 else ""})
        for index, record in enumerate(records)
    ]
    dataset = ClipDataset(
        records[:4],
        open_stores(manifest),
        SMALL,
        ("valence",),
        ("speech",),
        SampleOptions(train=True, task="regression"),
    )
    assert len(dataset) == 3, "one lacks its target"
    assert dataset.targets.flatten().tolist() == pytest.approx([0.0, 0.1, 0.3])
    sample = dataset[2]
    assert sample["target"].tolist() == pytest.approx([0.3])
    assert sample["label"] == 0
    assert sample["end"] - sample["start"] == pytest.approx(1.0)


def test_a_batch_pads_samples_of_different_length() -> None:
    short, long = ({"speech": torch.ones(4, n), "speech_mask": torch.ones(n) > 0} for n in (3, 5))
    rows = [{"inputs": i, "label": k, "record": k} for k, i in enumerate((short, long))]
    batch = collate(rows)
    assert batch["inputs"]["speech"].shape == (2, 4, 5)
    assert batch["inputs"]["speech_mask"].sum(dim=1).tolist() == [3, 5]
    assert batch["label"].tolist() == [0, 1]


def test_legacy_npy_and_wav_lines_are_prepared(tmp_path: Path) -> None:
    import av

    faces = np.zeros((15, 40, 40, 3), dtype=np.uint8)
    faces[..., 0] = 255  # blue first: these faces are blue
    np.save(tmp_path / "a.npy", faces)
    with av.open(str(tmp_path / "a.wav"), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=16000, layout="mono")
        tone = (8000 * np.sin(np.arange(32000) / 10)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate = 16000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    (tmp_path / "annotations.txt").write_text("a.npy;a.wav;3;training\n")
    arguments = ["annotation", "--root", str(tmp_path / "annotations.txt"), "--face_size", "32"]
    assert prepare_main([*arguments, "--out", str(tmp_path / "out")]) == 0
    (record,) = read_annotations(tmp_path / "out" / "manifest.csv")
    recording = ClipStore(tmp_path / "out" / "clips").recording(record.key)
    assert recording.faces.shape == (15, 32, 32, 3)
    assert recording.faces[0, 0, 0].tolist() == [0, 0, 255], "RGB from the store on"
    assert recording.duration == pytest.approx(2.0, abs=0.01)
    assert len(recording.waveform) == 32000


def test_a_missing_file_is_listed_and_the_rest_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _make_fer(tmp_path)
    with (tmp_path / "m.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "label", "subset"])
        writer.writerow(["train/happy/Training_1.jpg", "happy", "training"])
        writer.writerow(["absent.mp4", "sad", "training"])
    arguments = ["annotation", "--root", str(tmp_path / "m.csv"), "--out", str(tmp_path / "out")]
    assert prepare_main([*arguments, "--detector", "whole"]) == 1
    assert len(read_annotations(tmp_path / "out" / "manifest.csv")) == 1
    assert "absent.mp4" in capsys.readouterr().err


def test_an_unknown_corpus_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        prepare_main(["nope", "--root", "x", "--out", "y"])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "invalid choice: 'nope'" in line
