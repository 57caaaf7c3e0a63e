"""A media file to a timeline, along the road that training walks.

In a notebook:

    from inference import TrainingAlignedInference

    timeline = TrainingAlignedInference().run("interview.mp4")
    timeline.to_pandas()
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from checkpoint import Checkpoint, combine_checkpoints, load_checkpoint, reorder_classes
from device import pick_device
from media.clip import Clip, ClipConfig, check_hop, preprocess
from media.faces import build_detector
from media.recording import stream_clips
from opts import DEFAULT_CHECKPOINT
from timeline import Modalities, Timeline, TimelineRow

MOST_THUMBNAILS = 64  # kept per recording; every second one is dropped each time there are more
DEFAULT_BATCH = 4  # windows; larger ones are slower on a processor
_MODALITY_NAMES: dict[tuple[bool, bool], Modalities] = {
    (True, True): "audio+video",
    (True, False): "video",
    (False, True): "audio",
    (False, False): "none",
}


class TrainingAlignedInference:
    """A loaded checkpoint that turns media files into timelines.

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

    Raises:
        ValueError: a checkpoint that cannot be used, an unknown device, or an impossible hop.
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
    ) -> None:
        self.device = pick_device(device)
        self.checkpoint = load_checkpoint(Path(model_path), num_heads)
        if efficientface_path is not None:
            self.checkpoint = _see_with(self.checkpoint, Path(efficientface_path))
        config = self.checkpoint.clip_config
        if window_seconds is not None:
            config = replace(config, window_seconds=window_seconds)
        if yunet_path is not None:
            config = replace(config, detector="yunet")
        self.config: ClipConfig = config
        self.hop_seconds = config.window_seconds if hop_seconds is None else hop_seconds
        check_hop(config.window_seconds, self.hop_seconds)
        self._batch_size = batch_size or DEFAULT_BATCH
        self._model = self.checkpoint.model.to(self.device).eval()
        self._detector = None
        if "face" in self._model.inputs:
            path = None if yunet_path is None else Path(yunet_path)
            self._detector = build_detector(config.detector, str(self.device), path)

    def run(
        self, media_path: str | Path, progress: Callable[[float], None] | None = None
    ) -> Timeline:
        """The timeline of one file. Memory does not grow with its length but for the rows.

        Args:
            media_path: anything FFmpeg's libraries read.
            progress: called with the share done, 0 to 1.

        Raises:
            MediaError: the file cannot be used.
        """
        path = Path(media_path)
        clips = stream_clips(path, self.config, self._detector, self.hop_seconds, progress)
        rows: list[TimelineRow] = []
        thumbnails = _Thumbnails()
        while batch := list(islice(clips, self._batch_size)):
            for clip, probabilities, modalities in zip(batch, *self._predict(batch), strict=True):
                rows.append(_row(clip, modalities, probabilities))
                thumbnails.add(clip)
        timeline = Timeline(
            rows=tuple(rows),
            class_names=self.checkpoint.class_names,
            media=path.name,
            duration=rows[-1].end,
            window_seconds=self.config.window_seconds,
            hop_seconds=self.hop_seconds,
            checkpoint=self._identity(),
            thumbnails=tuple(thumbnails.kept),
        )
        timeline.check()
        return timeline

    @torch.inference_mode()
    def _predict(self, clips: list[Clip]) -> tuple[np.ndarray, list[Modalities]]:
        """(B, C) probabilities, and what each clip had of what the model takes."""
        samples = [preprocess(clip, self.config, self._model.inputs) for clip in clips]
        inputs: dict[str, Tensor] = {
            name: torch.stack([sample[name] for sample in samples]).to(self.device)
            for name in samples[0]
        }
        logits = self._model(**inputs)["logits"].float()
        modalities = [
            _MODALITY_NAMES[
                bool("face" in inputs and clip.face_mask.any()),
                bool("speech" in inputs and clip.has_speech),
            ]
            for clip in clips
        ]
        return logits.softmax(dim=-1).cpu().double().numpy(), modalities

    def _identity(self) -> dict[str, object]:
        """What a reader of the timeline must know to repeat it."""
        return {
            **self.checkpoint.source,
            "architecture": self.checkpoint.model.name,
            "task": self.checkpoint.task,
            "clip_config": self.config.to_dict(),
        }


class _Thumbnails:
    """Faces for figures, spread over a recording of unknown length."""

    def __init__(self) -> None:
        self.kept: list[tuple[float, np.ndarray]] = []
        self._step, self._seen = 1, 0

    def add(self, clip: Clip) -> None:
        if self._seen % self._step == 0 and clip.face_mask.any():
            middle = (clip.window.start + clip.window.end) / 2
            last = int(np.flatnonzero(clip.face_mask)[-1])
            self.kept.append((middle, clip.faces[last].copy()))
        self._seen += 1
        if len(self.kept) > MOST_THUMBNAILS:
            self.kept, self._step = self.kept[::2], self._step * 2


def _row(clip: Clip, modalities: Modalities, probabilities: np.ndarray) -> TimelineRow:
    return TimelineRow(
        start=clip.window.start,
        end=clip.window.end,
        partial=clip.window.partial,
        face_id=clip.face_id,
        face_share=clip.face_share,
        modalities=modalities,
        probabilities=None if modalities == "none" else probabilities,
    )


def _see_with(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """A late fusion with another face classifier, its classes in the fusion's order."""
    if checkpoint.model.name != "late_fusion":
        raise ValueError(
            f"--efficientface_path replaces the face classifier of a late fusion, and "
            f"{checkpoint.source['name']} is a {checkpoint.model.name}"
        )
    method = checkpoint.model.arguments["late_method"]
    face = reorder_classes(load_checkpoint(path), checkpoint.class_names)
    combined = combine_checkpoints(face, checkpoint.part("speech"), method)
    name = f"{checkpoint.source['name']} with {path.name}"
    return replace(combined, source={**checkpoint.source, "name": name})
