"""Inference beyond plain windows: calibration, doubt, contributions, single frames, tasks."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from checkpoints.checkpoint import Checkpoint, save_checkpoint
from evaluation.calibration import Calibration, ConformalRule
from inference import TrainingAlignedInference
from main import main
from media.adaptation import Prior
from media.blendshapes import BLENDSHAPES, VALUES
from media.clip import Clip, ClipConfig, tile_windows
from media.faces import build_detector
from media.landmarks import POINTS
from models import build_model
from recognition import recogniser, session
from recognition.contributions import leave_one_out
from recognition.probabilities import probabilities_of
from tests.builders import LABELS, make_checkpoint, make_recording, without_face, without_sound
from timeline.csv_format import write_csv
from timeline.formats import read_timeline
from timeline.json_format import write_json

CONFIG = ClipConfig(face_size=32, pictures=3)
RULES = tuple(ConformalRule("lac", c, q) for c, q in ((0.5, 0.3), (0.9, 0.6)))


def _clips(*kinds: str) -> list[Clip]:
    """A window each: of `both`, or without a face, without sound, or with nothing."""
    clips = []
    for index, kind in enumerate(kinds):
        recording = make_recording(index, "happy", float(len(kinds)), CONFIG)
        if kind in ("sound", "nothing"):
            recording = without_face(recording)
        if kind in ("face", "nothing"):
            recording = without_sound(recording)
        window = tile_windows(recording.duration, 1.0, 1.0)[index]
        clips.append(recording.cut(window, CONFIG))
    return clips


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No detector, and clips of the test in place of a file's."""
    monkeypatch.setattr(recogniser, "build_detector", lambda *_: build_detector("whole"))
    return monkeypatch


def _give(stream: pytest.MonkeyPatch, clips: Sequence[Clip]) -> None:
    stream.setattr(recogniser, "stream_clips", lambda *_, **__: iter(clips))


def _save(checkpoint: Checkpoint, folder: Path) -> Path:
    save_checkpoint(checkpoint, folder / "model.safetensors")
    return folder / "model.safetensors"


def test_probabilities_are_calibrated_where_the_checkpoint_is(
    tmp_path: Path, stream: pytest.MonkeyPatch
) -> None:
    plain = make_checkpoint("speech_cnn", CONFIG)
    halved = Calibration("temperature", (0.5, 0.5), (0.0, 0.0))
    _give(stream, _clips("sound", "both"))
    before = TrainingAlignedInference(_save(plain, tmp_path), "cpu").run("a.mp4")
    calibrated = _save(replace(plain, calibration=halved), tmp_path)
    _give(stream, _clips("sound", "both"))
    after = TrainingAlignedInference(calibrated, "cpu").run("a.mp4")
    expected = np.sqrt(before.probabilities())  # a scale of a half is a square root, normalised
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(after.probabilities(), expected, atol=1e-6)
    assert (before.checkpoint["calibrated"], after.checkpoint["calibrated"]) == (False, True)


def test_rows_are_uncertain_where_not_one_class_alone_remains_possible(
    tmp_path: Path, stream: pytest.MonkeyPatch
) -> None:
    checkpoint = replace(make_checkpoint("speech_cnn", CONFIG), conformal=RULES)
    path = _save(checkpoint, tmp_path)
    logits = torch.tensor([[2.0, 0.0], [0.1, 0.0], [2.0, 0.0]])  # .88 .12 / .52 .48 / nothing
    _give(stream, _clips("sound", "sound", "nothing"))
    engine = TrainingAlignedInference(path, "cpu", uncertain=0.9)
    stream.setattr(engine.recogniser.model, "forward", lambda **_: {"logits": logits})
    timeline = engine.run("a.mp4")
    # At a quantile of 0.6 a class of 0.4 or more remains possible.
    assert [row.uncertain for row in timeline.rows] == [False, True, True]
    assert timeline.checkpoint["conformal"]["coverage"] == 0.9


@pytest.mark.parametrize(
    ("rules", "coverage", "message"),
    [
        ((), 0.9, "needs a calibrated checkpoint, and model.safetensors is not"),
        (RULES, 0.8, "--uncertain 0.8: model.safetensors was calibrated for 0.5, 0.9"),
    ],
)
def test_a_coverage_that_the_checkpoint_lacks_is_refused_by_name(
    tmp_path: Path, rules: tuple[ConformalRule, ...], coverage: float, message: str
) -> None:
    path = _save(replace(make_checkpoint("speech_cnn", CONFIG), conformal=rules), tmp_path)
    with pytest.raises(ValueError, match=message):
        TrainingAlignedInference(path, "cpu", uncertain=coverage)


class _Always(nn.Module):
    """Says the same of everything."""

    def __init__(self, *probabilities: float) -> None:
        super().__init__()
        self.logits = torch.tensor(probabilities).log()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        return {"logits": self.logits.expand(len(x), -1)}


