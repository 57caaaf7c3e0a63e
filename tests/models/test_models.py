"""Every architecture: shapes, gradients, masks, no leak across the batch, export, round trip."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from media.configuration import ClipConfig
from models import EmotionModel, build_model, list_models, set_trainable
from models.late_fusion import LATE_METHODS
from models.multimodalcnn import FUSIONS
from models.summary import DEFAULT_CLIP, example_arguments, format_table, summarise_models

B, SIDE, STEPS = 2, 32, 30
LARGE = 30_000_000  # parameters; such a checkpoint is written in the slow tests alone
MEMBERS = example_arguments("late_fusion")
CASES: list[tuple[str, dict[str, Any]]] = [
    (name, example_arguments(name)) for name in list_models() if name != "multimodalcnn"
]
CASES += [("multimodalcnn", {"fusion": fusion, "num_heads": 2}) for fusion in FUSIONS]
CASES += [
    ("multimodalcnn", {"fusion": "ia", "speech_model": "mfcc_cnn", "n_mels": 10}),
    ("multimodalcnn", {"fusion": "it", "face_model": "landmark_tcn"}),
    ("multimodalcnn", {"fusion": "concat", "face_model": "cnn_simple"}),
    *[("late_fusion", {**MEMBERS, "late_method": method}) for method in LATE_METHODS],
    *[("cnn_temporal", {"temporal": kind}) for kind in ("gru", "attention", "tcn", "mean")],
    ("blendshape_tcn", {"temporal": "mean"}),
    ("multimodalcnn", {"fusion": "ia", "face_model": "blendshape_tcn"}),
    ("cnn_temporal", {"backbone": "efficientnet_b0"}),
    ("cnn_temporal", {"backbone": "efficientface"}),
    ("cnn_ae_lstm", {"model_variant": "attention", "bidirectional": False}),
    ("cnn_ae_lstm", {"model_variant": "3dcnn"}),
]


def _inputs(model: EmotionModel) -> dict[str, Tensor]:
    """Whole clips; long enough for two steps of a model that reads many pictures as one."""
    torch.manual_seed(0)
    pictures = 12 if model.clip_defaults.get("pictures", 0) > DEFAULT_CLIP["pictures"] else 4
    mels = model.arguments.get("n_mels") or _default(model, "n_mels") or 64
    values = {
        "face": torch.randn(B, pictures, 3, SIDE, SIDE),
        "speech": torch.randn(B, 1, 80, 100) if _by_blocks(model) else torch.randn(B, mels, 100),
        "landmarks": torch.randn(B, STEPS, 70, 2),
        "blendshapes": torch.randn(B, STEPS, 55),
    }
    inputs = {name: values[name] for name in model.inputs}
    for name, value in list(inputs.items()):
        steps = value.shape[-1] if name == "speech" else value.shape[1]
        steps //= 2 if value.ndim == 4 and name == "speech" else 1
        inputs[f"{name}_mask"] = torch.ones(B, steps, dtype=torch.bool)
    return inputs


def _by_blocks(model: EmotionModel) -> bool:
    """Whether an encoder hears whole blocks, of which the mask chooses frames."""
    return model.clip_defaults.get("speech_feature") == "whisper_mel"


def _default(model: EmotionModel, argument: str) -> Any:
    parameters = inspect.signature(type(model)).parameters
    return parameters[argument].default if argument in parameters else None


def _steps_last(name: str, value: Tensor) -> Tensor:
    """A view in which time is the first axis after the batch."""
    return value.transpose(1, -1) if name == "speech" else value


def _without(inputs: dict[str, Tensor], steps: slice, content: float) -> dict[str, Tensor]:
    """The same with those steps of every modality masked out, and filled with `content`."""
    changed = {name: value.clone() for name, value in inputs.items()}
    for name, value in changed.items():
        if name.endswith("_mask"):
            value[:, steps] = False
        else:
            _steps_last(name, value)[:, steps] = content
    return changed


def _name(case: tuple[str, dict[str, Any]]) -> str:
    shown = [value for value in case[1].values() if not isinstance(value, dict)]
    return "-".join([case[0], *map(str, shown)])


@pytest.fixture(scope="module", params=CASES, ids=_name)
def built(request: pytest.FixtureRequest) -> Iterator[EmotionModel]:
    name, arguments = request.param
    torch.manual_seed(1)
    model = build_model(name, **arguments)
    _settle(model, _inputs(model))
    return model


@pytest.fixture
def case(built: EmotionModel) -> tuple[EmotionModel, dict[str, Tensor]]:
    built.requires_grad_(True).zero_grad(set_to_none=True)
    return built.eval(), _inputs(built)


@torch.no_grad()
def _settle(model: torch.nn.Module, inputs: dict[str, Tensor]) -> None:
    """Give batch normalisation the statistics of a batch: fresh ones let every signal die out."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    model.train()(**inputs)


