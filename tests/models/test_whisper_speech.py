"""Whisper as a speech model: masks, blocks, what is trained, fusion, inference block by block."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from checkpoints.whisper_weights import read_whisper
from datasets.augment import mix_up
from experiments.initialisation import pretraining_data, start_model
from inference import TrainingAlignedInference
from main import main
from media.clip import tile_windows
from media.configuration import ClipConfig
from media.preprocess import preprocess
from media.reading import read_recording
from models import build_model, set_trainable
from models.whisper_speech import CLIPS, LAYER_MIXES
from opts import parse_options
from recognition.encoded_blocks import EncodedBlocks
from recognition.session import Session
from tests.builders import LABELS, SMALL, make_checkpoint
from tests.builders import speech_blocks as _blocks
from tests.builders import whisper_logits as _logits
from tests.builders import whisper_model as _model
from tests.conftest import WriteMedia
from tests.media.test_sound import _noise

CONFIG = replace(SMALL, **CLIPS, speech_context_seconds=1.0)
pytestmark = pytest.mark.usefixtures("small_whisper")


@pytest.mark.parametrize("mix", LAYER_MIXES)
@pytest.mark.parametrize(("layers", "joined"), [(None, 1), (1, 1), (2, 4)])
def test_encoded_blocks_stand_for_their_sound(mix: str, layers: int | None, joined: int) -> None:
    inputs = _blocks()
    model = _model(layer_mix=mix, encoder_layers=layers, speech_width=48, frames_joined=joined)
    inputs["speech_mask"][0, 10:40] = False
    with torch.no_grad():
        encoded = model.encode_blocks(inputs["speech"].flatten(0, 1))
    steps = math.ceil(30 / joined)
    assert encoded.shape == (4, steps, model.encoded_width)
    given = {**inputs, "speech": encoded.reshape(2, 2, steps, -1)}
    torch.testing.assert_close(_logits(model, given), _logits(model, inputs))


def test_a_block_of_which_nothing_is_recognised_is_not_heard() -> None:
    model, inputs = _model(), _blocks()
    inputs["speech_mask"][0, 30:] = False
    before = _logits(model, inputs)
    inputs["speech"][0, 1] = 9.0
    assert torch.equal(_logits(model, inputs), before)
    inputs["speech"][0, 0] += 0.5
    assert not torch.allclose(_logits(model, inputs)[0], before[0])
    assert torch.equal(_logits(model, inputs)[1], before[1])


def test_frames_beside_the_recognised_ones_are_heard_but_not_pooled() -> None:
    model, inputs = _model(), _blocks(blocks=1)
    inputs["speech_mask"][:, 10:] = False
    frames, _ = model.early(**_renamed(inputs))
    assert not frames[..., 10:].any()
    inputs["speech"][..., 40:] += 1.0
    assert not torch.allclose(model.early(**_renamed(inputs))[0][..., :10], frames[..., :10])


def _renamed(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"speech": inputs["speech"], "mask": inputs["speech_mask"]}


@pytest.mark.parametrize("joined", [1, 4])
def test_padding_of_a_batch_is_not_heard(joined: int) -> None:
    model, inputs = _model(frames_joined=joined), _blocks(blocks=1)
    longer = {
        "speech": torch.nn.functional.pad(inputs["speech"], (0, 20)),
        "speech_mask": torch.nn.functional.pad(inputs["speech_mask"], (0, 10)),
    }
    torch.testing.assert_close(_logits(model, longer), _logits(model, inputs))
    more = {
        "speech": torch.nn.functional.pad(inputs["speech"], (0, 0, 0, 0, 0, 1)),
        "speech_mask": torch.nn.functional.pad(inputs["speech_mask"], (0, 30)),
    }
    torch.testing.assert_close(_logits(model, more), _logits(model, inputs))


def test_blocks_of_different_length_do_not_see_each_other() -> None:
    model, inputs = _model(), _blocks(batch=3, blocks=1)
    inputs["speech"][1, ..., 41:] = 0.0
    inputs["speech_mask"][1, 21:] = False
    alone = {name: value[1:2] for name, value in inputs.items()}
    alone = {"speech": alone["speech"][..., :41], "speech_mask": alone["speech_mask"][:, :21]}
    torch.testing.assert_close(_logits(model, inputs)[1:2], _logits(model, alone))


def test_a_frozen_encoder_builds_no_graph() -> None:
    model, inputs = _model(), _blocks()
    set_trainable(model, model.default_trainable)
    for hidden in model.train().encoder(inputs["speech"].flatten(0, 1)):
        assert hidden.grad_fn is None
        assert not hidden.requires_grad
    model(**inputs)["logits"].sum().backward()
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {"mix", "pool", "classifier_1"}


def test_the_last_layers_can_be_trained_by_name() -> None:
    model, inputs = _model(), _blocks()
    set_trainable(model, ["layer2", "mix", "pool", "head"])
    model.train()(**inputs)["logits"].square().sum().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert {name for name in trained if name.startswith("encoder")} == {
        f"encoder.{name}"
        for name, _ in model.encoder.named_parameters()
        if name.startswith(("blocks.1.", "final_norm."))
    }


def test_another_branchs_weights_leave_the_encoder_to_be_trained(tmp_path: Path) -> None:
    save_checkpoint(make_checkpoint("face_cnn"), tmp_path / "face.safetensors")
    model = build_model("multimodalcnn", speech_model="whisper_speech")
    flags = ["--speech_model", "whisper_speech"]
    options = _options(*flags, "--pretrain_path", str(tmp_path / "face.safetensors"))
    start_model(model, CONFIG, options.train)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert pretraining_data(model, options.train) == []


def test_adapters_are_trained_while_the_encoder_is_frozen() -> None:
    model, inputs = _model(adapter_rank=2), _blocks()
    for part in model.encoder.adapters():
        torch.nn.init.normal_(part.up.weight, std=0.1)
    assert model.default_trainable[-1] == "adapters"
    set_trainable(model, model.default_trainable)
    model.train()(**inputs)["logits"].square().sum().backward()
    for name, parameter in model.encoder.named_parameters():
        assert (parameter.grad is not None) == (".adapter." in name), name
        if ".adapter." in name:
            assert parameter.grad.abs().sum() > 0, name  # type: ignore[union-attr]


def test_without_adapters_there_is_no_such_block() -> None:
    with pytest.raises(ValueError, match=r"no block adapters to train; choose from encoder"):
        set_trainable(_model(), ["adapters"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"whisper_size": "huge"}, "unknown whisper_size 'huge'; choose from tiny, base, small"),
        ({"layer_mix": "x"}, "unknown layer_mix 'x'; choose from weighted, concat, all"),
        ({"speech_width": 1}, "speech_width must be at least 2, not 1"),
        ({"encoder_layers": 3}, "encoder_layers must lie in 1 to 2, not 3"),
    ],
)
def test_impossible_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model("whisper_speech", **arguments)


@pytest.mark.parametrize("fusion", ["concat", "ia", "it", "lt"])
def test_it_is_a_branch_of_every_fusion(fusion: str) -> None:
    model = build_model(
        "multimodalcnn", fusion=fusion, speech_model="whisper_speech", adapter_rank=2
    )
    assert model.clip_defaults["n_mels"] == 80
    inputs = {**_blocks(), "face": torch.rand(2, 3, 3, 32, 32)}
    before = _logits(model, inputs)
    assert before.shape == (2, 7)
    assert not torch.allclose(_logits(model, {**inputs, "speech": -inputs["speech"]}), before)
    part = model.block_encoder()
    assert part is model.audio_model
    with torch.no_grad():
        encoded = model.audio_model.encode_blocks(inputs["speech"].flatten(0, 1))
    given = {**inputs, "speech": encoded.reshape(2, 2, 30, -1)}
    torch.testing.assert_close(_logits(model, given), before)
    set_trainable(model, model.default_trainable)
    for name, parameter in model.named_parameters():
        frozen = name.startswith("audio_model.encoder") and ".adapter." not in name
        frozen |= name.startswith("audio_model.") and not parameter.requires_grad
        assert parameter.requires_grad != frozen, name
    assert model.audio_model.mix.weight.requires_grad


def test_other_branches_refuse_its_arguments() -> None:
    with pytest.raises(ValueError, match="'speech_cnn' takes no argument whisper_size"):
        build_model("multimodalcnn", whisper_size="tiny")


def _options(*arguments: str) -> Any:
    return parse_options(["--annotation_path", "a.csv", *arguments])


def test_started_from_whisper_the_encoder_is_frozen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = _write_whisper(tmp_path / "tiny.pt")
    model = _model()
    options = _options("--model", "whisper_speech", "--pretrain_path", str(path))
    start_model(model, CONFIG, options.train)
    assert "30 tensors matched of encoder" in caplog.messages[0]
    assert {n.split(".")[0] for n, p in model.named_parameters() if not p.requires_grad} == {
        "encoder"
    }
    assert pretraining_data(model, options.train) == ["Whisper's web speech"]
    asked = _options(
        "--model", "whisper_speech", "--pretrain_path", str(path), "--trainable", "layer2,head"
    )
    start_model(model, CONFIG, asked.train)
    assert model.encoder.final_norm.weight.requires_grad  # type: ignore[union-attr]
    assert not model.mix.weight.requires_grad


def _openai_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    from tests.checkpoints.test_whisper_weights import OPENAI, _split

    renamed = _split(state, OPENAI, "attn.")
    return {f"encoder.{k.replace('final_norm', 'ln_post')}": v for k, v in renamed.items()}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, write_media: WriteMedia) -> Path:
    """17.3 s of noise, silent from 8 to 11.5 s."""
    waveform = _noise(17.3, seed=5) / np.float32(32768)
    waveform[8 * 16000 : round(11.5 * 16000)] = 0
    path = tmp_path_factory.mktemp("whisper") / "sound.wav"
    return write_media(path, sound=waveform, audio_codec="pcm_s16le")


def _late(config: ClipConfig) -> Checkpoint:
    part = {"name": "whisper_speech", "arguments": {"num_classes": 2}}
    face = {"name": "face_cnn", "arguments": {"num_classes": 2}}
    torch.manual_seed(2)
    model = build_model("late_fusion", face=face, speech=part, num_classes=2)
    return Checkpoint(model.eval(), LABELS, config)


def _branch(config: ClipConfig) -> Checkpoint:
    torch.manual_seed(2)
    model = build_model("multimodalcnn", num_classes=2, speech_model="whisper_speech")
    return Checkpoint(model.eval(), LABELS, config)


@pytest.mark.parametrize("hop", [1.0, 0.4])
@pytest.mark.parametrize("kind", ["alone", "late", "branch"])
@pytest.mark.parametrize("context", [0.0, 1.0])
def test_inference_encodes_each_block_once_and_gives_what_windows_give(
    kind: str, context: float, hop: float, sound: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    config = replace(CONFIG, speech_context_seconds=context, window_seconds=1.0)
    torch.manual_seed(2)
    build = {"alone": lambda c: make_checkpoint("whisper_speech", c), "late": _late}
    checkpoint = {**build, "branch": _branch}[kind](config)
    save_checkpoint(checkpoint, tmp_path / "model.safetensors")
    engine = TrainingAlignedInference(
        tmp_path / "model.safetensors", device="cpu", hop_seconds=hop, batch_size=3
    )
    session = Session(replace(engine.recogniser, detector=None))
    encoder = engine.recogniser.model.block_encoder()
    assert encoder is not None
    heard: list[int] = []
    encode = encoder.encode_blocks
    monkeypatch.setattr(
        encoder, "encode_blocks", lambda x, *rest: heard.append(len(x)) or encode(x, *rest)
    )
    rows = session.analyse(sound).timeline.rows
    recording = read_recording(sound, config, None)
    windows = tile_windows(recording.duration, 1.0, hop)
    assert len(rows) == len(windows)
    if context:
        assert sum(heard) == 4
    for row, window in zip(rows, windows, strict=True):
        inputs = preprocess(recording.cut(window, config), config, checkpoint.model.inputs)
        assert (row.modalities == "audio") == bool(inputs["speech_mask"].any())
        if row.probabilities is None:
            continue
        with torch.no_grad():
            logits = checkpoint.model(**{n: v[None] for n, v in inputs.items()})["logits"]
        np.testing.assert_allclose(row.probabilities, logits.softmax(-1)[0], atol=1e-5)
    assert {row.modalities for row in rows} == {"audio", "none"}
    again = session.analyse(sound).timeline.rows  # what one recording left must not reach the next
    np.testing.assert_array_equal(again[0].probabilities, rows[0].probabilities)


def test_passed_blocks_are_dropped(sound: Path) -> None:
    recording = read_recording(sound, CONFIG, None)
    blocks = EncodedBlocks(_model(), CONFIG, torch.device("cpu"))
    for window in tile_windows(recording.duration, 1.0, 1.0):
        with torch.no_grad():
            blocks.inputs([recording.cut(window, CONFIG)])
        assert len(blocks._encoded) <= 2


def _write_whisper(path: Path) -> Path:
    torch.manual_seed(9)
    whole = build_model("whisper_speech", whisper_size="tiny").get_submodule("encoder").state_dict()
    torch.save({"dims": {}, "model_state_dict": _openai_names(whole)}, path)
    return path


def test_it_is_trained_scored_and_used_from_the_command_line(tmp_path: Path, sound: Path) -> None:
    from tests.builders import make_corpus

    manifest = make_corpus(tmp_path)
    flags = ["--annotation_path", str(manifest), "--result_path", str(tmp_path / "runs")]
    flags += ["--model", "whisper_speech", "--n_epochs", "1", "--batch_size", "4", "--amp", "off"]
    flags += ["--speech_context_seconds", "0.5", "--speech_block_seconds", "3", "--run_name", "r"]
    flags += ["--pretrain_path", str(_write_whisper(tmp_path / "tiny.pt"))]
    assert main([*flags, "--encoder_layers", "1", "--speech_width", "16"]) == 0
    best = tmp_path / "runs" / "r" / "model_best.safetensors"
    trained = load_checkpoint(best)
    assert "Whisper's web speech" in trained.info["corpora"]
    published = read_whisper(tmp_path / "tiny.pt")
    assert published is not None
    weight = trained.model.get_submodule("encoder.conv1").weight
    assert torch.equal(weight, published.tensors["conv1.weight"])  # type: ignore[arg-type]
    options = ["--media_path", str(sound), "--model_path", str(best), "--no_plot"]
    assert main([*options, "--output", str(tmp_path / "out"), "--hop_seconds", "0.5"]) == 0
    lines = (tmp_path / "out" / "sound.csv").read_text().splitlines()
    assert sum("audio" in line for line in lines) > 20


def test_other_models_have_no_context(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.builders import make_corpus

    manifest = make_corpus(tmp_path)
    flags = ["--annotation_path", str(manifest), "--result_path", str(tmp_path / "runs")]
    flags += ["--speech_context_seconds", "1"]
    assert main([*flags, "--model", "speech_cnn"]) == 2
    assert "speech_context_seconds is for models of whisper_mel" in capsys.readouterr().err
    asked = ["--model", "multimodalcnn", "--speech_model", "whisper_speech", "--n_mels", "64"]
    assert main([*flags, *asked]) == 2
    assert "n_mels must be 80 for multimodalcnn, not 64 (--n_mels)" in capsys.readouterr().err


def test_mixed_encoded_blocks_keep_what_only_one_sample_has() -> None:
    torch.manual_seed(0)
    speech = torch.stack([torch.ones(2, 6, 8), torch.full((2, 6, 8), 3.0)])
    mask = torch.ones(2, 60) > 0
    mask[0, :30] = False  # the first block of the first sample
    inputs, target = {"speech": speech, "speech_mask": mask}, torch.eye(2)
    for _ in range(20):
        mixed, blended = mix_up(inputs, target, 0.4)
        share = float(blended[0, 0])
        if share < 1:
            break
    assert torch.equal(mixed["speech"][0, 0], speech[1, 0])
    expected = share * speech[0, 1] + (1 - share) * speech[1, 1]
    torch.testing.assert_close(mixed["speech"][0, 1], expected)
    assert bool(mixed["speech_mask"].all())