def _late(method: str) -> nn.Module:
    part = {"name": "speech_cnn", "arguments": {"num_classes": 2}}
    face = {"name": "cnn_simple", "arguments": {"num_classes": 2}}
    model = build_model("late_fusion", face=face, speech=part, num_classes=2, late_method=method)
    model.members["face"], model.members["speech"] = _Always(0.8, 0.2), _Always(0.5, 0.5)  # type: ignore[operator, index]
    return model.eval()


@pytest.mark.parametrize(
    ("method", "together"),
    # The product rule is the geometric mean: the roots of .8 .2 and .5 .5, normalised.
    [("product", 2 / 3), ("mean", 0.65)],
)
def test_contributions_are_what_the_winner_loses_without_each_modality(
    method: str, together: float
) -> None:
    model = _late(method)
    inputs = {
        "face": torch.zeros(2, 1, 1),
        "face_mask": torch.tensor([[True], [True]]),
        "speech": torch.zeros(2, 1, 1),
        "speech_mask": torch.tensor([[True], [False]]),
    }

    def predict(inputs: dict[str, Tensor]) -> np.ndarray:
        return model(**inputs)["logits"].softmax(dim=-1).numpy()

    changes = leave_one_out(predict, inputs, ("face", "speech"))  # type: ignore[arg-type]
    np.testing.assert_allclose(changes["face"], [together - 0.5, 0.8 - 0.5], atol=1e-6)
    np.testing.assert_allclose(changes["speech"], [together - 0.8, math.nan], atol=1e-6)


def test_contributions_and_gates_are_columns_empty_where_a_modality_is_missing(
    tmp_path: Path, stream: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    path = _save(make_checkpoint("multimodalcnn", CONFIG), tmp_path)
    _give(stream, _clips("both", "face", "sound", "nothing"))
    timeline = TrainingAlignedInference(path, "cpu", contributions=True).run("a.mp4")
    assert timeline.measures == [
        "contribution_face",
        "contribution_speech",
        "gate_face",
        "gate_speech",
    ]
    known = [[value is not None for value in row.measures.values()] for row in timeline.rows]
    assert known == [
        [True, True, True, True],
        [True, False, False, False],
        [False, True, False, False],
        [False, False, False, False],
    ]
    gates = [timeline.rows[0].measures[name] or 0.0 for name in ("gate_face", "gate_speech")]
    assert all(0 < gate <= 1 for gate in gates)


def test_a_gate_lets_through_all_steps_alike_or_in_effect_one() -> None:
    from models.multimodalcnn import _let_through

    gate = torch.tensor([[[1.0, 1.0, 1.0, 9.0]], [[0.0, 2.0, 0.0, 0.0]], [[1.0, 1.0, 1.0, 1.0]]])
    kept = torch.tensor([[True, True, True, False], [True] * 4, [True] * 4])
    share = _let_through(gate, kept, torch.tensor([True, True, False]))
    torch.testing.assert_close(share, torch.tensor([1.0, 0.25, math.nan]), equal_nan=True)


def test_contributions_of_a_model_of_one_modality_are_refused(tmp_path: Path) -> None:
    path = _save(make_checkpoint("speech_cnn", CONFIG), tmp_path)
    with pytest.raises(ValueError, match=r"model\.safetensors takes speech alone"):
        TrainingAlignedInference(path, "cpu", contributions=True)


def test_single_pictures_give_as_many_rows_a_second_as_asked_for(
    tmp_path: Path, talking_face: Path, stream: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, pictures=1, detector="whole")  # as of cropped faces
    path = _save(make_checkpoint("cnn_simple", config), tmp_path)
    engine = TrainingAlignedInference(path, "cpu", sample_rate=5.0)
    assert (engine.config.pictures, engine.config.detector) == (1, "mtcnn")
    timeline = engine.run(talking_face)
    assert len(timeline.rows) == math.ceil(timeline.duration * 5)
    assert {row.modalities for row in timeline.rows[:12]} == {"video"}
    assert timeline.window_seconds == timeline.hop_seconds == 0.2


def test_each_row_is_of_the_picture_nearest_to_its_middle(
    tmp_path: Path, talking_face: Path, stream: pytest.MonkeyPatch
) -> None:
    path = _save(make_checkpoint("cnn_simple", CONFIG), tmp_path)
    engine = TrainingAlignedInference(path, "cpu", sample_rate=6.25)
    seen: list[np.ndarray] = []
    take = session.preprocess
    stream.setattr(session, "preprocess", lambda c, *a: seen.append(c.faces[0]) or take(c, *a))
    engine.run(talking_face)
    whole = recogniser.stream_clips(
        talking_face, replace(engine.config, window_seconds=0.04), engine.recogniser.detector, 0.04
    )
    pictures = [clip.faces[0] for clip in whole]  # 25 a second
    np.testing.assert_array_equal(seen[1], pictures[6])  # of 0.16 to 0.32 s the one at 0.24 s


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("speech_cnn", {}, "is a speech_cnn that takes speech: leave it out"),
        ("face_cnn", {}, "is a face_cnn that takes 3 pictures in their order"),
        ("multimodalcnn", {}, "takes face and speech"),
        ("cnn_simple", {"hop_seconds": 0.5}, "have no effect with --sample_rate"),
        ("cnn_simple", {"sample_rate": 0.0}, "--sample_rate must be above 0, not 0"),
    ],
)
def test_a_model_that_needs_more_than_a_picture_takes_no_sample_rate(
    tmp_path: Path, name: str, options: dict[str, float], message: str
) -> None:
    path = _save(make_checkpoint(name, CONFIG), tmp_path)
    with pytest.raises(ValueError, match=message):
        TrainingAlignedInference(path, "cpu", **{"sample_rate": 2.0, **options})  # type: ignore[arg-type]


