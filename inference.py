"""Media files to timelines, with the preprocessing that training uses.

In a notebook:

    from inference import TrainingAlignedInference

    timeline = TrainingAlignedInference().run("interview.mp4")
    timeline.to_pandas()
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from checkpoints.checkpoint import Checkpoint, load_checkpoint
from media.clip import ClipConfig
from opts import DEFAULT_CHECKPOINT
from recognition.face_classifier import replace_face_classifier
from recognition.recogniser import build_recogniser
from recognition.recogniser_options import DEFAULT_BATCH, RecognitionOptions
from recognition.session import Session
from system.device import pick_device
from timeline.analysis import Analysis
from timeline.table import Timeline


class TrainingAlignedInference:
    """A loaded checkpoint that turns media files into timelines: a recogniser with one session.

    For recordings that are read at once, give each a session of its own:
    `Session(engine.recogniser).analyse(path)`.

    Args:
        model_path: checkpoint; the shipped one by default.
        device: `cpu`, `cuda`, or `auto`.
        hop_seconds: from window to window; None for the window's length.
        window_seconds: None for the length the checkpoint was trained on.
        batch_size: windows that the model sees at once.
        efficientface_path: published EfficientFace that takes the place of a late fusion's face
            classifier.
        yunet_path: ONNX file of OpenCV's YuNet, used in place of MTCNN.
        num_heads: attention heads of a published fusion checkpoint, which its file does not tell.
        sample_rate: windows per second, of one frame each, for models of single frames; then the
            lengths of windows and hops are not given. Above the recording's own rate some windows
            hold no frame.
        uncertain: coverage of the sets of classes by which rows are marked uncertain, such as 0.9.
        contributions: give for each row what each modality adds to the winner's probability, and
            what the gates of the model let through where it has them.
        face_measures: give for each row the face's mean blendshapes and the pose of its head.
        adapt: see each face against its own mean so far, in the recording and in earlier ones of
            the same speaker (see `media/adaptation.py`), for checkpoints trained with that.

    Raises:
        ValueError: a checkpoint that cannot be used or cannot do what is asked, an unknown device,
            or an impossible hop.
    """

    def __init__(  # noqa: PLR0913 - the knobs of one call in a notebook
        self,
        model_path: str | Path = DEFAULT_CHECKPOINT,
        device: str = "auto",
        hop_seconds: float | None = None,
        window_seconds: float | None = None,
        batch_size: int | None = None,
        efficientface_path: str | Path | None = None,
        yunet_path: str | Path | None = None,
        num_heads: int = 1,
        sample_rate: float | None = None,
        uncertain: float | None = None,
        contributions: bool = False,
        adapt: bool = False,
        face_measures: bool = False,
    ) -> None:
        place = pick_device(device)
        checkpoint = load_checkpoint(Path(model_path), num_heads)
        if efficientface_path is not None:
            checkpoint = replace_face_classifier(checkpoint, Path(efficientface_path))
        options = RecognitionOptions(
            hop_seconds=hop_seconds,
            window_seconds=window_seconds,
            batch_size=batch_size or DEFAULT_BATCH,
            sample_rate=sample_rate,
            yunet_path=None if yunet_path is None else Path(yunet_path),
            adapt=adapt,
            uncertain=uncertain,
            contributions=contributions,
            face_measures=face_measures,
        )
        self.recogniser = build_recogniser(checkpoint, place, options)
        self.session = Session(self.recogniser)

    @property
    def checkpoint(self) -> Checkpoint:
        """What was loaded."""
        return self.recogniser.checkpoint

    @property
    def config(self) -> ClipConfig:
        """The constants of preprocessing."""
        return self.recogniser.config

    @property
    def hop_seconds(self) -> float:
        """From window to window."""
        return self.recogniser.hop_seconds

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.recogniser.device

    def identity(self) -> dict[str, Any]:
        """What a reader of a timeline must know to repeat it."""
        return self.recogniser.identity()

    def run(
        self,
        media_path: str | Path,
        progress: Callable[[float], None] | None = None,
        speaker: str | None = None,
    ) -> Timeline:
        """The timeline of the followed face, as `analyse` gives it."""
        return self.analyse(media_path, progress, speaker).timeline

    def analyse(
        self,
        media_path: str | Path,
        progress: Callable[[float], None] | None = None,
        speaker: str | None = None,
    ) -> Analysis:
        """The timelines of one file, with what is known of the recording.

        Args:
            media_path: anything FFmpeg's libraries read.
            progress: called with the fraction done, 0 to 1.
            speaker: whose the first face of the recording is, for `adapt`: what earlier recordings
                taught of that speaker's face is known from the start.

        Raises:
            MediaError: the file cannot be used.
        """
        return self.session.analyse(media_path, progress, speaker)
