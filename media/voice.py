"""Where sound holds a voice: the network of Silero VAD (16 kHz), run over long stretches at once.

The weights are those that the package `silero-vad` 6.2.3 ships (Silero Team, MIT licence; origin
and checksum in media/weights/README.md). The published network takes 512 samples per call; this one
takes many such frames, its convolutions all at once and its LSTM in order, with equal results.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import torch
from safetensors.torch import load as read_tensors
from torch import Tensor, nn
from torch.nn import functional

from media.voice_track import FRAME, RATE, VoiceTrack

WEIGHTS = Path(__file__).parent / "weights" / "silero_vad_16k.safetensors"
SHA256 = "c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1"
CONTEXT = 64  # samples of the frame before that a frame begins with
N_FFT, HOP = 256, 128  # of the short-time spectrum within a frame
WIDTH = 128  # of the LSTM
# Frames that the network takes at once (about 2 seconds). Always as many, counted from the start of
# the sound, so that rounding, and with it the result, does not depend on how the sound arrives.
PIECE = 64

State = tuple[Tensor, Tensor]


class VoiceNetwork(nn.Module):
    """Silero VAD: spectrum, four convolutions, an LSTM over frames, a probability per frame."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, N_FFT + 2, N_FFT, stride=HOP, bias=False)
        self.conv1 = nn.Conv1d(N_FFT // 2 + 1, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, WIDTH, 3, padding=1)
        self.lstm = nn.LSTM(WIDTH, WIDTH)
        self.final_conv = nn.Conv1d(WIDTH, 1, 1)

    def forward(self, frames: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Probabilities of speech, and the state for the frames that follow.

        Args:
            frames: (V, CONTEXT + FRAME) float32 in [-1, 1], consecutive.
            state: what the frames before left; None at the start.

        Returns:
            (V,) probabilities; two (1, 1, WIDTH) tensors.
        """
        x = functional.pad(frames, (0, N_FFT // 4), mode="reflect").unsqueeze(1)
        real, imaginary = self.stft_conv(x).chunk(2, dim=1)  # (V, 129, 4) each
        x = (real.square() + imaginary.square()).sqrt()
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = convolution(x).relu()  # (V, WIDTH, 1) at last
        x, state = self.lstm(x.transpose(1, 2).transpose(0, 1)[0].unsqueeze(1), state)
        x = self.final_conv(x.relu().transpose(1, 2)).sigmoid()  # (V, 1, 1)
        return x.flatten(), state


@lru_cache(maxsize=1)
def load_network(path: Path = WEIGHTS) -> VoiceNetwork:
    """The trained network.

    Raises:
        ValueError: the file is missing, or is not the one that was published.
    """
    if not path.is_file():
        raise ValueError(f"no weights of the voice detector at {path}: check the project out again")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise ValueError(
            f"{path} has SHA-256 {digest}, not {SHA256}: it is damaged, check the project out again"
        )
    network = VoiceNetwork()
    network.load_state_dict({_name_here(n): value for n, value in read_tensors(content).items()})
    return network.eval().requires_grad_(False)


def _name_here(name: str) -> str:
    """A cell that runs over a whole sequence is a layer, whose tensors end in `_l0`."""
    return f"{name.replace('lstm_cell', 'lstm')}_l0" if name.startswith("lstm_cell.") else name


class VoiceDetector:
    """Probabilities of speech for a sound that arrives in parts of any length.

    They depend on nothing that comes later than their piece of about 2 seconds.

    Args:
        sample_rate: of the sound, in Hz; at other rates than 16000 it is resampled for the network.
    """

    def __init__(self, sample_rate: int) -> None:
        self._network = load_network()
        self._resampler: av.AudioResampler | None = None
        if sample_rate != RATE:
            self._resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        self._sample_rate = sample_rate
        self._state: State | None = None
        self._waiting = np.zeros(CONTEXT, dtype=np.int16)  # the context, and what comes after it
        self._given = 0  # frames

    @property
    def end(self) -> float:
        """Seconds of sound whose probabilities were given out."""
        return self._given * FRAME / RATE

    def add(self, samples: np.ndarray) -> np.ndarray:
        """Take (N,) int16 in. Returns (V,) float16 of the frames that follow on those before."""
        heard = samples if self._resampler is None else self._resample(samples)
        self._waiting = np.concatenate([self._waiting, heard])
        found = [np.zeros(0, dtype=np.float16)]
        while len(self._waiting) >= CONTEXT + PIECE * FRAME:
            found.append(self._run(PIECE))
        return np.concatenate(found)

    def finish(self) -> np.ndarray:
        """(V,) float16 of what is held back; the last frame is filled up with silence."""
        if self._resampler is not None:
            rest = self._collect(self._resampler.resample(None))
            self._waiting = np.concatenate([self._waiting, rest])
        held = len(self._waiting) - CONTEXT
        frames = -(-held // FRAME)
        if not frames:
            return np.zeros(0, dtype=np.float16)
        self._waiting = np.pad(self._waiting, (0, frames * FRAME - held))
        return self._run(frames)

    @torch.inference_mode()
    def _run(self, count: int) -> np.ndarray:
        """The network over so many of the frames that wait."""
        taken = self._waiting[: CONTEXT + count * FRAME].astype(np.float32) / 32768.0
        frames = torch.from_numpy(taken).unfold(0, CONTEXT + FRAME, FRAME)
        found, self._state = self._network(frames, self._state)
        self._waiting = self._waiting[count * FRAME :]
        self._given += count
        return found.numpy().astype(np.float16)

    def _resample(self, samples: np.ndarray) -> np.ndarray:
        if not len(samples):
            return samples
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples)[None], format="s16", layout="mono"
        )
        frame.sample_rate = self._sample_rate
        assert self._resampler is not None
        return self._collect(self._resampler.resample(frame))

    @staticmethod
    def _collect(frames: Iterable[av.AudioFrame | None]) -> np.ndarray:
        parts = [frame.to_ndarray().reshape(-1) for frame in frames if frame is not None]
        return np.concatenate([np.zeros(0, dtype=np.int16), *parts])


def find_voice(waveform: np.ndarray, sample_rate: int) -> VoiceTrack:
    """Where a whole (N,) int16 sound holds speech."""
    detector = VoiceDetector(sample_rate)
    return VoiceTrack(np.concatenate([detector.add(waveform), detector.finish()]))
