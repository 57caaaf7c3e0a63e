"""ViT-Base with patches of 16 pixels: 86 M parameters, of which 5 M are trained by default.

Source: Dosovitskiy et al., An image is worth 16x16 words, ICLR 2021; the trunk is torchvision's,
and is pretrained on ImageNet where weights are loaded. Then the MLP of its last layer, its last
normalisation and the head are trained, unless blocks are named; all below them is frozen.
"""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor, nn

from models.layers import resize_positions
from models.picture_model import PictureModel
from models.registry import register_model

HIDDEN = 256
PATCH = 16


@register_model("vit_b_16")
class ViTB16(PictureModel):
    """The class token's 768 features, then dropout, 256, GELU, dropout, classes.

    Positions are learned for 224 pixels; for another side they are interpolated from those.
    """

    source = "Dosovitskiy et al., ICLR 2021 (torchvision)"
    clip_defaults = MappingProxyType({"face_size": 224})
    default_trainable = ("mlp12", "norm", "head")

    def __init__(self, num_classes: int = 7, dropout: float = 0.3) -> None:
        from torchvision.models import vit_b_16  # here, as it takes seconds to import

        super().__init__()
        self.backbone = vit_b_16(weights=None)
        self.backbone.heads = nn.Identity()
        self.width = self.backbone.hidden_dim
        head = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(self.width, HIDDEN),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(HIDDEN, num_classes or 1),
        )
        self.classifier = head if num_classes else nn.Identity()

    @property
    def torchvision_weights(self) -> dict[str, str]:
        """Those of the trunk."""
        return {"backbone": "ViT_B_16_Weights.IMAGENET1K_V1"}

    def blocks(self) -> dict[str, nn.Module]:
        """`patches`, `layer1` to `layer12`, `mlp12` (a part of the last), `norm`, `head`."""
        trunk = self.backbone
        learned = nn.ParameterList([trunk.class_token, trunk.encoder.pos_embedding])
        layers = {f"layer{i}": layer for i, layer in enumerate(trunk.encoder.layers, start=1)}
        return {
            "patches": nn.ModuleList([trunk.conv_proj, learned]),
            **layers,
            "mlp12": trunk.encoder.layers[-1].mlp,
            "norm": trunk.encoder.ln,
            "head": self.classifier,
        }

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 768). H and W must be divisible by 16."""
        height, width = pictures.shape[-2:]
        if height % PATCH or width % PATCH:
            raise ValueError(
                f"face pictures must be multiples of {PATCH} on a side, not {height}x{width}"
            )
        trunk, encoder = self.backbone, self.backbone.encoder
        tokens = trunk.conv_proj(pictures).flatten(2).transpose(1, 2)
        x = torch.cat([trunk.class_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        x = x + resize_positions(encoder.pos_embedding, height // PATCH, width // PATCH)
        for layer in encoder.layers:
            x = self.run_block(layer, x)
        return encoder.ln(x[:, 0])
