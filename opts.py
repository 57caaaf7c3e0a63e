"""Options as dataclasses, and the one flat command line made from them.

Each field is a flag. Its metadata holds the help text, the choices, and where it has an effect: a
flag that is given where it has none is an error, not silence.
"""

from __future__ import annotations

import argparse
import json
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from command_line import OneLineParser
from datasets.augment import MODALITY_DROPOUTS
from datasets.labels import CLASS_SETS
from media.clip import Colour, PictureChoice
from models import accepted_arguments, list_models, model_inputs
from models.late_fusion import METHODS
from models.multimodalcnn import FUSIONS, SPEECH_BRANCHES
from timeline import TimelineStyle

TRAIN, EVALUATE, INFER = "train", "evaluate", "infer"
SHIPPED = Path(__file__).parent / "results" / "pretrained"
DEFAULT_CHECKPOINT = SHIPPED / "late.safetensors"
DEFAULT_RUNS = "results"
DEFAULT_OUTPUT = "results/inference"


def option(
    default: Any,
    text: str,
    choices: Sequence[str] = (),
    when: tuple[str, tuple[Any, ...]] | None = None,
    least: float | None = None,
) -> Any:
    """A field that becomes a flag.

    Args:
        default: its value where it is not given.
        text: help.
        choices: values allowed.
        when: (other option, its values) under which this one has an effect.
        least: smallest value allowed.
    """
    metadata = {"help": text, "choices": tuple(choices), "when": when, "least": least}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class RunOptions:
    """What every mode takes."""

    device: str = option("auto", "cpu, cuda, or auto: cuda where there is one")
    batch_size: int | None = option(
        None, "clips per step (training: 32), windows (inference: 4)", least=1
    )


@dataclass
class DataOptions:
    """What is trained on or scored."""

    annotation_path: list[str] = option([], "annotation files: CSV manifest, or 4-field lines")
    dataset: str | None = option(None, "take only records of this corpus")
    classes: str = option(
        "auto", f"auto, {', '.join(CLASS_SETS)}, or a comma-separated list in order"
    )
    n_classes: int | None = option(None, "check: refuse another number of classes")
    sample_size: int | None = option(None, "side of face pictures; must be the store's")
    sample_duration: int = option(15, "face pictures per window", least=1)
    picture_choice: PictureChoice = option("last", "which pictures of a window")
    window_seconds: float = option(1.0, "length of a window")
    colour: Colour = option("rgb", "colour planes given to the model")
    video_norm_value: int | None = option(
        None, "divide pictures by this (255 or 1) in place of ImageNet's mean and deviation"
    )
    pair_with: list[str] = option(
        [], "annotation files that lend a face or sound to records of their label that lack it"
    )
    balance: float = option(
        0.0, "draw rare classes more often in training: 0 as they come, 1 all equally often"
    )
    augment: bool = option(True, "random changes in training")
    n_threads: int = option(0, "processes that load samples; 0: the main one", least=0)


@dataclass
class ModelOptions:
    """Which architecture. Those the architecture does not take are refused."""

    model: str = option("multimodalcnn", "architecture", list_models())
    fusion: str = option("ia", "of multimodalcnn; late: --model late_fusion", (*FUSIONS, "late"))
    num_heads: int = option(1, "attention heads, where the model has them", least=1)
    speech_model: str = option("speech_cnn", "speech branch", tuple(SPEECH_BRANCHES))
    n_mels: int = option(64, "rows of the speech input")
    dropout: float = option(0.2, "dropout, where the model has it")
    late_method: str = option("product", "rule of late_fusion", METHODS)
    face_path: str | None = option(None, "late_fusion: checkpoint of the face classifier")
    speech_path: str | None = option(None, "late_fusion: checkpoint of the speech classifier")


