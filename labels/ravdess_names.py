"""RAVDESS's file names: seven numbers that tell what a recording shows, read here alone.

Source: Livingstone and Russo, PLoS ONE 2018. `01-01-03-01-02-01-05` is modality (01 audio-video, 02
video, 03 audio), channel (01 speech, 02 song), emotion, intensity (01 normal, 02 strong),
statement, repetition, actor (odd numbers are male).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from labels.emotions import RAVDESS

_NAME = re.compile(r"0[123]-0[12]-0[1-8]-0[12]-0[12]-0[12]-\d\d")


@dataclass(frozen=True)
class RavdessName:
    """What a file name tells.

    Args:
        modality: `01` audio-video, `02` video, `03` audio.
        performance: the six other numbers, joined by `-`: the same for every recording of one
            performance.
    """

    modality: str
    performance: str
    channel: str
    emotion: str
    intensity: str
    statement: int
    repetition: int
    actor: str

    @property
    def speaker(self) -> str:
        """The name in records and tables."""
        return f"ravdess-{self.actor}"

    @property
    def gender(self) -> str:
        return "male" if int(self.actor) % 2 else "female"


def read_ravdess_name(stem: str) -> RavdessName | None:
    """What a file name without folder and extension tells; None where it is not RAVDESS's."""
    if not _NAME.fullmatch(stem):
        return None
    modality, channel, emotion, intensity, statement, repetition, actor = stem.split("-")
    return RavdessName(
        modality=modality,
        performance=stem[len("01-") :],
        channel="speech" if channel == "01" else "song",
        emotion=RAVDESS[int(emotion) - 1],
        intensity="normal" if intensity == "01" else "strong",
        statement=int(statement),
        repetition=int(repetition),
        actor=actor,
    )
