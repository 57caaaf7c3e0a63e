"""Every constant between a media file and a model's inputs, in one value: `ClipConfig`.

It travels with each store of prepared clips and with each checkpoint, so that training, validation
and inference use the same preprocessing.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from system.errors import OptionError

MODALITIES = ("face", "landmarks", "blendshapes", "speech")
PictureChoice = Literal["last", "even"]
Colour = Literal["rgb", "bgr", "grey"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
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
