"""Train, score, or write the emotion timelines of recordings: parse, wire, run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from system.command_line import exit_status

if TYPE_CHECKING:
    from checkpoints.checkpoint import Checkpoint
    from inference import TrainingAlignedInference
    from opts import Options


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status: a user's mistake is one line and 2."""
    return exit_status(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    # What takes seconds to import is imported here, so that Ctrl-C meanwhile is one line too.
    from opts import INFER, LIST, parse_options

    options = parse_options(arguments)
    if options.mode == LIST:
        from models.summary import format_table, summarise_models

        print(format_table(summarise_models()))
        return 0
    if options.mode == INFER:
        from recognition.batch import infer_files, list_recordings

        listed = list_recordings(options.inference)
        return exit_status(
            lambda: infer_files(options.inference, _build_engine(options).session, listed),
            "interrupted; recordings that were done are whole, and --resume leaves them out",
        )
    if options.data.is_cross_validation:
        from experiments.crossval import run_folds as run
    else:
        from experiments.run import run_experiment as run

    def train() -> int:
        print(f"run folder: {run(options)}")
        return 0

    return exit_status(train, "interrupted; training goes on with --resume_path RUN_FOLDER")


def _build_engine(options: Options) -> TrainingAlignedInference:
    from inference import TrainingAlignedInference

    settings, extras = options.inference, options.infer_extras
    path = Path(settings.model_path)
    if "fusion" in extras and "model_path" not in options.given:
        path = _shipped(extras["fusion"])
    engine = TrainingAlignedInference(
        model_path=path,
        device=options.run.device,
        hop_seconds=settings.hop_seconds,
        window_seconds=extras.get("window_seconds"),
        batch_size=options.run.batch_size,
        efficientface_path=settings.efficientface_path,
        yunet_path=settings.yunet_path,
        num_heads=extras.get("num_heads", 1),
        adapt=extras.get("adapt") == "recording",
        sample_rate=settings.sample_rate,
        uncertain=settings.uncertain,
        contributions=settings.contributions,
        face_measures=settings.face_measures,
    )
    _check_fusion(engine.checkpoint, extras.get("fusion"))
    for note in _notes(engine):
        print(f"note: {note}", file=sys.stderr)
    return engine


def _notes(engine: TrainingAlignedInference) -> list[str]:
    """How preprocessing differs from training."""
    trained = engine.checkpoint.clip_config
    notes = []
    single = trained.pictures == engine.config.pictures == 1
    if engine.config.window_seconds != trained.window_seconds and not single:
        notes.append(f"this checkpoint was trained on windows of {trained.window_seconds:g} s")
    if trained.detector == "whole":
        notes.append(
            f"this checkpoint was trained on cropped faces; {engine.config.detector} cuts them here"
        )
    return notes


def _shipped(fusion: str) -> Path:
    """The shipped checkpoint of that fusion."""
    from checkpoints.shipped import SHIPPED
    from models.names import FUSIONS

    path = SHIPPED / f"{fusion}.safetensors"
    if not path.exists():
        shipped = [
            name for name in (*FUSIONS, "late") if (SHIPPED / f"{name}.safetensors").exists()
        ]
        raise ValueError(
            f"no checkpoint of fusion {fusion!r} is shipped (there are: {', '.join(shipped)}); "
            "train one and give it as --model_path"
        )
    return path


def _check_fusion(checkpoint: Checkpoint, wanted: str | None) -> None:
    model = checkpoint.model
    fusion = "late" if model.name == "late_fusion" else model.arguments.get("fusion")
    if wanted is not None and fusion != wanted:
        raise ValueError(
            f"--fusion {wanted}, but {checkpoint.source['name']} is a {model.name}"
            + (f" of fusion {fusion}" if fusion else "")
        )


if __name__ == "__main__":
    sys.exit(main())
