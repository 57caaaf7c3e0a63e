"""Weights of networks published for TensorFlow.js: a JSON file beside one or more binary shards.

Source of the format: tfjs-core, `io/types.ts` and `io/io_utils.ts` (weights manifest; quantised
values are stored as `uint8` or `uint16` with scale and minimum, or as `float16`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.mobilenet_face import WIDTHS

_TYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "uint16": "<u2", "uint8": "u1"}
_PIXEL = 255.0  # FaceRes takes pixels of 0 to 255, our networks of 0 to 1


def read_tfjs_weights(path: Path) -> dict[str, np.ndarray]:
    """All weights of a model by name, in 32 bits and as TensorFlow lays them out.

    Args:
        path: `model.json`, or the weights manifest alone; its shards lie beside it.

    Raises:
        ValueError: not such a file, a shard that is missing or too short, or an unknown type.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        manifest = content["weightsManifest"] if isinstance(content, dict) else content
        groups = [(group["paths"], group["weights"]) for group in manifest]
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a TensorFlow.js model: it has no weights manifest") from (
            error
        )
    weights: dict[str, np.ndarray] = {}
    for shards, entries in groups:
        weights |= _read_group(path, shards, entries)
    return weights


def _read_group(
    path: Path, shards: list[str], entries: list[dict[str, Any]]
) -> dict[str, np.ndarray]:
    try:
        data = b"".join((path.parent / shard).read_bytes() for shard in shards)
    except OSError as error:
        raise ValueError(f"{path} needs {', '.join(shards)} beside it: {error}") from error
    weights, offset = {}, 0
    for entry in entries:
        quantised = entry.get("quantization", {})
        kind = quantised.get("dtype", entry["dtype"])
        if kind not in _TYPES:
            raise ValueError(f"{path}: {entry['name']} has the type {kind}, which is not read here")
        count = int(np.prod(entry["shape"]))
        size = count * np.dtype(_TYPES[kind]).itemsize
        if offset + size > len(data):
            raise ValueError(f"{', '.join(shards)} end before {entry['name']} of {path}")
        values = np.frombuffer(data, _TYPES[kind], count, offset).astype(np.float32)
        if "scale" in quantised:
            values = values * np.float32(quantised["scale"]) + np.float32(quantised["min"])
        weights[entry["name"]] = values.reshape(entry["shape"])
        offset += size
    return weights


def is_faceres(weights: dict[str, np.ndarray]) -> bool:
    """Whether these are the weights of HSE FaceRes."""
    return "conv_pw_13/convolution/merged_input" in weights


def faceres_state(weights: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """State of a `mobilenet_face` without its classifier; age, gender and identity are left out.

    Raises:
        ValueError: a weight is missing.
    """
    state: dict[str, np.ndarray] = {}
    try:
        state["stem.0.weight"] = _PIXEL * _pointwise(weights, "conv1")
        state["stem.0.bias"] = weights["conv1_bn/batchnorm_1/sub"]
        for index in range(1, len(WIDTHS)):
            scale = weights[f"conv_dw_{index}_bn/batchnorm_1/mul"]
            kernel = weights[f"conv_dw_{index}/depthwise_kernel"] * scale[:, None]  # (3, 3, D, 1)
            state[f"block{index}.0.weight"] = kernel.transpose(2, 3, 0, 1)
            state[f"block{index}.0.bias"] = weights[f"conv_dw_{index}_bn/batchnorm_1/sub"]
            state[f"block{index}.2.weight"] = _pointwise(weights, f"conv_pw_{index}")
            state[f"block{index}.2.bias"] = weights[f"conv_pw_{index}_bn/batchnorm_1/sub"]
    except KeyError as error:
        raise ValueError(f"the weights of FaceRes lack {error}") from error
    return {name: torch.from_numpy(np.array(value)) for name, value in state.items()}


def _pointwise(weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    """(h, w, in, out) of TensorFlow -> (out, in, h, w)."""
    return weights[f"{name}/convolution/merged_input"].transpose(3, 2, 0, 1)