def test_a_network_without_a_classifier_recognises_nothing(tmp_path: Path) -> None:
    checkpoint = Checkpoint(build_model("mobilenet_face", num_classes=0).eval(), (), CONFIG)
    with pytest.raises(ValueError, match="has no classifier: train one from it"):
        TrainingAlignedInference(_save(checkpoint, tmp_path), "cpu")


def test_each_task_gives_its_own_numbers_to_the_timeline_and_its_files(
    tmp_path: Path, stream: pytest.MonkeyPatch
) -> None:
    logits = torch.tensor([[1.5, -0.5]])
    expected = {
        "multilabel": 1 / (1 + np.exp(-logits.numpy())),
        "regression": logits.numpy(),
    }
    for task, values in expected.items():
        checkpoint = replace(make_checkpoint("speech_cnn", CONFIG), task=task)
        np.testing.assert_allclose(probabilities_of(checkpoint, logits), values, atol=1e-6)
        _give(stream, _clips("sound", "nothing"))
        timeline = TrainingAlignedInference(_save(checkpoint, tmp_path), "cpu").run("a.mp4")
        assert timeline.task == task
        for write, suffix in ((write_csv, "csv"), (write_json, "json")):
            write(timeline, tmp_path / f"a.{suffix}")
            again = read_timeline(tmp_path / f"a.{suffix}")
            assert (again.task, again.class_names) == (task, LABELS)
            np.testing.assert_allclose(again.probabilities(), timeline.probabilities(), atol=1e-4)


