"""Published weights of Whisper's encoder, in the three formats in which people have them.

OpenAI's `.pt`, safetensors of Hugging Face, and `model.bin` of CTranslate2 (float32 or float16).
All hold the same network under other names; here it gets the names of `models/whisper_encoder.py`.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from checkpoints.torch_files import check_packing
from models.whisper_encoder import MELS, SIZES, WhisperSize

_TORCH_ZIP, _CTRANSLATE2_SPEC = b"PK\x03\x04", "WhisperSpec"
_CTRANSLATE2_TYPES = {0: np.float32, 4: np.float16}
_QUANTISED = {1: "8-bit", 2: "16-bit"}


@dataclass(frozen=True)
class WhisperWeights:
    """The encoder of a file.

    Args:
        size: its width and depth.
        tensors: float32, by the names of `WhisperEncoder`.
    """

    size: WhisperSize
    tensors: dict[str, Tensor]


def describe_size(size: WhisperSize) -> str:
    """Such as `base (512 wide, 6 layers)`."""
    named = [name for name, known in SIZES.items() if known == size]
    return f"{named[0] if named else 'unknown'} ({size.width} wide, {size.layers} layers)"


def read_whisper(path: Path) -> WhisperWeights | None:
    """Read a file of Whisper's weights; None where it is something else.

    Raises:
        ValueError: weights of Whisper that are incomplete, quantised or damaged.
    """
    if not path.is_file():
        return None
    with path.open("rb") as file:
        start = file.read(4)
    if path.suffix == ".safetensors":
        found = _read_safetensors(path)
    elif start == _TORCH_ZIP:
        found = _read_torch(path)
    else:
        found = _read_ctranslate2(path)
    return None if found is None else _complete(_joined(found), path)


def is_whisper(path: Path) -> bool:
    """Whether a file holds Whisper's weights."""
    return read_whisper(path) is not None