def _maskless(model: EmotionModel) -> bool:
    """Where what is masked is heard all the same: of blocks, see test_whisper_speech.py."""
    return "mfcc_cnn" in (model.name, model.arguments.get("speech_model")) or _by_blocks(model)


@torch.no_grad()
def _logits(model: EmotionModel, inputs: dict[str, Tensor]) -> Tensor:
    return model.eval()(**inputs)["logits"]


def test_logits_have_one_row_per_sample(case: Any) -> None:
    model, inputs = case
    assert _logits(model, inputs).shape == (B, _default(model, "num_classes"))


def test_every_trainable_parameter_gets_a_gradient(case: Any) -> None:
    model, inputs = case
    assert not _lacking(model, inputs)


def test_what_is_frozen_by_default_gets_none_and_keeps_its_statistics(case: Any) -> None:
    model, inputs = case
    if not model.default_trainable:
        pytest.skip("trains everything")
    set_trainable(model, model.default_trainable)
    before = {name: value.clone() for name, value in model.named_buffers()}
    assert not _lacking(model, inputs)
    trained = [model.blocks()[name] for name in model.default_trainable]
    wanted = {id(p) for block in trained for p in block.parameters()}
    assert {id(p) for p in model.parameters() if p.grad is not None} == wanted
    moving = {id(b) for block in trained for b in block.buffers()}
    for name, value in model.named_buffers():
        assert id(value) in moving or torch.equal(value, before[name]), name


def _lacking(model: EmotionModel, inputs: dict[str, Tensor]) -> list[str]:
    """Trainable parameters that a pass in training mode gives no gradient."""
    output = model.train()(**inputs)
    sum((value**2).sum() for value in output.values()).backward()
    skipped = _unused_parts(model)
    return [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.abs().sum())
        # A bias before batch normalisation is cancelled by it, and so has no gradient by nature.
        if not name.startswith(skipped) and not name.endswith(".bias")
    ]


def _unused_parts(model: EmotionModel) -> tuple[str, ...]:
    """Parts that a fusion does not ask; `ia` uses the maps of its attention alone."""
    if model.name != "multimodalcnn":
        return ("-",)
    branches = {name: getattr(model, name) for name in ("audio_model", "visual_model")}
    parts = [f"{name}.{head}" for name, branch in branches.items() for head in branch.head]
    parts += [f"{name}.pool" for name in branches]
    if model.fusion == "ia":
        parts += [f"{side}1.{part}" for side in ("av", "va") for part in ("proj", "kv")]
    return tuple(parts)


def test_blocks_hold_every_parameter(case: Any) -> None:
    model, _ = case
    blocks = model.blocks()
    assert "head" in blocks
    assert set(model.default_trainable) <= set(blocks)
    held = {id(p) for block in blocks.values() for p in block.parameters()}
    assert {id(p) for p in model.parameters()} == held


