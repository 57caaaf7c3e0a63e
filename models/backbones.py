"""2D CNNs without their classifiers: pictures to features, for the models that stand on one.

Sources: He et al., Deep residual learning for image recognition, CVPR 2016 (`resnet18`,
`resnet50`); Tan and Le, EfficientNet, ICML 2019 (`efficientnet_b0`), all as torchvision builds
them and under its parameter names; Zhao et al., AAAI 2021 (`efficientface`).

torchvision takes seconds to import, so that only functions that need it import it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from models.efficientface import FEATURES, EfficientFaceTrunk
from models.registry import EmotionModel

if TYPE_CHECKING:
    from torchvision.models import ResNet

WIDTHS = {"resnet18": 512, "resnet50": 2048, "efficientnet_b0": 1280, "efficientface": FEATURES}
BACKBONES = tuple(WIDTHS)
TORCHVISION_WEIGHTS = {
    "resnet18": "ResNet18_Weights.IMAGENET1K_V1",
    "resnet50": "ResNet50_Weights.IMAGENET1K_V2",
    "efficientnet_b0": "EfficientNet_B0_Weights.IMAGENET1K_V1",
}
RESNET_LAYERS = ("layer1", "layer2", "layer3", "layer4")


def build_backbone(name: str) -> nn.Module:
    """A network for `encode_pictures`.

    Raises:
        ValueError: unknown name.
    """
    if name == "efficientface":
        return EfficientFaceTrunk()
    if name == "efficientnet_b0":
        from torchvision.models import efficientnet_b0

        network = efficientnet_b0(weights=None)
        network.classifier = nn.Identity()
        return network
    if name in ("resnet18", "resnet50"):
        return build_resnet(name)
    raise ValueError(f"unknown backbone {name!r}; choose from {', '.join(BACKBONES)}")


def build_resnet(name: str) -> ResNet:
    """`resnet18` or `resnet50` without its classifier."""
    from torchvision.models import resnet18, resnet50

    trunk = {"resnet18": resnet18, "resnet50": resnet50}[name](weights=None)
    trunk.fc = nn.Identity()
    return trunk


def encode_pictures(model: EmotionModel, backbone: nn.Module, pictures: Tensor) -> Tensor:
    """Features of a backbone that stands in `model`: (N, 3, H, W) -> (N, WIDTHS[name])."""
    if isinstance(backbone, EfficientFaceTrunk):
        return backbone.encode_pictures(pictures)
    from torchvision.models import EfficientNet, ResNet

    if isinstance(backbone, EfficientNet):
        for stage in backbone.features:
            pictures = model.run_block(stage, pictures)
        return pictures.mean(dim=(2, 3))
    assert isinstance(backbone, ResNet)
    return resnet_map(model, backbone, pictures).mean(dim=(2, 3))


def resnet_map(model: EmotionModel, trunk: ResNet, pictures: Tensor) -> Tensor:
    """The last feature map of a ResNet in `model`: (N, 3, H, W) -> (N, D, H / 32, W / 32)."""
    x = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(pictures))))
    for name in RESNET_LAYERS:
        x = model.run_block(trunk.get_submodule(name), x)
    return x


def backbone_blocks(backbone: nn.Module) -> dict[str, nn.Module]:
    """The parts of a backbone, as `EmotionModel.blocks` names them, in the order of the pass.

    `stem` and `layer1` to `layer4` of a ResNet, `layer0` to `layer8` of EfficientNet-B0.
    """
    if isinstance(backbone, EfficientFaceTrunk):
        return {name: part for name, part in backbone.named_children() if list(part.parameters())}
    from torchvision.models import EfficientNet, ResNet

    if isinstance(backbone, EfficientNet):
        return {f"layer{i}": stage for i, stage in enumerate(backbone.features)}
    assert isinstance(backbone, ResNet)
    layers = {name: backbone.get_submodule(name) for name in RESNET_LAYERS}
    return {"stem": nn.ModuleList([backbone.conv1, backbone.bn1]), **layers}
