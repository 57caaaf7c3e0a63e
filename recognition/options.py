"""How media files become timelines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from checkpoints.shipped import DEFAULT_CHECKPOINT
from system.flags import INFER, option
from timeline.table import TimelineStyle

DEFAULT_OUTPUT = "results/inference"
_infer_option = partial(option, stage=(INFER,))


@dataclass(frozen=True)
class InferenceOptions:
    """How media files become timelines."""

    media_path: list[str] = _infer_option([], "recordings: files, folders or globs", metavar="FILE")
    model_path: str = _infer_option(str(DEFAULT_CHECKPOINT), "checkpoint", metavar="FILE")
    output: str = _infer_option(
        DEFAULT_OUTPUT, "folder for <name>.csv, <name>.json and <name>.png", metavar="FOLDER"
    )
    hop_seconds: float | None = _infer_option(
        None, "from one window to the next (default: the length of a window)", metavar="SECONDS"
    )
    no_plot: bool = _infer_option(False, "draw no figure")
    plot_style: TimelineStyle = _infer_option("stacked", "style of the figure")
    save_plot: str | None = _infer_option(
        None, "file for the figure of a single recording", metavar="FILE"
    )
    resume: bool = _infer_option(
        False, "skip recordings that --output already holds, made by this command and unchanged"
    )
    speaker_folder: bool = _infer_option(
        False,
        "the files of one folder show one speaker, whose mean face and voice are kept from file "
        "to file; implies --adapt recording",
    )
    speaker_column: str | None = _infer_option(
        None,
        "column that names the speaker in the CSV tables that --media_path then names (the files "
        "are in their column 'media'); implies --adapt recording",
    )
    uncertain: float | None = _infer_option(
        None,
        "mark windows that are uncertain: those whose set of possible classes at this coverage, "
        "such as 0.9, is not a single class",
        metavar="COVERAGE",
    )
    contributions: bool = _infer_option(
        False,
        "fused models: add columns with the contribution of each modality to the winning class, "
        "and with the gates",
    )
    face_measures: bool = _infer_option(
        False,
        "add columns with the mean blendshapes, and with the head's yaw, pitch and roll in degrees",
    )
    sample_rate: float | None = _infer_option(
        None, "models of single frames: frames per second, each a row of the timeline"
    )
    efficientface_path: str | None = _infer_option(
        None,
        "published EfficientFace that replaces the face classifier of the checkpoint",
        metavar="FILE",
    )
    yunet_path: str | None = _infer_option(
        None, "OpenCV's YuNet (ONNX file), a faster face detector", metavar="FILE"
    )
