"""The command line: the rooms' options as flat flags, and the checks between them.

A flag that is given where it has no effect is an error, not silence. Until the flags are parsed,
nothing that takes long to import is imported.
"""

from __future__ import annotations

import argparse
import json
import logging
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from datasets.options import (
    AugmentationOptions,
    BalanceOptions,
    ClipOptions,
    DataOptions,
    FoldOptions,
    RecordOptions,
)
from experiments.options import (
    AUTO_BATCH,
    ExperimentOptions,
    FolderOptions,
    RunOptions,
    ScoringOptions,
    StartOptions,
    TrainOptions,
    run_folder_of,
)
from models.options import OLD_OPTIONS, ModelOptions
from optim.options import LOSSES, LoopOptions, LossOptions, OptimizerOptions, ScheduleOptions
from recognition.options import InferenceOptions
from system.command_line import OneLineParser
from system.flags import (
    COMBINE,
    EVALUATE,
    FIT,
    INFER,
    add_flags,
    as_arguments,
    option,
    spellings_of,
)
from system.help_text import HelpAction, format_sections
from system.recipes import naming_recipe, read_recipe

__all__ = ["EVALUATE", "INFER", "LIST", "TRAIN", "Options", "format_help", "parse_options"]

TRAIN, LIST = FIT, "list"
RECIPES = Path(__file__).parent / "recipes"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CommandOptions:
    """What the command line alone knows."""

    only_inference: bool = option(False, "never train; --media_path implies it", stage=(INFER,))
    list_models: bool = option(
        False, "print a table of all architectures, and do nothing else", stage=(LIST,)
    )


_GROUPS: dict[str, type] = {
    "run": RunOptions,
    "data": DataOptions,
    "model": ModelOptions,
    "train": TrainOptions,
    "inference": InferenceOptions,
    "command": CommandOptions,
}
_FIELDS = {entry.name: entry for cls in _GROUPS.values() for entry in fields(cls)}
_HINTS = {k: hint for cls in _GROUPS.values() for k, hint in typing.get_type_hints(cls).items()}
_IN_RECIPES = {
    entry.name
    for entry in _FIELDS.values()
    if entry.metadata["in_recipes"] and {FIT, EVALUATE} & set(entry.metadata["stage"])
}
_SECTIONS: dict[str, tuple[type | str, ...]] = {
    "recognise emotion in recordings": (InferenceOptions, CommandOptions),
    "train": ("recipe", "annotation_path", "model", "n_epochs", FolderOptions, LoopOptions),
    "evaluate": (ScoringOptions, FoldOptions),
    "data": (RecordOptions,),
    "clips": (ClipOptions,),
    "model": (ModelOptions, "list_models"),
    "starting weights": (StartOptions,),
    "optimizer and learning rate": (
        "optimizer",
        "learning_rate",
        "lr_schedule",
        OptimizerOptions,
        ScheduleOptions,
    ),
    "loss": (LossOptions,),
    "augmentation and balance": (AugmentationOptions, BalanceOptions),
    "machine": (RunOptions, "n_threads"),
}
_TASKS = {"train": TRAIN, "evaluate": EVALUATE, "infer": INFER}
_EXAMPLES = """\
Recognise emotion in recordings of faces and voices, and train the models that do it.

examples:
  python main.py --media_path interview.mp4                  # write its emotion timeline
  python main.py --recipe ravdess_ia                         # train a model as a recipe says
  python main.py --no_train --resume_path results/RUN        # evaluate a run that was trained
"""
_FOOTNOTE = """\
--help train, --help evaluate and --help infer show only the flags of one task. A flag that has no
effect is an error. Every --flag_name may also be written --flag-name."""


@dataclass(frozen=True)
class Options(ExperimentOptions):
    """All options, the mode they ask for, and the names of those that were given."""

    inference: InferenceOptions
    command: CommandOptions
    given: frozenset[str]

    @property
    def mode(self) -> str:
        if self.command.list_models:
            return LIST
        if self.command.only_inference or self.inference.media_path:
            return INFER
        return EVALUATE if self.train.no_train else TRAIN

    @property
    def infer_extras(self) -> dict[str, Any]:
        """Options of clips and models that were given for inference, such as the window length.

        Who names the speakers of recordings wants each face measured against its own mean.
        """
        values = {**asdict(self.data), **asdict(self.model)}
        extras = {
            name: value
            for name, value in values.items()
            if name in self.given and INFER in _FIELDS[name].metadata["stage"]
        }
        if self.inference.speaker_folder or self.inference.speaker_column:
            extras.setdefault("adapt", "recording")
        return extras


