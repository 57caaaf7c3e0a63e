"""Where models run."""

from __future__ import annotations

import torch


def pick_device(name: str) -> torch.device:
    """`cpu`, `cuda` (or `cuda:1`), or `auto`: CUDA where there is one.

    Raises:
        ValueError: unknown, or not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}; choose cpu, cuda or auto") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name} is not there; choose cpu or auto")
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"unknown device {name!r}; choose cpu, cuda or auto")
    return device
