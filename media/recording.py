"""A decoded recording, and what a window of it holds: sound and frames cut by the same times."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from media.blendshapes import MeshTrack, empty_meshes
from media.clip import Clip, Window
from media.configuration import TIME_TOLERANCE, ClipConfig
from media.landmarks import LandmarkTrack, empty_track, sample_track
from media.picking import even_slots, last_at_rate
from media.sound import cut_sound
from media.voice_track import LEAST_SPEECH, SPREAD, VoiceTrack

SHOWN_SECONDS = 5.0  # for which a picture counts as shown until the next one replaces it


@dataclass
class Recording:
    """A decoded stretch of a file: mono sound, and the faces of one followed person.

    Time 0 is where the earliest stream of the file starts. While streaming, a recording is a
    sliding stretch of the file: `sound_start` counts the samples already dropped.

    Args:
        path: where it came from.
        duration: seconds, the end of the later of sound and pictures.
        waveform: (N,) int16 mono at the configured rate; empty where there is no sound.
        faces: (P, H, W, 3) uint8 RGB, one for each picture in which the face was found.
        face_times: (P,) presentation times of those pictures, in seconds, ascending.
        face_ids: (P,) identity of each.
        picture_times: (Q,) presentation times of all pictures, with and without a face.
        landmarks: points of a face over time, empty where none were looked for.
        meshes: blendshapes and head pose of a face over time, likewise.
        sound_start: index, counted from time 0, of the first sample in `waveform`.
        voice: where the sound holds speech, None where that was not looked for.
    """

    path: Path
    duration: float
    waveform: np.ndarray
    faces: np.ndarray
    face_times: np.ndarray
    face_ids: np.ndarray
    picture_times: np.ndarray
    landmarks: LandmarkTrack = field(default_factory=empty_track)
    meshes: MeshTrack = field(default_factory=empty_meshes)
    sound_start: int = 0
    voice: VoiceTrack | None = None

    def cut(self, window: Window, config: ClipConfig) -> Clip:
        """What lies in the window: sound and pictures by the same presentation times."""
        inside, shown = self._shown(window)
        face_id = _followed_identity(self.face_ids[inside])
        chosen = np.flatnonzero(inside)[self.face_ids[inside] == face_id] if inside.any() else []
        faces, mask = self._pick_faces(np.asarray(chosen, dtype=int), window, config)
        points, points_mask = self._sample_points(face_id, window, config)
        blendshapes, blendshapes_mask = self._sample_meshes(face_id, window, config)
        sound = cut_sound(self.waveform, self.sound_start, window, config)
        voice = self._cut_voice(window, config)
        fraction = None if voice is None else _speech_fraction(voice, window, config)
        return Clip(
            window=window,
            faces=faces,
            face_mask=mask,
            face_id=face_id,
            face_share=min(1.0, len(chosen) / shown) if shown else 0.0,
            points=points,
            points_mask=points_mask,
            blendshapes=blendshapes,
            blendshapes_mask=blendshapes_mask,
            waveform=sound.waveform,
            sound_samples=sound.samples,
            has_speech=sound.audible and _is_spoken(fraction, window),
            sound_offset=sound.offset,
            speech_block=sound.block,
            voice=voice,
            speech_fraction=fraction,
        )

    def _shown(self, window: Window) -> tuple[np.ndarray, int]:
        """(P,) which faces are shown in the window, and how many pictures are.

        Where no picture begins in it, that is the one before, as slides and screen recordings have
        them, for `SHOWN_SECONDS` at most.
        """
        pictures = _between(self.picture_times, window)
        earlier = self.picture_times[self.picture_times < window.start]
        if not pictures.any() and len(earlier) and window.start - earlier[-1] < SHOWN_SECONDS:
            return self.face_times == earlier[-1], 1
        return _between(self.face_times, window), int(pictures.sum())

    def _pick_faces(
        self, chosen: np.ndarray, window: Window, config: ClipConfig
    ) -> tuple[np.ndarray, np.ndarray]:
        shape = (config.pictures, config.face_size, config.face_size, 3)
        faces, mask = np.zeros(shape, dtype=np.uint8), np.zeros(config.pictures, dtype=bool)
        if config.picture_choice == "last":
            chosen = last_at_rate(chosen, self.face_times, config)
            slots = np.arange(len(chosen))
        else:
            chosen, slots = even_slots(chosen, self.face_times, window, config)
        faces[slots], mask[slots] = self.faces[chosen], True
        return faces, mask

    def _sample_points(
        self, face_id: int | None, window: Window, config: ClipConfig
    ) -> tuple[np.ndarray, np.ndarray]:
        """The followed face's points at even steps; those past a short window's end are missing."""
        times = window.start + (np.arange(config.landmark_steps) + 0.5) / config.landmark_rate
        return _cut_short(*sample_track(self.landmarks.of(face_id), times), times < window.end)

    def _sample_meshes(
        self, face_id: int | None, window: Window, config: ClipConfig
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same of the followed face's blendshapes and head pose."""
        rate = config.mesh_steps / config.window_seconds  # so that a short window has its middle
        times = window.start + (np.arange(config.mesh_steps) + 0.5) / rate
        return _cut_short(*self.meshes.of(face_id).sample(times), times < window.end)

    def _cut_voice(self, window: Window, config: ClipConfig) -> VoiceTrack | None:
        """What `voiced_at` may ask for at any time of the clip's waveform."""
        if self.voice is None or not config.voice_activity:
            return None
        reach = config.speech_context_seconds + config.speech_context / config.sample_rate
        reach += SPREAD
        return self.voice.between(window.start - reach, window.end + reach).seen_from(window.start)


def _cut_short(
    values: np.ndarray, known: np.ndarray, inside: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Values at steps and where they are known, without those that lie outside."""
    known = known & inside
    values[~known] = 0.0
    return values, known


def _between(times: np.ndarray, window: Window) -> np.ndarray:
    return (times >= window.start - TIME_TOLERANCE) & (times < window.end - TIME_TOLERANCE)


def _followed_identity(ids: np.ndarray) -> int | None:
    """The most frequent identity; the later one where two are as frequent."""
    if not len(ids):
        return None
    values, last, counts = np.unique(ids[::-1], return_index=True, return_counts=True)
    return int(values[np.lexsort((last, -counts))[0]])


def _speech_fraction(voice: VoiceTrack, window: Window, config: ClipConfig) -> float:
    length = window.end - window.start
    return min(1.0, voice.speech_seconds(0.0, length, config.voice_activity) / length)


def _is_spoken(fraction: float | None, window: Window) -> bool:
    """Whether so much of a window holds speech that it counts; where that is not known it does."""
    length = window.end - window.start
    return fraction is None or fraction * length >= min(LEAST_SPEECH, length / 2)
