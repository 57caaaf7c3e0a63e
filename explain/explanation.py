"""Why a model says what it says of the faces in a recording: python -m explain.

Attention rollout for models that look at patches through a class token, Grad-CAM for the others.
Written are `contact_sheet.png`, `overlays/`, `explanation.json` and, of transformers,
`attention.png`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from checkpoints.checkpoint import Checkpoint, load_checkpoint
from explain.attribution import (
    grad_cam,
    has_class_token,
    head_diversity,
    patch_maps,
    recorded_attention,
    rollout,
    seeing_part,
)
from media.clip import Clip, Window
from media.preprocess import preprocess
from recognition.face_classifier import face_classifier
from recognition.probabilities import probabilities_of, read_task
from recognition.recogniser import build_recogniser
from recognition.recogniser_options import RecognitionOptions
from reports.explanation_figure import (
    SheetRow,
    overlay,
    plot_attention,
    plot_contact_sheet,
    scaled,
)
from reports.plots import write_figure
from system.command_line import OneLineParser, exit_status
from system.device import pick_device
from system.files import printable, replacing, write_json
from system.flags import DEFAULT_CHECKPOINT
from timeline.table import format_time

FORMAT, VERSION = "emofuse-explanation", 1
DEFAULT_OUTPUT = "results/explanation"
OVERLAY_SIDE = 384  # pixels, of the written overlays
ROLLOUT, GRAD_CAM = "attention rollout", "Grad-CAM"


@dataclass(frozen=True)
class Attention:
    """What the class token of one picture looks at.

    Args:
        heads: (L, H, g, g) attention of each layer and head to the patches.
        rollouts: (L, g, g) attention rolled out up to each layer.
        diversity: (L,) mean Jensen-Shannon divergence of two heads, in bits.
    """

    heads: np.ndarray
    rollouts: np.ndarray
    diversity: np.ndarray


@dataclass(frozen=True)
class Explanation:
    """One window, and where in the picture amid it the reasons lie.

    Args:
        window: the interval.
        scores: (C,) probabilities or values; None where no face was found.
        target: index of what is explained.
        face: (S, S, 3) uint8 RGB: the middle one of the pictures that show a face.
        relevance: (h, w) at least 0, of `face`.
        attention: of transformers.
    """

    window: Window
    scores: np.ndarray | None = None
    target: int = 0
    face: np.ndarray | None = None
    relevance: np.ndarray | None = None
    attention: Attention | None = None


class Explainer:
    """A checkpoint whose decisions about faces are explained window by window.

    Of a late fusion it is the face classifier that is explained.

    Args:
        checkpoint: of a model that takes faces.
        device: `cpu`, `cuda`, or `auto`.
        hop_seconds: from window to window; None for the window's length.
        sample_rate: pictures a second, for models of single pictures; then no hop is given.
        target: label to explain; None for the dominant one of each window, or the first value.

    Raises:
        ValueError: the checkpoint takes no faces or has no such label, or an impossible hop.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str = "auto",
        hop_seconds: float | None = None,
        sample_rate: float | None = None,
        target: str | None = None,
    ) -> None:
        name = checkpoint.source.get("name", "the checkpoint")
        if "face" not in checkpoint.model.inputs:
            taken = " and ".join(checkpoint.model.inputs)
            raise ValueError(f"{name} takes {taken}: there is no face picture to explain")
        if target is not None and target not in checkpoint.class_names:
            known = ", ".join(checkpoint.class_names)
            raise ValueError(f"{name} has no class {target!r}; choose from {known}")
        self.checkpoint = face_classifier(checkpoint)
        options = RecognitionOptions(hop_seconds=hop_seconds, sample_rate=sample_rate)
        self.recogniser = build_recogniser(self.checkpoint, pick_device(device), options)
        self._target = None if target is None else checkpoint.class_names.index(target)
        self._model = self.recogniser.model
        self.method = ROLLOUT if has_class_token(seeing_part(self._model)) else GRAD_CAM

    def run(self, media_path: Path) -> Iterator[Explanation]:
        """One explanation a window, as the file is decoded.

        Raises:
            MediaError: the file cannot be used.
        """
        return map(self.explain, self.recogniser.read_clips(media_path))

    def explain(self, clip: Clip) -> Explanation:
        """The explanation of one window."""
        shown = np.flatnonzero(clip.face_mask)
        if not len(shown):
            return Explanation(clip.window)
        sample = preprocess(clip, self.recogniser.config, self._model.inputs)
        inputs = {name: value[None].to(self.recogniser.device) for name, value in sample.items()}
        explain = self._roll_out if self.method == ROLLOUT else self._look_back
        logits, relevance, attention = explain(inputs, shown)
        target = self._pick_target(logits)
        return Explanation(
            window=clip.window,
            scores=probabilities_of(self.checkpoint, logits[None])[0],
            target=target,
            face=clip.faces[shown[len(shown) // 2]].copy(),
            relevance=relevance,
            attention=attention,
        )

    def _pick_target(self, logits: torch.Tensor) -> int:
        if self._target is not None:
            return self._target
        return 0 if read_task(self.checkpoint) == "regression" else int(logits.argmax())

    @torch.inference_mode()
    def _roll_out(
        self, inputs: dict[str, torch.Tensor], shown: np.ndarray
    ) -> tuple[torch.Tensor, np.ndarray, Attention]:
        """Logits, and the attention of the middle one of the pictures that exist."""
        middle = len(shown) // 2
        with recorded_attention(seeing_part(self._model)) as recorded:
            logits = self._model(**inputs)["logits"][0]
        maps = [layer[middle : middle + 1].cpu() for layer in recorded]
        rollouts = patch_maps(rollout(maps))[:, 0].numpy()
        attention = Attention(
            heads=torch.stack([patch_maps(layer)[0] for layer in maps]).numpy(),
            rollouts=rollouts,
            diversity=torch.cat([head_diversity(layer) for layer in maps]).numpy(),
        )
        return logits, rollouts[-1], attention

    def _look_back(
        self, inputs: dict[str, torch.Tensor], shown: np.ndarray
    ) -> tuple[torch.Tensor, np.ndarray, None]:
        """Logits, and Grad-CAM of the middle one of the pictures that exist."""
        target = self._target
        if target is None and read_task(self.checkpoint) == "regression":
            target = 0
        logits, maps = grad_cam(self._model, inputs, target)
        place = len(shown) // 2
        if len(maps) != len(shown):  # a 3D network has a map for every few steps
            place = int(shown[place]) * len(maps) // self.recogniser.config.pictures
        return logits, maps[place].cpu().numpy(), None


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `python -m explain`. Returns the exit status."""
    options = _build_parser().parse_args(arguments)
    return exit_status(lambda: _explain(options))


def _explain(options: argparse.Namespace) -> int:
    media, out = Path(options.media_path), Path(options.output)
    if out.is_file():
        raise ValueError(f"--output {out} is a file; give a folder")
    if options.windows < 1:
        raise ValueError(f"--windows must be at least 1, not {options.windows}")
    explainer = Explainer(
        load_checkpoint(Path(options.model_path)),
        options.device,
        options.hop_seconds,
        options.sample_rate,
        options.target,
    )
    for path in write_explanation(explainer, media, out, options.windows):
        print(f"Written: {path}")
    return 0


def _build_parser() -> OneLineParser:
    parser = OneLineParser(prog="python -m explain", description=__doc__)
    add = parser.add_argument
    add("--model_path", default=str(DEFAULT_CHECKPOINT), help="checkpoint that takes faces")
    add("--media_path", required=True, help="recording, or a still picture")
    add("--output", default=DEFAULT_OUTPUT, help="folder for the files")
    add("--target", help="class to explain; default: the dominant one of each window")
    add("--hop_seconds", type=float, help="from window to window; default: the window")
    add("--sample_rate", type=float, help="models of single pictures: so many a second")
    add("--windows", type=int, default=16, help="windows at most on the contact sheet [16]")
    add("--device", default="auto", help="cpu, cuda, or auto")
    return parser


def write_explanation(explainer: Explainer, media: Path, out: Path, most: int = 16) -> list[Path]:
    """Explain a recording and write all files. Returns their paths.

    Pictures are of at most `most` windows, spread evenly; the numbers are of all.

    Raises:
        ValueError, MediaError: as `Explainer.run`; or no window shows a face.
    """
    records: list[dict[str, Any]] = []
    kept: list[Explanation] = []
    step = 1
    for index, found in enumerate(explainer.run(media)):
        records.append(_record(explainer, found))
        if index % step == 0:
            kept.append(found)
        if len(kept) > most:
            kept, step = kept[::2], step * 2
    seen = [found for found in kept if found.face is not None]
    if not seen:
        raise ValueError(f"{media} shows no face in the {len(kept)} windows to be drawn")
    (out / "overlays").mkdir(parents=True, exist_ok=True)
    written = [_write_sheet(explainer, kept, media, out)]
    with_attention = next((f for f in seen if f.attention is not None), None)
    if with_attention is not None:
        written.append(_write_attention(explainer, with_attention, out))
    written += [_write_overlay(explainer, found, out / "overlays") for found in seen]
    write_json(_content(explainer, media, records), out / "explanation.json")
    return [*written, out / "explanation.json"]


def _write_sheet(explainer: Explainer, kept: list[Explanation], media: Path, out: Path) -> Path:
    names = explainer.checkpoint.class_names
    rows = [
        SheetRow(
            start=found.window.start,
            end=found.window.end,
            face=found.face,
            relevance=None if found.relevance is None else _relative(explainer, found.relevance),
            label=names[found.target],
            number=0.0 if found.scores is None else float(found.scores[found.target]),
            is_probability=read_task(explainer.checkpoint) != "regression",
        )
        for found in kept
    ]
    note = f"{explainer.method} of {explainer.checkpoint.source.get('name', 'a checkpoint')}"
    note += f" ({explainer.checkpoint.model.name})"
    write_figure(
        plot_contact_sheet(rows, names, printable(media.name), note), out / "contact_sheet.png"
    )
    return out / "contact_sheet.png"


def _write_attention(explainer: Explainer, found: Explanation, out: Path) -> Path:
    attention, face = found.attention, found.face
    assert attention is not None
    assert face is not None
    name = explainer.checkpoint.class_names[found.target]
    title = f"{format_time(found.window.start)}: {name}"
    figure = plot_attention(face, attention.heads, attention.rollouts, attention.diversity, title)
    write_figure(figure, out / "attention.png")
    return out / "attention.png"


def _write_overlay(explainer: Explainer, found: Explanation, folder: Path) -> Path:
    """Face and overlay side by side, named by the window's start in milliseconds."""
    assert found.face is not None
    assert found.relevance is not None
    size = (OVERLAY_SIDE, OVERLAY_SIDE)
    large = np.asarray(Image.fromarray(found.face).resize(size, Image.Resampling.BICUBIC))
    both = np.hstack([large, overlay(large, _relative(explainer, found.relevance))])
    path = folder / f"{round(1000 * found.window.start):08d}ms.png"
    with replacing(path) as temporary:
        Image.fromarray(both).save(temporary, format="PNG")
    return path


def _relative(explainer: Explainer, relevance: np.ndarray) -> np.ndarray:
    """0 to 1. Every patch has some attention; Grad-CAM's 0 is where nothing speaks for a class."""
    if explainer.method == ROLLOUT:
        return scaled(relevance)
    return relevance / max(float(relevance.max()), 1e-12)


def _record(explainer: Explainer, found: Explanation) -> dict[str, Any]:
    """One window as JSON holds it; empty of numbers where no face was found."""
    names, task = explainer.checkpoint.class_names, read_task(explainer.checkpoint)
    record: dict[str, Any] = {
        "start": found.window.start,
        "end": found.window.end,
        "target": None,
        "probabilities": None,
        "relevance": None,
    }
    if found.scores is None or found.relevance is None:
        return record
    record["target"] = names[found.target]
    values = zip(names, found.scores, strict=True)
    record["probabilities"] = {name: round(float(value), 6) for name, value in values}
    if task == "regression":
        record["values"] = record.pop("probabilities")
    relative = _relative(explainer, found.relevance)
    record["relevance"] = np.round(relative, 4).tolist()
    record["centre"] = _centre(relative)
    if found.attention is not None:
        record["head_diversity"] = np.round(found.attention.diversity, 4).tolist()
    return record


def _centre(relative: np.ndarray) -> list[float] | None:
    """Mean place, weighted by relevance: across and down, as shares of the picture's side."""
    total = float(relative.sum())
    if total <= 0:
        return None
    down, across = ((np.indices(relative.shape) + 0.5) * relative).sum(axis=(1, 2)) / total
    return [round(across / relative.shape[1], 4), round(down / relative.shape[0], 4)]


def _content(explainer: Explainer, media: Path, records: list[dict[str, Any]]) -> dict[str, Any]:
    checkpoint = explainer.checkpoint
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "method": explainer.method,
        "units": {"time": "seconds", "relevance": "0 to 1 in each picture, rows from the top"},
        "media": printable(media.name),
        "window_seconds": explainer.recogniser.config.window_seconds,
        "hop_seconds": explainer.recogniser.hop_seconds,
        "checkpoint": {
            **checkpoint.source,
            "architecture": checkpoint.model.name,
            "task": checkpoint.task,
            "calibrated": checkpoint.calibration is not None,
        },
        "class_names": list(checkpoint.class_names),
        "rows": records,
    }
    found = [record["head_diversity"] for record in records if "head_diversity" in record]
    if found:
        content["units"]["head_diversity"] = "mean Jensen-Shannon divergence of two heads, bits"
        content["head_diversity"] = np.mean(found, axis=0).round(4).tolist()
    return content
