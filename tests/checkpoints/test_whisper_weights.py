"""Whisper's weights in three formats, whole and damaged."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from checkpoints.checkpoint import load_checkpoint
from checkpoints.pretrained import load_pretrained
from checkpoints.whisper_weights import describe_size, read_whisper
from models import build_model
from models.whisper_encoder import SIZES, WhisperEncoder, WhisperSize

SMALL = WhisperSize(64, 2)
OPENAI = {
    "attn_norm": "attn_ln",
    "out": "attn.out",
    "mlp_norm": "mlp_ln",
    "mlp1": "mlp.0",
    "mlp2": "mlp.2",
}
HUGGING_FACE = {
    "attn_norm": "self_attn_layer_norm",
    "out": "self_attn.out_proj",
    "mlp_norm": "final_layer_norm",
    "mlp1": "fc1",
    "mlp2": "fc2",
}
CTRANSLATE2 = {
    "attn_norm": "self_attention/layer_norm",
    "qkv": "self_attention/linear_0",
    "out": "self_attention/linear_1",
    "mlp_norm": "ffn/layer_norm",
    "mlp1": "ffn/linear_0",
    "mlp2": "ffn/linear_1",
}


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Of a small encoder, which stands for `tiny`."""
    monkeypatch.setitem(SIZES, "tiny", SMALL)
    torch.manual_seed(5)
    state = {name: torch.randn_like(v) for name, v in WhisperEncoder(SMALL).state_dict().items()}
    for name, value in state.items():
        if name.endswith("qkv.bias"):
            value[SMALL.width : 2 * SMALL.width] = 0.0  # a key has none
    return state


def _split(state: dict[str, Tensor], names: dict[str, str], query: str) -> dict[str, Tensor]:
    """Under published names; query, key and value apart, the key without bias."""
    out = {}
    for name, value in state.items():
        if not name.startswith("blocks."):
            out[name] = value
            continue
        _, number, part, kind = name.split(".")
        if part != "qkv":
            out[f"blocks.{number}.{names[part]}.{kind}"] = value
            continue
        kinds = ("query", "key", "value") if query == "attn." else ("q_proj", "k_proj", "v_proj")
        for which, tensor in zip(kinds, value.chunk(3), strict=True):
            if (kind, which[0]) != ("bias", "k"):
                out[f"blocks.{number}.{query}{which}.{kind}"] = tensor.clone()
    return out


def _write_openai(state: dict[str, Tensor], path: Path) -> Path:
    named = {
        f"encoder.{name.replace('final_norm', 'ln_post')}": value.half()
        for name, value in _split(state, OPENAI, "attn.").items()
    }
    extra = {
        "encoder.positional_embedding": torch.zeros(1500, 64),
        "decoder.ln.weight": torch.ones(3),
    }
    torch.save({"dims": {"n_mels": 80}, "model_state_dict": {**named, **extra}}, path)
    return path


def _write_hugging_face(state: dict[str, Tensor], path: Path, prefix: str) -> Path:
    named = {
        prefix
        + "encoder."
        + name.replace("blocks.", "layers.").replace("final_norm", "layer_norm"): value
        for name, value in _split(state, HUGGING_FACE, "self_attn.").items()
    }
    save_file({**named, f"{prefix}decoder.layers.0.fc1.bias": torch.zeros(2)}, path)
    return path


def _string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def _write_ctranslate2(state: dict[str, Tensor], path: Path, kind: int = 4) -> Path:
    data = b""
    dtype = {0: np.float32, 1: np.int8, 4: np.float16}[kind]
    for name, value in {**state, "positions": torch.zeros(3, 2)}.items():
        array = value.numpy().astype(dtype)
        data += _string(_ctranslate2_name(name)) + struct.pack("<B", array.ndim)
        data += struct.pack(f"<{array.ndim}I", *array.shape)
        data += struct.pack("<BI", kind, array.nbytes) + array.tobytes()
    head = struct.pack("<I", 6) + _string("WhisperSpec") + struct.pack("<II", 3, len(state) + 1)
    path.write_bytes(head + data + struct.pack("<I", 0))
    return path


def _ctranslate2_name(name: str) -> str:
    kinds = {"weight": "gamma", "bias": "beta"}
    *parts, kind = name.split(".")
    if name == "positions":
        return "encoder/position_encodings/encodings"
    if parts[0] == "final_norm":
        return f"encoder/layer_norm/{kinds[kind]}"
    if parts[0] != "blocks":
        return f"encoder/{parts[0]}/{kind}"
    kind = kinds[kind] if parts[2].endswith("norm") else kind
    return f"encoder/layer_{parts[1]}/{CTRANSLATE2[parts[2]]}/{kind}"


def _write(kind: str, state: dict[str, Tensor], folder: Path) -> Path:
    if kind == "openai":
        return _write_openai(state, folder / "tiny.pt")
    if kind == "ctranslate2":
        return _write_ctranslate2(state, folder / "model.bin")
    prefix = "model." if kind == "hugging_face_model" else ""
    return _write_hugging_face(state, folder / "model.safetensors", prefix)


