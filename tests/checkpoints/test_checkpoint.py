"""Checkpoints come back whole; foreign ones import exactly or are refused."""

from __future__ import annotations

import argparse
import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from checkpoints.combine import combine_checkpoints, merge_clip_configs, reorder_classes
from checkpoints.pretrained import load_pretrained
from checkpoints.torch_files import read_foreign_weights
from labels.emotions import AFFECTNET7, RAVDESS, SEVEN
from media.adaptation import Prior
from media.configuration import LEGACY, ClipConfig
from models import build_model
from tests.builders import SMALL, make_checkpoint


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    original = Checkpoint(
        build_model("multimodalcnn", num_classes=2, fusion="it", num_heads=2).eval(),
        ("happy", "sad"),
        ClipConfig(face_size=32, colour="grey", pictures=3),
        info={"corpora": ["made"]},
    )
    save_checkpoint(original, tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.architecture == original.architecture
    assert loaded.class_names == original.class_names
    assert loaded.clip_config == original.clip_config
    assert loaded.info == original.info
    assert len(loaded.source["sha256"]) == 64
    for name, value in original.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value), name


def test_half_precision_changes_little_and_loads_as_float(tmp_path: Path) -> None:
    original = make_checkpoint("speech_cnn")
    save_checkpoint(original, tmp_path / "h.safetensors", half=True)
    loaded = load_checkpoint(tmp_path / "h.safetensors")
    x = torch.randn(2, 64, 100)
    assert next(loaded.model.parameters()).dtype == torch.float32
    torch.testing.assert_close(
        loaded.model(x)["logits"], original.model(x)["logits"], atol=5e-3, rtol=0.05
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a readable safetensors"), (b"hello" * 100, "not a readable safetensors")],
)
def test_a_broken_file_is_one_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(path)
    with pytest.raises(ValueError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "absent.safetensors")


def _parallel(model: nn.Module) -> dict[str, Tensor]:
    return {f"module.{name}": value for name, value in model.state_dict().items()}


class RecorderMeter:
    """What the authors of EfficientFace leave in their file beside the weights."""


def test_the_published_efficientface_imports_with_its_classes(tmp_path: Path) -> None:
    model = build_model("efficientface").eval()
    path = tmp_path / "EfficientFace_Trained_on_AffectNet7.pth.tar"
    extras = {"epoch": 5, "best_acc": torch.tensor(63.0), "recorder": RecorderMeter()}
    torch.save({"state_dict": _parallel(model), **extras}, path)
    loaded = load_checkpoint(path)
    x = torch.randn(1, 2, 3, 224, 224)
    torch.testing.assert_close(loaded.model(x)["logits"], model(x)["logits"])
    assert loaded.class_names == AFFECTNET7
    assert loaded.clip_config.face_size == 224


def test_no_code_of_a_foreign_file_runs(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(marker),)

    torch.save({"state_dict": {"a": torch.zeros(1)}, "x": Evil()}, path)
    with pytest.raises(ValueError, match=r"mkdir.*blocked"):
        read_foreign_weights(path)
    assert not marker.exists()


def test_a_foreign_file_of_another_model_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": nn.Linear(2, 2).state_dict()}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="neither a published EfficientFace nor"):
        load_checkpoint(tmp_path / "other.pth")
    weights = build_model("efficientface").state_dict()
    weights["conv1.0.weight"] = torch.zeros(5, 3, 3, 3)
    torch.save(weights, tmp_path / "trunk.pth")
    with pytest.raises(ValueError, match=r"does not fit its architecture.*conv1\.0\.weight"):
        load_checkpoint(tmp_path / "trunk.pth")
    (tmp_path / "text.pth").write_text("not torch")
    with pytest.raises(ValueError, match="cannot be read as torch weights"):
        load_checkpoint(tmp_path / "text.pth")


