"""Every architecture: shapes, gradients, masks, no leak across the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from models import build_model, list_models
from models.late_fusion import METHODS
from models.multimodalcnn import FUSIONS

B, T, SIDE, FRAMES = 3, 4, 32, 100
CASES: list[tuple[str, dict[str, Any]]] = [
    (name, {}) for name in list_models() if name not in ("multimodalcnn", "late_fusion")
]
CASES += [("multimodalcnn", {"fusion": fusion, "num_heads": 2}) for fusion in FUSIONS]
CASES += [("multimodalcnn", {"fusion": "ia", "speech_model": "mfcc_cnn", "n_mels": 10})]
MEMBERS = {
    "face": {"name": "efficientface", "arguments": {}},
    "speech": {"name": "speech_cnn", "arguments": {}},
}
CASES += [("late_fusion", {**MEMBERS, "late_method": method}) for method in METHODS]


def _inputs(model: torch.nn.Module, arguments: dict[str, Any]) -> dict[str, Tensor]:
    torch.manual_seed(0)
    mels = arguments.get("n_mels", 10 if model.name == "mfcc_cnn" else 64)
    values = {
        "face": torch.randn(B, T, 3, SIDE, SIDE),
        "face_mask": torch.ones(B, T, dtype=torch.bool),
        "speech": torch.randn(B, mels, FRAMES),
        "speech_mask": torch.ones(B, dtype=torch.bool),
    }
    return {name: v for name, v in values.items() if name.split("_")[0] in model.inputs}


@pytest.fixture(
    params=CASES, ids=lambda case: "-".join([case[0], *map(str, case[1].values())])[:40]
)
def case(request: pytest.FixtureRequest) -> tuple[torch.nn.Module, dict[str, Tensor]]:
    name, arguments = request.param
    torch.manual_seed(1)
    model = build_model(name, **arguments)
    inputs = _inputs(model, arguments)
    _settle(model, inputs)
    return model, inputs


@torch.no_grad()
def _settle(model: torch.nn.Module, inputs: dict[str, Tensor]) -> None:
    """Give batch normalisation the statistics of a batch: fresh ones let every signal die out."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    model.train()(**inputs)


def test_logits_have_one_row_per_sample(case: Any) -> None:
    model, inputs = case
    assert model.eval()(**inputs)["logits"].shape == (B, 7 if model.name != "mfcc_cnn" else 8)


def test_every_trainable_parameter_gets_a_gradient(case: Any) -> None:
    model, inputs = case
    output = model.train()(**inputs)
    sum((value**2).sum() for value in output.values()).backward()
    skipped = _unused_heads(model)
    lacking = [
        name
        for name, p in model.named_parameters()
        if (p.grad is None or not p.grad.abs().sum()) and not name.startswith(skipped)
    ]
    # A bias before batch normalisation is cancelled by it, and so has no gradient by nature.
    lacking = [name for name in lacking if not name.endswith(".bias")]
    assert not lacking


def _unused_heads(model: torch.nn.Module) -> tuple[str, ...]:
    """Heads of branches that a fusion does not ask; `ia` uses the maps of its attention alone."""
    if model.name != "multimodalcnn":
        return ("-",)
    heads = ["audio_model.classifier_1", "visual_model.classifier_1", "audio_model.pool"]
    if model.fusion == "ia":
        heads += [f"{side}1.{part}" for side in ("av", "va") for part in ("proj", "kv")]
    return tuple(heads)


def test_samples_do_not_see_each_other(case: Any) -> None:
    model, inputs = case
    model.eval()
    alone = model(**{name: value[:1] for name, value in inputs.items()})["logits"]
    inputs = {name: value.clone() for name, value in inputs.items()}
    for name in model.inputs:
        inputs[name][1:] += 5
    together = model(**inputs)["logits"][:1]
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


def test_masked_pictures_cannot_change_the_result(case: Any) -> None:
    model, inputs = case
    if "face" not in inputs:
        pytest.skip("takes no face")
    model.eval()
    inputs["face_mask"][:, 2:] = False
    before = model(**inputs)["logits"]
    inputs["face"] = inputs["face"].clone()
    inputs["face"][:, 2:] = 100.0
    torch.testing.assert_close(model(**inputs)["logits"], before)


def test_padding_a_clip_with_masked_pictures_changes_nothing(case: Any) -> None:
    model, inputs = case
    if "face" not in inputs:
        pytest.skip("takes no face")
    model.eval()
    longer = {
        **inputs,
        "face": torch.cat([inputs["face"], torch.randn(B, 2, 3, SIDE, SIDE)], dim=1),
        "face_mask": torch.cat([inputs["face_mask"], torch.zeros(B, 2, dtype=torch.bool)], dim=1),
    }
    torch.testing.assert_close(
        model(**longer)["logits"], model(**inputs)["logits"], rtol=1e-4, atol=1e-5
    )


