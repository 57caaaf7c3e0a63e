"""Random changes in training only: to a clip's pictures and waveform before `preprocess`, to the
spectrogram after it, and to a batch's modalities. All pictures of a clip change alike."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

import cv2
import numpy as np
import torch

from datasets.options import AugmentOptions
from media import blendshapes
from media.clip import Clip
from media.configuration import MODALITIES
from media.landmarks import MIRRORED, POINTS


def augment_clip(
    clip: Clip,
    options: AugmentOptions,
    rng: np.random.Generator,
    modalities: Collection[str] = MODALITIES,
) -> Clip:
    """Pictures warped, relit and partly erased; sound at another speed, tilted, with noise.

    Args:
        modalities: that are used; what is of no other use is left as it is.
    """
    faces, waveform = clip.faces, clip.waveform
    flip = bool(rng.random() < options.flip)
    if "face" in modalities and clip.face_mask.any():
        faces = _augment_faces(faces, clip.face_mask, options, flip, rng)
    if "speech" in modalities and clip.has_speech:
        waveform = _augment_waveform(waveform, options, rng, _middle(clip))
    return replace(clip, faces=faces, waveform=waveform)


def _augment_faces(
    faces: np.ndarray,
    mask: np.ndarray,
    options: AugmentOptions,
    flip: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    size = faces.shape[1]
    matrix = _random_warp(size, options, rng)
    if flip:
        matrix = matrix @ np.array([[-1, 0, size - 1], [0, 1, 0], [0, 0, 1]], dtype=np.float64)
    light = _random_light(options, rng)
    hole = _random_hole(size, rng) if rng.random() < options.erase else None
    small = int(size * rng.uniform(0.3, 0.8)) if rng.random() < options.soften else None
    quality = int(rng.integers(10, 60)) if rng.random() < options.compress else None
    out = np.zeros_like(faces)
    for index in np.flatnonzero(mask):
        face = faces[index]
        if small:
            face = cv2.resize(face, (small, small), interpolation=cv2.INTER_AREA)
            face = cv2.resize(face, (size, size), interpolation=cv2.INTER_LINEAR)
        face = cv2.warpAffine(face, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
        face = cv2.LUT(face, light)
        out[index] = _stored_as_jpeg(face, quality) if quality else face
        if hole is not None:
            top, bottom, left, right = hole
            out[index, top:bottom, left:right] = 128
    return out


def _stored_as_jpeg(face: np.ndarray, quality: int) -> np.ndarray:
    _, data = cv2.imencode(".jpg", face, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))


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
    return matrix


def _random_hole(size: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    height, width = (int(size * rng.uniform(0.1, 0.35)) for _ in range(2))
    top, left = int(rng.integers(0, size - height)), int(rng.integers(0, size - width))
    return top, top + height, left, left + width


def _middle(clip: Clip) -> float:
    """The sample in the middle of what is recognised of blocks, or of the whole waveform."""
    if clip.speech_block is None:
        return (len(clip.waveform) - 1) / 2
    return clip.sound_offset + clip.sound_samples / 2


def _augment_waveform(
    waveform: np.ndarray, options: AugmentOptions, rng: np.random.Generator, middle: float
) -> np.ndarray:
    changed = _at_speed(waveform, 1 + rng.uniform(-options.speed, options.speed), middle)
    changed = _tilted(changed, rng.uniform(-options.tilt, options.tilt))
    if rng.random() < options.noise:
        hiss = rng.standard_normal(len(waveform), dtype=np.float32)
        hiss = _tilted(hiss, rng.uniform(-0.9, 0.5))
        ratio = 10 ** (-rng.uniform(5, 30) / 20)
        power = np.dot(changed, changed) / (np.dot(hiss, hiss) + 1e-9)
        changed = changed + hiss * np.float32(ratio * math.sqrt(power))
    return changed


def _at_speed(waveform: np.ndarray, speed: float, middle: float) -> np.ndarray:
    """(N,) float32 played faster or slower about the `middle` sample; zero beyond its ends.

    The clip's `voice` keeps its times: at a tenth more or less speed, sound in a window of 1 second
    moves by at most 0.05 s, half of the spread with which frames count as speech.
    """
    places = middle + (np.arange(len(waveform), dtype=np.float32) - middle) * np.float32(speed)
    before = np.floor(places)
    share = places - before
    padded = np.concatenate([np.zeros(1, np.float32), waveform, np.zeros(2, np.float32)])
    index = np.clip(before.astype(np.int32) + 1, 0, len(waveform) + 1)
    return padded[index] * (1 - share) + padded[index + 1] * share


def _tilted(signal: np.ndarray, coefficient: float) -> np.ndarray:
    """First-order filter: above 0 lifts the treble, below 0 the bass."""
    out = signal.copy()
    out[1:] -= np.float32(coefficient) * signal[:-1]
    return out


def mask_spectrogram(
    inputs: dict[str, torch.Tensor], options: AugmentOptions, rng: np.random.Generator
) -> dict[str, torch.Tensor]:
    """Two bands and two spans of time set to the spectrogram's mean.

    Of blocks (K, n_mels, L) what is recognised changes, which may reach over several of them.
    """
    speech = inputs["speech"]
    if speech.ndim == 2:
        return {**inputs, "speech": _masked(speech.clone(), options, rng)}
    blocks, mels, length = speech.shape
    joined = speech.transpose(0, 1).reshape(mels, blocks * length).clone()
    recognised = inputs["speech_mask"].view(blocks, -1).repeat_interleave(2, dim=1)[:, :length]
    heard = recognised.flatten().nonzero()
    if not len(heard):
        return inputs
    _masked(joined[:, int(heard[0]) : int(heard[-1]) + 1], options, rng)
    speech = joined.reshape(mels, blocks, length).transpose(0, 1).contiguous()
    return {**inputs, "speech": speech}


def _masked(
    speech: torch.Tensor, options: AugmentOptions, rng: np.random.Generator
) -> torch.Tensor:
    """(n_mels, L), changed in place."""
    mean = speech.mean()
    for axis, widest in ((0, options.mask_mels), (1, options.mask_frames)):
        for _ in range(2):
            width = min(int(rng.integers(0, widest + 1)), speech.shape[axis] // 2)
            start = int(rng.integers(0, speech.shape[axis] - width + 1))
            speech.narrow(axis, start, width).fill_(mean)
    return speech


def mirror_face(
    inputs: dict[str, torch.Tensor], probability: float, rng: np.random.Generator
) -> dict[str, torch.Tensor]:
    """The face seen in a mirror: `landmarks` (S, 70, 2) and `blendshapes` (S, 55) of a sample.

    The motion of the head is mirrored too.
    """
    if rng.random() >= probability:
        return inputs
    mirrored = dict(inputs)
    if "landmarks" in inputs:
        landmarks = inputs["landmarks"].clone()
        landmarks[:, :POINTS] = landmarks[:, MIRRORED]
        landmarks[..., 0] *= -1
        mirrored["landmarks"] = landmarks
    if "blendshapes" in inputs:
        signs = torch.from_numpy(blendshapes.MIRRORED_SIGNS)
        mirrored["blendshapes"] = inputs["blendshapes"][:, blendshapes.MIRRORED] * signs
    return mirrored


def swap_identity(
    inputs: dict[str, torch.Tensor],
    speaker: str,
    mean_faces: dict[str, np.ndarray],
    probability: float,
    rng: np.random.Generator,
) -> dict[str, torch.Tensor]:
    """The same movements on the mean face of another speaker of the training data.

    Args:
        inputs: of a sample, with `landmarks` (S, 70, 2).
        mean_faces: (68, 2) of each speaker.
    """
    others = [name for name in mean_faces if name != speaker]
    if not others or rng.random() >= probability:
        return inputs
    change = mean_faces[others[rng.integers(len(others))]] - mean_faces[speaker]
    landmarks = inputs["landmarks"].clone()
    kept = inputs["landmarks_mask"]
    landmarks[kept, :POINTS] += torch.from_numpy(change.astype(np.float32))
    return {**inputs, "landmarks": landmarks}


Batch = dict[str, torch.Tensor]


def drop_modalities(inputs: Batch, target: torch.Tensor, how: str) -> tuple[Batch, torch.Tensor]:
    """Copies of a batch with a modality weakened or gone, so that a model learns to do without.

    Source: Chumachenko et al., ICPR 2022, there for sound and video. `softhard` with two
    modalities makes the batch four times as large: clean, one times c with the other times 1 - c,
    each of them gone. `noise` makes it three times as large: clean, each of them replaced by noise.

    Args:
        inputs: tensors of each modality, such as `face` (B, T, 3, H, W), and their masks.
        target: (B, C).
        how: one of `MODALITY_DROPOUTS`.
    """
    modalities = [name for name in MODALITIES if name in inputs]
    if how == "nodropout" or len(modalities) < 2:
        return inputs, target
    copies = [inputs]
    if how == "noise":
        copies += [{**inputs, name: torch.randn_like(inputs[name])} for name in modalities]
    else:
        copies.append(_softened(inputs, modalities))
        copies += [_without(inputs, name) for name in reversed(modalities)]
    joined = {name: torch.cat([copy[name] for copy in copies]) for name in inputs}
    return joined, target.repeat(len(copies), *[1] * (target.ndim - 1))


def _softened(inputs: Batch, modalities: list[str]) -> Batch:
    """The last modality times a share c drawn for each sample, all others times 1 - c."""
    first = inputs[modalities[0]]
    share = torch.rand(len(first), device=first.device)
    softened = {}
    for name in modalities:
        factor = share if name == modalities[-1] else 1 - share
        softened[name] = inputs[name] * factor.view(-1, *[1] * (inputs[name].ndim - 1))
    return {**inputs, **softened}


def _without(inputs: Batch, modality: str) -> Batch:
    mask = f"{modality}_mask"
    return {
        **inputs,
        modality: torch.zeros_like(inputs[modality]),
        mask: torch.zeros_like(inputs[mask]),
    }


def mix_up(inputs: Batch, target: torch.Tensor, alpha: float) -> tuple[Batch, torch.Tensor]:
    """Blend each sample with another of the batch (Zhang et al., ICLR 2018), targets alike.

    Only samples of which both have the same modalities are blended. A step that only one of them
    has is that one's.
    """
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    order = torch.randperm(len(target), device=target.device)
    alike = torch.ones(len(target), dtype=torch.bool, device=target.device)
    modalities = [name for name in MODALITIES if name in inputs]
    for name in modalities:
        present = inputs[f"{name}_mask"].any(dim=1)
        alike &= present == present[order]
    order = torch.where(alike, order, torch.arange(len(target), device=target.device))
    mixed: Batch = {}
    for name in modalities:
        value, mask = inputs[name], inputs[f"{name}_mask"]
        blend = _blend
        if name == "speech" and value.ndim == 4:
            is_sound = value.shape[1] * -(-value.shape[-1] // 2) == mask.shape[1]
            blend = _blend_blocks if is_sound else _blend_encoded
        mixed[name] = blend(value, mask, order, share)
        mixed[f"{name}_mask"] = mask | mask[order]
    return mixed, share * target + (1 - share) * target[order]


def _blend(
    value: torch.Tensor, mask: torch.Tensor, order: torch.Tensor, share: float
) -> torch.Tensor:
    """`share` of each sample and the rest of its partner, weighted by the steps that exist."""
    own, other = share * mask, (1 - share) * mask[order]
    weight = own / (own + other).clamp(min=1e-6)
    weight = (
        weight.unsqueeze(1) if value.ndim == 3 else weight[:, :, None, None]
    )  # speech: (B, 1, L)
    weight = weight if value.ndim < 5 else weight.unsqueeze(-1)
    return weight * value + (1 - weight) * value[order]


def _blend_blocks(
    value: torch.Tensor, mask: torch.Tensor, order: torch.Tensor, share: float
) -> torch.Tensor:
    """The same of blocks of sound (B, K, n_mels, L), masks (B, K * L / 2).

    What neither recognises is heard beside it by both, and so blended as it is.
    """
    batch, blocks, _, length = value.shape
    own, other = share * mask, (1 - share) * mask[order]
    weight = torch.where(mask | mask[order], own / (own + other).clamp(min=1e-6), share)
    weight = weight.view(batch, blocks, -1).repeat_interleave(2, dim=2)[:, :, None, :length]
    return weight * value + (1 - weight) * value[order]


def _blend_encoded(
    value: torch.Tensor, mask: torch.Tensor, order: torch.Tensor, share: float
) -> torch.Tensor:
    """The same of encoded blocks (B, K, steps, D), masks (B, K * T) of the steps' frames."""
    frames = mask.unflatten(1, (value.shape[1], -1)).float()  # (B, K, T)
    held = torch.nn.functional.adaptive_max_pool1d(frames, value.shape[2])
    own, other = share * held, (1 - share) * held[order]
    weight = (own / (own + other).clamp(min=1e-6)).unsqueeze(-1)
    return weight * value + (1 - weight) * value[order]
