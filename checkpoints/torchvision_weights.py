"""ImageNet and Kinetics weights of torchvision for the parts of a model that were built for them.

They come from torchvision's own weight API, which keeps them in torch's hub folder, or from a file
on disk. Nothing is fetched unless `load_torchvision` is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from checkpoints.checkpoint import KeyReport, compare_keys
from checkpoints.torch_files import read_foreign_weights
from models import EmotionModel

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

DEFAULT = "default"
HEADS = ("fc.", "classifier.", "heads.")  # of torchvision's classifiers


def load_torchvision(model: EmotionModel, which: str | Path = DEFAULT) -> list[KeyReport]:
    """Start the parts that a model names in `torchvision_weights` from those weights.

    torchvision's own classifier is left out; every other tensor must be there, in its shape.

    Args:
        model: changed in place.
        which: `default` for torchvision's weights by name, from the hub folder or the network; or
            the path of a file that holds them.

    Returns:
        What matched, for each part.

    Raises:
        ValueError: the model has no such part, the weights cannot be had, or they do not fit.
    """
    wanted = model.torchvision_weights
    if not wanted:
        raise ValueError(
            f"torchvision has no weights for {model.name}; give --pretrained none to train it "
            "from scratch"
        )
    if which != DEFAULT and len(wanted) > 1:
        raise ValueError(
            f"{model.name} has {len(wanted)} pretrained parts ({', '.join(wanted)}), and a "
            "single file cannot hold them; put torchvision's files into "
            f"{hub_folder()} and leave --pretrain_path out"
        )
    return [_load_part(model, part, name, which) for part, name in wanted.items()]


def hub_folder() -> Path:
    """Where torchvision looks for weights before it fetches them."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def weights_file(name: str) -> Path:
    """Where torchvision keeps the weights of that name, whether they are there or not."""
    return hub_folder() / Path(_weights_of(name).url).name


def _load_part(model: EmotionModel, part: str, name: str, which: str | Path) -> KeyReport:
    if which == DEFAULT:
        weights, origin = _fetch(_weights_of(name)), name
    else:
        weights, origin = _read(Path(which)), str(which)
    own = {key: value for key, value in weights.items() if not key.startswith(HEADS)}
    report = compare_keys(model, own, f"{part}.")
    if report.missing or report.unexpected:
        raise ValueError(f"{origin} does not fit {part} of {model.name} ({name}): {report}")
    model.get_submodule(part).load_state_dict(own, strict=True)
    return report


def _weights_of(name: str) -> WeightsEnum:
    from torchvision.models import get_weight  # here, as it takes seconds to import

    return get_weight(name)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"no weights at {path}")
    return read_foreign_weights(path)


def _fetch(weights: WeightsEnum) -> dict[str, Tensor]:
    try:
        return dict(weights.get_state_dict(progress=True, check_hash=True))
    except (OSError, RuntimeError) as error:
        file = Path(weights.url).name
        raise ValueError(
            f"cannot get {weights} ({_first_line(error)}): fetch {weights.url} elsewhere and put "
            f"it at {hub_folder() / file}, or give --pretrain_path FILE; --pretrained none trains "
            "from scratch"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].strip("<>")
