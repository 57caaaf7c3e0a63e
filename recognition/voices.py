"""How the speaker of a recording sounds whatever is expressed, learned as the recording goes on.

People's voices differ more at rest than one voice does from emotion to emotion. Once a speaker's
own mean is taken from what a network hears, emotions of strangers are recognised better: measured
on five corpora in five languages, each left out of training in turn, see docs/training.md. As for
faces (`media/adaptation.py`), whoever shows one emotion throughout has it taken for their rest.

A recording is heard as one voice: nothing here tells speakers apart.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

import torch
from torch import Tensor

from media.adaptation import VOICE_SECONDS, Prior, Reference
from media.clip import Clip
from models import EmotionModel

VOICE = "voice"


class KnownVoice:
    """The mean of what `voice_part.pooled` gave of one recording, or of one speaker's so far.

    Args:
        part: a model's `voice_part`.
        speakers: what is known of speakers over several recordings, by `VOICE` and name; what this
            recording teaches of its own is added.
        speaker: whose voice it is, None where nobody says.
    """

    def __init__(
        self,
        part: EmotionModel,
        speakers: MutableMapping[tuple[str, str], Reference],
        speaker: str | None = None,
    ) -> None:
        self._part = part
        self._mean = part.mean_voice().cpu().numpy()
        reference = Reference(Prior(self._mean, VOICE_SECONDS))
        if speaker is not None:
            reference = speakers.setdefault((VOICE, speaker), reference)
        self._reference = reference

    def offsets(
        self, clips: Sequence[Clip], speech: Tensor, mask: Tensor, hop_seconds: float
    ) -> tuple[Tensor, list[bool]]:
        """By how much the voice differs from that of training, by what was heard before each clip.

        Args:
            clips: in the order of their times.
            speech, mask: what the model takes of them, (B, ...) each.
            hop_seconds: from clip to clip; those that overlap share seconds.

        Returns:
            `voice_offset` (B, D), zero before enough is known, and of each clip whether it was.
        """
        features = self._part.pooled(speech, mask)
        offsets, known = torch.zeros_like(features), []
        for index, (clip, heard) in enumerate(zip(clips, features.cpu().numpy(), strict=True)):
            known.append(self._reference.is_adapted)
            offsets[index] = torch.from_numpy(self._reference.face - self._mean)
            if clip.has_speech and bool(mask[index].any()):
                fraction = 1.0 if clip.speech_fraction is None else clip.speech_fraction
                self._reference.add(heard, fraction * hop_seconds)
        return offsets, known
