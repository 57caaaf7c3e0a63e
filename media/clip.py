"""From a decoded recording to clips: windows, what they hold, and the constants that rule them.

The one road for a sample: `read_recording` (media/recording.py) -> `Recording.cut` -> `preprocess`
(media/preprocess.py). Training, validation, inference and tests all walk it, so every constant on
it is in `ClipConfig`, which travels with each store of prepared clips and with each checkpoint.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from media.blendshapes import MeshTrack, empty_meshes
from media.landmarks import LandmarkTrack, empty_track, sample_track
from media.picking import even_slots, last_at_rate
from media.sound import cut_sound
from media.voice_track import LEAST_SPEECH, SPREAD, VoiceTrack
from system.errors import OptionError

MODALITIES = ("face", "landmarks", "blendshapes", "speech")
PictureChoice = Literal["last", "even"]
Colour = Literal["rgb", "bgr", "grey"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SHOWN_SECONDS = 5.0  # for which a picture counts as shown until the next one replaces it
WHISPER_RATE = 16000  # Hz
TIME_TOLERANCE = 1e-6  # seconds: a picture this little before a boundary belongs to what follows


@dataclass(frozen=True)
class ClipConfig:
    """Every constant between a media file and a model's inputs.

    Args:
        window_seconds: length of a window.
        pictures: face pictures per window (T).
        picture_choice: `last` takes the last T face pictures of a window, `even` the T that lie
            nearest to the middles of T equal parts of it.
        picture_rate: pictures a second that `last` takes at most, so that as many span as much time
            in a faster recording; others between them are passed over.
        face_size: side of the square face picture, in pixels.
        face_margin: what is added to the longer side of the detected box, as a share of it, before
            the square around the box's centre is cut.
        colour: order of the colour planes given to the model; `grey` repeats the luma three times.
        face_mean, face_std: normalisation of pictures in [0, 1], in the order of `colour`.
        detector: `mtcnn`, `yunet`, or `whole` for pictures that are cropped faces already.
        detector_side: longer side of the reduced picture that the detector sees, in pixels.
        detector_stride: the detector looks at every k-th picture.
        landmark_rate: steps per second of the 68 points.
        mesh_rate: face meshes per second that are read, and steps per second of blendshapes.
        sample_rate: of the mono sound, in Hz.
        speech_feature: `log_mel`, `mfcc` as librosa's defaults give it, or `whisper_mel` as
            Whisper's encoder takes it.
        n_fft, win_length, hop_length: of the short-time spectrum, in samples.
        n_mels: mel bands (log_mel), or coefficients (mfcc).
        f_min, f_max: edges of the mel bands, in Hz.
        silence_dbfs: a window whose loudest 25 ms lie below this level holds no sound.
        speech_context_seconds: what a window's speech is heard with, before and after it; for
            `whisper_mel`. 0: the window alone.
        speech_block_seconds: with context, the recording is tiled by blocks of this length, each
            normalised and encoded by itself.
        voice_activity: probability, as the voice detector gives it, from which 32 ms of sound count
            as speech; sound in which there is none (music, noise) is then no speech. 0 for off: all
            sound above `silence_dbfs` counts.
    """

    window_seconds: float = 1.0
    pictures: int = 15
    picture_choice: PictureChoice = "last"
    picture_rate: float = 30.0
    face_size: int = 96
    face_margin: float = 0.0
    colour: Colour = "rgb"
    face_mean: tuple[float, ...] = IMAGENET_MEAN
    face_std: tuple[float, ...] = IMAGENET_STD
    detector: Literal["mtcnn", "yunet", "whole"] = "mtcnn"
    detector_side: int = 320
    detector_stride: int = 5
    landmark_rate: float = 30.0
    mesh_rate: float = 10.0
    sample_rate: int = 16000
    speech_feature: Literal["log_mel", "mfcc", "whisper_mel"] = "log_mel"
    n_fft: int = 512
    win_length: int = 400
    hop_length: int = 160
    n_mels: int = 64
    f_min: float = 50.0
    f_max: float = 8000.0
    silence_dbfs: float = -60.0
    speech_context_seconds: float = 0.0
    speech_block_seconds: float = 5.0
    voice_activity: float = 0.0

    def __post_init__(self) -> None:
        for name in ("face_mean", "face_std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        positive = (
            "window_seconds",
            "pictures",
            "picture_rate",
            "detector_side",
            "detector_stride",
            "mesh_rate",
        )
        for name in positive:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.face_size <= 0 or self.face_size % 16:
            raise ValueError(f"face_size must be a multiple of 16, not {self.face_size}")
        self._check_context()

    def _check_context(self) -> None:
        if self.speech_context_seconds < 0:
            raise ValueError(
                f"speech_context_seconds must be 0 or more, not {self.speech_context_seconds:g}"
            )
        if self.speech_context_seconds and self.speech_feature != "whisper_mel":
            raise ValueError(
                f"speech_context_seconds is for models of whisper_mel, and speech_feature is "
                f"{self.speech_feature}: leave it at 0"
            )
        if self.speech_feature == "whisper_mel" and self.sample_rate != WHISPER_RATE:
            raise OptionError(
                f"whisper_mel is of sound at {WHISPER_RATE} Hz, and sample_rate is "
                f"{self.sample_rate}: prepare the corpus at {WHISPER_RATE} Hz",
                "sample_rate",
            )
        block = self.speech_block_seconds * self.sample_rate
        if block <= 0 or (self.speech_context_seconds and block % (2 * self.hop_length)):
            raise ValueError(
                f"speech_block_seconds must be a multiple of "
                f"{2 * self.hop_length / self.sample_rate:g}, not {self.speech_block_seconds:g}"
            )
        if not 0 <= self.voice_activity < 1:
            raise ValueError(
                f"voice_activity is a probability below 1, or 0 for off, not {self.voice_activity}"
            )

    @property
    def window_samples(self) -> int:
        return round(self.window_seconds * self.sample_rate)

    @property
    def speech_context(self) -> int:
        """Samples on each side of a window that its outer frames look at."""
        if self.speech_feature == "whisper_mel":
            return self.n_fft // 2
        return (self.n_fft - self.hop_length) // 2 if self.speech_feature == "log_mel" else 0

    @property
    def block_samples(self) -> int:
        """Samples that are encoded in one piece: of a block, or of the window without context."""
        if self.speech_context_seconds:
            return round(self.speech_block_seconds * self.sample_rate)
        return self.window_samples

    @property
    def speech_blocks(self) -> int:
        """Blocks that a window with its context can touch (K), 1 where it is its own block."""
        if not self.speech_context_seconds:
            return 1
        seconds = self.window_seconds + 2 * self.speech_context_seconds
        return 1 + math.ceil(seconds / self.speech_block_seconds - TIME_TOLERANCE)

    @property
    def speech_frames(self) -> int:
        """Spectrogram frames in a window, or in a block where there are blocks (L)."""
        if self.speech_feature == "mfcc":
            return 1 + self.window_samples // self.hop_length
        return self.block_samples // self.hop_length

    @property
    def landmark_steps(self) -> int:
        """Steps of landmarks in a window (S)."""
        return max(1, round(self.window_seconds * self.landmark_rate))

    @property
    def mesh_steps(self) -> int:
        """Steps of blendshapes in a window (S)."""
        return max(1, round(self.window_seconds * self.mesh_rate))

    def over(self, seconds: float) -> ClipConfig:
        """The same for windows of another length, with as many pictures a second."""
        pictures = max(1, round(self.pictures * seconds / self.window_seconds))
        return replace(self, window_seconds=seconds, pictures=pictures)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> ClipConfig:
        """Rebuild a configuration that `to_dict` (perhaps by way of JSON) gave.

        Raises:
            ValueError: a name that this version does not know, or a value out of range.
        """
        known = {field.name for field in fields(ClipConfig)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"unknown ClipConfig entries {', '.join(unknown)}: made by a newer version?"
            )
        return ClipConfig(**values)

    def differences(self, other: ClipConfig, names: tuple[str, ...] = ()) -> list[str]:
        """One line for each entry (of `names`, or of all) in which two configurations differ."""
        return [
            f"{name} is {getattr(self, name)} here and {getattr(other, name)} there"
            for name in (names or tuple(field.name for field in fields(self)))
            if getattr(self, name) != getattr(other, name)
        ]


# What a store of prepared clips has baked in, and what each modality's encoder was trained on.
STORED = (
    *("face_size", "face_margin", "detector", "detector_side", "detector_stride"),
    *("mesh_rate", "sample_rate"),
)
FACE = ("face_size", "face_margin", "colour", "face_mean", "face_std")
LANDMARKS = ("landmark_rate",)
BLENDSHAPES = ("mesh_rate",)
SPEECH = (
    "sample_rate",
    "speech_feature",
    "n_fft",
    "win_length",
    "hop_length",
    "n_mels",
    "f_min",
    "f_max",
    "speech_context_seconds",
    "speech_block_seconds",
    "voice_activity",
)

ENTRIES = {"face": FACE, "landmarks": LANDMARKS, "blendshapes": BLENDSHAPES, "speech": SPEECH}

# Preprocessing of the checkpoints published with Chumachenko et al., ICPR 2022: 15 pictures spread
# over 3.6 s, 224 px, blue first, divided by 255; ten MFCCs of sound at 22050 Hz.
LEGACY = ClipConfig(
    window_seconds=3.6,
    picture_choice="even",
    face_size=224,
    face_margin=0.0,
    colour="bgr",
    face_mean=(0.0, 0.0, 0.0),
    face_std=(1.0, 1.0, 1.0),
    sample_rate=22050,
    speech_feature="mfcc",
    n_fft=2048,
    win_length=2048,
    hop_length=512,
    n_mels=10,
    f_min=0.0,
    f_max=11025.0,
)


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
