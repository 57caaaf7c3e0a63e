"""Random changes in training only: to a clip's pictures and waveform before `preprocess`, to the
spectrogram after it, and to a batch's modalities. All pictures of a clip change alike."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from media.clip import Clip


@dataclass(frozen=True)
class AugmentOptions:
    """Strengths; 0 switches a change off.

    Args:
        flip: probability of mirroring the pictures.
        rotate: largest rotation, degrees.
        scale: largest change of size, as a natural logarithm.
        shift: largest shift, as a share of the side.
        light: largest relative change of brightness and of contrast.
        erase: probability that a rectangle is blanked.
        soften: probability that pictures are shrunk and enlarged again, as in small faces.
        speed: largest relative change of speed (and so pitch) of the sound.
        noise: probability of tilted noise at 5 to 30 dB below the sound.
        tilt: largest spectral tilt (coefficient of a first-order filter).
        mask_mels, mask_frames: widest of two bands and two stretches that are blanked (SpecAugment,
            Park et al., Interspeech 2019).
    """

    flip: float = 0.5
    rotate: float = 15.0
    scale: float = 0.15
    shift: float = 0.06
    light: float = 0.3
    erase: float = 0.25
    soften: float = 0.2
    speed: float = 0.1
    noise: float = 0.5
    tilt: float = 0.5
    mask_mels: int = 10
    mask_frames: int = 15


def augment_clip(clip: Clip, options: AugmentOptions, rng: np.random.Generator) -> Clip:
    """Pictures warped, relit and partly erased; sound at another speed, tilted, with noise."""
    faces, waveform = clip.faces, clip.waveform
    if clip.face_mask.any():
        faces = _augment_faces(faces, clip.face_mask, options, rng)
    if clip.has_speech:
        waveform = _augment_waveform(waveform, options, rng)
    return replace(clip, faces=faces, waveform=waveform)


def _augment_faces(
    faces: np.ndarray, mask: np.ndarray, options: AugmentOptions, rng: np.random.Generator
) -> np.ndarray:
    size = faces.shape[1]
    matrix = _random_warp(size, options, rng)
    light = _random_light(options, rng)
    hole = _random_hole(size, rng) if rng.random() < options.erase else None
    small = int(size * rng.uniform(0.3, 0.8)) if rng.random() < options.soften else None
    out = np.zeros_like(faces)
    for index in np.flatnonzero(mask):
        face = faces[index]
        if small:
            face = cv2.resize(face, (small, small), interpolation=cv2.INTER_AREA)
            face = cv2.resize(face, (size, size), interpolation=cv2.INTER_LINEAR)
        face = cv2.warpAffine(face, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
        out[index] = cv2.LUT(face, light)
        if hole is not None:
            top, bottom, left, right = hole
            out[index, top:bottom, left:right] = 128
    return out


def _random_light(options: AugmentOptions, rng: np.random.Generator) -> np.ndarray:
    """What each of 256 grey values becomes: contrast about the middle, then brightness."""
    gain = 1 + rng.uniform(-options.light, options.light)
    offset = 128 * rng.uniform(-options.light, options.light)
    return np.clip((np.arange(256) - 128) * gain + 128 + offset, 0, 255).astype(np.uint8)


def _random_warp(size: int, options: AugmentOptions, rng: np.random.Generator) -> np.ndarray:
    angle = rng.uniform(-options.rotate, options.rotate)
    scale = float(np.exp(rng.uniform(-options.scale, options.scale)))
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), angle, scale)
    matrix[:, 2] = matrix[:, 2] + size * rng.uniform(-options.shift, options.shift, 2)
    if rng.random() < options.flip:
        matrix = matrix @ np.array([[-1, 0, size - 1], [0, 1, 0], [0, 0, 1]], dtype=np.float64)
    return matrix


def _random_hole(size: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    height, width = (int(size * rng.uniform(0.1, 0.35)) for _ in range(2))
    top, left = int(rng.integers(0, size - height)), int(rng.integers(0, size - width))
    return top, top + height, left, left + width


def _augment_waveform(
    waveform: np.ndarray, options: AugmentOptions, rng: np.random.Generator
) -> np.ndarray:
    length = len(waveform)
    speed = 1 + rng.uniform(-options.speed, options.speed)
    middle = (length - 1) / 2
    places = middle + (np.arange(length) - middle) * speed
    changed = np.interp(places, np.arange(length), waveform, left=0.0, right=0.0)
    changed = _tilted(changed, rng.uniform(-options.tilt, options.tilt))
    if rng.random() < options.noise:
        hiss = _tilted(rng.standard_normal(length), rng.uniform(-0.9, 0.5))
        ratio = 10 ** (-rng.uniform(5, 30) / 20)
        hiss *= ratio * np.sqrt((changed**2).mean() / ((hiss**2).mean() + 1e-12))
        changed = changed + hiss
    return changed.astype(np.float32)


def _tilted(signal: np.ndarray, coefficient: float) -> np.ndarray:
    """First-order filter: above 0 lifts the treble, below 0 the bass."""
    out = signal.copy()
    out[1:] -= coefficient * signal[:-1]
    return out


def mask_spectrogram(
    inputs: dict[str, torch.Tensor], options: AugmentOptions, rng: np.random.Generator
) -> dict[str, torch.Tensor]:
    """Two bands and two stretches of time set to the spectrogram's mean."""
    speech = inputs["speech"].clone()
    mean = speech.mean()
    for axis, widest in ((0, options.mask_mels), (1, options.mask_frames)):
        for _ in range(2):
            width = min(int(rng.integers(0, widest + 1)), speech.shape[axis] // 2)
            start = int(rng.integers(0, speech.shape[axis] - width + 1))
            speech.narrow(axis, start, width).fill_(mean)
    return {**inputs, "speech": speech}


Batch = dict[str, torch.Tensor]
MODALITY_DROPOUTS = ("nodropout", "softhard", "noise")


def drop_modalities(inputs: Batch, target: torch.Tensor, how: str) -> tuple[Batch, torch.Tensor]:
    """Copies of a batch with a modality weakened or gone, so that a model learns to do without.

    Source: Chumachenko et al., ICPR 2022. `softhard` makes the batch four times as large: clean,
    sound times c with video times 1 - c, sound gone, video gone. `noise` makes it three times as
    large: clean, sound replaced by noise, video replaced by noise.

    Args:
        inputs: `face` (B, T, 3, H, W), `speech` (B, n_mels, L) and their masks.
        target: (B, C).
        how: one of `MODALITY_DROPOUTS`.
    """
    if how == "nodropout" or not {"face", "speech"} <= set(inputs):
        return inputs, target
    face, speech = inputs["face"], inputs["speech"]
    if how == "noise":
        copies = [
            inputs,
            {**inputs, "speech": torch.randn_like(speech)},
            {**inputs, "face": torch.randn_like(face)},
        ]
    else:
        share = torch.rand(len(face), device=face.device)
        softened = {
            "speech": speech * share.view(-1, 1, 1),
            "face": face * (1 - share).view(-1, 1, 1, 1, 1),
        }
        copies = [inputs, {**inputs, **softened}, _without(inputs, "speech")]
        copies.append(_without(inputs, "face"))
    joined = {name: torch.cat([copy[name] for copy in copies]) for name in inputs}
    return joined, target.repeat(len(copies), 1)


def _without(inputs: Batch, modality: str) -> Batch:
    mask = f"{modality}_mask"
    return {
        **inputs,
        modality: torch.zeros_like(inputs[modality]),
        mask: torch.zeros_like(inputs[mask]),
    }


def mix_up(inputs: Batch, target: torch.Tensor, alpha: float) -> tuple[Batch, torch.Tensor]:
    """Blend each sample with another of the batch (Zhang et al., ICLR 2018), targets alike.

    Only samples of which both have the same modalities are blended.
    """
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    order = torch.randperm(len(target))
    alike = torch.ones(len(target), dtype=torch.bool)
    for value in inputs.values():
        if value.dtype == torch.bool:
            alike &= (value == value[order]).reshape(len(target), -1).all(dim=1).cpu()
    order = torch.where(alike, order, torch.arange(len(target)))
    mixed = {
        name: value if value.dtype == torch.bool else share * value + (1 - share) * value[order]
        for name, value in inputs.items()
    }
    return mixed, share * target + (1 - share) * target[order]
