"""Where the checkpoints lie that come with the project."""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).parents[1] / "results" / "pretrained"
DEFAULT_CHECKPOINT = SHIPPED / "late.safetensors"
