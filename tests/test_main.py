"""The command line as a user meets it: modes, mistakes, and what is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from checkpoints.checkpoint import combine_checkpoints, save_checkpoint
from inference import TrainingAlignedInference
from main import main
from media.clip import ClipConfig, Window, tile_windows
from media.faces import build_detector
from media.preprocess import preprocess
from media.recording import read_recording
from opts import parse_options
from recognition.session import Session
from tests.builders import make_checkpoint, make_corpus
from timeline.formats import read_timeline

ROOT = Path(__file__).parent.parent
CONFIG = ClipConfig(face_size=32, pictures=3)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "late.safetensors"
    face, speech = (make_checkpoint(name, CONFIG) for name in ("efficientface", "speech_cnn"))
    save_checkpoint(combine_checkpoints({"face": face, "speech": speech}, "product"), path)
    return path


@pytest.fixture(scope="module")
def demo_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from datasets.demo_clip import make_demo_clip

    return make_demo_clip(tmp_path_factory.mktemp("demo") / "demo.mp4", seconds=6.0)


def _error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that must exit with 2."""
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = int(stop.code or 0)
    assert status == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --annotation_path to train, or --media_path"),
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["--model", "nope"], "invalid choice: 'nope'"),
        (["--media_path", "x.mp4", "--n_epochs", "3"], "--n_epochs has no effect here"),
        (["--annotation_path", "a.csv", "--save_plot", "x.png"], "--save_plot has no effect here"),
        (["--annotation_path", "a.csv", "--model", "speech_cnn", "--fusion", "ia"], "--fusion has"),
        (["--annotation_path", "a.csv", "--model", "speech_cnn", "--mask", "noise"], "--mask has"),
        (
            ["--annotation_path", "a.csv", "--optimizer", "adamw", "--momentum", "0.5"],
            "--momentum has no effect unless --optimizer is sgd",
        ),
        (["--annotation_path", "a.csv", "--model", "late_fusion", "--ema", "0.9"], "--ema has no"),
        (["--media_path", "x.mp4", "--batch_size", "0"], "--batch_size must be at least 1, not 0"),
        (["--media_path", "x.mp4", "--output", __file__], "is a file; give a folder"),
        (["--only_inference"], "--only_inference needs --media_path"),
        (["--media_path", "x", "--no_plot", "--save_plot", "y.png"], "--save_plot has no effect"),
        (["--no_train"], "--no_train needs --resume_path"),
        (["--annotation_path", "absent.csv"], "cannot read annotation file absent.csv"),
        (["--resume_path", "absent"], "--resume_path absent is not a run folder"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in _error_of(arguments, capsys)


def test_kebab_case_and_snake_case_are_one() -> None:
    options = parse_options(["--media-path", "a.mp4", "--hop-seconds", "0.5", "--no-plot"])
    assert options.inference.media_path == ["a.mp4"]
    assert options.inference.hop_seconds == 0.5
    assert options.inference.no_plot


def test_every_flag_of_the_reference_is_there() -> None:
    names = (
        "annotation_path result_path dataset n_classes model fusion mask num_heads device "
        "sample_size sample_duration learning_rate momentum lr_steps dampening weight_decay "
        "lr_patience batch_size n_epochs begin_epoch resume_path pretrain_path no_train no_val "
        "test_subset n_threads video_norm_value manual_seed only_inference media_path model_path "
        "efficientface_path save_plot no_plot output window_seconds hop_seconds"
    )
    help_text = subprocess.run(
        [sys.executable, "main.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in names.split():
        assert f"--{name}" in help_text, name


@pytest.mark.parametrize(
    ("name", "content"),
    [("text.mp4", b"not a video at all\n" * 50), ("empty.mp4", b""), ("absent.mp4", None)],
)
def test_a_broken_file_is_one_line_and_leaves_nothing(
    tmp_path: Path,
    model_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes | None,
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    out = tmp_path / "out"
    arguments = ["--media_path", str(tmp_path / name), "--model_path", str(model_path)]
    line = _error_of([*arguments, "--output", str(out)], capsys)
    assert name in line
    assert not out.exists() or not list(out.iterdir())


def test_a_checkpoint_of_another_architecture_is_refused(
    tmp_path: Path, demo_clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pth")
    arguments = ["--media_path", str(demo_clip), "--model_path", str(tmp_path / "other.pth")]
    assert "neither a published EfficientFace" in _error_of(arguments, capsys)


def test_a_demo_clip_becomes_a_timeline_with_its_files(
    tmp_path: Path, model_path: Path, demo_clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--media_path", str(demo_clip), "--model_path", str(model_path)]
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"demo.csv", "demo.json", "demo.png"}
    timeline = read_timeline(tmp_path / "demo.csv")
    assert len(timeline.rows) == 6
    assert "demo.mp4" in capsys.readouterr().out
    identity = json.loads((tmp_path / "demo.json").read_text())["checkpoint"]
    assert identity["architecture"] == "late_fusion"
    assert len(identity["sha256"]) == 64


def test_one_bad_file_of_several_is_reported_and_the_rest_done(
    tmp_path: Path, model_path: Path, demo_clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.mp4").write_text("no")
    paths = ["--media_path", str(tmp_path / "bad.mp4"), str(demo_clip), "--no_plot"]
    status = main([*paths, "--model_path", str(model_path), "--output", str(tmp_path / "out")])
    assert status == 1
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"demo.csv", "demo.json", "summary.csv"}
    assert "bad.mp4" in capsys.readouterr().err


def test_files_of_one_name_do_not_overwrite_each_other(
    tmp_path: Path, model_path: Path, demo_clip: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "clip.mp4").write_bytes(demo_clip.read_bytes())
    arguments = ["--media_path", str(tmp_path / "*"), "--no_plot", "--model_path", str(model_path)]
    paths = ["--media_path", str(tmp_path / "a"), str(tmp_path / "b")]
    assert main([*arguments[2:], *paths, "--output", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").glob("clip*.csv"))) == 2


def test_training_and_inference_see_equal_tensors(tmp_path: Path, demo_clip: Path) -> None:
    """The project's heart: one file, prepared for training and streamed for inference."""
    from datasets.annotations import Record, read_annotations, write_annotations
    from datasets.prepare import main as prepare
    from datasets.samples import ClipDataset, SampleOptions, StoreSet
    from media.recording import stream_clips

    record = Record(str(demo_clip), "", "happy", subset="validation")
    write_annotations([record], tmp_path / "list.csv")
    options = ["annotation", "--root", str(tmp_path / "list.csv"), "--face_size", "32"]
    assert prepare([*options, "--out", str(tmp_path / "out")]) == 0
    records = read_annotations(tmp_path / "out" / "manifest.csv")
    stores = StoreSet([tmp_path / "out" / "clips"])
    dataset = ClipDataset(
        records, stores, CONFIG, ("happy", "sad"), ("face", "speech"), SampleOptions()
    )
    streamed = list(stream_clips(demo_clip, CONFIG, build_detector("mtcnn"), 1.0))
    assert len(dataset) == len(streamed) == 6
    for index, clip in enumerate(streamed):
        trained_on, inferred_on = (
            dataset[index]["inputs"],
            preprocess(clip, CONFIG, ("face", "speech")),
        )
        assert inferred_on["face_mask"].any() or clip.face_share == 0
        for name, value in inferred_on.items():
            assert torch.equal(trained_on[name], value), f"window {index}: {name}"


def test_inference_in_five_lines(model_path: Path, demo_clip: Path) -> None:
    timeline = TrainingAlignedInference(model_path, hop_seconds=0.5).run(demo_clip)
    table = timeline.to_pandas()
    assert list(table["start"][:3]) == [0.0, 0.5, 1.0]
    assert {"p_happy", "p_sad", "modalities", "dominant"} <= set(table.columns)


def test_a_model_that_only_hears_needs_no_face(tmp_path: Path, demo_clip: Path) -> None:
    save_checkpoint(make_checkpoint("speech_cnn", CONFIG), tmp_path / "s.safetensors")
    timeline = TrainingAlignedInference(tmp_path / "s.safetensors").run(demo_clip)
    assert {row.modalities for row in timeline.rows} <= {"audio", "none"}


def test_the_timeline_repeats_what_the_model_says_of_each_window(
    model_path: Path, demo_clip: Path
) -> None:
    engine = TrainingAlignedInference(model_path, batch_size=3)
    timeline = engine.run(demo_clip)
    recording = read_recording(demo_clip, engine.config, build_detector("mtcnn"))
    for row, window in zip(timeline.rows, tile_windows(recording.duration, 1.0, 1.0), strict=True):
        clip = recording.cut(Window(window.start, window.end), engine.config)
        inputs = {k: v[None] for k, v in preprocess(clip, engine.config).items()}
        with torch.no_grad():
            expected = engine.checkpoint.model(**inputs)["logits"].softmax(-1)[0]
        if row.probabilities is not None:
            assert torch.allclose(torch.tensor(row.probabilities).float(), expected, atol=1e-4)


def test_a_hop_that_would_lose_time_is_refused(
    model_path: Path, demo_clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--media_path", str(demo_clip), "--model_path", str(model_path)]
    assert "time would be lost" in _error_of([*arguments, "--hop_seconds", "2"], capsys)


def test_a_store_of_another_face_size_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_corpus(tmp_path)
    arguments = ["--annotation_path", str(manifest), "--sample_size", "64"]
    assert "the store holds faces of 32 pixels" in _error_of(arguments, capsys)


def test_a_wrong_number_of_classes_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_corpus(tmp_path)
    arguments = ["--annotation_path", str(manifest), "--n_classes", "8"]
    assert "--n_classes 8, but there are 2: happy, sad" in _error_of(arguments, capsys)


INTERRUPTED = """
import sys
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stop())
from main import main
sys.exit(main(["--media_path", "x.mp4"]))
"""


def test_an_interrupt_while_libraries_are_imported_is_one_line() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (130, "interrupted\n")


def test_an_interrupt_of_inference_does_not_talk_of_training(
    tmp_path: Path,
    model_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "a.wav").write_bytes(b"x")
    monkeypatch.setattr(Session, "analyse", interrupt)
    arguments = ["--media_path", str(tmp_path / "a.wav"), "--model_path", str(model_path)]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 130
    error = capsys.readouterr().err.strip()
    assert "--resume leaves them out" in error
    assert "training" not in error


def test_an_existing_run_is_not_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "opts.json").write_text("{}")
    manifest = make_corpus(tmp_path / "data")
    arguments = ["--annotation_path", str(manifest), "--result_path", str(tmp_path)]
    assert "holds a run" in _error_of([*arguments, "--run_name", "run"], capsys)
