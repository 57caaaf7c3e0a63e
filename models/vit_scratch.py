"""A six-layer vision transformer, small enough to be trained from scratch: 11.7 M parameters.

Source: Dosovitskiy et al., An image is worth 16x16 words, ICLR 2021; the sizes are ours. Patches
of 8 pixels give a 96-pixel face 144 tokens, about as many as ViT-Base has of a 224-pixel picture.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.layers import TokenEmbedding, TransformerBlock
from models.picture_model import PictureModel
from models.registry import register_model

WIDTH, HEADS = 400, 8


@register_model("vit_scratch")
class ViTScratch(PictureModel):
    """Patches, transformer layers, and the class token's features.

    Args:
        num_classes: classes; 0 gives 400 features.
        image_size: side whose positions are learned; another side's are interpolated from them.
        patch_size: side of a patch, in pixels.
        num_layers: of the transformer.
        dropout: inside the layers and before the classifier.
    """

    class_token = True
    source = "Dosovitskiy et al., ICLR 2021; sizes of this project"

    def __init__(
        self,
        num_classes: int = 7,
        image_size: int = 96,
        patch_size: int = 8,
        num_layers: int = 6,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"patch_size {patch_size} does not divide image_size {image_size}")
        self.width, self.patch_size = WIDTH, patch_size
        self.patches = nn.Conv2d(3, self.width, patch_size, patch_size)
        self.tokens = TokenEmbedding(self.width, image_size // patch_size)
        self.layers = nn.ModuleList(
            TransformerBlock(self.width, HEADS, 4 * self.width, dropout) for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(self.width)
        head = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.width, num_classes or 1))
        self.classifier = head if num_classes else nn.Identity()

    def blocks(self) -> dict[str, nn.Module]:
        """`patches`, `layer1`, ..., `norm`, `head`."""
        layers = {f"layer{i}": layer for i, layer in enumerate(self.layers, start=1)}
        patches = nn.ModuleList([self.patches, self.tokens])
        return {"patches": patches, **layers, "norm": self.norm, "head": self.classifier}

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 400). H and W must be divisible by the patch size."""
        height, width = pictures.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"face pictures must be multiples of {self.patch_size} on a side, "
                f"not {height}x{width}"
            )
        x = self.tokens(self.patches(pictures))
        for layer in self.layers:
            x = self.run_block(layer, x)
        return self.norm(x[:, 0])
