"""Annotation files, corpora, splits, the store and the samples drawn from it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from datasets.annotations import Record, read_annotations, write_annotations
from datasets.augment import AugmentOptions, augment_clip, drop_modalities, mix_up
from datasets.corpora import fer2013, ravdess
from datasets.prepare import main as prepare_main
from datasets.samples import ClipDataset, SampleOptions, collate
from datasets.splits import check_speakers, split_by_ids, split_by_ratio
from datasets.store import ClipStore, StoreWriter
from datasets.targets import resolve_targets, soft_target, target_of
from labels.emotions import SEVEN
from media.clip import Window
from media.configuration import ClipConfig
from media.preprocess import preprocess
from tests.builders import (
    LABELS,
    SMALL,
    make_corpus,
    make_recording,
    open_stores,
    without_face,
    without_sound,
)


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


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_ravdess_prefers_the_video_with_sound_over_its_twin(tmp_path: Path) -> None:
    _touch(
        tmp_path,
        "Video_Speech_Actor_01/Actor_01/01-01-03-02-01-01-01.mp4",
        "Video_Speech_Actor_01/Actor_01/02-01-03-02-01-01-01.mp4",
        "ACTOR02/02-01-05-01-01-01-02.MP4",
        "Actor_02/03-01-05-01-01-01-02.wav",
        "Actor_02/03-02-05-01-01-01-02.wav",
    )
    first, second = sorted(ravdess.read_records(tmp_path), key=lambda r: r.speaker)
    assert Path(first.video).name.startswith("01-")
    assert (first.label, first.extra["intensity"], first.audio) == ("happy", "strong", "")
    assert Path(second.video).name.startswith("02-")
    assert Path(second.audio).name == "03-01-05-01-01-01-02.wav"
    assert second.extra["gender"] == "female"
    assert len(ravdess.read_records(tmp_path, song=True)) == 3


def test_an_empty_ravdess_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no RAVDESS files"):
        ravdess.read_records(tmp_path)


def _make_fer(root: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = {
        "train/happy/Training_1.jpg": 1,
        "train/fear/Training_2.jpg": 2,
        "train/happy/Training_3.jpg": 9,  # the same picture as PrivateTest_9
        "test/happy/PublicTest_5.jpg": 5,
        "test/sad/PrivateTest_9.jpg": 9,
    }
    images = {seed: rng.integers(0, 255, (48, 48), dtype=np.uint8) for seed in (1, 2, 5, 9)}
    for name, seed in pictures.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / name), images[seed])
    header = (
        "path,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,not_a_face"
    )
    rows = [
        "train/happy/Training_1.jpg,1,7,2,0,0,0,0,0,0,0",
        "train/fear/Training_2.jpg,0,0,0,0,0,0,0,0,9,1",
    ]
    (root / "ferplus_votes.csv").write_text("\n".join([header, *rows]) + "\n")


def test_fer2013_drops_duplicates_from_the_earlier_subset(tmp_path: Path) -> None:
    _make_fer(tmp_path)
    records = {Path(r.video).name: r for r in fer2013.read_records(tmp_path)}
    assert "Training_3.jpg" not in records, "it stands in PrivateTest too"
    assert "Training_2.jpg" not in records, "most annotators did not know"
    assert records["PrivateTest_9.jpg"].subset == "testing"
    assert records["Training_1.jpg"].soft == pytest.approx({"happy": 7 / 9, "surprised": 2 / 9})


def test_fer2013_prepares_through_the_command_line(tmp_path: Path) -> None:
    _make_fer(tmp_path / "fer")
    out = tmp_path / "out"
    arguments = ["fer2013", "--root", str(tmp_path / "fer"), "--out", str(out), "--face_size", "32"]
    assert prepare_main(arguments) == 0
    store = ClipStore(out / "clips")
    records = read_annotations(out / "manifest.csv")
    assert {store.count(record.key, "faces") for record in records} == {1}
    before = (out / "clips" / "faces").stat().st_mtime_ns
    assert prepare_main(arguments) == 0
    assert (out / "clips" / "faces").stat().st_mtime_ns == before, "nothing was left to do"
    assert prepare_main([*arguments[:-1], "48"]) == 2, "another face size needs another folder"


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


def test_a_store_gives_back_what_was_put_in(tmp_path: Path) -> None:
    recordings = {"a": make_recording(1), "b": without_sound(make_recording(2, "sad"))}
    with StoreWriter(tmp_path, SMALL) as writer:
        for key, recording in recordings.items():
            writer.add(key, recording)
    store = ClipStore(tmp_path)
    for key, recording in recordings.items():
        stored = store.recording(key)
        for name in ("faces", "waveform", "face_times", "face_ids", "picture_times"):
            assert np.array_equal(getattr(stored, name), getattr(recording, name)), name
        assert stored.duration == recording.duration


def test_a_half_written_record_is_cut_off(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, SMALL) as writer:
        writer.add("a", make_recording(1))
    for name in ("faces", "waveform", "index.jsonl"):
        with (tmp_path / name).open("ab") as file:
            file.write(b"\x07{" * 11)  # what a writer leaves that is killed before its index line
    assert set(ClipStore(tmp_path)._entries) == {"a"}
    with StoreWriter(tmp_path, SMALL) as writer:
        assert writer.keys == {"a"}
        writer.add("b", make_recording(2, "sad"))
    assert np.array_equal(ClipStore(tmp_path).recording("b").faces, make_recording(2, "sad").faces)


def test_a_store_refuses_other_constants_and_names_both(tmp_path: Path) -> None:
    StoreWriter(tmp_path, SMALL).close()
    with pytest.raises(ValueError, match="face_size is 32 here and 48 there"):
        StoreWriter(tmp_path, ClipConfig(face_size=48, pictures=3))


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


def test_votes_outside_the_classes_are_shared_out() -> None:
    record = Record("a", "", "sad", soft={"sad": 0.5, "calm": 0.25, "contempt": 0.25})
    target = dict(zip(SEVEN, soft_target(record, SEVEN).tolist(), strict=True))
    assert target["sad"] == pytest.approx(2 / 3)
    assert target["neutral"] == pytest.approx(1 / 3)


def _measured(**values: str) -> Record:
    return Record("a.mp4", "", "sad", extra={f"target_{k}": v for k, v in values.items()})


def test_targets_are_the_columns_of_the_file_in_their_order() -> None:
    records = [_measured(valence="0.1", arousal="0.2"), _measured(happy="1")]
    assert resolve_targets(None, records) == ("valence", "arousal", "happy")
    assert resolve_targets(["joy", "valence"], records) == ("happy", "valence")
    with pytest.raises(ValueError, match="no column target_power; there are targets valence, aro"):
        resolve_targets(["power"], records)
    with pytest.raises(ValueError, match="must be different names, not happy, happy"):
        resolve_targets(["happy", "joy"], records)
    with pytest.raises(ValueError, match="no target_<name> column in the annotation files"):
        resolve_targets(None, [Record("a.mp4", "", "sad")])


def test_a_record_without_all_targets_is_not_used() -> None:
    names = ("valence", "arousal")
    found = target_of(_measured(valence="0.25", arousal="-1"), "regression", names)
    assert found is not None
    assert found.tolist() == [0.25, -1.0]
    assert target_of(_measured(valence="0.25", arousal=""), "regression", names) is None
    assert target_of(Record("a.mp4", "", "zeal"), "classification", LABELS) is None


@pytest.mark.parametrize(
    ("task", "value", "message"),
    [
        ("regression", "high", "target_valence of a.mp4 must be a number, not 'high'"),
        ("regression", "nan", "must be a number, not 'nan'"),
        ("multilabel", "2", "must be a mark from 0 to 1, not '2'"),
    ],
)
def test_a_target_that_cannot_be_is_named(task: str, value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        target_of(_measured(valence=value), task, ("valence",))


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


def test_changes_can_be_chosen_and_weakened() -> None:
    only = AugmentOptions().only(["flip", "mask_mels"])
    assert (only.flip, only.mask_mels, only.rotate, only.noise) == (0.5, 10, 0, 0)
    weak = AugmentOptions().scaled(0.5)
    assert (weak.flip, weak.rotate, weak.mask_frames) == (0.25, 7.5, 8)
    assert AugmentOptions().scaled(3).swap == 1.0, "a probability"
    assert AugmentOptions().scaled(1) == AugmentOptions()
    with pytest.raises(ValueError, match="augment_strength must lie in 0 to 3, not 4"):
        AugmentOptions().scaled(4)
    clip = make_recording(0).cut(Window(0.0, 1.0), SMALL)
    off = augment_clip(clip, AugmentOptions().scaled(0), np.random.default_rng(1))
    assert np.array_equal(off.faces, clip.faces)
    assert np.allclose(off.waveform, clip.waveform)


def test_augmentation_changes_all_pictures_of_a_clip_alike() -> None:
    clip = make_recording(0).cut(Window(0.0, 1.0), SMALL)
    still = np.repeat(clip.faces[:1], len(clip.faces), axis=0)
    clip = type(clip)(**{**clip.__dict__, "faces": still})
    changed = augment_clip(clip, AugmentOptions(), np.random.default_rng(1))
    assert not np.array_equal(changed.faces, clip.faces)
    assert all(np.array_equal(face, changed.faces[0]) for face in changed.faces)
    heard = augment_clip(clip, AugmentOptions(), np.random.default_rng(1), ("speech",))
    assert heard.faces is clip.faces, "what is not used costs no time"
    assert not np.array_equal(heard.waveform, clip.waveform)


def test_softhard_makes_four_batches_of_one() -> None:
    modalities = ("face", "speech")
    cut = [make_recording(i).cut(Window(0, 1), SMALL) for i in range(2)]
    clips = [preprocess(clip, SMALL, modalities) for clip in cut]
    inputs = {name: torch.stack([clip[name] for clip in clips]) for name in clips[0]}
    target = torch.eye(2)
    dropped, targets = drop_modalities(inputs, target, "softhard")
    assert torch.equal(targets, target.repeat(4, 1))
    assert torch.equal(dropped["face"][:2], inputs["face"])
    assert not dropped["speech"][4:6].any()
    assert not dropped["speech_mask"][4:6].any()
    assert not dropped["face"][6:].any()
    assert not dropped["face_mask"][6:].any()
    ratio_a = dropped["speech"][2] / inputs["speech"][0]
    ratio_v = dropped["face"][2] / inputs["face"][0]
    assert ratio_a.nanmean() + ratio_v.nanmean() == pytest.approx(1.0, abs=1e-3)
    unchanged, _ = drop_modalities(inputs, target, "nodropout")
    assert unchanged is inputs


def test_mixup_keeps_the_steps_that_only_one_of_two_has() -> None:
    inputs = {"speech": torch.stack([torch.zeros(4, 5), torch.ones(4, 5)])}
    inputs["speech_mask"] = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    torch.manual_seed(3)
    mixed, target = mix_up(inputs, torch.eye(2), alpha=1.0)
    assert 0 < target[0, 0] < 1, "the seed blends the two"
    assert torch.allclose(mixed["speech"][:, 0, :3], target[:, 1:].expand(-1, 3))
    assert not mixed["speech"][:, :, 3:].any()
    assert mixed["speech_mask"].all()


def test_a_batch_pads_samples_of_different_length() -> None:
    short, long = ({"speech": torch.ones(4, n), "speech_mask": torch.ones(n) > 0} for n in (3, 5))
    rows = [{"inputs": i, "label": k, "record": k} for k, i in enumerate((short, long))]
    batch = collate(rows)
    assert batch["inputs"]["speech"].shape == (2, 4, 5)
    assert batch["inputs"]["speech_mask"].sum(dim=1).tolist() == [3, 5]
    assert batch["label"].tolist() == [0, 1]


def test_mixup_blends_inputs_and_targets_by_one_share() -> None:
    inputs = {"speech": torch.stack([torch.zeros(4, 5), torch.ones(4, 5)])}
    inputs["speech_mask"] = torch.ones(2, 5, dtype=torch.bool)
    torch.manual_seed(3)
    mixed, target = mix_up(inputs, torch.eye(2), alpha=1.0)
    assert torch.allclose(mixed["speech"][:, 0, 0], target[:, 1])
    assert torch.allclose(target.sum(dim=1), torch.ones(2))


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
