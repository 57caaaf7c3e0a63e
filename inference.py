"""A media file to a timeline, along the road that training walks.

In a notebook:

    from inference import TrainingAlignedInference

    timeline = TrainingAlignedInference().run("interview.mp4")
    timeline.to_pandas()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from checkpoints.checkpoint import Checkpoint, combine_checkpoints, load_checkpoint, reorder_classes
from evaluation.calibration import ConformalRule
from explain.attribution import leave_one_out
from media.adaptation import REFERRED, KnownFaces, relative_to
from media.blendshapes import describe_windows
from media.clip import Clip, check_hop
from media.configuration import ClipConfig
from media.faces import build_detector
from media.mesh import MeshReading, build_mesh_reading
from media.preprocess import preprocess
from media.reading import stream_clips
from models import find_block_encoder
from models.efficientface import EfficientFace
from models.encoded_blocks import EncodedBlocks
from models.picture_model import PictureModel
from opts import DEFAULT_CHECKPOINT
from system.device import pick_device
from system.files import printable
from timeline.row import Modalities, Task, TimelineRow
from timeline.table import ADAPTED, CONTRIBUTION_PREFIX, GATE_PREFIX, SPEECH_FRACTION, Timeline

MOST_THUMBNAILS = 64  # kept per recording; every second one is dropped each time there are more
DEFAULT_BATCH = 4  # windows; larger ones are slower on a processor
COVERAGE_TOLERANCE = 0.005  # between the coverage asked for and that of a checkpoint's rule
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
        sample_rate: windows per second, of one picture each, for models of single pictures; then
            the lengths of windows and hops are not given. Above the recording's own rate some
            windows hold no picture.
        uncertain: coverage of the sets of classes by which rows are marked uncertain, such as 0.9.
        contributions: tell of each row what each modality adds to the winner's probability, and
            what the gates of the model let through where it has them.
        face_measures: tell of each row the face's mean blendshapes and the pose of its head.
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
        self.device = pick_device(device)
        self.checkpoint = load_checkpoint(Path(model_path), num_heads)
        if efficientface_path is not None:
            self.checkpoint = _see_with(self.checkpoint, Path(efficientface_path))
        config = recording_config(self.checkpoint, yunet=yunet_path is not None)
        if sample_rate is not None:
            check_sample_rate(self.checkpoint, sample_rate, window_seconds, hop_seconds)
            config = single_pictures(config, sample_rate)
        elif window_seconds is not None:
            config = replace(config, window_seconds=window_seconds)
        self.config: ClipConfig = config
        self.hop_seconds = config.window_seconds if hop_seconds is None else hop_seconds
        check_hop(config.window_seconds, self.hop_seconds)
        self._batch_size = batch_size or DEFAULT_BATCH
        self._rule = None if uncertain is None else pick_rule(self.checkpoint, uncertain)
        self._adapts, self._face_measures = adapt, face_measures
        if adapt and not self.checkpoint.priors:
            name = self.checkpoint.source["name"]
            raise ValueError(f"--adapt recording needs a model trained with it, and {name} is not")
        self._known = KnownFaces(self.checkpoint.priors)
        self._model = self.checkpoint.model.to(self.device).eval()
        self._blocks = self._encoded_blocks()
        self._weighed: tuple[str, ...] = ()
        if contributions:
            self._weighed = _fused_modalities(self.checkpoint)
            if hasattr(self._model, "keep_gates"):
                self._model.keep_gates = True  # type: ignore[assignment]
        self._detector = None
        self._meshes: MeshReading | None = None
        if face_measures or {"face", "landmarks", "blendshapes"} & set(self._model.inputs):
            path = None if yunet_path is None else Path(yunet_path)
            self._detector = build_detector(config.detector, str(self.device), path)
        if face_measures or {"landmarks", "blendshapes"} & set(self._model.inputs):
            self._meshes = build_mesh_reading()

    def run(
        self,
        media_path: str | Path,
        progress: Callable[[float], None] | None = None,
        speaker: str | None = None,
    ) -> Timeline:
        """The timeline of one file. Memory does not grow with its length but for the rows.

        Args:
            media_path: anything FFmpeg's libraries read.
            progress: called with the share done, 0 to 1.
            speaker: whose the first face of the recording is, for `adapt`: what earlier recordings
                taught of that speaker's face is known from the start.

        Raises:
            MediaError: the file cannot be used.
        """
        path = Path(media_path)
        warnings: list[str] = []
        clips = stream_clips(
            path,
            self.config,
            self._detector,
            self.hop_seconds,
            progress,
            self._meshes,
            warnings.append,
        )
        rows: list[TimelineRow] = []
        self._known.start_recording()
        self._blocks = self._encoded_blocks()
        thumbnails = _Thumbnails()
        while batch := list(islice(clips, self._batch_size)):
            rows += self._rows(batch, speaker)
            for clip in batch:
                thumbnails.add(clip)
        timeline = Timeline(
            rows=tuple(rows),
            class_names=self.checkpoint.class_names,
            media=printable(path.name),
            duration=rows[-1].end,
            window_seconds=self.config.window_seconds,
            hop_seconds=self.hop_seconds,
            checkpoint=self.identity(),
            thumbnails=tuple(thumbnails.kept),
            task=read_task(self.checkpoint),
            warnings=tuple(warnings),
        )
        timeline.check()
        return timeline

    def _encoded_blocks(self) -> EncodedBlocks | None:
        """Where speech is heard with context: its blocks, for a new recording."""
        encoder = find_block_encoder(self._model)
        if encoder is None or not self.config.speech_context_seconds:
            return None
        return EncodedBlocks(encoder, self.config, self.device)

    @torch.inference_mode()
    def _rows(self, clips: list[Clip], speaker: str | None) -> list[TimelineRow]:
        wanted = set(self._model.inputs) - ({"speech"} if self._blocks else set())
        samples = [preprocess(clip, self.config, wanted) for clip in clips]
        pairs = zip(clips, samples, strict=True)
        adapted = [self._refer(clip, sample, speaker) for clip, sample in pairs]
        inputs: dict[str, Tensor] = {
            name: torch.stack([sample[name] for sample in samples]).to(self.device)
            for name in samples[0]
        }
        if self._blocks is not None:
            inputs |= self._blocks.inputs(clips)
        output = self._model(**inputs)
        probabilities = probabilities_of(self.checkpoint, output["logits"])
        uncertain = None if self._rule is None else self._rule.uncertain(probabilities)
        measures = self._measures(inputs, output)
        if self._face_measures:
            steps = [(clip.blendshapes, clip.blendshapes_mask) for clip in clips]
            measures |= describe_windows(steps)
        if self._adapts:
            measures[ADAPTED] = np.array(adapted, dtype=float)
        if self.config.voice_activity:
            measures[SPEECH_FRACTION] = np.array([clip.speech_fraction for clip in clips], float)
        rows = []
        for index, clip in enumerate(clips):
            modalities = _modalities(clip, inputs)
            nothing = modalities == "none"  # then every class remains possible
            row = TimelineRow(
                start=clip.window.start,
                end=clip.window.end,
                partial=clip.window.partial,
                face_id=clip.face_id,
                face_share=clip.face_share,
                modalities=modalities,
                probabilities=None if nothing else probabilities[index],
                uncertain=None if uncertain is None else nothing or bool(uncertain[index]),
                measures={name: _number(values[index]) for name, values in measures.items()},
            )
            rows.append(row)
        return rows

    def _refer(self, clip: Clip, sample: dict[str, Tensor], speaker: str | None) -> bool:
        """Landmarks and blendshapes less the means that they are seen against.

        Returns:
            Whether those are all the person's own.
        """
        adapted = []
        for name in REFERRED:
            if name not in self.checkpoint.priors or name not in sample:
                continue
            values, mask = sample[name].numpy(), sample[f"{name}_mask"].numpy()
            seen = bool(mask.any())
            reference = self._known.reference(name, clip.face_id, speaker, seen)
            if self._adapts and seen:
                new = mask.mean() * self.hop_seconds  # windows that overlap share seconds
                size = len(reference.prior.face)
                reference.add(values[mask, :size].mean(axis=0), float(new))
            sample[name] = torch.from_numpy(relative_to(values, mask, reference.face))
            adapted.append(reference.is_adapted)
        return bool(adapted) and all(adapted)

    def _measures(
        self, inputs: dict[str, Tensor], output: dict[str, Tensor]
    ) -> dict[str, np.ndarray]:
        """(B,) of each further column."""
        if not self._weighed:
            return {}

        def predict(inputs: Mapping[str, Tensor]) -> np.ndarray:
            return probabilities_of(self.checkpoint, self._model(**inputs)["logits"])

        changes = leave_one_out(predict, inputs, self._weighed)
        gates = {
            n: v.double().cpu().numpy() for n, v in output.items() if n.startswith(GATE_PREFIX)
        }
        return {CONTRIBUTION_PREFIX + name: change for name, change in changes.items()} | gates

    def identity(self) -> dict[str, object]:
        """What a reader of the timeline must know to repeat it."""
        rule = {} if self._rule is None else {"conformal": self._rule.to_dict()}
        return {
            **self.checkpoint.source,
            "architecture": self.checkpoint.model.name,
            "task": self.checkpoint.task,
            "adapts": self._adapts,
            "contributions": bool(self._weighed),
            "face_measures": self._face_measures,
            "calibrated": self.checkpoint.calibration is not None,
            **rule,
            "clip_config": self.config.to_dict(),
        }


def probabilities_of(checkpoint: Checkpoint, logits: Tensor) -> np.ndarray:
    """(B, C) logits to probabilities, calibrated where the checkpoint is, or to values."""
    task = read_task(checkpoint)
    if task == "regression":
        return logits.double().cpu().numpy()
    if task == "multilabel":
        return logits.double().sigmoid().cpu().numpy()
    if checkpoint.calibration is not None:
        return checkpoint.calibration.apply(logits.double().cpu().numpy())
    return logits.float().softmax(dim=-1).cpu().double().numpy()


def recording_config(checkpoint: Checkpoint, yunet: bool = False) -> ClipConfig:
    """The checkpoint's constants for recordings: faces are looked for in their pictures.

    A model trained on cropped faces saw them whole; here they are cut out by MTCNN. Voice is not
    looked for where the model takes no speech.

    Raises:
        ValueError: a network to start training from, which has no classes.
    """
    if not checkpoint.class_names:
        name = checkpoint.source.get("name", checkpoint.model.name)
        raise ValueError(f"{name} has no classifier: train one from it, with --pretrain_path")
    config = checkpoint.clip_config
    if "speech" not in checkpoint.model.inputs:
        config = replace(config, voice_activity=0.0)
    if yunet:
        return replace(config, detector="yunet")
    return replace(config, detector="mtcnn") if config.detector == "whole" else config


def single_pictures(config: ClipConfig, sample_rate: float) -> ClipConfig:
    """So many windows a second, each of the one picture nearest to its middle."""
    return replace(config, window_seconds=1 / sample_rate, pictures=1, picture_choice="even")


def check_sample_rate(
    checkpoint: Checkpoint,
    sample_rate: float,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
) -> None:
    """Raise ValueError where a checkpoint cannot be used picture by picture at that rate."""
    model, name = checkpoint.model, checkpoint.source.get("name", "the checkpoint")
    if not sample_rate > 0:
        raise ValueError(f"--sample_rate must be above 0, not {sample_rate:g}")
    if window_seconds is not None or hop_seconds is not None:
        raise ValueError("--window_seconds and --hop_seconds have no effect with --sample_rate")
    single = (
        isinstance(model, (PictureModel, EfficientFace)) or checkpoint.clip_config.pictures == 1
    )
    if model.inputs != ("face",) or not single:
        kind = f"takes {' and '.join(model.inputs)}"
        if model.inputs == ("face",):
            kind = f"takes {checkpoint.clip_config.pictures} pictures in their order"
        raise ValueError(
            f"--sample_rate is for models of single pictures, and {name} is a {model.name} "
            f"that {kind}: leave it out"
        )


def pick_rule(checkpoint: Checkpoint, coverage: float) -> ConformalRule:
    """The rule for sets of classes of that coverage.

    Raises:
        ValueError: the checkpoint has no such rule.
    """
    name = checkpoint.source.get("name", "the checkpoint")
    if not checkpoint.conformal:
        raise ValueError(
            f"--uncertain needs a calibrated checkpoint, and {name} is not: score its run with "
            "--no_train --resume_path RUN_FOLDER, which calibrates it on validation"
        )
    rule = min(checkpoint.conformal, key=lambda rule: abs(rule.coverage - coverage))
    if abs(rule.coverage - coverage) > COVERAGE_TOLERANCE:
        there = ", ".join(f"{rule.coverage:g}" for rule in checkpoint.conformal)
        raise ValueError(f"--uncertain {coverage:g}: {name} was calibrated for {there}")
    return rule


def read_task(checkpoint: Checkpoint) -> Task:
    """The task as a timeline names it.

    Raises:
        ValueError: a task that timelines do not know.
    """
    for task in get_args(Task):
        if task == checkpoint.task:
            return task
    raise ValueError(f"{checkpoint.source.get('name')} was trained for '{checkpoint.task}'")


def _fused_modalities(checkpoint: Checkpoint) -> tuple[str, ...]:
    inputs, name = checkpoint.model.inputs, checkpoint.source.get("name", "the checkpoint")
    if len(inputs) < 2:
        raise ValueError(f"--contributions compares modalities, and {name} takes {inputs[0]} alone")
    if checkpoint.task == "regression":
        raise ValueError(
            f"--contributions is of the winning class, and {name} gives values: leave it out"
        )
    return inputs


def _modalities(clip: Clip, inputs: Mapping[str, Tensor]) -> Modalities:
    """What a clip has of what a model takes."""
    seen = ("face" in inputs and clip.face_mask.any()) or (
        "landmarks" in inputs and clip.points_mask.any()
    )
    seen = seen or ("blendshapes" in inputs and clip.blendshapes_mask.any())
    return _MODALITY_NAMES[bool(seen), bool("speech" in inputs and clip.has_speech)]


def _number(value: float) -> float | None:
    """None for NaN."""
    return None if np.isnan(value) else float(value)


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


def _see_with(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """A late fusion with another face classifier, its classes in the fusion's order."""
    if checkpoint.model.name != "late_fusion":
        raise ValueError(
            f"--efficientface_path replaces the face classifier of a late fusion, and "
            f"{checkpoint.source['name']} is a {checkpoint.model.name}"
        )
    method = checkpoint.model.arguments["late_method"]
    face = reorder_classes(load_checkpoint(path), checkpoint.class_names)
    others = {name: checkpoint.part(name) for name in checkpoint.model.inputs if name != "face"}
    combined = combine_checkpoints({"face": face, **others}, method)
    name = f"{checkpoint.source['name']} with {path.name}"
    return replace(combined, source={**checkpoint.source, "name": name})
