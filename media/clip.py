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

from media.landmarks import LandmarkTrack, empty_track, sample_track

MODALITIES = ("face", "landmarks", "speech")
PictureChoice = Literal["last", "even"]
Colour = Literal["rgb", "bgr", "grey"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SHOWN_SECONDS = 5.0  # for which a picture counts as shown until the next one replaces it
LEAST_SOUND_SECONDS = 0.1  # a window with less sound holds no speech
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
        sample_rate: of the mono sound, in Hz.
        speech_feature: `log_mel`, or `mfcc` as librosa's defaults give it.
        n_fft, win_length, hop_length: of the short-time spectrum, in samples.
        n_mels: mel bands (log_mel), or coefficients (mfcc).
        f_min, f_max: edges of the mel bands, in Hz.
        silence_dbfs: a window whose loudest 25 ms lie below this level holds no sound.
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
    sample_rate: int = 16000
    speech_feature: Literal["log_mel", "mfcc"] = "log_mel"
    n_fft: int = 512
    win_length: int = 400
    hop_length: int = 160
    n_mels: int = 64
    f_min: float = 50.0
    f_max: float = 8000.0
    silence_dbfs: float = -60.0

    def __post_init__(self) -> None:
        for name in ("face_mean", "face_std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        positive = (
            "window_seconds",
            "pictures",
            "picture_rate",
            "detector_side",
            "detector_stride",
        )
        for name in positive:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        if self.face_size <= 0 or self.face_size % 16:
            raise ValueError(f"face_size must be a multiple of 16, not {self.face_size}")

    @property
    def window_samples(self) -> int:
        return round(self.window_seconds * self.sample_rate)

    @property
    def speech_context(self) -> int:
        """Samples on each side of a window that its outer frames look at."""
        return (self.n_fft - self.hop_length) // 2 if self.speech_feature == "log_mel" else 0

    @property
    def speech_frames(self) -> int:
        """Spectrogram frames in a window (L)."""
        if self.speech_feature == "mfcc":
            return 1 + self.window_samples // self.hop_length
        return self.window_samples // self.hop_length

    @property
    def landmark_steps(self) -> int:
        """Steps of landmarks in a window (S)."""
        return max(1, round(self.window_seconds * self.landmark_rate))

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
STORED = ("face_size", "face_margin", "detector", "detector_side", "detector_stride", "sample_rate")
FACE = ("face_size", "face_margin", "colour", "face_mean", "face_std")
LANDMARKS = ("landmark_rate",)
SPEECH = (
    "sample_rate",
    "speech_feature",
    "n_fft",
    "win_length",
    "hop_length",
    "n_mels",
    "f_min",
    "f_max",
)

# What each modality's encoder depends on.
ENTRIES = {"face": FACE, "landmarks": LANDMARKS, "speech": SPEECH}

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
        waveform: (context + N + context,) float32 in [-1, 1], zeros outside the recording.
        sound_samples: how many of the N lie in the window; the rest is padding after a short one.
        has_speech: false where the recording has no sound, or less than `LEAST_SOUND_SECONDS` of
            it in the window, or is silent.
    """

    window: Window
    faces: np.ndarray
    face_mask: np.ndarray
    face_id: int | None
    face_share: float
    points: np.ndarray
    points_mask: np.ndarray
    waveform: np.ndarray
    sound_samples: int
    has_speech: bool


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
        sound_start: index, counted from time 0, of the first sample in `waveform`.
    """

    path: Path
    duration: float
    waveform: np.ndarray
    faces: np.ndarray
    face_times: np.ndarray
    face_ids: np.ndarray
    picture_times: np.ndarray
    landmarks: LandmarkTrack = field(default_factory=empty_track)
    sound_start: int = 0

    def cut(self, window: Window, config: ClipConfig) -> Clip:
        """What lies in the window: sound and pictures by the same presentation times."""
        inside, shown = self._shown(window)
        face_id = _followed_identity(self.face_ids[inside])
        chosen = np.flatnonzero(inside)[self.face_ids[inside] == face_id] if inside.any() else []
        faces, mask = self._pick_faces(np.asarray(chosen, dtype=int), window, config)
        points, points_mask = self._sample_points(face_id, window, config)
        waveform, sound_samples = self._cut_sound(window, config)
        return Clip(
            window=window,
            faces=faces,
            face_mask=mask,
            face_id=face_id,
            face_share=min(1.0, len(chosen) / shown) if shown else 0.0,
            points=points,
            points_mask=points_mask,
            waveform=waveform,
            sound_samples=sound_samples,
            has_speech=sound_samples >= LEAST_SOUND_SECONDS * config.sample_rate
            and _is_audible(waveform, config),
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
            chosen = _last_at_rate(chosen, self.face_times, config)
            slots = np.arange(len(chosen))
        else:
            chosen, slots = _even_slots(chosen, self.face_times, window, config)
        faces[slots], mask[slots] = self.faces[chosen], True
        return faces, mask

    def _sample_points(
        self, face_id: int | None, window: Window, config: ClipConfig
    ) -> tuple[np.ndarray, np.ndarray]:
        """The followed face's points at even steps; those past a short window's end are missing."""
        times = window.start + (np.arange(config.landmark_steps) + 0.5) / config.landmark_rate
        points, known = sample_track(self.landmarks.of(face_id), times)
        known &= times < window.end
        points[~known] = 0.0
        return points, known

    def _cut_sound(self, window: Window, config: ClipConfig) -> tuple[np.ndarray, int]:
        context = config.speech_context
        start = round(window.start * config.sample_rate)
        length = config.window_samples
        held = min(length, round(window.end * config.sample_rate) - start)  # a tail is zero-padded
        out = np.zeros(length + 2 * context, dtype=np.float32)
        first = start - context - self.sound_start
        last = start + held + context - self.sound_start
        low, high = max(first, 0), min(last, len(self.waveform))
        if high > low:
            out[low - first : high - first] = self.waveform[low:high] / np.float32(32768.0)
        return out, held


def _between(times: np.ndarray, window: Window) -> np.ndarray:
    return (times >= window.start - TIME_TOLERANCE) & (times < window.end - TIME_TOLERANCE)


def _followed_identity(ids: np.ndarray) -> int | None:
    """The most frequent identity; the later one where two are as frequent."""
    if not len(ids):
        return None
    values, last, counts = np.unique(ids[::-1], return_index=True, return_counts=True)
    return int(values[np.lexsort((last, -counts))[0]])


def _last_at_rate(chosen: np.ndarray, times: np.ndarray, config: ClipConfig) -> np.ndarray:
    """The last T face pictures, none nearer to the next than nine tenths of a step."""
    nearest = 0.9 / config.picture_rate  # so that times that jitter are not passed over
    kept: list[int] = []
    for index in chosen[::-1]:
        if len(kept) == config.pictures:
            break
        if not kept or times[kept[-1]] - times[index] >= nearest:
            kept.append(int(index))
    return np.array(kept[::-1], dtype=int)


def _even_slots(
    chosen: np.ndarray, times: np.ndarray, window: Window, config: ClipConfig
) -> tuple[np.ndarray, np.ndarray]:
    """For each of T equal parts of a full window, the nearest face picture not a part away."""
    part = config.window_seconds / config.pictures
    middles = window.start + (np.arange(config.pictures) + 0.5) * part
    if not len(chosen):
        return chosen, np.zeros(0, dtype=int)
    shown = np.maximum(times[chosen], window.start)  # a picture from before is still there
    distance = np.abs(shown[None, :] - middles[:, None])
    slots = np.flatnonzero(distance.min(axis=1) < part)
    return chosen[distance.argmin(axis=1)[slots]], slots


def _is_audible(waveform: np.ndarray, config: ClipConfig) -> bool:
    frame = max(1, config.sample_rate // 40)
    inner = waveform[config.speech_context : len(waveform) - config.speech_context]
    frames = inner[: len(inner) // frame * frame].reshape(-1, frame)
    if not frames.size:
        return False
    loudest = float(np.sqrt((frames.astype(np.float64) ** 2).mean(axis=1).max()))
    return 20 * math.log10(loudest + 1e-12) > config.silence_dbfs