def _read_torch(path: Path) -> dict[str, Tensor] | None:
    """OpenAI's names to ours; a file that torch cannot read is left to others to complain of."""
    try:
        check_packing(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # noqa: BLE001 - torch raises many kinds for a foreign file
        return None
    if not isinstance(content, Mapping):
        return None
    state = content.get("model_state_dict", content)
    return _renamed(state, _OPENAI) if isinstance(state, Mapping) else None


def _read_safetensors(path: Path) -> dict[str, Tensor] | None:
    """Hugging Face's names to ours."""
    try:
        with safe_open(path, framework="pt") as file:
            named = {key: _new_name(key, _HUGGING_FACE) for key in file.keys()}  # noqa: SIM118
            if "blocks.0.query.weight" not in named.values():
                return None
            return {new: file.get_tensor(key) for key, new in named.items() if new is not None}
    except (SafetensorError, OSError):
        return None


_OPENAI = {
    r"encoder\.(conv[12]\.(?:weight|bias))": r"\1",
    r"encoder\.blocks\.(\d+)\.attn\.(query|key|value|out)\.(weight|bias)": r"blocks.\1.\2.\3",
    r"encoder\.blocks\.(\d+)\.attn_ln\.(weight|bias)": r"blocks.\1.attn_norm.\2",
    r"encoder\.blocks\.(\d+)\.mlp\.0\.(weight|bias)": r"blocks.\1.mlp1.\2",
    r"encoder\.blocks\.(\d+)\.mlp\.2\.(weight|bias)": r"blocks.\1.mlp2.\2",
    r"encoder\.blocks\.(\d+)\.mlp_ln\.(weight|bias)": r"blocks.\1.mlp_norm.\2",
    r"encoder\.ln_post\.(weight|bias)": r"final_norm.\1",
}
_HF_LAYER = r"(?:model\.)?encoder\.layers\.(\d+)\."
_HUGGING_FACE = {
    r"(?:model\.)?encoder\.(conv[12]\.(?:weight|bias))": r"\1",
    _HF_LAYER + r"self_attn\.q_proj\.(weight|bias)": r"blocks.\1.query.\2",
    _HF_LAYER + r"self_attn\.k_proj\.(weight|bias)": r"blocks.\1.key.\2",
    _HF_LAYER + r"self_attn\.v_proj\.(weight|bias)": r"blocks.\1.value.\2",
    _HF_LAYER + r"self_attn\.out_proj\.(weight|bias)": r"blocks.\1.out.\2",
    _HF_LAYER + r"self_attn_layer_norm\.(weight|bias)": r"blocks.\1.attn_norm.\2",
    _HF_LAYER + r"fc1\.(weight|bias)": r"blocks.\1.mlp1.\2",
    _HF_LAYER + r"fc2\.(weight|bias)": r"blocks.\1.mlp2.\2",
    _HF_LAYER + r"final_layer_norm\.(weight|bias)": r"blocks.\1.mlp_norm.\2",
    r"(?:model\.)?encoder\.layer_norm\.(weight|bias)": r"final_norm.\1",
}
_CTRANSLATE2 = {
    r"encoder/(conv[12])/(weight|bias)": r"\1.\2",
    r"encoder/layer_(\d+)/self_attention/layer_norm/(\w+)": r"blocks.\1.attn_norm.\2",
    r"encoder/layer_(\d+)/self_attention/linear_0/(weight|bias)": r"blocks.\1.qkv.\2",
    r"encoder/layer_(\d+)/self_attention/linear_1/(weight|bias)": r"blocks.\1.out.\2",
    r"encoder/layer_(\d+)/ffn/layer_norm/(\w+)": r"blocks.\1.mlp_norm.\2",
    r"encoder/layer_(\d+)/ffn/linear_0/(weight|bias)": r"blocks.\1.mlp1.\2",
    r"encoder/layer_(\d+)/ffn/linear_1/(weight|bias)": r"blocks.\1.mlp2.\2",
    r"encoder/layer_norm/(\w+)": r"final_norm.\1",
}


def _new_name(name: str, names: Mapping[str, str]) -> str | None:
    for pattern, ours in names.items():
        found = re.fullmatch(pattern, name)
        if found:
            return found.expand(ours).replace(".gamma", ".weight").replace(".beta", ".bias")
    return None


def _renamed(state: Mapping[str, object], names: Mapping[str, str]) -> dict[str, Tensor] | None:
    """The encoder's tensors under our names; None where it is no encoder of Whisper's."""
    renamed = {_new_name(str(key), names): value for key, value in state.items()}
    found = {k: v for k, v in renamed.items() if k is not None and isinstance(v, Tensor)}
    return found if "blocks.0.query.weight" in found else None


def _joined(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value of each block as one layer, in float32; a key has no bias."""
    tensors = {name: value.float() for name, value in found.items()}
    blocks = [name.removesuffix("query.weight") for name in tensors if "query.weight" in name]
    for block in blocks:
        parts = {
            kind: [tensors.pop(f"{block}{part}.{kind}", None) for part in ("query", "key", "value")]
            for kind in ("weight", "bias")
        }
        query_bias = parts["bias"][0]
        if parts["bias"][1] is None and query_bias is not None:
            parts["bias"][1] = torch.zeros_like(query_bias)
        for kind, values in parts.items():
            there = [value for value in values if value is not None]
            if len(there) == len(values):
                tensors[f"{block}qkv.{kind}"] = torch.cat(there)
    return tensors


def _complete(tensors: dict[str, Tensor], path: Path) -> WhisperWeights:
    """Refuse an encoder with a tensor that lacks, is not of the others' width, or is not finite."""
    numbers = {int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")}
    conv = tensors.get("conv1.bias")
    if conv is None or not numbers:
        raise ValueError(f"{path} lacks parts of Whisper's encoder: fetch it again")
    size = WhisperSize(len(conv), max(numbers) + 1)
    wanted = _expected_shapes(size)
    for name, shape in wanted.items():
        if name not in tensors:
            raise ValueError(f"{path} lacks {name} of Whisper's encoder: fetch it again")
        if tuple(tensors[name].shape) != shape:
            raise ValueError(
                f"{path}: {name} of Whisper's encoder is {tuple(tensors[name].shape)}, not {shape}"
            )
        if not torch.isfinite(tensors[name]).all():
            raise ValueError(f"{path}: {name} of Whisper's encoder is not finite: fetch it again")
    return WhisperWeights(size, {name: tensors[name] for name in wanted})


def _expected_shapes(size: WhisperSize) -> dict[str, tuple[int, ...]]:
    d = size.width
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (d, MELS, 3), "conv2.weight": (d, d, 3)}
    shapes |= {"conv1.bias": (d,), "conv2.bias": (d,)}
    norms = ["final_norm"]
    for i in range(size.layers):
        block = f"blocks.{i}."
        norms += [block + "attn_norm", block + "mlp_norm"]
        for part, out, into in (("qkv", 3, 1), ("out", 1, 1), ("mlp1", 4, 1), ("mlp2", 1, 4)):
            shapes[f"{block}{part}.weight"] = (out * d, into * d)
            shapes[f"{block}{part}.bias"] = (out * d,)
    return shapes | {f"{norm}.{kind}": (d,) for norm in norms for kind in ("weight", "bias")}


def _read_ctranslate2(path: Path) -> dict[str, Tensor] | None:
    """The encoder of a `model.bin`; None where the file is of another kind."""
    with path.open("rb") as file:
        try:
            _read_numbers(file, "I")  # version
            spec = _read_string(file)
        except (EOFError, UnicodeDecodeError):
            return None
        if spec != _CTRANSLATE2_SPEC:
            return None
        try:
            _, count = _read_numbers(file, "II")  # revision, variables
            variables = [_read_variable(file, path) for _ in range(count)]
        except (UnicodeDecodeError, EOFError) as error:
            raise ValueError(f"{path} is damaged or cut short: fetch it again") from error
    return dict(filter(None, variables))


def _read_variable(file: BinaryIO, path: Path) -> tuple[str, Tensor] | None:
    """The next variable, under our name; None where it is not of the encoder."""
    name = _read_string(file)
    (rank,) = _read_numbers(file, "B")
    shape = _read_numbers(file, f"{rank}I")
    kind, length = _read_numbers(file, "BI")
    ours = _new_name(name, _CTRANSLATE2)
    if ours is None:
        file.seek(length, 1)
        return None
    if kind not in _CTRANSLATE2_TYPES:
        kept = _QUANTISED.get(kind, "other")
        raise ValueError(
            f"{path} holds {kept} numbers: convert Whisper with --quantization float16 or float32"
        )
    dtype = np.dtype(_CTRANSLATE2_TYPES[kind])
    data = file.read(length)
    if len(data) != length or math.prod(shape) * dtype.itemsize != length:
        raise EOFError
    return ours, torch.from_numpy(np.frombuffer(data, dtype).reshape(shape).astype(np.float32))


def _read_numbers(file: BinaryIO, form: str) -> tuple[int, ...]:
    """Little-endian numbers. Raises EOFError where the file ends."""
    data = file.read(struct.calcsize("<" + form))
    if len(data) != struct.calcsize("<" + form):
        raise EOFError
    return struct.unpack("<" + form, data)


def _read_string(file: BinaryIO) -> str:
    """Its length with the zero that ends it, then its characters."""
    (length,) = _read_numbers(file, "H")
    data = file.read(length)
    if len(data) != length:
        raise EOFError
    return data[:-1].decode()
