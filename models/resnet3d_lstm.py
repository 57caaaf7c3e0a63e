"""3D ResNet-18 over a clip, then a bidirectional LSTM over what it gives: 34 M parameters.

48 pictures of 112x112 -> 3D ResNet-18, averaged over space alone -> 6 steps of 512 -> BiLSTM(128)
-> its last states -> 128, ReLU, dropout 0.5 -> classes. Source: Tran et al., A closer look at
spatiotemporal convolutions for action recognition, CVPR 2018; the trunk is torchvision's `r3d_18`,
and is pretrained on Kinetics-400 where weights are loaded.
"""

from __future__ import annotations

from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.layers import Recurrent, existing_first, keep
from models.registry import EmotionModel, register_model

LAYERS = ("layer1", "layer2", "layer3", "layer4")
FEATURES, HIDDEN = 512, 128
PICTURES_PER_STEP = 8  # three of the trunk's layers halve time


@register_model("resnet3d_lstm")
class ResNet3DLSTM(EmotionModel):
    """Pictures that exist are first brought together in their order: the trunk sees no hole.

    A clip of one picture is read as a still, seen unchanged for a while: what a kernel weighs over
    time is summed, so that single pictures train the whole of it, at the cost of a 2D network.

    What follows the pictures reads as the zeros beyond the end of a clip, in front of every
    convolution; in training these zeros do enter the statistics of batch normalisation.
    """

    inputs = ("face",)
    head = ("classifier",)
    source = "Tran et al., CVPR 2018 (torchvision r3d_18), with an LSTM"
    clip_defaults = MappingProxyType(
        {
            "pictures": 48,
            "picture_choice": "even",
            "face_size": 112,
            "face_mean": (0.43216, 0.394666, 0.37645),  # of Kinetics-400
            "face_std": (0.22803, 0.22145, 0.216989),
        }
    )

    def __init__(self, num_classes: int = 7, dropout: float = 0.5) -> None:
        from torchvision.models.video import r3d_18  # here, as it takes seconds to import

        super().__init__()
        self.backbone = r3d_18(weights=None)
        self.backbone.fc = nn.Identity()
        self.lstm = Recurrent("lstm", FEATURES, HIDDEN)
        self.width = self.lstm.width
        head = nn.Sequential(
            nn.Linear(self.width, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(HIDDEN, num_classes or 1),
        )
        self.classifier = head if num_classes else nn.Identity()

    @property
    def torchvision_weights(self) -> dict[str, str]:
        """Those of the trunk."""
        return {"backbone": "R3D_18_Weights.KINETICS400_V1"}

    def blocks(self) -> dict[str, nn.Module]:
        """`stem`, `layer1` to `layer4`, `lstm`, `head`."""
        trunk = {name: self.backbone.get_submodule(name) for name in ("stem", *LAYERS)}
        return {**trunk, "lstm": self.lstm, "head": self.classifier}

    def forward(self, face: Tensor, face_mask: Tensor | None = None) -> dict[str, Tensor]:
        """(B, T, 3, H, W), (B, T) bool -> {"logits": (B, C)}; 256 features where C is 0."""
        _, last = self.lstm(*self._encode(face, face_mask))
        return {"logits": self.classifier(last)}

    def sequence(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, 3, H, W), (B, T) bool -> (B, 256, T), zero where the mask is false.

        The LSTM takes a step for 8 pictures; each of them is given that step's outputs.
        """
        steps, _ = self.lstm(*self._encode(x, mask))
        rank = torch.arange(x.shape[1], device=x.device).expand(x.shape[0], -1)
        if mask is not None:  # (B, T): how many pictures that exist stand before each
            rank = existing_first(mask).argsort(dim=1)
        step = (rank // PICTURES_PER_STEP).unsqueeze(1).expand(-1, self.width, -1)
        return keep(steps.gather(2, step), mask)

    def _encode(self, face: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Clips -> steps (B, 512, ceil(T / 8)), and which of them exist."""
        exists = mask
        if mask is not None:
            order = existing_first(mask)
            face = face.masked_fill(~mask[:, :, None, None, None], 0.0)
            face = face.gather(1, order[:, :, None, None, None].expand_as(face))
            exists = mask.gather(1, order)
        still = face.shape[1] == 1
        x = _keep(_convolve(self.backbone.stem, face.transpose(1, 2), still), exists)
        for name in LAYERS:
            for block in self.backbone.get_submodule(name):
                exists = None if exists is None else exists[:, :: block.conv1[0].stride[0]]
                x = self.run_block(partial(_run_block, block, exists, still), x)
        return x.mean(dim=(3, 4)), exists


def _run_block(block: nn.Module, exists: Tensor | None, still: bool, x: Tensor) -> Tensor:
    """torchvision's residual block, with zeros where no step exists in front of each convolution.

    Args:
        block: a `BasicBlock` of `r3d_18`.
        exists: (B, T') bool, of the block's output.
        still: whether the clip is one picture.
        x: (B, D, T, H, W), zero where no step exists.
    """
    inner = _keep(_convolve(block.get_submodule("conv1"), x, still), exists)
    past = x
    if block.downsample is not None:
        past = _convolve(block.get_submodule("downsample"), x, still)
    return _keep((_convolve(block.get_submodule("conv2"), inner, still) + past).relu(), exists)


def _convolve(layers: nn.Module, x: Tensor, still: bool) -> Tensor:
    """A 3D convolution and what follows it; one step is convolved as if it stood for ever."""
    if not still:
        return layers(x)
    convolution, *others = layers.children()
    assert isinstance(convolution, nn.Conv3d)
    kernel = convolution.weight.sum(dim=2)
    x = functional.conv2d(
        x.squeeze(2),
        kernel,
        stride=convolution.stride[1:],
        padding=[int(size) for size in convolution.padding[1:]],
    ).unsqueeze(2)
    for layer in others:
        x = layer(x)
    return x


def _keep(x: Tensor, exists: Tensor | None) -> Tensor:
    """(B, D, T, H, W), (B, T) bool -> the same, zero where the step does not exist."""
    return x if exists is None else x * exists[:, None, :, None, None]
