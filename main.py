"""Train, score, or write the emotion timelines of recordings: parse, wire, run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from checkpoint import Checkpoint
from inference import TrainingAlignedInference
from media.errors import MediaError
from media_list import Listed, list_media, output_names
from models.multimodalcnn import FUSIONS
from models.summary import format_table, summarise_models
from opts import INFER, LIST, SHIPPED, InferenceOptions, Options, parse_options
from summary import summarise
from timeline import Timeline, write_csv, write_json


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns the exit status: a user's mistake is one line and 2."""
    try:
        options = parse_options(arguments)
        if options.mode == LIST:
            print(format_table(summarise_models()))
            return 0
        if options.mode == INFER:
            return infer_files(options)
        # What only training needs takes seconds to import.
        if options.data.is_cross_validation:
            from crossval import run_folds as run
        else:
            from experiment import run_experiment as run
        print(f"run folder: {run(options, print)}")
    except (ValueError, MediaError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; training goes on with --resume_path RUN_FOLDER", file=sys.stderr)
        return 130
    return 0


def infer_files(options: Options) -> int:
    """Run the command line's inference. Returns its exit status.

    A file that fails is one line on stderr and the rest goes on: 1 where some failed, 2 where all.
    """
    settings = options.inference
    listed = list_media(settings.media_path, settings.speaker_column, settings.speaker_folder)
    if settings.save_plot and len(listed) > 1:
        raise ValueError(f"--save_plot is for one recording; {len(listed)} go to --output")
    if Path(settings.output).is_file():
        raise ValueError(f"--output {settings.output} is a file; give a folder")
    if settings.save_plot:
        from reports.plots import check_figure_format

        check_figure_format(Path(settings.save_plot))
    engine = _build_engine(options)
    names = output_names([item.path for item in listed])
    failed = 0
    for item in listed:
        try:
            timeline = _run_with_bar(engine, item)
        except MediaError as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
            continue
        written = _write_outputs(timeline, Path(settings.output) / names[item.path], settings)
        print(summarise(timeline))
        print("Written: " + ", ".join(str(p) for p in written) + "\n")
    if len(listed) > 1:
        print(f"{len(listed) - failed} of {len(listed)} recordings written to {settings.output}")
    return 0 if not failed else (2 if failed == len(listed) else 1)


def _build_engine(options: Options) -> TrainingAlignedInference:
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
    """In what a recording is looked at otherwise than the checkpoint was trained."""
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


def _run_with_bar(engine: TrainingAlignedInference, item: Listed) -> Timeline:
    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    with tqdm(total=1.0, desc=item.path.name, bar_format=form, leave=False, disable=None) as bar:
        return engine.run(item.path, lambda share: _advance(bar, share), item.speaker)


def _advance(bar: tqdm, share: float) -> None:
    bar.update(max(0.0, min(1.0, share) - bar.n))


def _write_outputs(timeline: Timeline, base: Path, settings: InferenceOptions) -> list[Path]:
    files = [base.with_name(f"{base.name}.csv"), base.with_name(f"{base.name}.json")]
    write_csv(timeline, files[0])
    write_json(timeline, files[1])
    if not settings.no_plot:
        from reports.plots import plot_timeline, write_figure  # matplotlib takes its time

        plot = Path(settings.save_plot or base.with_name(f"{base.name}.png"))
        write_figure(plot_timeline(timeline, settings.plot_style), plot)
        files.append(plot)
    return files


if __name__ == "__main__":
    sys.exit(main())
