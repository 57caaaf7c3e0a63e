"""The straightforward recipe of this field, that our inference is measured against.

OpenCV reads the video twice (once to count its pictures) and whole pictures become RGB; MTCNN looks
at each used picture at full resolution; the sound is decoded by itself into memory; librosa gives a
log-mel per window; the model runs eagerly, one window at a time. Checkpoint, constants, crop and
windows are those of our road, so both give nearly the same probabilities.

    python -m benchmarks.reference VIDEO --model_path P --output OUT.csv
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import cv2
import librosa
import numpy as np
import pandas as pd
import torch
from facenet_pytorch import MTCNN
from torch import Tensor

from checkpoints.checkpoint import Checkpoint, load_checkpoint
from checkpoints.shipped import DEFAULT_CHECKPOINT
from media.clip import Window, tile_windows
from media.configuration import TIME_TOLERANCE, ClipConfig
from media.faces import face_square
from media.preprocess import LOG_MEL_RANGE, SPEECH_LEVEL_PERCENTILE
from models import EmotionModel
from system.command_line import OneLineParser
from system.device import pick_device
from system.files import replacing
from timeline.table import CLASS_PREFIX


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status."""
    parser = OneLineParser("python -m benchmarks.reference", description=__doc__)
    parser.add_argument("video", type=Path, help="a video file")
    parser.add_argument("--model_path", type=Path, default=DEFAULT_CHECKPOINT, help="checkpoint")
    parser.add_argument("--output", type=Path, default=Path("results/bench/reference.csv"))
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    options = parser.parse_args(arguments)
    try:
        device = pick_device(options.device)
        table = recognise(options.video, load_checkpoint(options.model_path), device)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with replacing(options.output) as temporary:
        table.to_csv(temporary, index=False)
    return 0


def recognise(path: Path, checkpoint: Checkpoint, device: torch.device) -> pd.DataFrame:
    """A row per window: `start`, `end`, and `p_<class>`, NaN where nothing is seen or heard.

    Raises:
        ValueError: OpenCV cannot read the video, or the model takes no log-mel.
    """
    config = checkpoint.clip_config
    if config.speech_feature != "log_mel":
        raise ValueError(f"the reference computes log-mel, and {checkpoint.model.name} takes MFCC")
    model = checkpoint.model.to(device).eval()
    count, rate = count_pictures(path)
    waveform = read_waveform(path, config.sample_rate)
    duration = max(count / rate, len(waveform) / config.sample_rate)
    windows = tile_windows(duration, config.window_seconds, config.window_seconds)
    used = [used_pictures(window, count, rate, config.pictures) for window in windows]
    mtcnn = MTCNN(device=device)
    rows = []
    for window, pictures in zip(windows, read_pictures(path, used), strict=True):
        found = [crop_face(picture, mtcnn, config) for picture in pictures]
        inputs = face_inputs([face for face in found if face is not None], config)
        inputs |= speech_inputs(waveform, window, config)
        rows.append([window.start, window.end, *predict(model, inputs, device)])
    names = [f"{CLASS_PREFIX}{name}" for name in checkpoint.class_names]
    return pd.DataFrame(rows, columns=["start", "end", *names])


def count_pictures(path: Path) -> tuple[int, float]:
    """Pictures in a video, counted by decoding them all, and how many are shown per second.

    Raises:
        ValueError: OpenCV finds no picture in it.
    """
    capture = cv2.VideoCapture(str(path))
    rate, count = capture.get(cv2.CAP_PROP_FPS), 0
    while capture.grab():
        count += 1
    capture.release()
    if not count or rate <= 0:
        raise ValueError(f"OpenCV finds no picture in {path}; give a video file")
    return count, rate


def used_pictures(window: Window, count: int, rate: float, most: int) -> range:
    """Numbers of the last `most` pictures of a window, at a constant rate from time 0."""
    first, end = (
        min(count, math.ceil((time - TIME_TOLERANCE) * rate)) for time in (window.start, window.end)
    )
    return range(max(first, end - most), end)


def read_pictures(path: Path, used: list[range]) -> Iterator[list[np.ndarray]]:
    """For each ascending range of numbers its pictures, (H, W, 3) uint8 RGB."""
    capture = cv2.VideoCapture(str(path))
    position = 0
    for numbers in used:
        while position < numbers.start:
            capture.grab()
            position += 1
        read = [capture.read() for _ in numbers]
        position += len(numbers)
        yield [cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) for held, picture in read if held]
    capture.release()


def read_waveform(path: Path, sample_rate: int) -> np.ndarray:
    """(N,) float32 mono in [-1, 1] of a whole file; empty where there is no sound."""
    pieces = [np.zeros(0, dtype=np.int16)]
    with av.open(str(path)) as container:
        if container.streams.audio:
            resampler = av.AudioResampler(format="s16", layout="mono", rate=sample_rate)
            frames = [*container.decode(audio=0), None]  # None drains the resampler
            pieces += [out.to_ndarray()[0] for frame in frames for out in resampler.resample(frame)]
    return np.concatenate(pieces).astype(np.float32) / 32768.0