def parse_options(arguments: Sequence[str] | None = None) -> Options:
    """Parse a command line.

    A run that is resumed takes what is not given from its `opts.json`, others from their recipe.

    Raises:
        ValueError: a flag that has no effect in the mode asked for, or a missing one; a recipe that
            cannot be read.
        SystemExit: status 2 after one line for an unknown flag or value; 0 after the help.
    """
    given = vars(_build_parser().parse_args(arguments))
    old = _take_old_flags(given)
    recipe, notes = _recipe_values(given["recipe"]) if "recipe" in given else ({}, [])
    saved = _saved_values(given.get("resume_path"))
    # An override may take away what the recipe's other options are for; that is no mistake.
    asked = given if set(recipe) & set(given) - {"model_arg"} else {**recipe, **given}
    values = {**saved, **recipe, **given}
    values["model_arg"] = _joined_arguments(saved, recipe, given)
    groups = {
        name: cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})
        for name, cls in _GROUPS.items()
    }
    options = Options(given=frozenset(asked), **groups)
    with naming_recipe(given.get("recipe")):
        _check_effects(options)
        if options.mode == TRAIN:
            strict = _joined_arguments(recipe if asked is not given else {}, given)
            options = replace(options, model=_read_model(options, strict, old))
        if options.mode in _CHECKS:
            _CHECKS[options.mode](options)
    for note in [*notes, *(f"--{name} is now --model_arg {name}=VALUE" for name in old)]:
        _LOG.warning("note: %s; the old spelling will go with the next version", note)
    return options


def _joined_arguments(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """The model's own arguments, later ones over earlier ones."""
    return {key: value for each in sources for key, value in each.get("model_arg", {}).items()}


def _build_parser(exit_on_error: bool = True) -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="main.py",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        exit_on_error=exit_on_error,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action=HelpAction, choices=_TASKS, show=format_help)
    add_flags(parser, _GROUPS.values())
    for name in OLD_OPTIONS:
        action = argparse.BooleanOptionalAction if name == "bidirectional" else "store"
        parser.add_argument(*spellings_of(name), action=action)
    return parser


def format_help(task: str | None = None) -> str:
    """What `--help` prints: examples, then flags by what they are for.

    Args:
        task: `train`, `evaluate` or `infer` for the flags of one task.
    """
    stage = None if task is None else _TASKS[task]
    return "\n".join([_EXAMPLES, format_sections(_SECTIONS, stage), "", _FOOTNOTE])


def _take_old_flags(given: dict[str, Any]) -> list[str]:
    """Make values of `model_arg` a table, and put those of old flags into it. Returns the old."""
    old = [name for name in OLD_OPTIONS if name in given]
    table = dict(given.pop("model_arg", []))
    if table := table | {name: given.pop(name) for name in old}:
        given["model_arg"] = table
    return old


