"""One flat command line made of the option dataclasses, and the checks between options.

A flag that is given where it has no effect is an error, not silence.
"""

from __future__ import annotations

import argparse
import json
import tomllib
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from models import accepted_arguments, model_inputs
from optim.losses import LOSSES
from system.command_line import OneLineParser
from system.flags import (
    AUTO_BATCH,
    CHANGES,
    DEFAULT_CHECKPOINT,
    DEFAULT_OUTPUT,
    DEFAULT_RUNS,
    SHIPPED,
    DataOptions,
    InferenceOptions,
    ModelOptions,
    RunOptions,
    TrainOptions,
)

__all__ = [
    "AUTO_BATCH",
    "DEFAULT_CHECKPOINT",
    "DEFAULT_OUTPUT",
    "DEFAULT_RUNS",
    "EVALUATE",
    "INFER",
    "LIST",
    "SHIPPED",
    "TRAIN",
    "DataOptions",
    "InferenceOptions",
    "ModelOptions",
    "Options",
    "RunOptions",
    "TrainOptions",
    "parse_options",
    "run_folder_of",
]

TRAIN, EVALUATE, INFER, LIST = "train", "evaluate", "infer", "list"
RECIPES = Path(__file__).parent / "recipes"

_GROUPS: dict[str, type] = {
    "run": RunOptions,
    "data": DataOptions,
    "model": ModelOptions,
    "train": TrainOptions,
    "inference": InferenceOptions,
}
_GROUPS_OF = {
    TRAIN: ("run", "data", "model", "train"),
    EVALUATE: ("run", "data", "model", "train"),
    INFER: ("run", "inference"),
    LIST: (),
}
_INFER_TOO = ("window_seconds", "fusion", "num_heads", "adapt")  # see `Options.infer_extras`
_NOT_OF_RECIPES = {"recipe", "resume_path", "no_train", "list_models"}
_FIT_ONLY = {f.name for f in fields(TrainOptions)} - {"resume_path", "no_train", "test_subset"}
_FIT_ONLY |= {"augment", "augment_strength", "augment_only", "balance", "balance_corpora"}
# How clips are cut and what is told of them: a checkpoint holds it.
_OF_CLIPS = {"sample_duration", "picture_choice", "window_seconds", "colour", "video_norm_value"}
_OF_CLIPS |= {"speech_context_seconds", "speech_block_seconds"}
_OF_CLIPS |= {"voice_activity"}
_OF_CHECKPOINT = _OF_CLIPS | {"task", "targets", "classes", "n_classes"}
_OF_CHECKPOINT |= {f.name for f in fields(ModelOptions)}
# What has no effect where trained parts are combined: they bring their clips and are not trained.
_OF_PARTS = _OF_CLIPS | _FIT_ONLY - {"recipe", "result_path", "run_name", "manual_seed"}


@dataclass
class Options:
    """All options, the mode they ask for, and the names of those that were given."""

    run: RunOptions
    data: DataOptions
    model: ModelOptions
    train: TrainOptions
    inference: InferenceOptions
    given: set[str]

    @property
    def mode(self) -> str:
        if self.run.list_models:
            return LIST
        if self.inference.only_inference or self.inference.media_path:
            return INFER
        return EVALUATE if self.train.no_train else TRAIN

    @property
    def infer_extras(self) -> dict[str, Any]:
        """Options of training that were given for inference: window length, fusion, heads.

        Who tells whose recordings they are wants each face seen against its own mean.
        """
        values = {**asdict(self.data), **asdict(self.model)}
        extras = {name: values[name] for name in _INFER_TOO if name in self.given}
        if self.inference.speaker_folder or self.inference.speaker_column:
            extras.setdefault("adapt", "recording")
        return extras

    def to_dict(self) -> dict[str, Any]:
        """Flat values of what training and evaluation take, for `opts.json`."""
        groups = (self.run, self.data, self.model, self.train)
        return {name: value for group in groups for name, value in asdict(group).items()}


def parse_options(arguments: Sequence[str] | None = None) -> Options:
    """Parse a command line.

    A run that is resumed takes what is not given from its `opts.json`, others from their recipe.

    Raises:
        ValueError: a flag that has no effect in the mode asked for, or a missing one; a recipe that
            cannot be read.
        SystemExit: status 2 after one line for an unknown flag or value.
    """
    given = vars(_build_parser().parse_args(arguments))
    recipe = _recipe_values(given["recipe"]) if "recipe" in given else {}
    values = {**_saved_values(given.get("resume_path")), **recipe, **given}
    groups = {
        name: cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})
        for name, cls in _GROUPS.items()
    }
    # An override may take away what the recipe's other options are for; that is no mistake.
    asked = set(given) if set(recipe) & set(given) else {*recipe, *given}
    options = Options(given=asked, **groups)
    _check(options)
    return options


