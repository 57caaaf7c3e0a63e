"""A headed CSV table as people export it: from R, Excel, LibreOffice, pandas, or by hand.

Fields may be quoted, separated by commas, semicolons or tabs, and followed by spaces; the file may
begin with a byte-order mark. Columns without a name (row numbers of R and
pandas) are left out. What cannot be a table is refused with the file, the line and the remedy.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from system.pointers import LFS_REMEDY, is_lfs_pointer

_SEPARATORS = ",;\t"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Table:
    """Rows under a header.

    Args:
        path: of the file.
        columns: their names, in order.
        rows: cells by column, and the number of the line in the file.
        separator: between fields. Numbers may have a decimal comma where it is none.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]
    separator: str


def read_text(path: Path, kind: str = "table") -> str:
    """Text of a file in UTF-8 (or UTF-16 with its mark). `kind` is what messages call it.

    Bytes that are no UTF-8 become surrogates, as in names of files: see `check_text`.

    Raises:
        ValueError: it cannot be read, or is a pointer to a file in Git LFS.
    """
    try:
        content = path.read_bytes()
        if is_lfs_pointer(path):
            raise ValueError(f"{path} {LFS_REMEDY}")
    except OSError as error:
        raise ValueError(f"cannot read {kind} {path}: {error.strerror}") from error
    if content.startswith(_UTF16):
        text = content.decode("utf-16", "replace")
    else:
        text = content.decode("utf-8", "surrogateescape")
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def check_text(text: str, place: str) -> None:
    """Raise ValueError where text was no UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{place}: is not in UTF-8; save the table as `CSV UTF-8`") from error


def read_table(path: Path, name_of: Callable[[str], str] = str, raw: Collection[str] = ()) -> Table:
    """Read a table.

    Args:
        path: of the file.
        name_of: the name of a column as it is meant, such as without capitals.
        raw: columns that hold names of files, which need not be UTF-8.

    Raises:
        ValueError: it cannot be read, has no header, or a line that does not fit it.
    """
    return parse_table(read_text(path), path, name_of, raw)


def parse_table(
    text: str, path: Path, name_of: Callable[[str], str] = str, raw: Collection[str] = ()
) -> Table:
    """As `read_table`, of text that is read already."""
    separator = find_separator(text)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    found: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                found.append((reader.line_num, stripped))
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.line_num}: {error}; check the quotes of this line and "
            "of those before it"
        ) from error
    if not found:
        raise ValueError(f"{path} is empty")
    header, *rows = found
    names = _read_header(header[1], path, name_of)
    table = tuple((n, _fit(cells, names, f"{path}, line {n}", raw)) for n, cells in rows)
    return Table(path, tuple(name for name in names if name), table, separator)


def find_separator(text: str) -> str:
    """What separates the fields of the header: the one of most; a comma where there is none."""
    header = next((line for line in text.split("\n") if line.strip()), "")
    outside = "".join(header.split('"')[::2])  # of quotes
    return max(_SEPARATORS, key=outside.count)


def read_columns(text: str) -> list[str]:
    """Names in the first line of text, as they stand there."""
    header = next((line for line in text.split("\n") if line.strip()), "")
    reader = csv.reader([header], delimiter=find_separator(text), skipinitialspace=True)
    try:
        cells = next(reader, [])
    except csv.Error:  # no table: such as a binary file in one line
        return []
    return [cell.strip() for cell in cells]


def _read_header(cells: list[str], path: Path, name_of: Callable[[str], str]) -> list[str]:
    names = [name_of(cell) for cell in cells]
    for name in names:
        check_text(name, f"{path}, header")
        if name and names.count(name) > 1:
            raise ValueError(f"{path}: two columns are called {name!r}; keep one")
    return names


def _fit(cells: list[str], names: list[str], place: str, raw: Collection[str]) -> dict[str, str]:
    """Cells by column; a row may end in empty fields that have no column."""
    while len(cells) > len(names) and not cells[-1]:
        cells = cells[:-1]
    if len(cells) != len(names):
        raise ValueError(
            f"{place}: has {len(cells)} fields under a header of {len(names)} columns; quote a "
            "field that holds the separator, and leave empty ones empty"
        )
    row = {name: cell for name, cell in zip(names, cells, strict=True) if name}
    for name, cell in row.items():
        if name not in raw:
            check_text(cell, f"{place}, column {name}")
    return row
