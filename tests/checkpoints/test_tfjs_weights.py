"""TensorFlow.js files: every stored type, and FaceRes against its own graph, node by node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpoints.checkpoint import load_checkpoint, load_pretrained
from checkpoints.tfjs_weights import read_tfjs_weights
from models import build_model
from models.mobilenet_face import STRIDES, WIDTHS

Arrays = dict[str, np.ndarray]
Node = tuple[str, str, list[str], int]  # operation, name, inputs, stride


def _write(path: Path, entries: list[dict[str, Any]], data: bytes, whole: bool = True) -> Path:
    """A model of two shards, or its weights manifest alone."""
    half = len(data) // 2
    manifest = [{"paths": ["a.bin", "b.bin"], "weights": entries}]
    path.parent.joinpath("a.bin").write_bytes(data[:half])
    path.parent.joinpath("b.bin").write_bytes(data[half:])
    path.write_text(json.dumps({"weightsManifest": manifest} if whole else manifest))
    return path


def _random_weights() -> Arrays:
    """As FaceRes names and lays them out."""
    rng = np.random.default_rng(3)

    def kernel(*shape: int) -> np.ndarray:
        fan_in = np.prod(shape[:3]) if shape[-1] > 1 else 9
        return rng.normal(0, np.sqrt(2 / fan_in), shape)

    def offset(width: int) -> np.ndarray:
        return rng.normal(0.1, 0.2, width)

    weights = {
        "conv1/convolution/merged_input": kernel(3, 3, 3, WIDTHS[0]) / 128,
        "conv1_bn/batchnorm_1/sub": offset(WIDTHS[0]),
        "age_pred/bias": offset(100),
    }
    for index, (width, out_width) in enumerate(pairwise(WIDTHS), start=1):
        weights |= {
            f"conv_dw_{index}/depthwise_kernel": kernel(3, 3, width, 1),
            f"conv_dw_{index}_bn/batchnorm_1/mul": rng.uniform(0.5, 1.5, width),
            f"conv_dw_{index}_bn/batchnorm_1/sub": offset(width),
            f"conv_pw_{index}/convolution/merged_input": kernel(1, 1, width, out_width),
            f"conv_pw_{index}_bn/batchnorm_1/sub": offset(out_width),
        }
    return {name: value.astype("<f2") for name, value in weights.items()}


def _graph() -> list[Node]:
    """The nodes of FaceRes, whose bounds of ReLU6 are written out."""
    nodes: list[Node] = []
    last = "input_1"

    def bounded(stem: str) -> str:
        nodes.append(("Relu", f"{stem}_relu/Relu", [f"{stem}_bn/batchnorm_1/add_1"], 1))
        nodes.append(("Six", f"{stem}_relu/clip_by_value", [f"{stem}_relu/Relu"], 1))
        return f"{stem}_relu/clip_by_value"

    for index, stride in enumerate(STRIDES):
        for kind in ("dw", "pw") if index else ("",):
            stem = f"conv_{kind}_{index}" if kind else "conv1"
            bn = f"{stem}_bn/batchnorm_1"
            if kind == "dw":
                kernel = f"{stem}/depthwise_kernel"
                nodes.append(("Depthwise", f"{stem}/depthwise", [last, kernel], stride))
                nodes.append(("Mul", f"{bn}/mul_1", [f"{stem}/depthwise", f"{bn}/mul"], 1))
            else:
                kernel = f"{stem}/convolution/merged_input"
                nodes.append(("Conv", f"{bn}/mul_1", [last, kernel], 1 if kind else stride))
            nodes.append(("Add", f"{bn}/add_1", [f"{bn}/mul_1", f"{bn}/sub"], 1))
            last = bounded(stem)
    return [*nodes, ("Mean", "global_pooling/Mean", [last], 1)]


def _patches(x: np.ndarray, side: int, stride: int) -> np.ndarray:
    """(H, W, C) padded as TensorFlow's SAME -> (H / stride, W / stride, C, side, side)."""
    padding = []
    for length in x.shape[:2]:
        total = max((-(-length // stride) - 1) * stride + side - length, 0)
        padding.append((total // 2, total - total // 2))
    padded = np.pad(x, [*padding, (0, 0)])
    view = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))
    return view[::stride, ::stride]


def _run(nodes: list[Node], values: Arrays) -> Iterator[np.ndarray]:
    for operation, name, names, stride in nodes:
        x, *rest = (values[each] for each in names)
        if operation == "Conv":
            out = np.einsum("hwcij,ijco->hwo", _patches(x, rest[0].shape[0], stride), rest[0])
        elif operation == "Depthwise":
            out = np.einsum("hwcij,ijc->hwc", _patches(x, 3, stride), rest[0][..., 0])
        elif operation == "Mean":
            out = x.mean(axis=(0, 1))
        else:
            one = {"Mul": np.multiply, "Add": np.add, "Relu": np.maximum, "Six": np.minimum}
            out = one[operation](x, {"Relu": 0.0, "Six": 6.0}.get(operation, rest and rest[0]))
        values[name] = out
        yield out


@pytest.fixture(scope="module")
def faceres(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Arrays]:
    """A file in the form of FaceRes's, and what is in it."""
    weights = _random_weights()
    half = {"dtype": "float16", "original_dtype": "float32"}
    entries = [
        {"name": name, "shape": value.shape, "dtype": "float32", "quantization": half}
        for name, value in weights.items()
    ]
    data = b"".join(value.tobytes() for value in weights.values())
    path = _write(tmp_path_factory.mktemp("tfjs") / "faceres.json", entries, data)
    return path, {name: value.astype(np.float64) for name, value in weights.items()}


@pytest.mark.parametrize("sides", [(32, 32), (48, 32), (36, 50)])
def test_faceres_gives_what_its_graph_gives(
    faceres: tuple[Path, Arrays], sides: tuple[int, int]
) -> None:
    path, weights = faceres
    pixels = np.random.default_rng(4).uniform(0, 255, (*sides, 3))
    *_, expected = _run(_graph(), {"input_1": pixels, **weights})
    face = torch.from_numpy(pixels.transpose(2, 0, 1)[None, None] / 255).float()
    with torch.inference_mode():
        features = load_checkpoint(path).model(face)["logits"][0]
    assert expected.std() > 0.05
    torch.testing.assert_close(features.double(), torch.from_numpy(expected), atol=1e-3, rtol=1e-3)


def test_training_starts_from_faceres_but_for_the_classifier(faceres: tuple[Path, Arrays]) -> None:
    model = build_model("mobilenet_face", num_classes=3)
    report = load_pretrained(model, faceres[0])
    assert report.missing == ["classifier.1.bias", "classifier.1.weight"]
    assert not report.unexpected
    np.testing.assert_allclose(
        model.get_submodule("block13.2").bias.detach(),
        faceres[1]["conv_pw_13_bn/batchnorm_1/sub"],
    )


@pytest.mark.parametrize("whole", [True, False], ids=["model", "manifest"])
def test_every_stored_type_is_read(tmp_path: Path, whole: bool) -> None:
    parts = [
        np.array([[1.5, -2.0]], "<f4"),
        np.array([3, -4], "<i4"),
        np.array([0.5, 8.0, -1.0], "<f2"),
        np.array([0, 255], "u1"),
        np.array([1, 1000], "<u2"),
    ]
    entries: list[dict[str, Any]] = [
        {"name": str(index), "shape": part.shape, "dtype": "float32"}
        for index, part in enumerate(parts)
    ]
    entries[1]["dtype"] = "int32"
    entries[2]["quantization"] = {"dtype": "float16"}
    entries[3]["quantization"] = {"dtype": "uint8", "scale": 0.5, "min": -10.0}
    entries[4]["quantization"] = {"dtype": "uint16", "scale": 0.01, "min": 1.0}
    data = b"".join(part.tobytes() for part in parts)
    weights = read_tfjs_weights(_write(tmp_path / "m.json", entries, data, whole))
    expected = [[[1.5, -2.0]], [3, -4], [0.5, 8.0, -1.0], [-10.0, 117.5], [1.01, 11.0]]
    for index, values in enumerate(expected):
        assert weights[str(index)].dtype == np.float32
        np.testing.assert_allclose(weights[str(index)], values, rtol=1e-6)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "w", "shape": [3], "dtype": "float32"}, "end before w of"),
        ({"name": "w", "shape": [1], "dtype": "string"}, "w has the type string"),
        ({"name": "w", "shape": [2], "dtype": "float32"}, "but not HSE FaceRes"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    tmp_path: Path, entry: dict[str, Any], message: str
) -> None:
    path = _write(tmp_path / "m.json", [entry], bytes(8))
    with pytest.raises(ValueError, match=message):
        load_checkpoint(path)


def test_missing_shards_and_foreign_json_are_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "m.json", [], b"")
    (tmp_path / "b.bin").unlink()
    with pytest.raises(ValueError, match=r"needs a\.bin, b\.bin beside it"):
        read_tfjs_weights(path)
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match="has no weights manifest"):
        read_tfjs_weights(path)
