"""What a clip holds to a model's inputs, deterministically, as its ClipConfig says."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from media.clip import MODALITIES, Clip, ClipConfig
from media.landmarks import normalise
from media.whisper_mel import whisper_mel

if TYPE_CHECKING:
    import torchaudio

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601 weights of red, green, blue
LOG_MEL_RANGE = 13.8  # nats (60 dB) kept below the loud frames of a window
SPEECH_LEVEL_PERCENTILE = 95.0  # of the frame levels of a window: the gain that is taken out


def preprocess(
    clip: Clip, config: ClipConfig, modalities: Collection[str] = MODALITIES
) -> dict[str, torch.Tensor]:
    """A model's inputs for one clip, of the modalities that it takes.

    Returns:
        `face` (T, 3, H, W) float32, `face_mask` (T,) bool, `landmarks` (S, 70, 2) float32 (see
        `media.landmarks.normalise`), `landmarks_mask` (S,) bool, `blendshapes` (S', 55) float32,
        `blendshapes_mask` (S',) bool, `speech` (n_mels, L) float32, `speech_mask` (L,) bool; of
        `whisper_mel` `speech` (K, n_mels, L) of K blocks, and `speech_mask` (K * L / 2,) of the
        frames that Whisper's encoder makes of them. What is missing is zero and its mask is false.
    """
    inputs: dict[str, torch.Tensor] = {}
    if "face" in modalities:
        inputs["face"] = _normalise_faces(clip.faces, clip.face_mask, config)
        inputs["face_mask"] = torch.from_numpy(clip.face_mask)
    if "landmarks" in modalities:
        inputs["landmarks"] = torch.from_numpy(normalise(clip.points, clip.points_mask))
        inputs["landmarks_mask"] = torch.from_numpy(clip.points_mask)
    if "blendshapes" in modalities:
        inputs["blendshapes"] = torch.from_numpy(clip.blendshapes)
        inputs["blendshapes_mask"] = torch.from_numpy(clip.blendshapes_mask)
    if "speech" in modalities:
        speech = _speech_blocks if config.speech_feature == "whisper_mel" else _speech
        inputs["speech"], inputs["speech_mask"] = speech(clip, config)
    return inputs


def _speech_blocks(clip: Clip, config: ClipConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Spectrograms of the blocks of which a frame is recognised, and which frames those are."""
    mask = recognised_frames(clip, config)
    blocks = torch.zeros(config.speech_blocks, config.n_mels, config.speech_frames)
    for block in used_blocks(mask, config):
        blocks[block] = preprocess_block(clip, block, config)
    return blocks, mask


def recognised_frames(clip: Clip, config: ClipConfig) -> torch.Tensor:
    """(K * L / 2,) bool: the encoder frames whose time is recognised, none where all is silent."""
    step = 2 * config.hop_length
    frames = config.speech_blocks * math.ceil(config.speech_frames / 2)
    mask = torch.zeros(frames, dtype=torch.bool)
    if clip.has_speech:
        first = math.ceil(clip.sound_offset / step)
        stop = math.ceil((clip.sound_offset + clip.sound_samples) / step)
        mask[min(first, frames - 1) : max(stop, first + 1)] = True  # a short one has a frame too
        mask &= torch.from_numpy(clip.voiced_at(_frame_times(clip, config), config.voice_activity))
    return mask


def _frame_times(clip: Clip, config: ClipConfig) -> np.ndarray:
    """(K * L / 2,) seconds from the window's start to the middle of each encoder frame."""
    step = 2 * config.hop_length / config.sample_rate
    frames = config.speech_blocks * math.ceil(config.speech_frames / 2)
    start = 0.0
    if clip.speech_block is not None:
        start = clip.speech_block * config.speech_block_seconds - clip.window.start
    return start + (np.arange(frames) + 0.5) * step


def used_blocks(mask: torch.Tensor, config: ClipConfig) -> list[int]:
    """Those of the K blocks that hold a frame of the mask."""
    held = mask.view(config.speech_blocks, -1).any(dim=1)
    return [block for block, used in enumerate(held.tolist()) if used]


def first_block(clip: Clip) -> int:
    """Which block of the recording is the first of the clip's."""
    assert clip.speech_block is not None, "cut without context: a window is its own block"
    return clip.speech_block


def preprocess_block(clip: Clip, block: int, config: ClipConfig) -> torch.Tensor:
    """(n_mels, L) of one of a clip's K blocks."""
    size = config.block_samples
    part = clip.waveform[block * size : (block + 1) * size + 2 * config.speech_context]
    return whisper_mel(torch.from_numpy(part), config)


def _speech(clip: Clip, config: ClipConfig) -> tuple[torch.Tensor, torch.Tensor]:
    """Features, and which frames exist and hold speech.

    Those exist whose middle lies before the sound's end. Which hold speech see `_voiced_frames`.
    """
    frames = config.speech_frames
    existing = math.ceil(clip.sound_samples / config.hop_length) if clip.has_speech else 0
    mask = torch.arange(frames) < max(existing, 1 if clip.has_speech else 0)
    if not clip.has_speech:
        return torch.zeros(config.n_mels, frames), mask
    voiced = _voiced_frames(clip, config)
    if config.speech_feature == "mfcc":
        return _mfcc(clip.waveform, config), voiced
    mask &= voiced
    return _log_mel(clip.waveform, mask, config), mask


def _voiced_frames(clip: Clip, config: ClipConfig) -> torch.Tensor:
    """(L,) bool: frames in or close to speech; all where voice activity is off or not known."""
    middle = 0.5 if config.speech_feature == "log_mel" else 0.0  # librosa's lie on hops' borders
    times = (np.arange(config.speech_frames) + middle) * config.hop_length / config.sample_rate
    return torch.from_numpy(clip.voiced_at(times, config.voice_activity))


def _normalise_faces(faces: np.ndarray, mask: np.ndarray, config: ClipConfig) -> torch.Tensor:
    """(T, H, W, 3) uint8 RGB -> (T, 3, H, W) float32, colour order and scale as configured."""
    pictures = torch.from_numpy(np.ascontiguousarray(faces.transpose(0, 3, 1, 2)))
    if config.colour == "bgr":
        pictures = pictures.flip(1)
    elif config.colour == "grey":
        luma = (pictures.float() * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
        pictures = luma.expand(-1, 3, -1, -1)
    mean = torch.tensor(config.face_mean).view(1, 3, 1, 1)
    std = torch.tensor(config.face_std).view(1, 3, 1, 1)
    scaled = (pictures.float() / 255.0 - mean) / std
    return scaled * torch.from_numpy(mask).view(-1, 1, 1, 1)


@lru_cache(maxsize=8)
def _mel_transform(**constants: float) -> torchaudio.transforms.MelSpectrogram:
    import torchaudio  # here, as only models of such spectrograms need it

    return torchaudio.transforms.MelSpectrogram(**constants, center=False)


_SPECTRAL = ("sample_rate", "n_fft", "win_length", "hop_length", "f_min", "f_max", "n_mels")


def _log_mel(waveform: np.ndarray, mask: torch.Tensor, config: ClipConfig) -> torch.Tensor:
    """(n_mels, L) log-mel power, independent of gain, about -2 to 2; zero where no frame exists.

    Frame i is centred on the middle of the i-th hop of the window. From the natural logarithm the
    95th percentile of the existing frames' levels is taken away; what lies over 60 dB below it is
    cut off.
    """
    transform = _mel_transform(**{name: getattr(config, name) for name in _SPECTRAL})
    power = transform(torch.from_numpy(waveform))  # (n_mels, L)
    levels = (power.sum(dim=0) + 1e-10).log()[mask]
    level = _percentile(levels, SPEECH_LEVEL_PERCENTILE)
    relative = ((power + 1e-10).log() - level).clamp(min=-LOG_MEL_RANGE)
    return (relative + LOG_MEL_RANGE / 2) / (LOG_MEL_RANGE / 4) * mask


def _percentile(values: torch.Tensor, percent: float) -> torch.Tensor:
    """As torch.quantile, which takes ten times as long for so few values."""
    place = percent / 100.0 * (len(values) - 1)
    low, high = values.sort().values[[math.floor(place), math.ceil(place)]]
    return torch.lerp(low, high, place - math.floor(place))


def _mfcc(waveform: np.ndarray, config: ClipConfig) -> torch.Tensor:
    """(n_mels, L) cepstral coefficients with librosa's defaults, as the published models take."""
    import librosa  # slow to import, and only the imported checkpoints need it

    coefficients = librosa.feature.mfcc(
        y=waveform,
        sr=config.sample_rate,
        n_mfcc=config.n_mels,
        n_fft=config.n_fft,
        hop_length=config.hop_length,
    )
    return torch.from_numpy(np.ascontiguousarray(coefficients, dtype=np.float32))