class _PublishedAttention(nn.Module):
    """Attention of the published fusion, from its description: see Chumachenko et al., 2022."""

    def __init__(self, in_dim_k: int, in_dim_q: int, out_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.out_dim = num_heads, out_dim
        self.q = nn.Linear(in_dim_q, out_dim, bias=False)
        self.kv = nn.Linear(in_dim_k, out_dim * 2, bias=False)
        self.proj = nn.Linear(out_dim, out_dim)

    def forward(self, x: Tensor, x_q: Tensor) -> tuple[Tensor, Tensor]:
        outputs, maps = [], []
        width = self.out_dim // self.num_heads
        k, v = self.kv(x)[..., : self.out_dim], self.kv(x)[..., self.out_dim :]
        q = self.q(x_q)
        for h in range(self.num_heads):
            part = slice(h * width, (h + 1) * width)
            map_ = torch.einsum("bqd,bkd->bqk", q[..., part], k[..., part]) * width**-0.5
            maps.append(map_.softmax(dim=-1))
            outputs.append(torch.einsum("bqk,bkd->bqd", maps[-1], v[..., part]))
        return self.proj(torch.cat(outputs, dim=-1)), torch.stack(maps, dim=1)


class _PublishedBlock(nn.Module):
    def __init__(self, in_dim_k: int, in_dim_q: int, out_dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1_q, self.norm1_k = nn.LayerNorm(in_dim_q), nn.LayerNorm(in_dim_k)
        self.attn = _PublishedAttention(in_dim_k, in_dim_q, out_dim, num_heads)
        self.norm2 = nn.LayerNorm(out_dim)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(out_dim, 2 * out_dim), "fc2": nn.Linear(2 * out_dim, out_dim)}
        )

    def forward(self, xk: Tensor, xq: Tensor) -> Tensor:
        x, _ = self.attn(self.norm1_k(xk), self.norm1_q(xq))
        return x + self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(x))))


def _published_fusion(fusion: str, heads: int) -> nn.Module:
    """A module with the published parameter names; branches are checked by name elsewhere."""
    module = nn.Module()
    module.audio_model = build_model("mfcc_cnn", num_classes=8)
    module.visual_model = build_model("face_cnn", num_classes=8)
    if fusion == "lt":
        module.av = _PublishedBlock(128, 128, 128, heads)
        module.va = _PublishedBlock(128, 128, 128, heads)
    else:
        layer = _PublishedAttention if fusion == "ia" else _PublishedBlock
        module.av1, module.va1 = layer(64, 128, 128, heads), layer(128, 64, 64, heads)
    module.classifier_1 = nn.Sequential(nn.Linear(256, 8))
    return module.eval()


def _published_forward(m: nn.Module, fusion: str, speech: Tensor, face: Tensor) -> Tensor:
    audio = m.audio_model.conv1d_1(m.audio_model.conv1d_0(speech))
    features = m.visual_model.encode_pictures(face.flatten(0, 1)).unflatten(0, face.shape[:2])
    video = m.visual_model.conv1d_1(m.visual_model.conv1d_0(features.permute(0, 2, 1)))
    if fusion == "lt":
        audio = m.audio_model.conv1d_3(m.audio_model.conv1d_2(audio)).permute(0, 2, 1)
        video = m.visual_model.conv1d_3(m.visual_model.conv1d_2(video)).permute(0, 2, 1)
        pooled = m.av(video, audio).mean(dim=1), m.va(audio, video).mean(dim=1)
        return m.classifier_1(torch.cat(pooled, dim=-1))
    a, v = audio.permute(0, 2, 1), video.permute(0, 2, 1)
    if fusion == "it":
        audio = audio + m.av1(v, a).permute(0, 2, 1)
        video = video + m.va1(a, v).permute(0, 2, 1)
    else:
        gate_video = m.av1(v, a)[1].mean(dim=1).sum(dim=-2)
        gate_audio = m.va1(a, v)[1].mean(dim=1).sum(dim=-2)
        audio, video = audio * gate_audio[:, None], video * gate_video[:, None]
    audio = m.audio_model.conv1d_3(m.audio_model.conv1d_2(audio)).mean(dim=-1)
    video = m.visual_model.conv1d_3(m.visual_model.conv1d_2(video)).mean(dim=-1)
    return m.classifier_1(torch.cat([audio, video], dim=-1))


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("fusion", ["ia", "it", "lt"])
def test_published_fusions_give_the_logits_of_their_definition(
    tmp_path: Path, fusion: str, heads: int
) -> None:
    torch.manual_seed(0)
    published = _published_fusion(fusion, heads)
    torch.save({"epoch": 3, "state_dict": _parallel(published)}, tmp_path / "model.pth")
    loaded = load_checkpoint(tmp_path / "model.pth", num_heads=heads)
    assert loaded.clip_config == LEGACY
    assert loaded.class_names == RAVDESS
    assert loaded.model.arguments["fusion"] == fusion
    speech, face = torch.randn(2, 10, 156), torch.rand(2, 15, 3, 32, 32)
    with torch.no_grad():
        expected = _published_forward(published, fusion, speech, face)
        torch.testing.assert_close(loaded.model(face=face, speech=speech)["logits"], expected)


