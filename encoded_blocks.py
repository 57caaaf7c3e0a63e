"""Each block of a recording's sound encoded once, however many windows are heard from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from media.clip import Clip, ClipConfig
from media.preprocess import preprocess_block, recognised_frames, used_blocks
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
        firsts = [_first_block(clip) for clip in clips]
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


def _first_block(clip: Clip) -> int:
    assert clip.speech_block is not None, "cut without context: a window is its own block"
    return clip.speech_block


class KeptBlocks:
    """Encoded blocks of many prepared recordings, kept in memory in 16 bits.

    While an encoder does not change, what it makes of a recording's sound does not either: so the
    epochs of a training after the first, and windows that share blocks, cost no encoding.

    Args:
        encoder: that encodes them; frozen, or not trained any more.
        device: where the encoder is.
    """

    def __init__(self, encoder: WhisperSpeech, device: torch.device) -> None:
        self._encoder, self._device = encoder, device
        self._encoded: dict[tuple[str, int], Tensor] = {}

    def inputs(self, key: str, clip: Clip, config: ClipConfig) -> dict[str, Tensor]:
        """What the encoder's model takes for a clip of the recording called `key`.

        Args:
            config: with `speech_context_seconds`.

        Returns:
            `speech` (K, steps, encoded_width) float32, `speech_mask` (K * L / 2,) bool.
        """
        mask = recognised_frames(clip, config)
        steps = self._encoder.steps(config.speech_frames)
        speech = torch.zeros(config.speech_blocks, steps, self._encoder.encoded_width)
        for block in used_blocks(mask, config):
            speech[block] = self._encode(key, clip, block, config).float()
        return {"speech": speech, "speech_mask": mask}

    @torch.inference_mode()
    def _encode(self, key: str, clip: Clip, block: int, config: ClipConfig) -> Tensor:
        place = (key, _first_block(clip) + block)
        if place not in self._encoded:
            sound = preprocess_block(clip, block, config)[None].to(self._device)
            training = self._encoder.training
            self._encoder.eval()
            self._encoded[place] = self._encoder.encode_blocks(sound)[0].half().cpu()
            self._encoder.train(training)
        return self._encoded[place]
