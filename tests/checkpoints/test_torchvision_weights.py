"""torchvision's weights reach the part they are for, or one line says how to get them."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor
from torchvision.models import WeightsEnum, get_weight, resnet18

from checkpoints.torchvision_weights import hub_folder, load_torchvision, weights_file
from models import EmotionModel, build_model, list_models
from models.summary import example_arguments

FILE = "resnet18-f37072fd.pth"


@pytest.fixture
def published() -> dict[str, Tensor]:
    """Weights under torchvision's names, with its classifier of 1000 classes."""
    torch.manual_seed(5)
    return resnet18(weights=None).state_dict()


@pytest.fixture
def model() -> EmotionModel:
    torch.manual_seed(6)
    return build_model("cnn_temporal", backbone="resnet18")


def _carries(model: EmotionModel, weights: dict[str, Tensor]) -> bool:
    own = model.get_submodule("backbone").state_dict()
    return all(torch.equal(own[n], v) for n, v in weights.items() if not n.startswith("fc."))


def test_weights_by_name_start_the_trunk_and_not_the_head(
    monkeypatch: pytest.MonkeyPatch, model: EmotionModel, published: dict[str, Tensor]
) -> None:
    asked = []

    def give(self: WeightsEnum, progress: bool, check_hash: bool) -> dict[str, Tensor]:
        asked.append((str(self), check_hash))
        return published

    monkeypatch.setattr(WeightsEnum, "get_state_dict", give)
    head = model.get_submodule("classifier").weight.clone()
    (report,) = load_torchvision(model)
    assert asked == [("ResNet18_Weights.IMAGENET1K_V1", True)]
    assert _carries(model, published)
    assert torch.equal(model.get_submodule("classifier").weight, head)
    assert len(report.matched) == len(published) - 2


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_on_disk_serves_as_well(
    tmp_path: Path, model: EmotionModel, published: dict[str, Tensor], prefix: str
) -> None:
    torch.save({f"{prefix}{name}": v for name, v in published.items()}, tmp_path / FILE)
    load_torchvision(model, tmp_path / FILE)
    assert _carries(model, published)


def test_a_file_of_another_network_is_refused(
    tmp_path: Path, model: EmotionModel, published: dict[str, Tensor]
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    published.pop("layer4.1.bn2.weight")
    torch.save(published, tmp_path / FILE)
    with pytest.raises(ValueError, match=r"does not fit backbone.*1 missing \(layer4.1.bn2.weight"):
        load_torchvision(model, tmp_path / FILE)
    (tmp_path / "broken.pth").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"broken.pth cannot be read as torch weights"):
        load_torchvision(model, tmp_path / "broken.pth")
    with pytest.raises(ValueError, match=r"no weights at .*absent.pth"):
        load_torchvision(model, tmp_path / "absent.pth")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_without_a_network_one_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, model: EmotionModel
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    with pytest.raises(ValueError, match="cannot get") as caught:
        load_torchvision(model)
    message = str(caught.value)
    assert "\n" not in message
    for part in (FILE, str(hub_folder()), "random weights", "not known"):
        assert part in message, part


def test_a_damaged_download_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, model: EmotionModel
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError('invalid hash value (expected "f37072fd", got "0")')

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    with pytest.raises(ValueError, match="invalid hash value"):
        load_torchvision(model)


def test_a_model_without_such_a_part_says_so() -> None:
    with pytest.raises(ValueError, match=r"no weights for speech_cnn; train it from"):
        load_torchvision(build_model("speech_cnn"))


def test_every_named_weight_exists_and_fits_its_part() -> None:
    seen = set()
    for name in list_models():
        with torch.device("meta"):
            model = build_model(name, **example_arguments(name))
        for part, weights in model.torchvision_weights.items():
            seen.add(name)
            trunk = sum(p.numel() for p in model.get_submodule(part).parameters())
            published = get_weight(weights).meta["num_params"]
            classes = len(get_weight(weights).meta["categories"])
            width = (published - trunk) / classes - 1  # of torchvision's linear classifier
            assert width in (400, 512, 768, 1280, 2048), (name, part)
            assert weights_file(weights).parent == hub_folder()
    assert seen >= {"cnn_temporal", "resnet3d_lstm", "resnet50", "resnet_vit_hybrid", "vit_b_16"}
