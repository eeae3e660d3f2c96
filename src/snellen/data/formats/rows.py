"""A table file as rows of strings: CSV, TSV and Parquet, with the line or row number that each came from.

Nothing is guessed to be a number, a date or a truth value: a class named 'no' or '012' stays that.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from snellen.core.errors import DataError, StorageError
from snellen.data.image import IMAGE_SUFFIXES

SUFFIXES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What a table file holds.

    header     column names, as written
    rows       (number in the file, cells), as many cells as names
    unit       what the number counts: 'line' or 'row'
    delimiter  what separates the cells of a text file, else ''
    no_text    columns that were skipped since they hold no text or number, with their type
    """

    header: Sequence[str]
    rows: Sequence[tuple[int, Sequence[str]]]
    unit: str
    delimiter: str = ""
    no_text: Mapping[str, str] = field(default_factory=dict)


def read_rows(path: Path) -> Rows:
    """Read a table. Raises DataError, with the line where one is to blame."""
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    return _read_text(path)


def _read_text(path: Path) -> Rows:
    text = _decoded(path)
    delimiter = delimiter_of(path, text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    numbered = list(_numbered(path, reader))
    if not numbered:
        raise DataError(f"{path} is empty; it should begin with a line such as image,label")
    header = [cell.strip() for cell in numbered[0][1]]
    named = next((cell for cell in header if PurePosixPath(cell).suffix.lower() in IMAGE_SUFFIXES), None)
    if named is not None:
        raise DataError(f"{path} has no header: its first line holds '{named}'; put a line such as image,label on top")
    for number, cells in numbered[1:]:
        if len(cells) != len(header):
            raise DataError(
                f"{path}, line {number}: {len(cells)} cells under {len(header)} column names; "
                "put a cell that holds the separator in quotes"
            )
    return Rows(header=header, rows=numbered[1:], unit="line", delimiter=delimiter)


def _decoded(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text; save the table as 'CSV UTF-8'") from error


def delimiter_of(path: Path, text: str) -> str:
    """Tab for .tsv; else whichever of , ; tab the header has most of: spreadsheets write ; in half of Europe."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    header = text.lstrip("\r\n").partition("\n")[0]
    return max(",;\t", key=header.count)


def _numbered(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the line that it begins on."""
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}: the row that begins on line {line} is not valid CSV: {error}") from error


def _read_parquet(path: Path) -> Rows:
    import pyarrow  # 0.3 s, and only for this format
    import pyarrow.parquet

    types = pyarrow.types
    try:
        schema = pyarrow.parquet.read_schema(path)
        no_text = {
            column.name: str(column.type)
            for column in schema
            if types.is_nested(column.type) or types.is_binary(column.type) or types.is_large_binary(column.type)
        }
        header = [name for name in schema.names if name not in no_text]
        # Only these: a column of embedded pictures may be larger than memory.
        table = pyarrow.parquet.read_table(path, columns=header, use_threads=False)
        columns = [[_cell(value) for value in column.to_pylist()] for column in table.columns]
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path} as Parquet: {' '.join(str(error).split())}") from error
    return Rows(
        header=table.column_names,
        rows=list(enumerate(zip(*columns, strict=True), start=1)),
        unit="row",
        no_text=no_text,
    )


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table by the suffix of ``path``, whole or not at all. Raises StorageError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if path.suffix.lower() == ".parquet":
            _write_parquet(partial, header, rows)
        else:
            with open(partial, "w", encoding="utf-8", newline="") as file:
                delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
                csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])
        os.replace(partial, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _write_parquet(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = [pyarrow.array([row[i] for row in rows], pyarrow.string()) for i in range(len(header))]
    pyarrow.parquet.write_table(pyarrow.table(columns, names=list(header)), path)