def test_samples_do_not_see_each_other(case: Any) -> None:
    model, inputs = case
    alone = _logits(model, {name: value[:1] for name, value in inputs.items()})
    for name in model.inputs:
        inputs[name][1:] += 5
    torch.testing.assert_close(_logits(model, inputs)[:1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [slice(2, None), slice(1, 3)], ids=["end", "hole"])
def test_what_a_masked_step_holds_cannot_change_the_result(case: Any, steps: slice) -> None:
    model, inputs = case
    if _maskless(model):
        pytest.skip("hears what is masked too")
    before = _logits(model, _without(inputs, steps, 0.0))
    torch.testing.assert_close(_logits(model, _without(inputs, steps, 100.0)), before)


def test_padding_with_masked_steps_changes_nothing(case: Any) -> None:
    model, inputs = case
    if _maskless(model):
        pytest.skip("hears what is masked too")
    longer = {}
    for name, value in inputs.items():
        first = _steps_last(name, value)
        more = torch.zeros_like(first[:, :2])
        more = more if name.endswith("_mask") else more + 7.0
        longer[name] = _steps_last(name, torch.cat([first, more], dim=1))
    torch.testing.assert_close(_logits(model, longer), _logits(model, inputs), rtol=1e-4, atol=1e-5)


def test_a_missing_modality_is_a_mask_not_an_error(case: Any) -> None:
    model, inputs = case
    nothing = _logits(model, _without(inputs, slice(None), 0.0))
    if not _maskless(model):
        torch.testing.assert_close(_logits(model, _without(inputs, slice(None), 9.0)), nothing)
    for name in model.inputs:
        lacking = {**inputs, f"{name}_mask": torch.zeros_like(inputs[f"{name}_mask"])}
        assert _logits(model, lacking).isfinite().all()


class _Positional(torch.nn.Module):
    """A graph's inputs have an order, not names."""

    def __init__(self, model: EmotionModel, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *values: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, values, strict=True)))["logits"]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_traced_graph_equals_the_model_under_other_masks(case: Any) -> None:
    model, inputs = case
    holed = _without(inputs, slice(1, 2), 0.0)
    with torch.no_grad():
        wrapped = _Positional(model, list(holed))
        graph = torch.jit.trace(wrapped, tuple(holed.values()), check_trace=False)
        for given in (holed, inputs, _without(inputs, slice(2, None), 0.0)):
            exported = graph(*given.values())
            torch.testing.assert_close(exported, _logits(model, given), rtol=1e-4, atol=1e-4)


def test_a_checkpoint_of_each_comes_back_whole(
    case: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model, inputs = case
    large = sum(p.numel() for p in model.parameters()) > LARGE
    if large and "slow" not in request.config.getoption("-m").replace("not slow", ""):
        pytest.skip("over 30 M parameters: run with -m slow")
    classes = tuple(f"class {i}" for i in range(_default(model, "num_classes")))
    path = tmp_path / "model.safetensors"
    save_checkpoint(Checkpoint(model, classes, ClipConfig(face_size=SIDE)), path)
    loaded = load_checkpoint(path)
    assert loaded.architecture == {"name": model.name, "arguments": model.arguments}
    assert torch.equal(_logits(loaded.model, inputs), _logits(model, inputs))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_without_sound_the_face_decides(fusion: str) -> None:
    model = build_model("multimodalcnn", fusion=fusion)
    inputs = _inputs(model)
    _settle(model, inputs)
    inputs["speech_mask"][:] = False
    before = _logits(model, inputs)
    louder = _logits(model, {**inputs, "speech": inputs["speech"] + 1})
    turned = _logits(model, {**inputs, "face": inputs["face"].flip(-1)})
    assert (before - turned).abs().max() > 1e-3, "the face must decide where it is alone"
    if fusion == "concat":
        torch.testing.assert_close(before, louder)


def _pair(classes: int, late_method: str) -> EmotionModel:
    arguments = {"num_classes": classes}
    return build_model(
        "late_fusion",
        face={"name": "efficientface", "arguments": arguments},
        speech={"name": "speech_cnn", "arguments": arguments},
        num_classes=classes,
        late_method=late_method,
    )


def test_late_fusion_without_a_face_is_the_speech_classifier() -> None:
    model = _pair(7, "weighted").eval()
    inputs = _inputs(model)
    inputs["face_mask"][:] = False
    output = model(**inputs)
    torch.testing.assert_close(output["logits"], output["speech_logits"].log_softmax(dim=-1))


def test_late_fusion_rules_match_a_hand_worked_example() -> None:
    p = torch.tensor([[[0.6, 0.4], [0.2, 0.8]]])
    both = torch.ones(1, 2, dtype=torch.bool)
    mean = _pair(2, "mean").combine(p.log(), both)
    torch.testing.assert_close(mean.exp(), torch.tensor([[0.4, 0.6]]))
    product = _pair(2, "product").combine(p.log(), both)
    root = torch.tensor([[(0.6 * 0.2) ** 0.5, (0.4 * 0.8) ** 0.5]])
    torch.testing.assert_close(product.exp(), root / root.sum())


@pytest.mark.parametrize("method", ["weighted", "stacking"])
def test_fitted_fusion_trusts_the_modality_that_is_right(method: str) -> None:
    model = _pair(2, method)
    targets = torch.arange(200) % 2
    right = torch.nn.functional.one_hot(targets, 2) * 4.0 - 2
    noise = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) * 2
    model.fit_combination({"face_logits": noise, "speech_logits": right}, targets)
    log_p = torch.stack([noise.log_softmax(-1), right.log_softmax(-1)], dim=1)
    combined = model.combine(log_p, torch.ones(200, 2, dtype=torch.bool))
    assert (combined.argmax(dim=1) == targets).float().mean() > 0.98


