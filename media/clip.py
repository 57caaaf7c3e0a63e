"""Windows of a recording, and what one holds before any feature is computed.

A sample is made in three steps, the same in training, validation, inference and tests:
`read_recording` (media/reading.py) -> `Recording.cut` (media/recording.py) -> `preprocess`
(media/preprocess.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from media.configuration import TIME_TOLERANCE
from media.voice_track import VoiceTrack


@dataclass(frozen=True)
class Window:
    """The interval [start, end) of a recording, in seconds. `partial` marks a short tail."""

    start: float
    end: float
    partial: bool = False


def tile_windows(duration: float, window_seconds: float, hop_seconds: float) -> list[Window]:
    """Windows that cover [0, duration) without gap; the last may be short and is then marked.

    Raises:
        ValueError: the hop is not positive, or is longer than the window and so would leave gaps.
    """
    check_hop(window_seconds, hop_seconds)
    windows: list[Window] = []
    index = 0
    while not windows or windows[-1].end < duration - TIME_TOLERANCE:
        window = window_at(index, window_seconds, hop_seconds)
        if window.end > duration + TIME_TOLERANCE:
            window = Window(window.start, duration, partial=True)
        windows.append(window)
        index += 1
    return windows


def window_at(index: int, window_seconds: float, hop_seconds: float) -> Window:
    """The full window of that index. Times are rounded to microseconds, so rows read cleanly."""
    start = round(index * hop_seconds, 6)
    return Window(start, round(start + window_seconds, 6))


def check_hop(window_seconds: float, hop_seconds: float) -> None:
    """Raise ValueError where windows at this hop would not cover a recording."""
    if not 0 < hop_seconds <= window_seconds:
        raise ValueError(
            f"hop of {hop_seconds:g} s: must be above 0 and at most the window's "
            f"{window_seconds:g} s, or time would be lost between windows"
        )


@dataclass(frozen=True)
class Clip:
    """What a window holds, before any feature is computed.

    Args:
        window: the interval.
        faces: (T, H, W, 3) uint8 RGB; zeros where `face_mask` is false.
        face_mask: (T,) bool, true where a face was found.
        face_id: identity of the faces, None where there is none.
        face_share: share of the window's pictures that show this face, 0 to 1.
        points: (S, 68, 2) float32 landmarks in pixels, zeros where `points_mask` is false.
        points_mask: (S,) bool.
        blendshapes: (S', 55) float32 scores and head pose; zeros where `blendshapes_mask` is false.
        blendshapes_mask: (S',) bool.
        waveform: (context + N + context,) float32 in [-1, 1], zeros outside the recording; N
            samples of the window, or of `ClipConfig.speech_blocks` blocks (see `media/sound.py`).
        sound_samples: how many of the N are recognised: those in the window, the rest being
            padding after a short one; or those of the window and its context.
        sound_offset: samples of the N before those that are recognised.
        speech_block: index in the recording of the first block; None where the window is its own.
        has_speech: false where the recording has no sound, or less than `LEAST_SOUND_SECONDS` of
            it in the window, is silent or, with voice activity, holds less than `LEAST_SPEECH`
            seconds of speech (in windows below twice that: half of it).
        voice: of the waveform, its times counted from the window's start; None where voice activity
            is off, or not known of the recording.
        speech_fraction: fraction of the window that holds speech, None where `voice` is.
    """

    window: Window
    faces: np.ndarray
    face_mask: np.ndarray
    face_id: int | None
    face_share: float
    points: np.ndarray
    points_mask: np.ndarray
    blendshapes: np.ndarray
    blendshapes_mask: np.ndarray
    waveform: np.ndarray
    sound_samples: int
    has_speech: bool
    sound_offset: int = 0
    speech_block: int | None = None
    voice: VoiceTrack | None = None
    speech_fraction: float | None = None

    def voiced_at(self, times: np.ndarray, threshold: float) -> np.ndarray:
        """(n,) bool: which times, in seconds from the window's start, lie in or close to speech.

        All do where `voice` is None.
        """
        if self.voice is None:
            return np.ones(len(times), dtype=bool)
        return self.voice.voiced_at(times, threshold)


# What a clip has of its sound.
SOUND_FIELDS = (
    "waveform",
    "sound_samples",
    "has_speech",
    "sound_offset",
    "speech_block",
    "voice",
    "speech_fraction",
)
