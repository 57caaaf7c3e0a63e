"""What a checkpoint in our format says of itself, read without its weights and without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

KEY = "emofuse"  # of the safetensors metadata that holds the configuration as JSON


def read_metadata(path: Path) -> dict[str, Any]:
    """The configuration: architecture, class names, ClipConfig, training data, as they were saved.

    Raises:
        ValueError: not a safetensors file, or not one that this project wrote.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            values = json.loads((file.metadata() or {}).get(KEY, "null"))
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    if values is None:
        raise ValueError(f"{path} was not written by this project: it lacks its configuration")
    if not isinstance(values, dict):
        raise ValueError(
            f"{path} holds a configuration that cannot be used (it is no JSON object): it is "
            "damaged; copy or train it again"
        )
    return values