def crop_face(picture: np.ndarray, mtcnn: MTCNN, config: ClipConfig) -> np.ndarray | None:
    """(S, S, 3) uint8 of the largest face in an RGB picture; None where there is none."""
    height, width = picture.shape[:2]
    try:
        boxes, _ = mtcnn.detect(picture)
    except (RuntimeError, ValueError) as error:
        if "non-empty list" not in str(error):
            raise
        return None  # facenet-pytorch's way to say that no candidate is left
    if boxes is None:
        return None
    relative = boxes[0].astype(np.float32) / (width, height, width, height)
    square = face_square(relative.clip(0, 1), config.face_margin, width, height)
    left, top = max(0, square.left), max(0, square.top)
    face = picture[top : square.top + square.side, left : square.left + square.side]
    return cv2.resize(face, (config.face_size,) * 2, interpolation=cv2.INTER_AREA)


def face_inputs(faces: list[np.ndarray], config: ClipConfig) -> dict[str, Tensor]:
    """`face` (1, T, 3, H, W) and `face_mask` (1, T) of (H, W, 3) uint8 RGB faces."""
    side = config.face_size
    batch = torch.zeros(1, config.pictures, 3, side, side)
    mask = torch.zeros(1, config.pictures, dtype=torch.bool)
    for slot, face in enumerate(faces):
        if config.colour == "bgr":
            face = cv2.cvtColor(face, cv2.COLOR_RGB2BGR)
        elif config.colour == "grey":
            face = cv2.cvtColor(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        scaled = (face / 255.0 - np.array(config.face_mean)) / np.array(config.face_std)
        batch[0, slot] = torch.from_numpy(scaled).permute(2, 0, 1)
        mask[0, slot] = True
    return {"face": batch, "face_mask": mask}


def speech_inputs(waveform: np.ndarray, window: Window, config: ClipConfig) -> dict[str, Tensor]:
    """`speech` (1, n_mels, L) and `speech_mask` (1, L) of one window of the whole sound."""
    start, end = (round(time * config.sample_rate) for time in (window.start, window.end))
    heard = is_heard(waveform[start:end], config)
    speech = np.zeros((config.n_mels, config.speech_frames), dtype=np.float32)
    existing = math.ceil((end - start) / config.hop_length) if heard else 0
    mask = torch.arange(config.speech_frames) < existing
    if heard:
        before = max(0, config.speech_context - start)
        stretch = waveform[max(0, start - config.speech_context) : end + config.speech_context]
        after = config.window_samples + 2 * config.speech_context - before - len(stretch)
        speech = log_mel(np.pad(stretch, (before, after)), existing, config)
    return {"speech": torch.from_numpy(speech)[None], "speech_mask": mask[None]}


def log_mel(waveform: np.ndarray, existing: int, config: ClipConfig) -> np.ndarray:
    """(n_mels, L) float32: librosa's spectrogram, scaled as the checkpoint was trained on it.

    Frames after the first `existing` are padding: they do not count and are zero.
    """
    power = librosa.feature.melspectrogram(
        y=waveform,
        sr=config.sample_rate,
        n_fft=config.n_fft,
        win_length=config.win_length,
        hop_length=config.hop_length,
        n_mels=config.n_mels,
        fmin=config.f_min,
        fmax=config.f_max,
        center=False,
        htk=True,
        norm=None,
    )
    levels = np.log(power.sum(axis=0) + 1e-10)[:existing]
    relative = np.maximum(
        np.log(power + 1e-10) - np.percentile(levels, SPEECH_LEVEL_PERCENTILE), -LOG_MEL_RANGE
    )
    scaled = ((relative + LOG_MEL_RANGE / 2) / (LOG_MEL_RANGE / 4)).astype(np.float32)
    scaled[:, existing:] = 0.0
    return scaled


def is_heard(waveform: np.ndarray, config: ClipConfig) -> bool:
    """Whether the loudest 25 ms are above the level of silence."""
    frame = config.sample_rate // 40
    frames = waveform[: len(waveform) // frame * frame].reshape(-1, frame)
    loudest = np.sqrt((frames**2).mean(axis=1)).max(initial=0.0)
    return bool(loudest > 10 ** (config.silence_dbfs / 20))


@torch.inference_mode()
def predict(model: EmotionModel, inputs: dict[str, Tensor], device: torch.device) -> list[float]:
    """(C,) probabilities of one window; NaN where the model has nothing to go by."""
    taken = {
        name: value.to(device)
        for name, value in inputs.items()
        if name.removesuffix("_mask") in model.inputs
    }
    probabilities = model(**taken)["logits"].float().softmax(dim=-1)[0]
    present = any(bool(value.any()) for name, value in taken.items() if name.endswith("_mask"))
    return probabilities.tolist() if present else [math.nan] * len(probabilities)


if __name__ == "__main__":
    sys.exit(main())
