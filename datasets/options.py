"""What an experiment takes of which recordings: records, clips, augmentation, balance, folds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import get_args

from datasets.splits import LEAVE_ONE_CORPUS_OUT, PROTOCOLS
from labels.emotions import CLASS_SETS
from media.configuration import Colour, PictureChoice
from system.errors import OptionError
from system.flags import COMBINE, EVALUATE, FIT, INFER, comma_separated, option
from timeline.row import Task

MODALITY_DROPOUTS = ("nodropout", "softhard", "noise")
FOLDED = (*(name for name, p in PROTOCOLS.items() if p.folds), LEAVE_ONE_CORPUS_OUT)


@dataclass(frozen=True)
class AugmentOptions:
    """Strengths; 0 switches a change off.

    A shift in time is not among them: training windows lie anywhere in a record. Neither is gain:
    `log_mel` features do not depend on it.

    Args:
        flip: probability of mirroring the pictures, and apart from them landmarks and blendshapes.
        rotate: largest rotation, degrees.
        scale: largest change of size, as a natural logarithm.
        shift: largest shift, as a share of the side.
        light: largest relative change of brightness and of contrast.
        erase: probability that a rectangle is blanked.
        soften: probability that pictures are shrunk and enlarged again, as in small faces.
        compress: probability that pictures are stored as poor JPEG, as in much video.
        swap: probability that the landmarks' own mean face becomes another speaker's.
        speed: largest relative change of speed (and so pitch) of the sound.
        noise: probability of tilted noise at 5 to 30 dB below the sound.
        tilt: largest spectral tilt (coefficient of a first-order filter).
        talk: probability that blendshapes are moved as by speech.
        mask_mels, mask_frames: widest of two bands and two spans of time that are blanked
            (SpecAugment, Park et al., Interspeech 2019).
    """

    flip: float = 0.5
    rotate: float = 15.0
    scale: float = 0.15
    shift: float = 0.06
    light: float = 0.3
    erase: float = 0.25
    soften: float = 0.2
    compress: float = 0.2
    swap: float = 0.7
    speed: float = 0.1
    noise: float = 0.5
    tilt: float = 0.5
    talk: float = 0.6
    mask_mels: int = 10
    mask_frames: int = 15

    @property
    def changes_sound(self) -> bool:
        names = ("speed", "noise", "tilt", "mask_mels", "mask_frames")
        return any(getattr(self, name) for name in names)

    def only(self, names: Collection[str]) -> AugmentOptions:
        """These changes and no others."""
        off = {entry.name: 0 for entry in fields(self) if entry.name not in names}
        return replace(self, **off)

    def scaled(self, strength: float) -> AugmentOptions:
        """Every change `strength` times as strong or as frequent; a probability at most 1.

        Raises:
            ValueError: below 0 or above 3, where brightness would be inverted.
        """
        if not 0 <= strength <= 3:
            raise ValueError(f"augment_strength must lie in 0 to 3, not {strength:g}")
        scaled: dict[str, float] = {}
        for entry in fields(self):
            value = getattr(self, entry.name) * strength
            scaled[entry.name] = min(1.0, value) if entry.name in _PROBABILITIES else value
        masks = {name: round(scaled[name]) for name in ("mask_mels", "mask_frames")}
        return replace(self, **{**scaled, **masks})  # type: ignore[arg-type]


_PROBABILITIES = {"flip", "erase", "soften", "compress", "swap", "noise", "talk"}
AUGMENTATIONS = tuple(entry.name for entry in fields(AugmentOptions))

# A checkpoint holds its task, its classes and how its clips are cut.
_scored = partial(option, stage=(FIT, COMBINE, EVALUATE))
_of_checkpoint = partial(option, stage=(FIT, COMBINE))
_of_clips = partial(option, stage=(FIT,))
_of_training = partial(option, stage=(FIT,))


@dataclass(frozen=True)
class RecordOptions:
    """Which records, and what is to be recognised in them."""

    annotation_path: list[str] = _scored(
        [], "annotation files: CSV manifests, or 4-field lines", metavar="FILE"
    )
    classes: str = _of_checkpoint(
        "auto",
        f"class names: auto, {', '.join(CLASS_SETS)}, or names in order, separated by commas",
        when=("task", ("classification",)),
        metavar="NAMES",
    )
    dataset: str | None = _scored(None, "take only the records of this corpus")
    task: str = _of_checkpoint(
        "classification",
        "classification: one class each; multilabel: several labels each; regression: values. The "
        "last two are read from columns target_<name>",
        choices=get_args(Task),
        metavar="TASK",
    )
    targets: list[str] | None = _of_checkpoint(
        None,
        "names of the target_<name> columns, separated by commas (default: all)",
        when=("task", ("multilabel", "regression")),
        read=comma_separated,
        metavar="NAMES",
    )
    n_classes: int | None = _of_checkpoint(None, "check: refuse any other number of classes")
    pair_with: list[str] = _scored(
        [],
        "annotation files whose faces or voices are paired with records of the same label that "
        "have none",
        when=("task", ("classification",)),
        metavar="FILE",
    )
    adapt: str = option(
        "none",
        "recording: measure faces (landmarks, blendshapes) and voices (whisper_speech) against the "
        "speaker's own mean so far",
        stage=(FIT, COMBINE, EVALUATE, INFER),
        choices=("none", "recording"),
    )
    n_threads: int = _scored(0, "processes that load samples; 0: the main process", least=0)


@dataclass(frozen=True)
class ClipOptions:
    """How clips are cut from recordings."""

    window_seconds: float = option(1.0, "length of a window", stage=(FIT, INFER), metavar="SECONDS")
    sample_duration: int | None = _of_clips(
        None, "face frames per window (default: the architecture's, mostly 15)", least=1
    )
    sample_size: int | None = _scored(
        None,
        "side of the face frames in pixels, which the prepared data must have (default: "
        "the architecture's)",
    )
    picture_choice: PictureChoice | None = _of_clips(
        None,
        "which face frames of a window: its last ones, or evenly spaced (default: "
        "the architecture's, mostly last)",
    )
    colour: Colour = _of_clips("rgb", "order of the colour planes")
    video_norm_value: int | None = _of_clips(
        None,
        "divide pixel values by this (255 or 1), not by ImageNet's mean and standard deviation",
    )
    voice_activity: float = _of_clips(
        0.0,
        "probability above which sound counts as speech, such as 0.3, so that music and noise "
        "are left out; 0: all sound counts",
        least=0,
    )
    speech_context_seconds: float | None = _of_clips(
        None,
        "whisper_speech: sound before and after each window (default: 0)",
        least=0,
        metavar="SECONDS",
    )
    speech_block_seconds: float | None = _of_clips(
        None,
        "whisper_speech, with context: length of the blocks that are encoded one by one "
        "(default: 5)",
        metavar="SECONDS",
    )


@dataclass(frozen=True)
class AugmentationOptions:
    """Which augmentations training applies, and how strong they are."""

    augment: bool = _of_training(True, "train without random augmentation")
    augment_strength: float = _of_training(
        1.0, "factor for all augmentations; 0: none", when=("augment", (True,)), least=0
    )
    augment_only: list[str] | None = _of_training(
        None,
        f"only these augmentations, separated by commas, of {', '.join(AUGMENTATIONS)}",
        when=("augment", (True,)),
        read=comma_separated,
        metavar="NAMES",
    )

    def build(self) -> AugmentOptions | None:
        """Strengths, or nothing where training does not augment.

        Raises:
            ValueError: an unknown augmentation, or a strength out of range.
        """
        if not self.augment:
            return None
        strengths = AugmentOptions()
        if self.augment_only is not None:
            unknown = sorted(set(self.augment_only) - set(AUGMENTATIONS))
            if unknown:
                raise OptionError(
                    f"unknown augmentation {', '.join(unknown)}; choose from "
                    f"{', '.join(AUGMENTATIONS)}",
                    "augment_only",
                )
            strengths = strengths.only(self.augment_only)
        return strengths.scaled(self.augment_strength)


@dataclass(frozen=True)
class BalanceOptions:
    """How often training draws which records."""

    balance: float = _of_training(
        0.0,
        "how much more often rare classes are drawn; 0: as they are; 1: all equally often",
        when=("task", ("classification",)),
        least=0,
    )
    balance_corpora: float = _of_training(
        0.0,
        "how much more often small corpora are drawn; 0: as they are; 1: all equally often. "
        "--balance then works within each corpus",
        least=0,
    )


@dataclass(frozen=True)
class FoldOptions:
    """How records are scored: over which folds, and in one piece or window by window."""

    n_folds: int | None = _scored(
        None, "cross-validate over this number of folds of speakers", least=3
    )
    leave_one_speaker_out: bool = _scored(False, "cross-validate: each speaker tests in turn")
    protocol: str | None = _scored(
        None,
        "cross-validate over published folds, or with each corpus testing in turn",
        choices=FOLDED,
    )
    whole_clips: bool = _scored(False, "score each record as a whole, not window by window")

    @property
    def is_cross_validation(self) -> bool:
        return bool(self.n_folds or self.leave_one_speaker_out or self.protocol)


@dataclass(frozen=True)
class DataOptions(RecordOptions, ClipOptions, AugmentationOptions, BalanceOptions, FoldOptions):
    """All that an experiment takes of its data."""