def test_published_keys_are_the_ones_we_name() -> None:
    keys = set(build_model("multimodalcnn", fusion="it", speech_model="mfcc_cnn").state_dict())
    assert {
        "audio_model.conv1d_3.1.running_var",
        "visual_model.modulator.channel_att.gate_c.gate_c_fc_final.weight",
        "visual_model.modulator.spatial_att.gate_s.gate_s_conv_di_1.bias",
        "visual_model.local.bn4_2.weight",
        "visual_model.stage3.0.branch1.3.bias",
        "visual_model.conv1d_0.0.weight",
        "av1.norm1_q.weight",
        "va1.mlp.fc2.bias",
        "va1.attn.kv.weight",
        "classifier_1.0.weight",
    } <= keys


def test_a_trunk_starts_the_branch_that_it_fits(tmp_path: Path) -> None:
    face = make_checkpoint("efficientface")
    save_checkpoint(face, tmp_path / "face.safetensors")
    model = build_model("multimodalcnn", num_classes=5)
    report = load_pretrained(model, tmp_path / "face.safetensors")
    assert report.prefix == "visual_model."
    assert report.unexpected == ["fc.bias", "fc.weight"]
    assert "conv1d_0.0.weight" in report.missing
    assert torch.equal(model.visual_model.conv1[0].weight, face.model.conv1[0].weight)


def test_a_trunk_that_fits_nothing_is_refused(tmp_path: Path) -> None:
    save_checkpoint(make_checkpoint("efficientface"), tmp_path / "face.safetensors")
    with pytest.raises(ValueError, match="does not match any part of SpeechCNN"):
        load_pretrained(build_model("speech_cnn"), tmp_path / "face.safetensors")


def test_reordered_classes_keep_their_probabilities() -> None:
    original = Checkpoint(build_model("efficientface").eval(), AFFECTNET7, SMALL)
    x = torch.randn(1, 1, 3, 32, 32)
    before = dict(zip(AFFECTNET7, original.model(x)["logits"][0].tolist(), strict=True))
    reordered = reorder_classes(original, SEVEN)
    after = dict(zip(SEVEN, reordered.model(x)["logits"][0].tolist(), strict=True))
    assert before == pytest.approx(after)
    with pytest.raises(ValueError, match="not happy, sad"):
        reorder_classes(reordered, ("happy", "sad"))


def test_a_combination_sees_and_hears_as_its_parts_were_trained() -> None:
    face = make_checkpoint("efficientface", ClipConfig(face_size=32, colour="grey", pictures=1))
    speech = make_checkpoint("speech_cnn", ClipConfig(face_size=64, f_min=80.0))
    combined = combine_checkpoints({"face": face, "speech": speech}, "product")
    assert (combined.clip_config.colour, combined.clip_config.face_size) == ("grey", 32)
    assert combined.clip_config.f_min == 80.0
    assert torch.equal(combined.part("face").model.fc.weight, face.model.fc.weight)
    with pytest.raises(ValueError, match="is a speech_cnn, not a classifier of face alone"):
        combine_checkpoints({"face": speech, "speech": speech}, "product")
    with pytest.raises(ValueError, match="windows of 1 s and speech on windows of 2 s"):
        merge_clip_configs({"face": ClipConfig(), "speech": ClipConfig(window_seconds=2.0)})


def test_a_combination_looks_at_as_many_frames_as_its_face_part() -> None:
    face = ClipConfig(pictures=5, picture_choice="even")
    merged = merge_clip_configs({"speech": ClipConfig(n_mels=80), "face": face})
    assert (merged.pictures, merged.picture_choice, merged.n_mels) == (5, "even", 80)


def test_a_namespace_in_a_foreign_file_is_inert(tmp_path: Path) -> None:
    torch.save({"args": argparse.Namespace(lr=1), "w": torch.ones(1)}, tmp_path / "n.pth")
    assert set(read_foreign_weights(tmp_path / "n.pth")) == {"w"}