@dataclass
class TrainOptions:
    """How a model is fitted."""

    result_path: str = option(DEFAULT_RUNS, "where run folders lie")
    run_name: str | None = option(None, "name of the run folder; default: model and time")
    resume_path: str | None = option(None, "run folder (or its last.pt) to go on with")
    pretrain_path: list[str] = option([], "checkpoints to start the model or its branches from")
    freeze_pretrained: bool = option(False, "keep what --pretrain_path gave as it is")
    no_train: bool = option(False, "only score the run at --resume_path")
    no_val: bool = option(False, "no validation while training: the last epoch is kept")
    test_subset: str = option("test", "scored at the end", ("test", "val", "none"))
    mask: str = option("softhard", "modality dropout", MODALITY_DROPOUTS)
    n_epochs: int = option(100, "epochs in all", least=1)
    begin_epoch: int = option(1, "first epoch's number, for the schedule of a fresh run", least=1)
    optimizer: str = option("sgd", "optimizer", ("sgd", "adam", "adamw"))
    learning_rate: float = option(0.04, "sgd's dampening of 0.9 makes it 10 times less", least=0)
    momentum: float = option(0.9, "of sgd", when=("optimizer", ("sgd",)))
    dampening: float = option(0.9, "of sgd", when=("optimizer", ("sgd",)))
    weight_decay: float = option(1e-3, "weight decay", least=0)
    lr_schedule: str = option(
        "plateau", "learning rate over time", ("constant", "step", "plateau", "cosine", "onecycle")
    )
    lr_steps: list[int] = option(
        [40, 55, 65, 70, 200, 250], "epochs that divide it by 10", when=("lr_schedule", ("step",))
    )
    lr_patience: int = option(
        10, "epochs without a better loss", when=("lr_schedule", ("plateau",))
    )
    clip_grad: float = option(0.0, "largest norm of the gradient; 0 for no limit", least=0)
    label_smoothing: float = option(0.0, "of the cross-entropy")
    mixup: float = option(0.0, "alpha of MixUp; 0 for none", least=0)
    ema: float = option(0.0, "decay of the averaged weights that are validated; 0 for none")
    amp: str = option(
        "auto", "mixed precision; auto: bf16 on cuda", ("auto", "off", "bf16", "fp16")
    )
    early_stopping: int = option(0, "epochs without a better validation UAR; 0 for none")
    manual_seed: int = option(1, "of every random draw")


@dataclass
class InferenceOptions:
    """How media files become timelines."""

    only_inference: bool = option(False, "no training: read --media_path (which implies it)")
    media_path: list[str] = option([], "files, folders or globs")
    model_path: str = option(str(DEFAULT_CHECKPOINT), "checkpoint")
    efficientface_path: str | None = option(
        None, "published EfficientFace to see with, in place of the checkpoint's face classifier"
    )
    hop_seconds: float | None = option(None, "from window to window; default: the window")
    output: str = option(DEFAULT_OUTPUT, "folder for <name>.csv, .json and .png")
    save_plot: str | None = option(None, "file for the plot of a single recording")
    no_plot: bool = option(False, "write no plot")
    plot_style: TimelineStyle = option("stacked", "of the plot")
    yunet_path: str | None = option(None, "ONNX file of OpenCV's YuNet: a faster face detector")


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
}
_INFER_TOO = ("window_seconds", "fusion", "num_heads")  # see `Options.infer_extras`
_FIT_ONLY = {f.name for f in fields(TrainOptions)} - {"resume_path", "no_train", "test_subset"}
# What has no effect where trained parts are combined: they bring their clips and are not trained.
_OF_PARTS = {"sample_duration", "picture_choice", "window_seconds", "colour", "video_norm_value"}
_OF_PARTS |= {"augment", "balance"} | _FIT_ONLY - {"result_path", "run_name", "manual_seed"}


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
        if self.inference.only_inference or self.inference.media_path:
            return INFER
        return EVALUATE if self.train.no_train else TRAIN

    @property
    def infer_extras(self) -> dict[str, Any]:
        """Options of training that were given for inference: window length, fusion, heads."""
        values = {**asdict(self.data), **asdict(self.model)}
        return {name: values[name] for name in _INFER_TOO if name in self.given}

    def to_dict(self) -> dict[str, Any]:
        """Flat values of what training and evaluation take, for `opts.json`."""
        groups = (self.run, self.data, self.model, self.train)
        return {name: value for group in groups for name, value in asdict(group).items()}