def test_a_missing_modality_is_a_mask_not_an_error(case: Any) -> None:
    model, inputs = case
    model.eval()
    for name in model.inputs:
        lacking = {**inputs, f"{name}_mask": torch.zeros_like(inputs[f"{name}_mask"])}
        assert model(**lacking)["logits"].isfinite().all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_without_sound_the_face_decides(fusion: str) -> None:
    model = build_model("multimodalcnn", fusion=fusion).eval()
    inputs = _inputs(model, {})
    _settle(model, inputs)
    inputs["speech_mask"][:] = False
    model.eval()
    before = model(**inputs)["logits"]
    louder = model(**{**inputs, "speech": inputs["speech"] + 1})["logits"]
    turned = model(**{**inputs, "face": inputs["face"].flip(-1)})["logits"]
    assert (before - turned).abs().max() > 1e-3, "the face must decide where it is alone"
    if fusion == "concat":
        torch.testing.assert_close(before, louder)


def test_late_fusion_without_a_face_is_the_speech_classifier() -> None:
    model = build_model("late_fusion", **MEMBERS, late_method="weighted").eval()
    inputs = _inputs(model, {})
    inputs["face_mask"][:] = False
    output = model(**inputs)
    torch.testing.assert_close(output["logits"], output["speech_logits"].log_softmax(dim=-1))


def test_late_fusion_rules_match_a_hand_worked_example() -> None:
    p = torch.tensor([[[0.6, 0.4], [0.2, 0.8]]])
    both = torch.ones(1, 2, dtype=torch.bool)
    arguments = {
        "face": {"name": "efficientface", "arguments": {"num_classes": 2}},
        "speech": {"name": "speech_cnn", "arguments": {"num_classes": 2}},
        "num_classes": 2,
    }
    mean = build_model("late_fusion", **arguments, late_method="mean").combine(p.log(), both)
    torch.testing.assert_close(mean.exp(), torch.tensor([[0.4, 0.6]]))
    product = build_model("late_fusion", **arguments, late_method="product").combine(p.log(), both)
    root = torch.tensor([[(0.6 * 0.2) ** 0.5, (0.4 * 0.8) ** 0.5]])
    torch.testing.assert_close(product.exp(), root / root.sum())


@pytest.mark.parametrize("method", ["weighted", "stacking"])
def test_fitted_fusion_trusts_the_modality_that_is_right(method: str) -> None:
    arguments = {
        "face": {"name": "efficientface", "arguments": {"num_classes": 2}},
        "speech": {"name": "speech_cnn", "arguments": {"num_classes": 2}},
        "num_classes": 2,
    }
    model = build_model("late_fusion", **arguments, late_method=method)
    targets = torch.arange(200) % 2
    right = torch.nn.functional.one_hot(targets, 2) * 4.0 - 2
    noise = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) * 2
    model.fit_combination({"face_logits": noise, "speech_logits": right}, targets)
    log_p = torch.stack([noise.log_softmax(-1), right.log_softmax(-1)], dim=1)
    combined = model.combine(log_p, torch.ones(200, 2, dtype=torch.bool))
    assert (combined.argmax(dim=1) == targets).float().mean() > 0.98


def test_parameter_counts_are_those_published() -> None:
    count = sum(p.numel() for p in build_model("efficientface").parameters())
    assert count == 1_275_293  # 1.28 M, Zhao et al. 2021, table 7


@pytest.mark.parametrize("side", [16, 48, 96, 224])
def test_efficientface_takes_any_side_divisible_by_16(side: int) -> None:
    model = build_model("efficientface").eval()
    assert model(torch.zeros(1, 1, 3, side, side))["logits"].shape == (1, 7)


def test_another_side_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"multiples of 16.*50x50"):
        build_model("efficientface").eval()(torch.zeros(1, 1, 3, 50, 50))


@pytest.mark.parametrize("name", ["efficientface", "face_cnn", "speech_cnn", "mfcc_cnn"])
def test_without_classes_a_model_gives_features(name: str) -> None:
    model = build_model(name, num_classes=0).eval()
    widths = {"efficientface": 1024, "face_cnn": 128, "speech_cnn": 256, "mfcc_cnn": 128}
    assert model(**_inputs(model, {}))["logits"].shape == (B, widths[name])


def test_an_unknown_model_or_argument_is_named() -> None:
    with pytest.raises(ValueError, match="unknown model 'x'; choose from efficientface"):
        build_model("x")
    with pytest.raises(ValueError, match="takes no argument fusion"):
        build_model("speech_cnn", fusion="ia")
    with pytest.raises(ValueError, match="unknown fusion 'y'"):
        build_model("multimodalcnn", fusion="y")
