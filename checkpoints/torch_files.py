"""Tensors of files that torch saved, read without running any code that they name."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

_PARALLEL = "module."  # before each name of weights that were trained in parallel
_MOST_CLASSES = 64  # that a file may name beside tensors
_UNPACKED = 2.0  # times a torch file's size that its content may be; torch compresses nothing


class _Inert:
    """Stands for any class that a foreign file names: takes everything, does nothing."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def read_foreign_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of a torch-saved file, without the `module.` that parallel training leaves.

    The file is read with `weights_only=True`. Objects of other classes in it (recorders, numpy
    scalars) become inert placeholders: no code of the file's choosing runs.

    Raises:
        ValueError: not a torch file, or one without tensors.
    """
    check_packing(path)
    placeholders: list[tuple[type, str]] = []
    while True:
        try:
            with torch.serialization.safe_globals([*placeholders]):
                content = torch.load(path, map_location="cpu", weights_only=True)
            break
        except Exception as error:  # noqa: BLE001 - torch raises many kinds for a foreign file
            named = re.search(r"GLOBAL ([\w.]+) was not an allowed global", str(error))
            known = {name for _, name in placeholders}
            if named is None or named.group(1) in known or len(known) >= _MOST_CLASSES:
                raise ValueError(
                    f"{path} cannot be read as torch weights: {_cause(error)}"
                ) from None
            placeholders.append((_Inert, named.group(1)))
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    if not isinstance(state, Mapping):
        state = {}
    weights = without_module(
        {k: v for k, v in state.items() if isinstance(k, str) and isinstance(v, Tensor)}
    )
    if not weights and {"model", "optimizer"} <= set(state):
        raise ValueError(
            f"{path} is the state that a run goes on from, not a checkpoint; give "
            f"{path.with_name('model_best.safetensors')}"
        )
    if not weights:
        raise ValueError(f"{path} holds no weights")
    return weights


def check_packing(path: Path) -> None:
    """Raise ValueError for a file that would unpack to far more than it holds."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as torch weights: {error}") from error
    if unpacked > _UNPACKED * path.stat().st_size:
        raise ValueError(f"{path} is packed as torch packs no weights: it was not saved by torch")


def _cause(error: Exception) -> str:
    """The line of torch's long message that names what was wrong."""
    lines = [line for line in str(error).splitlines() if "GLOBAL" in line]
    return lines[0][:160] if lines else "it is damaged, or was not saved by torch"


def without_module(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the `module.` that parallel training leaves before each name."""
    if all(name.startswith(_PARALLEL) for name in weights):
        return {name.removeprefix(_PARALLEL): value for name, value in weights.items()}
    return dict(weights)
