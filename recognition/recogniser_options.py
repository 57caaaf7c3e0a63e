"""What may be asked of recognition, beside a checkpoint and a device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_BATCH = 4  # windows; larger ones are slower on a processor
MOST_THUMBNAILS = 64


@dataclass(frozen=True)
class RecognitionOptions:
    """How recordings are read, and which columns their timelines have.

    Args:
        hop_seconds: from window to window; None for the window's length.
        window_seconds: None for the length the checkpoint was trained on.
        batch_size: windows that the model sees at once.
        sample_rate: windows per second, of one frame each, for models of single frames; then the
            lengths of windows and hops are not given. Above the recording's own rate some windows
            hold no frame.
        yunet_path: ONNX file of OpenCV's YuNet, used in place of MTCNN.
        adapt: take each person against their own mean so far, in the recording and in earlier ones
            of the same speaker: voices (see `recognition/voices.py`), and the faces of checkpoints
            that were trained with that (see `media/adaptation.py`).
        uncertain: coverage of the sets of classes by which rows are marked uncertain, such as 0.9.
        contributions: give for each row what each modality adds to the winner's probability, and
            what the gates of the model let through where it has them.
        face_measures: give for each row the face's mean blendshapes and the pose of its head.
        thumbnails: faces kept of each recording, for figures; every second one is dropped each
            time there are more.
    """

    hop_seconds: float | None = None
    window_seconds: float | None = None
    batch_size: int = DEFAULT_BATCH
    sample_rate: float | None = None
    yunet_path: Path | None = None
    adapt: bool = False
    uncertain: float | None = None
    contributions: bool = False
    face_measures: bool = False
    thumbnails: int = MOST_THUMBNAILS
