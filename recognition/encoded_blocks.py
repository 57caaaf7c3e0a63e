"""Each block of a recording's sound encoded once, however many windows are heard from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from media.clip import Clip, ClipConfig
from media.preprocess import first_block, preprocess_block, recognised_frames, used_blocks
from models import WhisperSpeech


class EncodedBlocks:
    """Encoded blocks of one recording, of which the passed ones are dropped.

    Args:
        encoder: that encodes them, in evaluation mode.
        config: with `speech_context_seconds`; without it a window is its own block.
        device: where the encoder is.
    """

    def __init__(self, encoder: WhisperSpeech, config: ClipConfig, device: torch.device) -> None:
        self._encoder, self._config, self._device = encoder, config, device
        self._encoded: dict[int, Tensor] = {}  # (steps, encoded_width) by the block's place

    def inputs(self, clips: Sequence[Clip]) -> dict[str, Tensor]:
        """What the encoder's model takes for clips in the order of their times.

        Returns:
            `speech` (B, K, steps, encoded_width), `speech_mask` (B, K * L / 2) bool.
        """
        config = self._config
        masks = [recognised_frames(clip, config) for clip in clips]
        firsts = [first_block(clip) for clip in clips]
        places = [
            [(block, first + block) for block in used_blocks(mask, config)]
            for first, mask in zip(firsts, masks, strict=True)
        ]
        self._encode(clips, places)
        steps = self._encoder.steps(config.speech_frames)
        shape = (len(clips), config.speech_blocks, steps, self._encoder.encoded_width)
        speech = torch.zeros(shape, device=self._device)
        for row, found in enumerate(places):
            for block, index in found:
                speech[row, block] = self._encoded[index]
        self._encoded = {i: value for i, value in self._encoded.items() if i >= firsts[-1]}
        return {"speech": speech, "speech_mask": torch.stack(masks).to(self._device)}

    def _encode(self, clips: Sequence[Clip], places: list[list[tuple[int, int]]]) -> None:
        """Encode what is not yet encoded, all at once."""
        new = {
            index: preprocess_block(clip, block, self._config)
            for clip, found in zip(clips, places, strict=True)
            for block, index in found
            if index not in self._encoded
        }
        if new:
            encoded = self._encoder.encode_blocks(torch.stack([*new.values()]).to(self._device))
            self._encoded |= dict(zip(new, encoded, strict=True))