def parse_options(arguments: Sequence[str] | None = None) -> Options:
    """Parse a command line.

    A run that is resumed takes what is not given from its `opts.json`.

    Raises:
        ValueError: a flag that has no effect in the mode asked for, or a missing one.
        SystemExit: status 2 after one line for an unknown flag or value.
    """
    given = vars(_build_parser().parse_args(arguments))
    values = {**_saved_values(given.get("resume_path")), **given}
    groups = {
        name: cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})
        for name, cls in _GROUPS.items()
    }
    options = Options(given=set(given), **groups)
    _check(options)
    return options


def _build_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="main.py",
        description="Train and score emotion recognition from face and speech, or write the "
        "emotion timeline of recordings.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
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
    if hint is bool and default is True:
        group.add_argument(*names, help=text, action=argparse.BooleanOptionalAction)
    elif hint is bool:
        group.add_argument(*names, help=text, action="store_true")
    else:
        many = typing.get_origin(hint) is list
        is_literal = typing.get_origin(hint) is typing.Literal
        choices = typing.get_args(hint) if is_literal else entry.metadata["choices"] or None
        extra = {"nargs": "+"} if many else {}
        group.add_argument(*names, help=text, type=_base_type(hint), choices=choices, **extra)


def _base_type(hint: Any) -> Any:
    """`list[int]` -> int, `str | None` -> str, a Literal -> str."""
    if typing.get_origin(hint) is typing.Literal:
        return str
    if typing.get_origin(hint) in (list, types.UnionType, typing.Union):
        return typing.get_args(hint)[0]
    return hint


def _saved_values(resume_path: str | None) -> dict[str, Any]:
    if resume_path is None:
        return {}
    path = run_folder_of(resume_path) / "opts.json"
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
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
        taken -= _FIT_ONLY | {f.name for f in fields(ModelOptions)} | {"augment", "balance"}
    for name in sorted(options.given - taken - {"only_inference"}):
        raise ValueError(f"--{name} has no effect here ({_MODE_TEXT[mode]})")
    _check_sizes(options)
    checks = {TRAIN: _check_training, EVALUATE: _check_evaluation, INFER: _check_inference}
    checks[mode](options)


_MODE_TEXT = {
    TRAIN: "without --media_path, main.py trains",
    EVALUATE: "with --no_train a trained run is scored as it is",
    INFER: "with --media_path, main.py writes timelines and trains nothing",
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
    model = options.model.model
    accepted = {*accepted_arguments(model), "model"}
    accepted |= {f"{name}_path" for name in ("face", "speech") if name in accepted}
    for name in sorted(options.given & {f.name for f in fields(ModelOptions)} - accepted):
        raise ValueError(f"--{name} has no effect: model {model} does not take it")
    if set(model_inputs(model)) <= accepted:
        for name in sorted(options.given & _OF_PARTS):
            raise ValueError(f"--{name} has no effect: {model} combines parts that are trained")
    if len(model_inputs(model)) == 1:
        for name in sorted(options.given & {"mask", "pair_with"}):
            raise ValueError(f"--{name} has no effect: model {model} takes one modality")
    if options.train.freeze_pretrained and not options.train.pretrain_path:
        raise ValueError("--freeze_pretrained has no effect without --pretrain_path")
    if options.train.no_val and options.train.early_stopping:
        raise ValueError("--early_stopping has no effect with --no_val")


def _check_conditions(options: Options) -> None:
    """Refuse a flag whose `when` does not hold."""
    for group in (options.data, options.model, options.train):
        for entry in fields(group):
            when = entry.metadata["when"]
            if entry.name in options.given and when:
                other, values = when
                if getattr(group, other) not in values:
                    wanted = " or ".join(map(str, values))
                    raise ValueError(f"--{entry.name} has no effect unless --{other} is {wanted}")


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