def _recipe_values(name: str) -> tuple[dict[str, Any], list[str]]:
    """Options of a recipe, read as the command line reads flags of these names and values.

    Returns:
        Them, and notes on old names.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    table = {key.replace("-", "_"): value for key, value in read_recipe(path).items()}
    own = table.pop("model_arg", {})
    if not isinstance(own, dict):
        raise ValueError(f"{path}: model_arg is a table: [model_arg], then a line for each")
    old = {key: table.pop(key) for key in OLD_OPTIONS if key in table}
    arguments: list[str] = []
    for key, value in table.items():
        if key not in _IN_RECIPES:
            raise ValueError(f"{path}: unknown option {key!r}")
        arguments += as_arguments(_FIELDS[key], _HINTS[key], value)
    try:
        values = vars(_build_parser(exit_on_error=False).parse_args(arguments))
    except argparse.ArgumentError as error:
        raise ValueError(f"{path}: {error}") from error
    if own or old:
        values["model_arg"] = {**old, **own}
    return values, [f"{path}: {key} is now in the table [model_arg]" for key in old]


def _saved_values(resume_path: str | None) -> dict[str, Any]:
    """Options of the run that is resumed; those of version 0.1 hold old flags one by one."""
    if resume_path is None:
        return {}
    path = run_folder_of(resume_path) / "opts.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("opts.json holds no options")
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"--resume_path {resume_path} is not a run folder: {error}") from error
    old = {name: values[name] for name in OLD_OPTIONS if values.get(name) is not None}
    return {**values, "model_arg": values.get("model_arg", old)}


def _read_model(options: Options, strict: Mapping[str, Any], old: Iterable[str]) -> ModelOptions:
    """The model with its own arguments as its constructor declares them.

    Args:
        strict: those that it has to take; others, of a run or recipe for another one, are left.
        old: flags by which some of them were given.
    """
    from models.arguments import check_arguments, read_arguments
    from models.registry import accepted_arguments

    model, accepted = options.model, accepted_arguments(options.model.model)
    for name in sorted(set(old) - set(accepted)):
        raise ValueError(f"--{name} has no effect: model {model.model} does not take it")
    for name in sorted(set(strict) & options.given):
        raise ValueError(f"give {name} as --{name} or in --model_arg, not both")
    read_arguments(model.model, strict)
    kept = {name: value for name, value in model.model_arg.items() if name in accepted}
    model = replace(model, model_arg=read_arguments(model.model, kept))
    if strict or options.given & {f.name for f in fields(ModelOptions)}:
        check_arguments(model.model, model.arguments(accepted))
    return model


def _check_effects(options: Options) -> None:
    """Refuse what has no effect in this mode, and what lies out of range."""
    mode = options.mode
    for name in sorted(options.given):
        if mode not in _FIELDS[name].metadata["stage"]:
            raise ValueError(f"--{name} has no effect here ({_MODE_TEXT[mode]})")
    if mode != TRAIN and options.run.batch_size == AUTO_BATCH:
        raise ValueError("--batch_size auto is for training; give a number")
    for group in (options.run, options.data, options.model, options.train):
        for entry in fields(group):
            value, least = getattr(group, entry.name), entry.metadata["least"]
            if None not in (value, least) and value < least:
                raise ValueError(f"--{entry.name} must be at least {least:g}, not {value:g}")


_MODE_TEXT = {
    TRAIN: "without --media_path, main.py trains",
    EVALUATE: "with --no_train a trained run is scored as it is",
    INFER: "with --media_path, main.py writes timelines and trains nothing",
    LIST: "with --list_models, main.py prints a table and nothing else",
}


def _check_training(options: Options) -> None:
    if not options.data.annotation_path:
        raise ValueError("give --annotation_path to train, or --media_path for a timeline")
    _check_conditions(options)
    _check_architecture(options)
    _check_start(options)
    train, task = options.train, options.data.task
    if train.loss and train.loss not in LOSSES[task]:
        raise ValueError(
            f"--loss {train.loss} is not for --task {task}; choose from {', '.join(LOSSES[task])}"
        )
    options.data.build()
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
    for name in sorted(options.given):
        when = _FIELDS[name].metadata["when"]
        if when and values[when[0]] not in when[1]:
            wanted = " or ".join({True: "on"}.get(value, str(value)) for value in when[1])
            raise ValueError(f"--{name} has no effect unless --{when[0]} is {wanted}")


def _check_architecture(options: Options) -> None:
    from models.registry import accepted_arguments, model_inputs

    model, inputs = options.model.model, model_inputs(options.model.model)
    accepted = {*accepted_arguments(model), "model", "model_arg"}
    accepted |= {f"{name}_path" for name in inputs if name in accepted}
    for name in sorted(options.given & {f.name for f in fields(ModelOptions)} - accepted):
        raise ValueError(f"--{name} has no effect: model {model} does not take it")
    if set(inputs) <= accepted:
        for name in sorted(options.given):
            if COMBINE not in _FIELDS[name].metadata["stage"]:
                raise ValueError(f"--{name} has no effect: {model} combines parts that are trained")
        if options.data.task != "classification":
            raise ValueError(f"{model} combines classifiers; --task {options.data.task} has none")
    if len(inputs) == 1:
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


def _check_evaluation(options: Options) -> None:
    if options.train.resume_path is None:
        raise ValueError("--no_train needs --resume_path: the run folder to score")


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


_CHECKS = {TRAIN: _check_training, EVALUATE: _check_evaluation, INFER: _check_inference}
