"""What a decision about a face rests on: attention rolled out, gradients of feature maps.

Sources: Abnar and Zuidema, Quantifying attention flow in transformers, ACL 2020 (rollout);
Selvaraju et al., Grad-CAM, ICCV 2017; Lin, Divergence measures based on the Shannon entropy, IEEE
Transactions on Information Theory 1991 (diversity of heads).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations

import torch
from torch import Tensor, nn

from models import EmotionModel
from models.layers import TokenEmbedding, TransformerBlock
from models.vit_b_16 import ViTB16

Inputs = Mapping[str, Tensor]


def has_class_token(model: nn.Module) -> bool:
    """Whether a model looks at patches of a picture through a class token, so it can be rolled."""
    return any(isinstance(part, (TokenEmbedding, ViTB16)) for part in model.modules())


@contextmanager
def recorded_attention(model: nn.Module) -> Iterator[list[Tensor]]:
    """The (N, heads, S, S) attention of each layer in each call made meanwhile, the first first.

    It is computed again from the layer's own queries and keys, in evaluation mode the same.
    """
    maps: list[Tensor] = []

    def of_block(block: TransformerBlock) -> Callable[..., None]:
        return lambda _, __, qkv: maps.append(_attention(qkv, block.num_heads))

    def of_torch(layer: nn.MultiheadAttention) -> Callable[..., None]:
        weight, bias = layer.in_proj_weight, layer.in_proj_bias

        def record(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            maps.append(_attention(nn.functional.linear(given[0], weight, bias), layer.num_heads))

        return record

    handles = []
    for part in model.modules():
        if isinstance(part, TransformerBlock):
            handles.append(part.qkv.register_forward_hook(of_block(part)))
        elif isinstance(part, nn.MultiheadAttention):
            handles.append(part.register_forward_pre_hook(of_torch(part)))
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()


def _attention(qkv: Tensor, heads: int) -> Tensor:
    """(N, S, 3 D) queries, keys and values -> (N, heads, S, S), rows summing to 1."""
    q, k = (
        part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.detach().chunk(3, -1)[:2]
    )
    return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1)


def rollout(attentions: Sequence[Tensor]) -> Tensor:
    """Attention followed through the layers to the tokens it began with.

    In each layer half of a token stays and half is mixed by the mean over heads.

    Args:
        attentions: (N, heads, S, S) of each of L layers, the first first.

    Returns:
        (L, N, S, S): row i of layer l tells of what token i consists after it; rows sum to 1.
    """
    tokens = attentions[0].shape[-1]
    stay = torch.eye(tokens, dtype=attentions[0].dtype, device=attentions[0].device)
    flow = stay.expand(attentions[0].shape[0], -1, -1)
    flows = []
    for attention in attentions:
        flow = (0.5 * attention.mean(dim=1) + 0.5 * stay) @ flow
        flows.append(flow)
    return torch.stack(flows)


def patch_maps(attention: Tensor) -> Tensor:
    """What the class token takes from each patch: (..., 1 + g g, 1 + g g) -> (..., g, g)."""
    taken = attention[..., 0, 1:]
    side = math.isqrt(taken.shape[-1])
    return taken.unflatten(-1, (side, side))


def head_diversity(attention: Tensor) -> Tensor:
    """How differently heads look: the mean Jensen-Shannon divergence of two heads, in bits.

    Compared is what the class token takes from each patch, as shares of all patches.

    Args:
        attention: (N, heads, S, S).

    Returns:
        (N,) from 0, where all heads look alike, to 1, where no two share a patch; 0 of one head.
    """
    taken = attention[:, :, 0, 1:].double()
    shares = taken / taken.sum(dim=-1, keepdim=True).clamp(min=1e-12)
    pairs = list(combinations(range(shares.shape[1]), 2))
    if not pairs:
        return torch.zeros(len(shares), dtype=shares.dtype)
    first, second = (shares[:, [pair[i] for pair in pairs]] for i in (0, 1))
    middle = _entropy((first + second) / 2)
    return (middle - (_entropy(first) + _entropy(second)) / 2).mean(dim=1)


def _entropy(shares: Tensor) -> Tensor:
    """In bits, over the last axis."""
    return -torch.xlogy(shares, shares).sum(dim=-1) / math.log(2)


def grad_cam(
    model: EmotionModel, inputs: Inputs, target: int | None = None
) -> tuple[Tensor, Tensor]:
    """Where one window's pictures speak for a class, in their last feature map.

    The map's channels are weighted by the mean of the class's gradient over each picture, summed,
    and what speaks against the class is cut off.

    Args:
        inputs: one window (B = 1), as the model takes it.
        target: index of the class; None for the one of the largest logit.

    Returns:
        (C,) logits, and (P, h, w) at least 0, not scaled, of the P pictures that exist; of a 3D
        network P is the number of its steps in time.

    Raises:
        ValueError: the model has no feature map of pictures.
    """
    face = inputs["face"].detach().clone().requires_grad_(True)  # frozen weights would stop there
    with torch.enable_grad(), _last_map(seeing_part(model)) as found:
        logits = model(**{**inputs, "face": face})["logits"][0]
    if not found:
        raise ValueError(f"{model.name} has no feature map of pictures to look into")
    features = found[-1]
    index = int(logits.argmax()) if target is None else target
    (slope,) = torch.autograd.grad(logits[index], features)
    features, slope = features.detach(), slope.detach()
    if features.dim() == 5:  # (1, D, T, h, w) -> (T, D, h, w)
        features, slope = (x[0].transpose(0, 1) for x in (features, slope))
    weights = slope.mean(dim=(2, 3), keepdim=True)
    return logits.detach(), (weights * features).sum(dim=1).relu()


def seeing_part(model: EmotionModel) -> EmotionModel:
    """The model itself, or its branch, that takes faces and nothing else."""
    for part in model.modules():
        if isinstance(part, EmotionModel) and part.inputs == ("face",):
            return part
    return model


@contextmanager
def _last_map(model: nn.Module) -> Iterator[list[Tensor]]:
    """Of the call made meanwhile, the last output that still has places: at most one tensor."""
    found: list[Tensor] = []

    def note(_: nn.Module, __: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() in (4, 5) and output.shape[-1] > 1:
            found[:] = [output]

    handles = [part.register_forward_hook(note) for part in model.modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
