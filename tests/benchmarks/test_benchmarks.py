"""The benchmark: its reference walks the same windows and features, and its verdict is honest."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import torch
from facenet_pytorch import MTCNN

from benchmarks import clips, inference_speed, reference
from benchmarks.inference_speed import Bench, Clips, Figure, ProcessRun
from checkpoints.checkpoint import combine_checkpoints, save_checkpoint
from datasets.demo_clip import make_demo_clip
from inference import TrainingAlignedInference
from media.clip import Clip, ClipConfig, Colour, Window, tile_windows
from media.faces import build_detector
from media.preprocess import preprocess
from media.recording import probe, read_recording
from tests.builders import LABELS, make_checkpoint
from timeline.csv_format import write_csv
from timeline.table import Timeline

CONFIG = ClipConfig(face_size=32, pictures=3)
SECONDS = 2.4


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo_clip(tmp_path_factory.mktemp("bench") / "demo.mp4", SECONDS)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("bench") / "late.safetensors"
    face, speech = (make_checkpoint(name, CONFIG) for name in ("efficientface", "speech_cnn"))
    save_checkpoint(combine_checkpoints({"face": face, "speech": speech}, "product"), path)
    return path


@pytest.fixture(scope="module")
def timeline(clip: Path, model_path: Path) -> Timeline:
    return TrainingAlignedInference(model_path, device="cpu").run(clip)


@pytest.fixture(scope="module")
def reference_csv(clip: Path, model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "reference.csv"
    arguments = [str(clip), "--model_path", str(model_path), "--output", str(path)]
    assert reference.main([*arguments, "--device", "cpu"]) == 0
    return path


def test_the_reference_has_our_windows(timeline: Timeline, reference_csv: Path) -> None:
    table = pd.read_csv(reference_csv)
    assert list(table.columns) == ["start", "end", *(f"p_{name}" for name in LABELS)]
    assert len(table) == len(timeline.rows) == 3
    np.testing.assert_allclose(table["start"], [row.start for row in timeline.rows])
    np.testing.assert_allclose(table["end"], [row.end for row in timeline.rows], atol=0.001)


def test_the_reference_has_nearly_our_probabilities(
    timeline: Timeline, reference_csv: Path
) -> None:
    theirs = pd.read_csv(reference_csv)[[f"p_{name}" for name in LABELS]].to_numpy()
    np.testing.assert_allclose(theirs.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(theirs, timeline.probabilities(), atol=0.05)


def test_the_reference_hears_what_we_hear(clip: Path) -> None:
    recording = read_recording(clip, CONFIG, None)
    waveform = reference.read_waveform(clip, CONFIG.sample_rate)
    heard = 0
    for window in tile_windows(recording.duration, 1.0, 1.0):
        ours = preprocess(recording.cut(window, CONFIG), CONFIG, ("speech",))
        theirs = reference.speech_inputs(waveform, window, CONFIG)
        assert torch.equal(theirs["speech_mask"][0], ours["speech_mask"])
        torch.testing.assert_close(theirs["speech"][0], ours["speech"], atol=5e-3, rtol=0)
        heard += int(ours["speech_mask"].any())
    assert heard


def test_the_reference_crops_the_face_we_crop(clip: Path) -> None:
    recording = read_recording(clip, CONFIG, build_detector("mtcnn"))
    calm = Window(0.0, 0.8)  # then the camera tilts, and boxes between key pictures lag a little
    ours = recording.cut(calm, CONFIG).faces
    used = reference.used_pictures(calm, 60, 25.0, CONFIG.pictures)
    pictures = next(reference.read_pictures(clip, [used]))
    theirs = [reference.crop_face(picture, MTCNN(), CONFIG) for picture in pictures]
    assert len(theirs) == CONFIG.pictures
    for face, own in zip(theirs, ours, strict=True):
        assert face is not None
        assert face.shape == own.shape
        difference = np.abs(face.astype(float) - own).mean()  # boxes jitter by a few pixels
        assert difference < 20
        assert np.abs(face[..., ::-1].astype(float) - own).mean() > 2 * difference


def test_no_face_is_cropped_where_there_is_none() -> None:
    grey = np.full((240, 320, 3), 90, dtype=np.uint8)
    assert reference.crop_face(grey, MTCNN(), CONFIG) is None


@pytest.mark.parametrize("colour", ["rgb", "bgr", "grey"])
def test_the_reference_scales_faces_as_we_do(colour: Colour) -> None:
    config = ClipConfig(face_size=32, pictures=3, colour=colour)
    faces = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    padded = np.concatenate([faces, np.zeros_like(faces[:1])])
    clip = Clip(
        window=Window(0.0, 1.0),
        faces=padded,
        face_mask=np.array([True, True, False]),
        face_id=0,
        face_share=1.0,
        points=np.zeros((0, 68, 2), dtype=np.float32),
        points_mask=np.zeros(0, dtype=bool),
        blendshapes=np.zeros((0, 55), dtype=np.float32),
        blendshapes_mask=np.zeros(0, dtype=bool),
        waveform=np.zeros(0, dtype=np.float32),
        sound_samples=0,
        has_speech=False,
    )
    ours = preprocess(clip, config, ("face",))
    theirs = reference.face_inputs(list(faces), config)
    assert theirs["face_mask"][0].tolist() == ours["face_mask"].tolist() == [True, True, False]
    torch.testing.assert_close(theirs["face"][0], ours["face"], atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(0.0, 1.0, range(10, 25)), (1.0, 2.0, range(35, 50)), (2.0, 2.4, range(50, 60))],
)
def test_the_last_pictures_of_a_window_are_used(start: float, end: float, expected: range) -> None:
    assert reference.used_pictures(Window(start, end), 60, 25.0, 15) == expected


def test_a_reference_without_pictures_is_one_line_and_status_2(
    tmp_path: Path, model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = tmp_path / "absent.mp4"
    output = tmp_path / "out.csv"
    arguments = [str(absent), "--model_path", str(model_path), "--output", str(output)]
    assert reference.main(arguments) == 2
    assert "OpenCV finds no picture" in capsys.readouterr().err
    assert not output.exists()


def test_clips_are_looped_to_their_length(clip: Path, tmp_path: Path) -> None:
    short, long = tmp_path / "short.mp4", tmp_path / "long.mp4"
    clips.make_clip([clip], 3.0, short)
    clips.loop_packets(short, 6.0, long)
    info = probe(short)
    assert (info.width, info.height, info.has_audio) == (1280, 720, True)
    for path, seconds in ((short, 3.0), (long, 6.0)):
        recording = read_recording(path, CONFIG, None)
        assert recording.duration == pytest.approx(seconds, abs=0.05)
        assert len(recording.waveform) / CONFIG.sample_rate == pytest.approx(seconds, abs=0.05)
        with av.open(str(path)) as container:
            assert sum(1 for _ in container.decode(video=0)) == seconds * 25
    assert np.abs(recording.waveform[-CONFIG.sample_rate * 3 :]).max() > 1000  # sound loops too


def test_agreement_is_the_share_of_windows_of_one_class(
    timeline: Timeline, reference_csv: Path, tmp_path: Path
) -> None:
    ours = tmp_path / "ours.csv"
    write_csv(timeline, ours)
    assert inference_speed.agreement(ours, ours) == 1.0
    table = pd.read_csv(ours)
    columns = [f"p_{name}" for name in LABELS]
    table.loc[0, columns] = 1 - table.loc[0, columns]
    table.loc[1, columns] = np.nan
    other = tmp_path / "other.csv"
    table.to_csv(other, index=False)
    assert inference_speed.agreement(ours, other) == pytest.approx(1 / 3)
    table.iloc[2:].to_csv(other, index=False)
    assert inference_speed.agreement(other, other) == 1.0
    assert inference_speed.agreement(ours, other) < 1.0


def _runs(*values: tuple[float, float]) -> list[ProcessRun]:
    return [ProcessRun(seconds, peak) for seconds, peak in values]


def test_figures_compare_the_best_runs(tmp_path: Path) -> None:
    ours, other = _runs((12.0, 900.0), (10.0, 1000.0)), _runs((60.0, 800.0), (55.0, 800.0))
    speed = inference_speed.compare_speed(ours, other)
    assert [figure.value for figure in speed] == [10.0, 55.0, 5.5]
    memory = inference_speed.compare_memory(ours, ProcessRun(99.0, 1140.0), Bench())
    assert [figure.value for figure in memory] == [950.0, 1140.0, 1.2]
    assert [figure.met for figure in (*speed, *memory)] == [True] * 5 + [False]


def test_table_and_json_hold_every_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = [
        Figure("speed-up", 6.0, "x", at_least=5.0),
        Figure("  decode", 1.25, "s"),
        Figure("memory ratio", 1.01, "x", at_most=1.15),
    ]
    assert inference_speed.report(figures, Bench(output=tmp_path, threads=1), "real") == 0
    printed = capsys.readouterr().out
    for text in ("speed-up", "6.00 x", ">= 5", "<= 1.15", "  decode", "1.25 s", "real clips"):
        assert text in printed
    assert "MISSED" not in printed
    values = json.loads((tmp_path / "bench.json").read_text())
    assert [figure["name"] for figure in values["figures"]] == [
        "speed-up",
        "decode",
        "memory ratio",
    ]
    assert values["figures"][0] == {
        "name": "speed-up",
        "value": 6.0,
        "unit": "x",
        "target": ">= 5",
        "met": True,
    }
    assert (values["clips"], values["seconds"], values["threads"]) == ("real", 60.0, 1)


@pytest.mark.parametrize(("speed_up", "status"), [(5.0, 0), (4.9, 1)])
def test_a_missed_target_is_status_1(
    speed_up: float,
    status: int,
    tmp_path: Path,
    model_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = Clips("synthetic", tmp_path, tmp_path, tmp_path)
    figures = [Figure("speed-up", speed_up, "x", at_least=5.0)]
    monkeypatch.setattr(inference_speed, "prepare_clips", lambda bench: made)
    monkeypatch.setattr(inference_speed, "measure", lambda bench, clips: figures)
    arguments = ["--model_path", str(model_path), "--output", str(tmp_path)]
    assert inference_speed.main(arguments) == status
    assert ("MISSED" in capsys.readouterr().out) == bool(status)
    assert (tmp_path / "bench.json").exists()


def test_no_checkpoint_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model_path", str(tmp_path / "absent"), "--output", str(tmp_path)]
    assert inference_speed.main(arguments) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_process_has_its_own_time_and_memory() -> None:
    hold = "import time; held = bytearray({} * 2**20); time.sleep({})"
    small, large = (
        inference_speed.run_process([sys.executable, "-c", hold.format(*sizes)], Bench(threads=1))
        for sizes in ((1, 0.0), (100, 0.3))
    )
    assert small.peak_mb < 60  # not that of this process, which holds torch
    assert large.peak_mb - small.peak_mb == pytest.approx(99, abs=10)
    assert large.seconds > 0.3
    with pytest.raises(ValueError, match="no such thing"):
        inference_speed.run_process(
            [sys.executable, "-c", "raise SystemExit('no such thing')"], Bench(threads=1)
        )


def test_the_parts_of_the_time_add_up(clip: Path, model_path: Path) -> None:
    bench = Bench(model_path=model_path, threads=torch.get_num_threads())
    figures = inference_speed.split_time(bench, Clips("synthetic", clip, clip, clip))
    named = {figure.name: figure.value for figure in figures}
    parts = [value for name, value in named.items() if name.startswith("  ")]
    assert {"  wait for decode", "  detect", "  reduce and crop", "  model", "  other"} <= set(
        named
    )
    assert all(value > 0 for value in parts)
    assert sum(parts) == pytest.approx(named["ours, in a warm process"])