def _build_parser(exit_on_error: bool = True) -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="main.py",
        description="Train and score emotion recognition from face and speech, or write the "
        "emotion timeline of recordings.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        exit_on_error=exit_on_error,
    )
    for cls in _GROUPS.values():
        group = parser.add_argument_group(cls.__name__, cls.__doc__)
        hints = typing.get_type_hints(cls)
        for entry in fields(cls):
            _add_flag(group, entry, hints[entry.name])
    return parser


def _add_flag(group: Any, entry: Any, hint: Any) -> None:
    names = [f"--{entry.name}"]
    if "_" in entry.name:
        names.append(f"--{entry.name.replace('_', '-')}")
    default = entry.default if entry.default is not MISSING else entry.default_factory()
    text = entry.metadata["help"].replace("%", "%%") + ("" if default is None else f" [{default}]")
    read = entry.metadata["read"]
    if hint is bool and default is True:
        group.add_argument(*names, help=text, action=argparse.BooleanOptionalAction)
    elif hint is bool:
        group.add_argument(*names, help=text, action="store_true")
    elif read:
        group.add_argument(*names, help=text, type=read)
    else:
        many = typing.get_origin(hint) is list
        base = _base_type(hint)
        is_literal = typing.get_origin(base) is typing.Literal
        choices = typing.get_args(base) if is_literal else entry.metadata["choices"] or None
        extra = {"nargs": "+"} if many else {}
        kind = str if is_literal else base
        group.add_argument(*names, help=text, type=kind, choices=choices, **extra)


def _base_type(hint: Any) -> Any:
    """`list[int]` -> int, `str | None` -> str; others, such as a Literal, as they are."""
    if typing.get_origin(hint) in (list, types.UnionType, typing.Union):
        return typing.get_args(hint)[0]
    return hint


def _recipe_values(name: str) -> dict[str, Any]:
    """Options of a recipe, read as the command line reads flags of these names and values."""
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(found.stem for found in RECIPES.glob("*.toml"))) or "none is here"
        raise ValueError(f"no recipe {path}; choose from {known}, or give a .toml file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"cannot read recipe {path}: {error}") from error
    except RecursionError as error:
        raise ValueError(f"cannot read recipe {path}: its values are nested too deeply") from error
    groups = [_GROUPS[group] for group in _GROUPS_OF[TRAIN]]
    known_names = {f.name for cls in groups for f in fields(cls)} - _NOT_OF_RECIPES
    arguments: list[str] = []
    for key, value in table.items():
        if key.replace("-", "_") not in known_names:
            raise ValueError(f"{path}: unknown option {key!r}")
        arguments += _as_flag(key.replace("-", "_"), value)
    try:
        return vars(_build_parser(exit_on_error=False).parse_args(arguments))
    except argparse.ArgumentError as error:
        raise ValueError(f"{path}: {error}") from error


def _as_flag(name: str, value: Any) -> list[str]:
    """A value of a recipe as the command line has it."""
    hints = {k: v for group in _GROUPS.values() for k, v in typing.get_type_hints(group).items()}
    if isinstance(value, bool):
        if hints[name] is not bool:
            return [f"--{name}={str(value).lower()}"]  # for the parser to refuse
        negated = [f"--no-{name}"] if _is_on(name) else []
        return [f"--{name}"] if value else negated
    if isinstance(value, list):
        single = typing.get_origin(hints[name]) is not list
        texts = [str(item) for item in value]
        return [f"--{name}={','.join(texts)}"] if single else [f"--{name}", *texts]
    return [f"--{name}={value}"]


def _is_on(name: str) -> bool:
    """Whether a switch is on by default."""
    return any(f.name == name and f.default is True for c in _GROUPS.values() for f in fields(c))


def _saved_values(resume_path: str | None) -> dict[str, Any]:
    if resume_path is None:
        return {}
    path = run_folder_of(resume_path) / "opts.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("opts.json holds no options")
        return values
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"--resume_path {resume_path} is not a run folder: {error}") from error


def run_folder_of(resume_path: str) -> Path:
    """The run folder that --resume_path names by itself or by its last.pt."""
    path = Path(resume_path)
    return path.parent if path.suffix == ".pt" else path


def _check(options: Options) -> None:
    mode = options.mode
    taken = {f.name for name in _GROUPS_OF[mode] for f in fields(_GROUPS[name])}
    taken |= set(_INFER_TOO) if mode == INFER else set()
    if mode == EVALUATE:
        taken -= _FIT_ONLY | _OF_CHECKPOINT
    for name in sorted(options.given - taken - {"only_inference", "list_models"}):
        raise ValueError(f"--{name} has no effect here ({_MODE_TEXT[mode]})")
    _check_sizes(options)
    checks = {TRAIN: _check_training, EVALUATE: _check_evaluation, INFER: _check_inference}
    if mode in checks:
        checks[mode](options)


_MODE_TEXT = {
    TRAIN: "without --media_path, main.py trains",
    EVALUATE: "with --no_train a trained run is scored as it is",
    INFER: "with --media_path, main.py writes timelines and trains nothing",
    LIST: "with --list_models, main.py prints a table and nothing else",
}