def test_the_command_line_reaches_all_of_it(
    tmp_path: Path, stream: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    path = _save(replace(make_checkpoint("multimodalcnn", CONFIG), conformal=RULES), tmp_path)
    (tmp_path / "a.mp4").touch()
    _give(stream, _clips("both", "face", "nothing"))
    arguments = ["--media_path", str(tmp_path / "a.mp4"), "--model_path", str(path)]
    flags = ["--uncertain", "0.9", "--contributions", "--output", str(tmp_path / "out")]
    assert main([*arguments, *flags]) == 0
    header = (tmp_path / "out" / "a.csv").read_text().splitlines()[0]
    assert header.endswith(
        "p_happy,p_sad,uncertain,contribution_face,contribution_speech,gate_face,gate_speech"
    )
    content = json.loads((tmp_path / "out" / "a.json").read_text())
    assert content["rows"][2]["uncertain"] is True
    assert content["rows"][2]["contribution_face"] is None
    assert (tmp_path / "out" / "a.png").exists()
    assert "Uncertain: " in capsys.readouterr().out
    assert main([*arguments, "--sample_rate", "2"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def _seen(seconds: float, speaker: str | None, engine: TrainingAlignedInference) -> list[bool]:
    rows = engine.run("x.mp4", speaker=speaker).rows
    assert len(rows) == seconds
    return [bool(row.measures["adapted"]) for row in rows]


@pytest.fixture
def adapting(tmp_path: Path, stream: pytest.MonkeyPatch) -> TrainingAlignedInference:
    stream.setattr(recogniser, "build_mesh_reading", lambda: None)
    prior = Prior(np.zeros((POINTS, 2), dtype=np.float32))
    checkpoint = replace(make_checkpoint("landmark_tcn", CONFIG), priors={"landmarks": prior})
    return TrainingAlignedInference(_save(checkpoint, tmp_path), adapt=True)


def test_what_was_learned_of_a_speaker_goes_on_to_the_next_file(
    adapting: TrainingAlignedInference, stream: pytest.MonkeyPatch
) -> None:
    clips = _clips(*["both"] * 4)
    stream.setattr(recogniser, "stream_clips", lambda *_, **__: iter(clips))
    assert not any(_seen(4, "anna", adapting)), "4 s are too few"
    assert not any(_seen(4, "ben", adapting)), "of another speaker"
    assert not any(_seen(4, None, adapting)), "of nobody known"
    assert all(_seen(4, "anna", adapting)), "4 s of the first file and 1 s make 5"


def test_only_the_first_face_of_a_file_is_the_speakers(
    adapting: TrainingAlignedInference, stream: pytest.MonkeyPatch
) -> None:
    clips = _clips(*["both"] * 6)
    people = [replace(clip, face_id=int(index >= 3)) for index, clip in enumerate(clips)]
    stream.setattr(recogniser, "stream_clips", lambda *_, **__: iter(people))
    assert not any(_seen(6, "anna", adapting))
    assert _seen(6, "anna", adapting) == [False, True, True, False, False, False]


def test_blendshapes_are_seen_against_the_persons_mean_as_it_comes_to_be_known(
    tmp_path: Path, stream: pytest.MonkeyPatch
) -> None:
    stream.setattr(recogniser, "build_mesh_reading", lambda: None)
    clips = _clips(*["both"] * 8)
    prior = Prior(np.full(VALUES, 0.1, dtype=np.float32))
    checkpoint = replace(make_checkpoint("blendshape_tcn", CONFIG), priors={"blendshapes": prior})
    engine = TrainingAlignedInference(_save(checkpoint, tmp_path), "cpu", adapt=True, batch_size=3)
    seen: list[Tensor] = []

    def watch(**inputs: Tensor) -> dict[str, Tensor]:
        seen.extend(inputs["blendshapes"])
        return {"logits": torch.zeros(len(inputs["blendshapes"]), 2)}

    stream.setattr(engine.recogniser.model, "forward", watch)
    _give(stream, clips)
    rows = engine.run("a.mp4").rows
    assert [bool(row.measures["adapted"]) for row in rows] == [False] * 4 + [True] * 4
    values = [torch.from_numpy(clip.blendshapes) for clip in clips]
    assert torch.equal(seen[0], values[0] - torch.from_numpy(prior.face))
    known = torch.stack([value.mean(dim=0) for value in values[:6]]).sum(dim=0)
    mean = (torch.from_numpy(prior.face) * 5 + known) / 11  # the prior weighs as much as 5 s
    assert torch.allclose(seen[5], values[5] - mean, atol=1e-6), "nothing of what comes later"


def test_face_measures_are_columns_of_any_models_timeline(
    tmp_path: Path, stream: pytest.MonkeyPatch
) -> None:
    stream.setattr(recogniser, "build_mesh_reading", lambda: None)
    path = _save(make_checkpoint("speech_cnn", CONFIG), tmp_path)
    clips = _clips("both", "sound")
    clips[1] = replace(clips[1], blendshapes_mask=np.zeros(10, dtype=bool))
    _give(stream, clips)
    timeline = TrainingAlignedInference(path, "cpu", face_measures=True).run("a.mp4")
    plain = TrainingAlignedInference(path, "cpu").identity()
    assert timeline.checkpoint == {**plain, "face_measures": True}, "--resume tells them apart"
    row = timeline.rows[0].measures
    smile = clips[0].blendshapes[:, BLENDSHAPES.index("mouthSmileLeft")].mean()
    assert row["blendshape_mouthSmileLeft"] == pytest.approx(smile)
    assert row["head_yaw"] == pytest.approx(np.degrees(clips[0].blendshapes[:, 52].mean()))
    assert timeline.rows[1].measures["head_yaw"] is None
    write_csv(timeline, tmp_path / "a.csv")
    write_json(timeline, tmp_path / "a.json")
    header, first = (tmp_path / "a.csv").read_text().splitlines()[:2]
    written = dict(zip(header.split(","), first.split(","), strict=True))
    assert float(written["blendshape_mouthSmileLeft"]) == pytest.approx(smile, abs=1e-3)
    for name in ("a.json", "a.csv"):
        again = read_timeline(tmp_path / name).rows[0].measures
        assert again == pytest.approx(dict(row), abs=1e-3), name


def test_a_model_of_blendshapes_alone_sees_a_face_without_pictures(
    tmp_path: Path, stream: pytest.MonkeyPatch
) -> None:
    stream.setattr(recogniser, "build_mesh_reading", lambda: None)
    path = _save(make_checkpoint("blendshape_tcn", CONFIG), tmp_path)
    clips = _clips("both", "nothing")
    gone = replace(
        clips[1],
        blendshapes=np.zeros_like(clips[1].blendshapes),
        blendshapes_mask=np.zeros(10, dtype=bool),
    )
    _give(stream, [clips[0], gone])
    rows = TrainingAlignedInference(path, "cpu").run("a.mp4").rows
    assert [row.modalities for row in rows] == ["video", "none"]
