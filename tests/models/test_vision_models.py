"""The architectures that see: sizes, time, positions, reconstruction, and use as a branch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import (
    EmotionModel,
    build_model,
    list_models,
    model_inputs,
    set_checkpointing,
    set_trainable,
)
from models.backbones import BACKBONES
from models.picture_model import PictureModel

SIDE = 32
ALONE = [
    name
    for name in list_models()
    if model_inputs(name) == ("face",) and name not in ("efficientface", "face_cnn")
]


def _settled(name: str, pictures: int = 4, **arguments: Any) -> EmotionModel:
    """A model whose batch normalisation has the statistics of a batch."""
    torch.manual_seed(2)
    model = build_model(name, **arguments)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(2, pictures, 3, SIDE, SIDE))
    return model.eval()


@pytest.mark.parametrize(
    ("name", "arguments", "parameters", "trainable"),
    [
        ("efficientface", {}, 1_275_293, 1_275_293),  # 1.28 M, Zhao et al. 2021, table 7
        ("cnn_simple", {}, 2_123_543, 2_123_543),
        ("mobilenet_face", {}, 3_196_032 + 7_175, 3_203_207),  # FaceRes's convolutions, and head
        ("vit_scratch", {}, 11_690_407, 11_690_407),
        ("resnet50", {}, 23_508_032 + 2_105_351, 2_105_351),  # trunk and head
        ("vit_b_16", {}, 85_997_319, 4_922_631),
        ("resnet_vit_hybrid", {}, 37_326_919, 35_881_991),
        ("resnet3d_lstm", {}, 33_857_479, 33_857_479),
        ("cnn_ae_lstm", {}, 885_671, 885_671),
        ("cnn_ae_lstm", {"bidirectional": False}, 736_935, 736_935),
        ("cnn_ae_lstm", {"backbone": "resnet18"}, 11_805_127, 11_805_127),
        ("cnn_temporal", {}, 11_704_903, 11_704_903),
        ("cnn_temporal", {"backbone": "resnet50"}, 24_429_639, 24_429_639),
    ],
)
def test_parameter_counts_are_those_stated(
    name: str, arguments: dict[str, Any], parameters: int, trainable: int
) -> None:
    with torch.device("meta"):
        model = build_model(name, **arguments)
    set_trainable(model, model.default_trainable)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trainable


@pytest.fixture(scope="module", params=ALONE)
def model(request: pytest.FixtureRequest) -> EmotionModel:
    """Each architecture that sees, in evaluation; not to be changed."""
    return _settled(request.param, pictures=9)


@torch.no_grad()
def test_a_branch_gives_a_step_for_each_picture(model: EmotionModel) -> None:
    face, mask = torch.randn(2, 5, 3, SIDE, SIDE), torch.ones(2, 5, dtype=torch.bool)
    mask[0, 1], mask[1] = False, False
    steps = model.sequence(face, mask)
    assert steps.shape == (2, model.width, 5)
    exists = steps.abs().sum(dim=1) > 0
    assert torch.equal(exists, mask)
    assert model.sequence(face).shape == (2, model.width, 5)


@torch.no_grad()
def test_without_a_mask_every_picture_exists(model: EmotionModel) -> None:
    face = torch.randn(2, 9, 3, SIDE, SIDE)
    ones = torch.ones(2, 9, dtype=torch.bool)
    torch.testing.assert_close(
        model(face)["logits"], model(face, ones)["logits"], rtol=1e-4, atol=1e-4
    )


@torch.no_grad()
def test_a_picture_model_gives_the_mean_over_its_pictures(model: EmotionModel) -> None:
    if not isinstance(model, PictureModel):
        pytest.skip("has a model of time")
    face, mask = torch.randn(1, 3, 3, SIDE, SIDE), torch.tensor([[True, False, True]])
    single = torch.cat([model(face[:, i : i + 1])["logits"] for i in (0, 2)])
    torch.testing.assert_close(
        model(face, mask)["logits"], single.mean(dim=0, keepdim=True), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet3d_lstm", {}),
        ("cnn_temporal", {"temporal": "lstm"}),
        ("cnn_temporal", {"temporal": "gru"}),
        ("cnn_ae_lstm", {}),
        ("cnn_ae_lstm", {"model_variant": "attention"}),
    ],
)
@torch.no_grad()
def test_recurrent_models_pass_over_holes_and_take_any_length(
    name: str, arguments: dict[str, Any]
) -> None:
    model = _settled(name, pictures=12, **arguments)
    face = torch.randn(2, 20, 3, SIDE, SIDE)
    kept = [[0, 1, 3, 4, 5, 7, 8, 9, 10, 12, 17], [2, 5, 6]]
    mask = torch.zeros(2, 20, dtype=torch.bool)
    for row, indices in enumerate(kept):
        mask[row, indices] = True
    together = model(face, mask)["logits"]
    for row, indices in enumerate(kept):
        alone = model(face[row : row + 1, indices])["logits"]
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("temporal", ["lstm", "gru", "attention", "tcn", "mean"])
@torch.no_grad()
def test_a_model_of_time_knows_the_order_of_pictures(temporal: str) -> None:
    model = _settled("cnn_temporal", temporal=temporal)
    face = torch.randn(1, 6, 3, SIDE, SIDE)
    difference = (model(face)["logits"] - model(face.flip(1))["logits"]).abs().max()
    assert (difference < 1e-5) == (temporal == "mean"), difference


@torch.no_grad()
def test_the_steps_of_the_3d_network_are_repeated_for_their_pictures() -> None:
    model = _settled("resnet3d_lstm", pictures=12)
    face = torch.randn(1, 20, 3, SIDE, SIDE)
    mask = torch.ones(1, 20, dtype=torch.bool)
    mask[0, 3] = False
    steps = model.sequence(face, mask)[0]
    existing = steps[:, mask[0]]  # (256, 19): steps of 8, 8 and 3 pictures
    for first, last in ((0, 8), (8, 16), (16, 19)):
        assert torch.equal(
            existing[:, first:last], existing[:, first : first + 1].expand(-1, last - first)
        )
    assert not torch.allclose(existing[:, 7], existing[:, 8])
    assert not steps[:, 3].any()


@torch.no_grad()
def test_the_3d_network_reads_one_picture_as_a_long_still() -> None:
    model = _settled("resnet3d_lstm", pictures=12)
    picture = torch.randn(1, 1, 3, SIDE, SIDE)
    still, _ = model._encode(picture, None)
    long, _ = model._encode(picture.expand(-1, 160, -1, -1, -1), None)
    torch.testing.assert_close(long[..., 10], still[..., 0], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(long[..., 0], still[..., 0], atol=1e-2)  # zeros before the clip


@pytest.mark.parametrize(("name", "side"), [("vit_scratch", 48), ("resnet_vit_hybrid", 96)])
@torch.no_grad()
def test_positions_are_interpolated_for_another_side(name: str, side: int) -> None:
    model = build_model(name).eval()
    positions = model.tokens.positions
    positions.copy_(torch.linspace(-1, 1, positions.shape[-1]))  # the same at each place
    tokens = model.tokens(torch.zeros(1, model.width, side // 8, side // 8))
    torch.testing.assert_close(tokens[:, 1:], positions[:, :1].expand_as(tokens[:, 1:]))
    assert model(torch.zeros(1, 1, 3, side, side))["logits"].shape == (1, 7)


@pytest.mark.parametrize("variant", ["lstm", "attention", "3dcnn"])
def test_the_autoencoder_restores_clean_features_from_disturbed_ones(variant: str) -> None:
    model = _settled("cnn_ae_lstm", model_variant=variant)
    face, mask = torch.randn(2, 4, 3, SIDE, SIDE), torch.ones(2, 4, dtype=torch.bool)
    mask[0, 2:] = False
    quiet, again = model(face, mask), model(face, mask)
    for name, value in quiet.items():
        assert torch.equal(value, again[name]), "no noise in evaluation"
    model.train()
    noisy, other = model(face, mask), model(face, mask)
    assert noisy["reconstruction"].shape == noisy["reconstruction_target"].shape == (2, 4, 256)
    assert not torch.equal(noisy["reconstruction"], other["reconstruction"])
    assert torch.equal(noisy["reconstruction_target"], other["reconstruction_target"])
    assert not noisy["reconstruction_target"].requires_grad
    assert not noisy["reconstruction"][0, 2:].any()
    assert not noisy["reconstruction_target"][0, 2:].any()


def test_an_autoencoder_learns_to_restore() -> None:
    model = _settled("cnn_ae_lstm").train()
    face = torch.randn(8, 2, 3, SIDE, SIDE)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(15):
        output = model(face)
        loss = nn.functional.mse_loss(output["reconstruction"], output["reconstruction_target"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0], losses


@pytest.mark.parametrize(
    "name", ["vit_scratch", "cnn_temporal", pytest.param("resnet3d_lstm", marks=pytest.mark.slow)]
)
def test_checkpointing_changes_no_gradient(name: str) -> None:
    model = _settled(name)
    face, mask = torch.randn(2, 3, 3, SIDE, SIDE), torch.ones(2, 3, dtype=torch.bool)
    mask[0, 1] = False
    gradients = []
    for checkpointing in (False, True):
        set_checkpointing(model, checkpointing)
        model.zero_grad(set_to_none=True)
        torch.manual_seed(3)  # of dropout
        model.train()(face, mask)["logits"].square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1])
    for plain, twice in zip(*gradients, strict=True):
        torch.testing.assert_close(twice, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_any_backbone_can_stand_before_a_model_of_time(backbone: str) -> None:
    model = _settled("cnn_temporal", backbone=backbone)
    assert set(model.torchvision_weights) == (
        set() if backbone == "efficientface" else {"backbone"}
    )
    logits = _classify(model, torch.randn(2, 3, 3, SIDE, SIDE))
    assert logits.shape == (2, 7)


@torch.no_grad()
def _classify(model: EmotionModel, face: Tensor) -> Tensor:
    return model(face)["logits"]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("cnn_temporal", {"temporal": "x"}, "unknown temporal 'x'; choose from lstm, gru"),
        ("cnn_temporal", {"backbone": "x"}, "unknown backbone 'x'; choose from resnet18"),
        ("cnn_ae_lstm", {"backbone": "resnet50"}, "unknown backbone 'resnet50'; choose from"),
        ("cnn_ae_lstm", {"model_variant": "x"}, "unknown model_variant 'x'; choose from lstm"),
        (
            "cnn_ae_lstm",
            {"model_variant": "3dcnn", "backbone": "resnet18"},
            "3dcnn has an encoder of its own, not resnet18",
        ),
        ("vit_scratch", {"image_size": 50}, "patch_size 8 does not divide image_size 50"),
    ],
)
def test_arguments_that_cannot_work_are_named(
    name: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(name, **arguments)


def test_a_side_that_patches_do_not_fill_is_refused() -> None:
    with pytest.raises(ValueError, match=r"multiples of 8 on a side, not 30x30"):
        build_model("vit_scratch").eval()(torch.zeros(1, 1, 3, 30, 30))