def _check_sizes(options: Options) -> None:
    """Refuse a number below the smallest one allowed."""
    for group in (options.run, options.data, options.model, options.train):
        for entry in fields(group):
            value, least = getattr(group, entry.name), entry.metadata["least"]
            if None not in (value, least) and value < least:
                raise ValueError(f"--{entry.name} must be at least {least:g}, not {value:g}")


def _check_training(options: Options) -> None:
    if not options.data.annotation_path:
        raise ValueError("give --annotation_path to train, or --media_path for a timeline")
    _check_conditions(options)
    _check_architecture(options)
    _check_start(options)
    _check_loss(options)
    train = options.train
    unknown = set(options.data.augment_only or ()) - set(CHANGES)
    if unknown:
        raise ValueError(
            f"--augment_only knows no {', '.join(sorted(unknown))}; choose from "
            f"{', '.join(CHANGES)}"
        )
    if train.no_val and train.early_stopping:
        raise ValueError("--early_stopping has no effect with --no_val")
    if train.warmup_epochs >= train.n_epochs:
        raise ValueError(
            f"--warmup_epochs must be less than --n_epochs ({train.n_epochs}), "
            f"not {train.warmup_epochs:g}"
        )
    if train.recipe and train.resume_path and "recipe" in options.given:
        raise ValueError("--recipe has no effect with --resume_path: the run has its options")


def _check_conditions(options: Options) -> None:
    """Refuse a flag whose `when` does not hold."""
    values = options.to_dict()
    for group in (options.data, options.model, options.train):
        for entry in fields(group):
            when = entry.metadata["when"]
            if entry.name in options.given and when and values[when[0]] not in when[1]:
                wanted = " or ".join(_shown(value) for value in when[1])
                raise ValueError(f"--{entry.name} has no effect unless --{when[0]} is {wanted}")


def _shown(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def _check_architecture(options: Options) -> None:
    model = options.model.model
    accepted = {*accepted_arguments(model), "model"}
    accepted |= {f"{name}_path" for name in model_inputs(model) if name in accepted}
    for name in sorted(options.given & {f.name for f in fields(ModelOptions)} - accepted):
        raise ValueError(f"--{name} has no effect: model {model} does not take it")
    if set(model_inputs(model)) <= accepted:
        for name in sorted(options.given & _OF_PARTS):
            raise ValueError(f"--{name} has no effect: {model} combines parts that are trained")
        if options.data.task != "classification":
            raise ValueError(f"{model} combines classifiers; --task {options.data.task} has none")
    if len(model_inputs(model)) == 1:
        for name in sorted(options.given & {"mask", "pair_with"}):
            raise ValueError(f"--{name} has no effect: model {model} takes one modality")


def _check_start(options: Options) -> None:
    train = options.train
    if train.pretrained and train.pretrain_path:
        raise ValueError("--pretrained has no effect with --pretrain_path")
    if train.freeze_pretrained and not train.pretrain_path:
        raise ValueError("--freeze_pretrained has no effect without --pretrain_path")
    if train.freeze_pretrained and train.trainable:
        raise ValueError("--freeze_pretrained has no effect with --trainable")
    if "learning_rate" in options.given and None not in (train.lr_backbone, train.lr_head):
        raise ValueError("--learning_rate has no effect with both --lr_backbone and --lr_head")


def _check_loss(options: Options) -> None:
    task, loss = options.data.task, options.train.loss
    if loss and loss not in LOSSES[task]:
        raise ValueError(
            f"--loss {loss} is not for --task {task}; choose from {', '.join(LOSSES[task])}"
        )


def _check_evaluation(options: Options) -> None:
    if options.train.resume_path is None:
        raise ValueError("--no_train needs --resume_path: the run folder to score")
    _check_batch(options)


def _check_inference(options: Options) -> None:
    inference = options.inference
    if not inference.media_path:
        raise ValueError("--only_inference needs --media_path")
    if inference.no_plot and inference.save_plot:
        raise ValueError("--save_plot has no effect with --no_plot")
    if inference.no_plot and "plot_style" in options.given:
        raise ValueError("--plot_style has no effect with --no_plot")
    if inference.speaker_folder and inference.speaker_column:
        raise ValueError("give --speaker_folder or --speaker_column, not both")
    named = "speaker_folder" if inference.speaker_folder else "speaker_column"
    if getattr(inference, named) and "adapt" in options.given and options.data.adapt == "none":
        raise ValueError(f"--{named} has no effect with --adapt none")
    if inference.resume and options.infer_extras.get("adapt") == "recording":
        raise ValueError("--resume does not go with --adapt: what earlier files taught is not kept")
    _check_batch(options)


def _check_batch(options: Options) -> None:
    if options.run.batch_size == AUTO_BATCH:
        raise ValueError("--batch_size auto is for training; give a number")
