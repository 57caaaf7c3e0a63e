"""One run: where it computes and lies, what it starts from, what it is fitted and scored on."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets.options import DataOptions
from models.options import ModelOptions
from optim.options import FitOptions, LossOptions
from system.flags import COMBINE, EVALUATE, FIT, INFER, comma_separated, option

DEFAULT_RUNS = "results"
AUTO_BATCH = sys.maxsize  # `auto`, until the largest that fits is found
_fit_option = partial(option, stage=(FIT,))
_run_option = partial(option, stage=(FIT, COMBINE))
_scored = partial(option, stage=(FIT, COMBINE, EVALUATE))


def number_or_auto(text: str) -> int:
    """A whole number, or `AUTO_BATCH` for `auto`. Argparse names the function in its error."""
    return AUTO_BATCH if text == "auto" else int(text)


@dataclass(frozen=True)
class RunOptions:
    """The machine."""

    device: str = option(
        "auto",
        "cpu, cuda, or auto: the GPU where there is one",
        stage=(FIT, COMBINE, EVALUATE, INFER),
    )
    batch_size: int | None = option(
        None,
        "clips per step of training (default: 32; auto: as many as fit into memory), or windows "
        "per step of recognition (default: 4)",
        stage=(FIT, COMBINE, EVALUATE, INFER),
        least=1,
        read=number_or_auto,
        metavar="N",
    )


@dataclass(frozen=True)
class FolderOptions:
    """Where a run lies."""

    recipe: str | None = _run_option(
        None,
        "take the options of recipes/NAME.toml, or of a .toml file; flags override them",
        in_recipes=False,
    )
    resume_path: str | None = _scored(
        None, "continue this run: its folder, or its last.pt", in_recipes=False, metavar="FOLDER"
    )
    result_path: str = _run_option(DEFAULT_RUNS, "folder of run folders", metavar="FOLDER")
    run_name: str | None = _run_option(None, "name of the run folder (default: model and time)")
    no_val: bool = _fit_option(False, "train without validation: the last epoch is kept")


@dataclass(frozen=True)
class StartOptions:
    """Which weights training starts from, and which of them it changes."""

    pretrained: str | None = _fit_option(
        None,
        "default: the weights that torchvision has for the architecture, if any; none: start from "
        "random weights",
        choices=("default", "none"),
    )
    pretrain_path: list[str] = _fit_option(
        [],
        "files to start from: checkpoints of the model or of its branches, weights of "
        "torchvision, or of Whisper (OpenAI's .pt, Hugging Face's safetensors, CTranslate2's "
        "model.bin)",
        metavar="FILE",
    )
    freeze_pretrained: bool = _fit_option(False, "do not train what --pretrain_path gave")
    trainable: list[str] | None = _fit_option(
        None,
        "blocks to train, separated by commas, such as layer4,head; or all (default: the "
        "architecture's choice with weights of torchvision or Whisper, else all)",
        read=comma_separated,
        metavar="NAMES",
    )
    gradient_checkpointing: bool = _fit_option(
        False, "save memory: compute large blocks twice, where the architecture can"
    )


@dataclass(frozen=True)
class ScoringOptions:
    """What a run scores."""

    no_train: bool = _scored(
        False, "score the run at --resume_path without training it", in_recipes=False
    )
    test_subset: str = _scored(
        "test", "subset that is scored at the end", choices=("test", "val", "none")
    )


@dataclass(frozen=True)
class TrainOptions(FitOptions, LossOptions, FolderOptions, StartOptions, ScoringOptions):
    """How a model is fitted and scored, and where its run lies."""


@dataclass(frozen=True)
class ExperimentOptions:
    """All options of a run."""

    run: RunOptions
    data: DataOptions
    model: ModelOptions
    train: TrainOptions

    def to_dict(self) -> dict[str, Any]:
        """Flat values, for `opts.json`."""
        groups = (self.run, self.data, self.model, self.train)
        return {name: value for group in groups for name, value in asdict(group).items()}


def run_folder_of(resume_path: str) -> Path:
    """The run folder that is named by itself or by its last.pt."""
    path = Path(resume_path)
    return path.parent if path.suffix == ".pt" else path
