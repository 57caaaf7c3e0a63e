"""Whose a prepared folder is: of one corpus, from one place, read with one set of its options."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets.annotations import Record, read_annotations
from system.errors import OptionError
from system.files import write_json

_NAME = "corpus.json"
_REMEDY = "prepare into another folder, or let this corpus take its place"


def claim_folder(
    out: Path, identity: dict[str, Any], records: Sequence[Record], replace: bool = False
) -> None:
    """Note in a folder what is prepared into it.

    Args:
        out: of the manifest and the store.
        identity: `corpus`, `root` and `options` of the corpus.
        records: that are prepared.
        replace: whether another corpus may lose the folder.

    Raises:
        ValueError: the folder is another corpus's; or one's that was prepared before this was
            noted, and shares no recording with this one.
    """
    known = _read_known(out / _NAME)
    if known is not None and not replace:
        for name, value in identity.items():
            if known.get(name) != value:
                raise OptionError(
                    f"{out} was prepared with {name} {_shown(known.get(name))}, not "
                    f"{_shown(value)}: {_REMEDY}",
                    "out",
                    "replace",
                )
    if known is None and not replace:
        _check_manifest(out / "manifest.csv", records)
    if known != identity:
        write_json(identity, out / _NAME)


def _check_manifest(path: Path, records: Sequence[Record]) -> None:
    if not path.exists():
        return
    before = {record.key for record in read_annotations(path)}
    if not before & {record.key for record in records}:
        raise OptionError(
            f"{path} holds {len(before)} other recordings: {_REMEDY}", "out", "replace"
        )


def _read_known(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError(
            f"{path} cannot be read ({error}): {_REMEDY}", "out", "replace"
        ) from error
    return content if isinstance(content, dict) else {}


def _shown(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)
