"""Encoded blocks of prepared recordings, kept beside their store."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from media.clip import ENTRIES, Clip, ClipConfig
from media.preprocess import first_block, preprocess_block, recognised_frames, used_blocks
from models import WhisperSpeech
from system.files import naming


class KeptBlocks:
    """Encoded blocks of many prepared recordings, kept on disk in 16 bits.

    While an encoder does not change, what it makes of a recording's sound does not either: so
    epochs after the first, windows that share blocks, and later runs with the same encoder cost no
    encoding. Each run appends to a file of its own, and reads those of all; a block is in the index
    only once its data are written, so a killed run leaves at most data that nobody reads.

    Args:
        encoder: that encodes them; frozen, or not trained any more.
        config: with `speech_context_seconds`.
        device: where the encoder is.
        folder: for the files; made where it is missing.
    """

    def __init__(
        self, encoder: WhisperSpeech, config: ClipConfig, device: torch.device, folder: Path
    ) -> None:
        self._encoder, self._device = encoder, device
        self._steps = encoder.steps(config.speech_frames)
        self._shape = (self._steps, encoder.encoded_width)
        self._name = _fingerprint(encoder, config)
        self._folder = folder
        self._held: dict[tuple[str, int], np.ndarray] = {}
        for index in sorted(folder.glob(f"{self._name}-*.jsonl")):
            self._read(index)
        self._data: BinaryIO | None = None
        self._index: BinaryIO | None = None

    def inputs(self, key: str, clip: Clip, config: ClipConfig) -> dict[str, Tensor]:
        """What the encoder's model takes for a clip of the recording called `key`.

        Returns:
            `speech` (K, steps, encoded_width) float32, `speech_mask` (K * L / 2,) bool.
        """
        mask = recognised_frames(clip, config)
        speech = torch.zeros(config.speech_blocks, *self._shape)
        for block in used_blocks(mask, config):
            place = (key, first_block(clip) + block)
            if place not in self._held:
                self._add(place, preprocess_block(clip, block, config))
            speech[block] = torch.from_numpy(self._held[place].astype(np.float32))
        return {"speech": speech, "speech_mask": mask}

    @torch.inference_mode()
    def _add(self, place: tuple[str, int], sound: Tensor) -> None:
        training = self._encoder.training
        self._encoder.eval()
        encoded = self._encoder.encode_blocks(sound[None].to(self._device))[0].half().cpu().numpy()
        self._encoder.train(training)
        self._held[place] = encoded
        data, index = self._open()
        with naming(self._folder):
            data.write(encoded.tobytes())
            data.flush()
            index.write(json.dumps(place).encode() + b"\n")
            index.flush()

    def _open(self) -> tuple[BinaryIO, BinaryIO]:
        """The files of this run."""
        if self._data is None or self._index is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            base = self._folder / f"{self._name}-{uuid.uuid4().hex[:8]}"
            self._data = base.with_suffix(".f16").open("wb")
            self._index = base.with_suffix(".jsonl").open("wb")
        return self._data, self._index

    def _read(self, index: Path) -> None:
        lines = [line for line in index.read_bytes().splitlines(keepends=True) if b"\n" in line]
        if not lines:
            return
        shape = (len(lines), *self._shape)
        data = np.memmap(index.with_suffix(".f16"), dtype=np.float16, mode="r", shape=shape)
        for line, encoded in zip(lines, data, strict=True):
            key, block = json.loads(line)
            self._held[key, block] = encoded


def _fingerprint(encoder: WhisperSpeech, config: ClipConfig) -> str:
    """What the encoded blocks depend on besides the sound: the weights, and how blocks are made."""
    digest = hashlib.sha256()
    for name, value in encoder.encoder.state_dict().items():
        digest.update(name.encode() + (value.detach().cpu() + 0.0).numpy().tobytes())  # no -0.0
    made = {name: getattr(config, name) for name in ENTRIES["speech"]}
    del made["speech_context_seconds"], made["voice_activity"]  # of windows, not of blocks
    digest.update(json.dumps([made, encoder.frames_joined], sort_keys=True).encode())
    return digest.hexdigest()[:16]
