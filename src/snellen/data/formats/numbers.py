"""Columns of numbers to be predicted: which they are, and whether numbers are amounts or the names of classes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from snellen.core.errors import DataError
from snellen.data.formats.rows import Rows

AMOUNT_NAMES = ("value", "values")
"""Without a column of labels, one so named is read as amounts unless the task says otherwise."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_LARGEST = 1e30  # of what fits a network's float32, with room for squares of differences after scaling
_COUNTERS = ("", "id", "index")  # a table's own numbering; pandas calls it 'Unnamed: 0'
_MANY = 20  # different whole numbers from which on amounts are as likely as classes
_OFTEN_EMPTY = 0.2  # share of the images without a number that is worth a note


@dataclass(frozen=True, slots=True)
class Targets:
    """The columns that hold the numbers to be predicted, their names, and sentences on how they were chosen."""

    columns: tuple[int, ...]
    names: tuple[str, ...]
    notes: tuple[str, ...]
    decimal_comma: bool = False

    def values(self, cells: Sequence[str]) -> tuple[float, ...] | str:
        """The numbers of one row, or the reason why it has none."""
        found = []
        for column, name in zip(self.columns, self.names, strict=True):
            value = number(cells[column], decimal_comma=self.decimal_comma)
            if isinstance(value, str):
                return f"no number for '{name}'" if not value else f"'{value[:20]}' for '{name}' is not a finite number"
            found.append(value)
        return tuple(found)


def plain(name: str) -> str:
    """A column's name as it is compared: ``Image Path`` is ``image_path``."""
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def number(text: str, *, decimal_comma: bool = False) -> float | str:
    """The finite number that ``text`` is, or the text itself, without blanks around it, when it is none."""
    text = text.strip()
    written = text.replace(",", ".") if decimal_comma and text.count(",") == 1 and "." not in text else text
    if _NUMBER.fullmatch(written) is None:
        return text
    value = float(written)
    return value if abs(value) <= _LARGEST else text


def asked_targets(table: Rows, roles: Mapping[str, int | None], where: str) -> Targets:
    """Every column of numbers but those of ``roles`` (image, group, split). Raises DataError when there is none."""
    taken = {column for role, column in roles.items() if role != "label"}
    others = [i for i in range(len(table.header)) if i not in taken]
    columns = [i for i in others if not is_counter(table.header[i]) and _mostly_numbers(table, i)]
    if not columns:
        names = ", ".join(f"'{table.header[i]}'" for i in others) or "no other"
        raise DataError(f"{where} has no column of numbers to predict beside the images, but {names}; add one")
    unused = [table.header[i].strip() or "one without a name" for i in others if i not in columns]
    told = ", ".join(table.header[i].strip() for i in columns)
    note = f"to be predicted: {told}" + (f"; columns not used: {', '.join(unused)}" if unused else "")
    return _targets(table, columns, [note, *_often_empty(table, columns)], where)


def amounts(table: Rows, label: int | None, where: str) -> Targets | None:
    """The one column that holds amounts rather than names of classes, where nobody said what the task is.

    A column of labels is one when nearly all of its cells are numbers, most of them not whole and most of them
    different; one called target also when it has more than 20 different numbers.
    """
    if label is None:
        named = [i for i, name in enumerate(table.header) if plain(name) in AMOUNT_NAMES and _mostly_numbers(table, i)]
        return _targets(table, named, _decided(table, named), where) if named else None
    cells = [cells[label] for _, cells in table.rows if cells[label].strip()]
    numbers = [value for cell in cells if isinstance(value := number(cell, decimal_comma=_comma(table)), float)]
    if not numbers or len(numbers) < 0.95 * len(cells):
        return None
    broken = sum(not value.is_integer() for value in numbers)
    measured = broken > 0.5 * len(numbers) and len(set(numbers)) > max(2, 0.5 * len(numbers))
    if measured or (plain(table.header[label]) in ("target", "targets") and len(set(numbers)) > _MANY):
        return _targets(table, [label], _decided(table, [label]), where)
    return None


def doubt(name: str, classes: Sequence[str]) -> tuple[str, ...]:
    """What to say when ``classes`` might be amounts after all: many of them, and all numbers."""
    if len(classes) > _MANY and all(isinstance(number(each), float) for each in classes):
        told = f"{name} {len(classes)} different numbers, each taken for a class; if they are amounts to be predicted, "
        return (f"{told}give --task regression",)
    return ()


def _decided(table: Rows, columns: Sequence[int]) -> list[str]:
    names = [table.header[i].strip() for i in columns]
    rename = " and call the column 'label'" if plain(names[0]) in AMOUNT_NAMES else ""
    return [
        f"the numbers in {' and '.join(map(repr, names))} are taken for amounts to be predicted (regression); if they "
        f"are the names of classes, give --task classification{rename}"
    ]


def _targets(table: Rows, columns: Sequence[int], notes: Sequence[str], where: str) -> Targets:
    names = tuple(table.header[i].strip() for i in columns)
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise DataError(f"{where} has two columns '{twice}'; rename one of them")
    return Targets(tuple(columns), names, tuple(notes), _comma(table))


def _comma(table: Rows) -> bool:
    """Spreadsheets separate columns by ; where the comma is the decimal sign."""
    return table.delimiter == ";"


def is_counter(name: str) -> bool:
    """Whether a column of this name numbers the rows."""
    return plain(name) in _COUNTERS or plain(name).startswith("unnamed:")


def _mostly_numbers(table: Rows, column: int) -> bool:
    """More than half of the cells that are not empty are numbers, or would be if they were finite."""
    cells = [cells[column].strip() for _, cells in table.rows if cells[column].strip()]
    found = sum(
        isinstance(number(cell, decimal_comma=_comma(table)), float) or bool(_NOT_FINITE.fullmatch(cell))
        for cell in cells
    )
    return found > 0.5 * len(cells)


def _often_empty(table: Rows, columns: Sequence[int]) -> list[str]:
    notes = []
    for i in columns:
        share = sum(not cells[i].strip() for _, cells in table.rows) / len(table.rows)
        if len(columns) > 1 and share > _OFTEN_EMPTY:
            name = table.header[i].strip()
            notes.append(f"'{name}' is empty for {share:.0%} of the rows, which are left out: without it they count")
    return notes
