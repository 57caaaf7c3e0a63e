"""Explanations point where the reasons were put, and say what they measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from checkpoints.checkpoint import Checkpoint, save_checkpoint
from explain.attribution import grad_cam, head_diversity, patch_maps, recorded_attention, rollout
from explain.explanation import Explainer, main
from media.clip import Clip, ClipConfig, Window
from media.faces import build_detector
from models import EmotionModel, build_model
from models.layers import TransformerBlock
from opts import SHIPPED
from recognition import recogniser
from reports.explanation_figure import SheetRow, overlay, plot_attention, plot_contact_sheet
from tests.builders import make_checkpoint, make_recording
from tests.conftest import WriteMedia

CONFIG = ClipConfig(face_size=32, pictures=3, detector="whole")
NAMES = ("happy", "sad")


def test_rollout_of_two_tokens_is_the_product_by_hand() -> None:
    first = torch.tensor([[[[0.2, 0.8], [0.6, 0.4]]]])  # halved with the token: .6 .4 / .3 .7
    second = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]])  # .5 .5 / .5 .5
    flows = rollout([first, second])
    torch.testing.assert_close(flows[0, 0], torch.tensor([[0.6, 0.4], [0.3, 0.7]]))
    torch.testing.assert_close(flows[1, 0], torch.tensor([[0.45, 0.55], [0.45, 0.55]]))


def test_rollout_takes_the_mean_over_heads_and_its_rows_sum_to_one() -> None:
    attention = torch.rand(3, 2, 4, 5, 5, generator=torch.manual_seed(0)).softmax(dim=-1)
    flows = rollout(list(attention))
    torch.testing.assert_close(flows.sum(dim=-1), torch.ones(3, 2, 5))
    torch.testing.assert_close(flows, rollout([a.mean(dim=1, keepdim=True) for a in attention]))


def test_patch_maps_are_the_class_tokens_row_without_itself() -> None:
    attention = torch.arange(25.0).view(5, 5)
    torch.testing.assert_close(patch_maps(attention), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))


def test_head_diversity_is_0_of_heads_alike_and_1_of_heads_that_share_no_patch() -> None:
    def looking_at(*patches: int) -> Tensor:
        heads = torch.zeros(1, len(patches), 5, 5)
        for head, patch in enumerate(patches):
            heads[0, head, 0, patch] = 1.0
        return heads

    assert float(head_diversity(looking_at(1, 1, 1))) == pytest.approx(0.0)
    assert float(head_diversity(looking_at(1, 2, 3))) == pytest.approx(1.0)
    assert float(head_diversity(looking_at(1, 1, 2))) == pytest.approx(2 / 3)  # two pairs of three


def test_recorded_attention_is_the_one_that_the_layers_use() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 8)
    block = TransformerBlock(8, num_heads=2, hidden=16).eval()
    layer = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    with torch.no_grad(), recorded_attention(nn.ModuleList([block, layer])) as maps:
        block(x)
        _, expected = layer(x, x, x, average_attn_weights=False)
        values = block.qkv(block.norm1(x)).chunk(3, dim=-1)[2].unflatten(-1, (2, -1))
        mixed = (maps[0] @ values.transpose(1, 2)).transpose(1, 2).flatten(2)
        torch.testing.assert_close(block.proj(mixed), block._attend(block.norm1(x), None))
    torch.testing.assert_close(maps[1], expected)


class _Quadrant(EmotionModel):
    """Its first class is the brightness of the upper left quadrant, its second of the rest."""

    inputs = ("face",)
    name = "quadrant"

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 4, 4, bias=False)
        nn.init.constant_(self.conv.weight, 1 / 48)
        self.conv.requires_grad_(False)

    def forward(self, face: Tensor, face_mask: Tensor | None = None) -> dict[str, Tensor]:
        features = self.conv(face.flatten(0, 1))  # (N, 2, 8, 8)
        inside = torch.zeros(8, 8)
        inside[:4, :4] = 1
        first, second = features[:, 0] * inside, features[:, 1] * (1 - inside)
        return {"logits": torch.stack([first.sum(), second.sum()])[None]}


def test_grad_cam_weighs_each_channel_by_its_mean_gradient() -> None:
    face = torch.zeros(1, 1, 3, 32, 32)
    face[..., :16, :16], face[..., 16:, 16:] = 1.0, -1.0
    logits, (seen,) = grad_cam(_Quadrant(), {"face": face})
    torch.testing.assert_close(logits, torch.tensor([16.0, -16.0]))
    expected = torch.zeros(8, 8)
    expected[:4, :4] = 0.25  # a quarter of the places have gradient 1; what is against is cut off
    torch.testing.assert_close(seen, expected)


def test_grad_cam_finds_the_quadrant_that_the_answer_depends_on() -> None:
    class Masked(_Quadrant):
        def __init__(self) -> None:
            super().__init__()
            self.cut = _Cut()

        def forward(self, face: Tensor, face_mask: Tensor | None = None) -> dict[str, Tensor]:
            features = self.cut(self.conv(face.flatten(0, 1)))
            return {"logits": features.mean(dim=(0, 2, 3))[None]}

    _, (seen,) = grad_cam(Masked(), {"face": torch.ones(1, 1, 3, 32, 32)}, target=1)
    assert seen[:4, :4].min() > 0
    assert seen[4:].max() == seen[:, 4:].max() == 0


class _Cut(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        inside = torch.zeros_like(x)
        inside[..., :4, :4] = 1
        return x * inside


def _clip(config: ClipConfig = CONFIG, missing: int = 0) -> Clip:
    clip = make_recording(0, config=config).cut(Window(0.0, 1.0), config)
    clip.face_mask[:missing] = False
    clip.faces[:missing] = 0
    return clip


@pytest.mark.parametrize(
    ("name", "arguments", "side"),
    [
        ("cnn_simple", {}, 2),
        ("face_cnn", {}, 2),
        ("multimodalcnn", {"fusion": "ia"}, 2),
        ("vit_scratch", {"num_layers": 2}, 4),
    ],
)
def test_models_are_explained_by_a_map_of_the_middle_picture(
    name: str, arguments: dict[str, Any], side: int
) -> None:
    torch.manual_seed(0)
    model = build_model(name, num_classes=2, **arguments).eval()
    explainer = Explainer(Checkpoint(model, NAMES, CONFIG), "cpu")
    clip = _clip(missing=1)
    found = explainer.explain(clip)
    assert found.relevance is not None
    assert found.scores is not None
    assert found.face is not None
    assert found.relevance.shape == (side, side)
    assert found.relevance.min() >= 0
    assert found.scores.sum() == pytest.approx(1.0)
    np.testing.assert_array_equal(found.face, clip.faces[2])
    assert (found.attention is None) == (name != "vit_scratch")


def test_a_window_without_a_face_is_not_explained() -> None:
    explainer = Explainer(make_checkpoint("cnn_simple", CONFIG), "cpu")
    assert explainer.explain(_clip(missing=3)).relevance is None


def test_a_named_class_is_explained_in_place_of_the_dominant_one() -> None:
    checkpoint = make_checkpoint("cnn_simple", CONFIG)
    targets = {Explainer(checkpoint, "cpu", target=n).explain(_clip()).target for n in NAMES}
    assert targets == {0, 1}
    with pytest.raises(ValueError, match="no class 'calm'; choose from happy, sad"):
        Explainer(checkpoint, "cpu", target="calm")


def test_a_model_that_only_hears_is_refused() -> None:
    with pytest.raises(ValueError, match="takes speech: there is no face picture to explain"):
        Explainer(make_checkpoint("speech_cnn"), "cpu")


def test_an_overlay_keeps_the_face_grey_where_nothing_is_relevant() -> None:
    face = np.random.default_rng(0).integers(0, 255, (16, 16, 3)).astype(np.uint8)
    relevance = np.zeros((4, 4))
    relevance[0, 0] = 1.0
    mixed = overlay(face, relevance).astype(int)
    assert mixed.shape == face.shape
    assert np.ptp(mixed[8:, 8:], axis=2).max() == 0
    assert np.ptp(mixed[0, 0]) > 30


def test_a_sheet_has_a_row_for_each_window_and_says_where_no_face_was() -> None:
    face = np.zeros((8, 8, 3), np.uint8)
    rows = [
        SheetRow(0.0, 0.25, face, np.eye(2), "happy", 0.83),
        SheetRow(0.25, 0.5, None, None, "happy", 0.0),
    ]
    figure = plot_contact_sheet(rows, NAMES, "talk.mp4", "Grad-CAM of a test")
    texts = [text.get_text() for text in figure.texts]
    assert {"talk.mp4", "0:00", "0:00.25", "to 0:00.50", "happy", "83%", "no face"} <= set(texts)
    assert sum(len(axis.images) for axis in figure.axes) == 2


def test_attention_has_a_map_for_each_head_and_a_rollout_for_each_layer() -> None:
    maps = np.random.default_rng(0).random((3, 4, 2, 2))
    face = np.zeros((8, 8, 3), np.uint8)
    figure = plot_attention(face, maps, maps[:, 0], np.array([0.1, 0.2, 0.3]), "0:00: happy")
    assert sum(len(axis.images) for axis in figure.axes) == 3 * (4 + 1)
    assert {"layer 3", "0.30", "4"} <= {text.get_text() for text in figure.texts}


@pytest.fixture
def media(tmp_path: Path, write_media: WriteMedia) -> Path:
    """1.2 s of changing pictures, ten a second."""
    pictures = np.random.default_rng(0).integers(0, 255, (12, 32, 32, 3)).astype(np.uint8)
    return write_media(tmp_path / "talk.mp4", pictures, times=[i / 10 for i in range(12)])


def test_the_command_writes_sheet_overlays_attention_and_numbers(
    tmp_path: Path, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recogniser, "build_detector", lambda *_: build_detector("whole"))
    torch.manual_seed(0)
    model = build_model("vit_scratch", num_classes=2, num_layers=2).eval()
    save_checkpoint(Checkpoint(model, NAMES, CONFIG), tmp_path / "vit.safetensors")
    out = tmp_path / "out"
    arguments = ["--media_path", str(media), "--model_path", str(tmp_path / "vit.safetensors")]
    assert main([*arguments, "--sample_rate", "5", "--windows", "4", "--output", str(out)]) == 0
    assert {p.name for p in out.iterdir()} == {
        "attention.png",
        "contact_sheet.png",
        "explanation.json",
        "overlays",
    }
    assert 2 <= len(list((out / "overlays").iterdir())) <= 4
    assert Image.open(next((out / "overlays").iterdir())).size == (768, 384)
    content = json.loads((out / "explanation.json").read_text())
    assert content["method"] == "attention rollout"
    assert [row["start"] for row in content["rows"]] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    row = content["rows"][0]
    assert row["target"] == max(row["probabilities"], key=row["probabilities"].get)
    assert np.max(row["relevance"]) == 1.0
    assert np.shape(row["relevance"]) == (4, 4)
    assert len(content["head_diversity"]) == len(row["head_diversity"]) == 2


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--model_path", "absent.safetensors"], "no checkpoint at absent.safetensors"),
        (["--windows", "0"], "--windows must be at least 1"),
        (["--target", "joy"], "has no class 'joy'"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], message: str
) -> None:
    save_checkpoint(make_checkpoint("cnn_simple", CONFIG), tmp_path / "m.safetensors")
    arguments = ["--media_path", "absent.mp4", "--model_path", str(tmp_path / "m.safetensors")]
    assert main([*arguments, "--output", str(tmp_path / "out"), *extra]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.data
def test_the_shipped_face_classifier_sees_happiness_in_the_lower_half(
    tmp_path: Path, real_data: Path
) -> None:
    media, face = real_data / "media" / "single_face.mp4", SHIPPED / "face.safetensors"
    arguments = ["--media_path", str(media), "--model_path", str(face)]
    assert main([*arguments, "--output", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "explanation.json").read_text())["rows"]
    happy = [row for row in rows if row["target"] == "happy"]
    assert happy
    assert all(row["centre"][1] > 0.5 for row in happy)
