"""Blendshapes as speech moves them: stills of people who do not talk, made to talk in training.

In photographs an open mouth mostly means surprise, fear or a laugh. On video it mostly means that
somebody talks. So training adds to a still's blendshapes what opening the mouth for speech adds,
whatever its label.
"""

from __future__ import annotations

import numpy as np
import torch

from media.blendshapes import BLENDSHAPES

WIDEST = 0.45  # largest `jawOpen` that is added: that of open vowels in ordinary speech
# How much of the opening each other score may take, at most.
MOVED = {
    "mouthLowerDown": 0.9,
    "mouthUpperUp": 0.5,
    "mouthFunnel": 0.6,
    "mouthPucker": 1.0,
    "mouthStretch": 0.3,
    "mouthRollLower": 0.4,
    "mouthShrugLower": 0.4,
    "mouthClose": 0.2,
}
_JAW = BLENDSHAPES.index("jawOpen")
# (52,) of each score that a name above begins.
_REACH = np.array(
    [next((v for name, v in MOVED.items() if n.startswith(name)), 0.0) for n in BLENDSHAPES],
    dtype=np.float32,
)


def talk(
    inputs: dict[str, torch.Tensor], probability: float, rng: np.random.Generator
) -> dict[str, torch.Tensor]:
    """The mouth of a sample opened as speech may: `blendshapes` (S, 55).

    What is added is the same on the left and on the right, and at most 1 comes out.
    """
    if rng.random() >= probability:
        return inputs
    opening = WIDEST * float(rng.beta(1.2, 1.6))
    shares: dict[str, float] = {name: float(rng.random()) for name in MOVED}
    moved = np.array(
        [next((s for name, s in shares.items() if n.startswith(name)), 0.0) for n in BLENDSHAPES],
        dtype=np.float32,
    )
    added = opening * _REACH * moved
    added[_JAW] = opening
    blendshapes = inputs["blendshapes"].clone()
    there = inputs["blendshapes_mask"]
    scores = blendshapes[there, : len(BLENDSHAPES)] + torch.from_numpy(added)
    blendshapes[there, : len(BLENDSHAPES)] = scores.clamp(max=1.0)
    return {**inputs, "blendshapes": blendshapes}