@pytest.mark.parametrize("side", [16, 48, 96, 224])
def test_efficientface_takes_any_side_divisible_by_16(side: int) -> None:
    model = build_model("efficientface").eval()
    assert model(torch.zeros(1, 1, 3, side, side))["logits"].shape == (1, 7)


@pytest.mark.parametrize("name", ["efficientface", "vit_b_16"])
def test_another_side_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"multiples of 16.*50x50"):
        build_model(name).eval()(torch.zeros(1, 1, 3, 50, 50))


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("cnn_ae_lstm", 256),
        ("cnn_simple", 320),
        ("cnn_temporal", 256),
        ("efficientface", 1024),
        ("face_cnn", 128),
        ("mfcc_cnn", 128),
        ("resnet3d_lstm", 256),
        ("resnet50", 2048),
        ("resnet_vit_hybrid", 512),
        ("speech_cnn", 256),
        ("vit_scratch", 400),
    ],
)
def test_without_classes_a_model_gives_features(name: str, width: int) -> None:
    model = build_model(name, num_classes=0)
    assert _logits(model, _inputs(model)).shape == (B, width)


def test_the_table_has_a_row_for_each_architecture() -> None:
    assert ClipConfig().pictures == DEFAULT_CLIP["pictures"]
    assert ClipConfig().face_size == DEFAULT_CLIP["face_size"]
    rows = summarise_models()
    assert [row["name"] for row in rows] == list_models()
    for row in rows:
        assert 0 < row["trainable"] <= row["parameters"], row
        assert row["flops"] > 0, row
    lines = format_table(rows).splitlines()
    assert len(lines) == len(rows) + 2
    assert lines[0].split() == ["name", "input", "parameters", "trainable", "GFLOP", "source"]


def test_blocks_are_trained_by_name_and_unknown_ones_refused() -> None:
    model = build_model("cnn_simple")
    set_trainable(model, ["block4", "head"])
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"block4", "classifier"}
    set_trainable(model, [])
    assert all(p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match=r"cnn_simple has no block x to train; choose from block1"):
        set_trainable(model, ["x", "head"])


def test_an_unknown_model_or_argument_is_named() -> None:
    with pytest.raises(ValueError, match="unknown model 'x'; choose from blendshape_tcn, cnn"):
        build_model("x")
    with pytest.raises(ValueError, match="takes no argument fusion"):
        build_model("speech_cnn", fusion="ia")
    with pytest.raises(ValueError, match="unknown fusion 'y'"):
        build_model("multimodalcnn", fusion="y")