def test_each_modality_keeps_its_prior(tmp_path: Path) -> None:
    priors = {
        "landmarks": Prior(np.ones((68, 2), np.float32), 7.0),
        "blendshapes": Prior(np.full(55, 0.25, np.float32)),
    }
    path = tmp_path / "a.safetensors"
    save_checkpoint(replace(make_checkpoint("landmark_tcn"), priors=priors), path)
    again = load_checkpoint(path).priors
    assert {name: prior.face.shape for name, prior in again.items()} == {
        "landmarks": (68, 2),
        "blendshapes": (55,),
    }
    assert again["landmarks"].seconds == 7.0
    assert (again["blendshapes"].face == 0.25).all()


def test_the_prior_of_an_older_file_is_of_landmarks(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(make_checkpoint("landmark_tcn"), path)
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["emofuse"])
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del metadata["priors"]
    del metadata["clip_config"]["mesh_rate"]
    metadata["prior"] = Prior(np.ones((68, 2), np.float32)).to_dict()
    save_file(weights, path, {"emofuse": json.dumps(metadata)})
    checkpoint = load_checkpoint(path)
    assert list(checkpoint.priors) == ["landmarks"]
    assert (checkpoint.priors["landmarks"].face == 1).all()
    assert checkpoint.clip_config.mesh_rate == 10.0


def test_a_combination_and_its_parts_keep_their_priors() -> None:
    landmarks = Prior(np.ones((68, 2), np.float32))
    blendshapes = Prior(np.ones(55, np.float32))
    parts = {
        "landmarks": replace(make_checkpoint("landmark_tcn"), priors={"landmarks": landmarks}),
        "blendshapes": replace(
            make_checkpoint("blendshape_tcn"), priors={"blendshapes": blendshapes}
        ),
        "speech": make_checkpoint("speech_cnn"),
    }
    combined = combine_checkpoints(parts, "product")
    assert combined.model.inputs == ("landmarks", "blendshapes", "speech")
    assert combined.priors == {"landmarks": landmarks, "blendshapes": blendshapes}
    assert combined.part("blendshapes").priors == {"blendshapes": blendshapes}
    assert not combined.part("speech").priors


def test_weights_trained_in_parallel_are_read_as_ours(tmp_path: Path) -> None:
    checkpoint = make_checkpoint("speech_cnn")
    save_checkpoint(checkpoint, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        weights = {f"module.{name}": file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        save_file(weights, tmp_path / "b.safetensors", file.metadata())
    again = load_checkpoint(tmp_path / "b.safetensors").model.state_dict()
    for name, value in checkpoint.model.state_dict().items():
        assert torch.equal(again[name], value)


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    checkpoint = make_checkpoint("speech_cnn")
    name, value = next(iter(checkpoint.model.named_parameters()))
    value.data.view(-1)[0] = torch.nan
    save_checkpoint(checkpoint, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=rf"in 1 tensors \({name}\): its training diverged"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_the_state_of_a_run_points_to_its_checkpoint(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.zeros(1)}, "optimizer": {}, "epoch": 3}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"goes on from, .* give .*model_best\.safetensors"):
        load_checkpoint(tmp_path / "last.pt")


@pytest.mark.parametrize(
    "metadata",
    [
        "[]",
        "{}",
        '{"version": 1}',
        '{"version": 1, "architecture": {"name": "speech_cnn", "arguments": {"num_classes": "x"}}}',
        '{"version": 1, "architecture": 7}',
        "[" * 100_000,
        '{"version": 1, "architecture": {"name": "speech_cnn", "arguments": {"num_classes": -1}}}',
    ],
)
def test_a_damaged_configuration_is_one_line(tmp_path: Path, metadata: str) -> None:
    save_file({"w": torch.zeros(1)}, tmp_path / "a.safetensors", {"emofuse": metadata})
    with pytest.raises(ValueError, match=r"a\.safetensors") as caught:
        load_checkpoint(tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)


def test_a_file_that_unpacks_to_far_more_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"x")
        archive.writestr("archive/data/0", bytes(10_000_000))
    with pytest.raises(ValueError, match="is packed as torch packs no weights"):
        load_checkpoint(path)


def test_a_configuration_of_a_newer_version_is_refused_by_file_name(tmp_path: Path) -> None:
    path = tmp_path / "newer.safetensors"
    save_checkpoint(make_checkpoint("speech_cnn"), path)
    content = path.read_bytes()
    assert content.count(b"speech_block_seconds") == 1
    path.write_bytes(content.replace(b"speech_block_seconds", b"speech_block_sebonds"))
    with pytest.raises(ValueError, match=r"newer\.safetensors.*speech_block_sebonds"):
        load_checkpoint(path)