FORMATS = ["openai", "hugging_face", "hugging_face_model", "ctranslate2"]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_encoder(
    kind: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    found = read_whisper(_write(kind, weights, tmp_path))
    assert found is not None
    assert found.size == SMALL
    assert set(found.tensors) == set(weights)
    half = kind in ("openai", "ctranslate2")
    for name, value in weights.items():
        assert torch.equal(found.tensors[name], value.half().float() if half else value), name


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_lacks_a_tensor_is_refused(
    kind: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    del weights["blocks.1.mlp1.bias"]
    path = _write(kind, weights, tmp_path)
    with pytest.raises(ValueError, match=rf"{path.name} lacks blocks\.1\.mlp1\.bias of Whisper"):
        read_whisper(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_tensor_of_another_shape_is_named(
    kind: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    weights["blocks.0.out.weight"] = torch.zeros(64, 32)
    with pytest.raises(
        ValueError, match=r"blocks\.0\.out\.weight .* is \(64, 32\), not \(64, 64\)"
    ):
        read_whisper(_write(kind, weights, tmp_path))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("fraction", [0.02, 0.4, 0.9])
def test_a_file_that_is_cut_short_is_one_line(
    kind: str, fraction: float, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    path = _write(kind, weights, tmp_path)
    path.write_bytes(path.read_bytes()[: int(fraction * path.stat().st_size)])
    with pytest.raises(ValueError, match=path.name) as error:
        load_pretrained(build_model("whisper_speech"), path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_weights_that_are_not_finite_are_refused_by_name(
    kind: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    weights["blocks.1.out.bias"][3] = torch.nan
    with pytest.raises(ValueError, match=r"blocks\.1\.out\.bias of Whisper's .* is not finite"):
        read_whisper(_write(kind, weights, tmp_path))


def test_a_file_that_unpacks_to_far_more_is_left_unread(
    weights: dict[str, Tensor], tmp_path: Path
) -> None:
    path = _write("openai", weights, tmp_path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
        archive.writestr("padding", bytes(10_000_000), zipfile.ZIP_DEFLATED)
    assert read_whisper(path) is None
    with pytest.raises(ValueError, match="is packed as torch packs no weights"):
        load_pretrained(build_model("whisper_speech"), path)


def test_quantised_numbers_are_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = _write_ctranslate2(weights, tmp_path / "model.bin", kind=1)
    with pytest.raises(ValueError, match=r"holds 8-bit numbers: convert Whisper with --quant"):
        read_whisper(path)


def test_other_files_are_none_of_whispers(tmp_path: Path) -> None:
    (tmp_path / "empty.bin").touch()
    (tmp_path / "noise.bin").write_bytes(bytes(range(256)) * 4)
    torch.save({"state_dict": {"fc.weight": torch.zeros(2, 2)}}, tmp_path / "other.pth")
    save_file({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    for path in [*tmp_path.iterdir(), tmp_path / "nothing.pt"]:
        assert read_whisper(path) is None, path


@pytest.mark.parametrize("kind", FORMATS)
def test_it_starts_the_encoder_wherever_it_is(
    kind: str, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    path = _write(kind, weights, tmp_path)
    part = {"name": "whisper_speech", "arguments": {}}
    face = {"name": "face_cnn", "arguments": {}}
    models = {
        "encoder.": build_model("whisper_speech"),
        "audio_model.encoder.": build_model("multimodalcnn", speech_model="whisper_speech"),
        "members.speech.encoder.": build_model("late_fusion", face=face, speech=part),
    }
    for prefix, model in models.items():
        report = load_pretrained(model, path)
        assert (report.prefix, report.missing, report.unexpected) == (prefix, [], [])
        state = model.state_dict()
        for name, value in weights.items():
            assert torch.allclose(state[prefix + name], value, atol=2e-3), name


def test_layers_that_are_left_out_are_told(weights: dict[str, Tensor], tmp_path: Path) -> None:
    model = build_model("whisper_speech", encoder_layers=1, adapter_rank=2)
    report = load_pretrained(model, _write_openai(weights, tmp_path / "tiny.pt"))
    assert len(report.unexpected) == 14  # the second block, and the normalisation after it
    assert all(name.startswith(("blocks.1.", "final_norm.")) for name in report.unexpected)
    assert all(".adapter." in name for name in report.missing)
    assert "14 not used (blocks.1." in str(report)


def test_another_size_names_both(weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = _write_openai(weights, tmp_path / "tiny.pt")
    model = build_model("whisper_speech", whisper_size="base", encoder_layers=1)
    named = r"Whisper tiny \(64 wide, 2 layers\), and .* base \(512 wide, 6 layers\)"
    with pytest.raises(ValueError, match=named):
        load_pretrained(model, path)
    assert describe_size(WhisperSize(1024, 24)) == "unknown (1024 wide, 24 layers)"
    with pytest.raises(ValueError, match=r"FaceCNN has no encoder of Whisper: train"):
        load_pretrained(build_model("face_cnn"), path)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_encoder_is_no_checkpoint(kind: str, weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = _write(kind, weights, tmp_path)
    with pytest.raises(ValueError, match="holds Whisper's encoder, which knows no emotions: train"):
        load_checkpoint(path)
