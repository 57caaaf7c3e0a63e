"""Tables of predictions of several folds as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from system.files import replacing


def pool_predictions(paths: Mapping[str, Path], pooled: Path) -> None:
    """Write all rows of several tables into one.

    A clip name that several folds have gets its fold in front. Where only some folds have votes,
    the votes of the other folds' clips are their labels.

    Args:
        paths: by the name of the fold.
        pooled: the file to write.
    """
    tables = {name: pd.read_csv(path, dtype={"speaker": str}) for name, path in paths.items()}
    counts = Counter(clip for table in tables.values() for clip in set(table["clip"]))
    named = []
    for fold, table in tables.items():
        clips = [f"{fold}/{name}" if counts[name] > 1 else name for name in table["clip"]]
        named.append(table.assign(clip=clips))
    joined = pd.concat(named, ignore_index=True)
    for column in joined.columns[joined.columns.str.startswith("soft_")]:
        is_label = (joined["target"] == column.removeprefix("soft_")).astype(float)
        joined[column] = joined[column].fillna(is_label)
    with replacing(pooled) as temporary:
        joined.to_csv(temporary, index=False)
