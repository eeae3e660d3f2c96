"""A table of images: CSV, TSV or Parquet with the columns image and label, and if wanted group and split.

    image,label,group,split
    photos/1.jpg,cat,anna,train

Column names are matched in any case, and under the synonyms of COLUMNS; other columns are ignored. Image paths are
relative to ``images``, or else to the table's folder. Labels are text, as written, without the blanks around them.

Several labels: 'cat|dog' in one cell; where no label has a '|', ';' separates (unless it separates the columns). A
comma never does: names hold commas. One such cell makes the whole table multi-label; then an empty cell says "none of
the classes", and an image may take several rows. In a single-label table an image without a label is left out, and
two labels for one image are an error. ``multi_label`` overrides: False reads 'cat|dog' as one name.

Numbers: with ``numeric`` every column of numbers beside image, group and split is one to be predicted, under its own
name; None lets the data decide (data/formats/numbers.py), False never. An image without a finite number in each of
them is left out.

Counting: every image that is named once or more is one record or one thing left out; so is each row that names none.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from snellen.core.errors import DataError
from snellen.core.record import LeftOut, Listing, Record, Split
from snellen.data.formats.folder import SPLIT_FOLDERS
from snellen.data.formats.numbers import Targets, amounts, asked_targets, doubt, is_counter, plain
from snellen.data.formats.rows import SUFFIXES, Rows, read_rows, write_rows

COLUMNS = {
    "image": ("image", "filename", "file", "path", "image_path", "file_name", "filepath", "file_path", "image_file"),
    "label": ("label", "labels", "class", "classes", "target", "targets", "category", "class_name"),
    "group": ("group", "groups", "group_id"),
    "split": ("split", "subset", "set"),
}
"""What each column may be called; the first name wins where several are there."""

SEPARATORS = "|;"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    where: str
    image: str
    label: str
    cells: Sequence[str]
    group: str | None
    split: Split | None


def matches(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in SUFFIXES


def read(
    path: Path,
    *,
    images: Path | None = None,
    multi_label: bool | None = None,
    numeric: bool | None = None,
    marks: object = None,
) -> Listing:
    """Read a table of images. Raises DataError, which names the line; when most images are missing, too."""
    path = Path(path)
    table = read_rows(path)
    at = {role: _column(path, table.header, role) for role in COLUMNS}
    targets = _targets(path, table, at, multi_label=multi_label, numeric=numeric)
    rows = _rows(path, table, at, labelled=targets is None and not numeric)
    root = Path(os.path.abspath(path.parent if images is None else images))
    if not root.is_dir():
        raise DataError(f"the folder of images, {root}, does not exist; give it with --images")
    left_out = [LeftOut(path=row.where, reason="names no image") for row in rows if not row.image]
    found, missing = _located([row for row in rows if row.image], root)
    _check_found(path, root, found, missing)
    left_out += [LeftOut(path=name, reason="file not found") for name in missing]
    if targets is not None:
        return _of_numbers(path, root, targets, found, left_out)
    separator = "" if multi_label is False else _separator(rows, taken=table.delimiter)
    multi_label = bool(separator) if multi_label is None else multi_label
    records = []
    for file, of_image in found.items():
        id = Path(os.path.relpath(file, root)).as_posix()
        labels = _merged(path, of_image, separator, multi_label=multi_label)
        if not labels and not multi_label:
            left_out.append(LeftOut(path=id, reason="no label"))
            continue
        row = of_image[0]
        records.append(Record(id=id, path=Path(file), labels=labels, group=row.group, split=row.split))
    classes = tuple(sorted({label for record in records for label in record.labels}))
    _check(path, classes, multi_label=multi_label)
    return Listing(
        root=root,
        format="table",
        records=tuple(sorted(records, key=lambda record: record.id)),
        classes=classes,
        multi_label=multi_label,
        left_out=tuple(sorted(left_out, key=lambda item: item.path)),
        notes=doubt(f"the column '{table.header[at['label'] or 0].strip()}' has", classes) if numeric is None else (),
    )


def _of_numbers(
    path: Path, root: Path, targets: Targets, found: Mapping[str, Sequence[_Row]], left_out: list[LeftOut]
) -> Listing:
    records = []
    for file, of_image in found.items():
        if len(of_image) > 1:
            first, second = of_image[:2]
            raise DataError(f"{path}: {first.image!r} is in {first.where} and in {second.where}; remove one")
        (row,) = of_image
        id = Path(os.path.relpath(file, root)).as_posix()
        values = targets.values(row.cells)
        if isinstance(values, str):
            left_out.append(LeftOut(path=id, reason=values))
        else:
            records.append(Record(id=id, path=Path(file), values=values, group=row.group, split=row.split))
    if not records:
        raise DataError(f"{path}: no image has a number in {' and '.join(map(repr, targets.names))}")
    return Listing(
        root=root,
        format="table",
        records=tuple(sorted(records, key=lambda record: record.id)),
        classes=targets.names,
        left_out=tuple(sorted(left_out, key=lambda item: item.path)),
        notes=targets.notes,
    )


def _check_found(path: Path, root: Path, found: Mapping[str, Sequence[_Row]], missing: Mapping[str, _Row]) -> None:
    if len(missing) > len(found):
        first = next(iter(missing))
        hint = "" if Path(first).suffix else " (names need their suffix, such as .jpg)"
        raise DataError(
            f"{path}: {len(missing)} of {len(missing) + len(found)} images are not there; the first, {first!r}, "
            f"was looked for at {str(root / first)!r}{hint}; say where the images are with --images"
        )


# ---- columns


def _targets(
    path: Path, table: Rows, at: Mapping[str, int | None], *, multi_label: bool | None, numeric: bool | None
) -> Targets | None:
    """The columns of numbers to be predicted; None for labels."""
    if at["image"] is None or not table.rows or numeric is False or (numeric is None and multi_label is not None):
        return None
    return asked_targets(table, at, str(path)) if numeric else amounts(table, at["label"], str(path))


def _rows(path: Path, table: Rows, at: Mapping[str, int | None], *, labelled: bool) -> list[_Row]:
    for role in ("image", "label") if labelled else ("image",):
        if at[role] is None:
            skipped = "".join(f"; '{name}' is of type {kind}, not text" for name, kind in table.no_text.items())
            names = ", ".join(f"'{name}'" for name in table.header)
            hint = ", or give --task regression to predict numbers" if role == "label" else ""
            raise DataError(f"{path} has no column '{role}', but {names}{skipped}; rename the one that is meant{hint}")

    def cell(cells: Sequence[str], role: str) -> str:
        column = at[role]
        # Image names keep their blanks: a file name may begin with one.
        return "" if column is None else cells[column] if role == "image" else cells[column].strip()

    divided = any(cell(cells, "split") for _, cells in table.rows)
    rows = []
    for number, cells in table.rows:
        where = f"{table.unit} {number}"
        split = _split(path, where, cell(cells, "split")) if divided else None
        image = cell(cells, "image")
        rows.append(
            _Row(
                where=where,
                image=image if image.strip() else "",
                label=cell(cells, "label"),
                cells=cells,
                group=cell(cells, "group") or None,
                split=split,
            )
        )
    if not rows:
        raise DataError(f"{path} has a header but no rows")
    return rows


def _column(path: Path, header: Sequence[str], role: str) -> int | None:
    """Which column plays a role, or None."""
    candidates = [i for i, name in enumerate(header) if plain(name) in COLUMNS[role]]
    exact = [i for i in candidates if plain(header[i]) == role]
    if len(exact or candidates) > 1:
        names = " and ".join(f"'{header[i]}'" for i in candidates)
        raise DataError(f"{path} has {len(candidates)} columns for the {role}, {names}; name the right one '{role}'")
    return next(iter(exact or candidates), None)


def _split(path: Path, where: str, value: str) -> Split:
    if not value:
        raise DataError(f"{path}, {where}: the split is empty, but other rows have one; fill all of them or none")
    if value.lower() not in SPLIT_FOLDERS:
        raise DataError(f"{path}, {where}: unknown split '{value}'; use train, val or test")
    return SPLIT_FOLDERS[value.lower()]


def _separator(rows: Iterable[_Row], *, taken: str) -> str:
    labels = [row.label for row in rows]
    return next((mark for mark in SEPARATORS if mark != taken and any(mark in label for label in labels)), "")


# ---- images


def _located(rows: Sequence[_Row], root: Path) -> tuple[dict[str, list[_Row]], dict[str, _Row]]:
    """Rows by the absolute path of their image, and the names without a file."""
    found: dict[str, list[_Row]] = {}
    missing: dict[str, _Row] = {}
    for row in rows:
        file = _file(row.image, root)
        if file is None:
            missing.setdefault(row.image.strip(), row)
        else:
            found.setdefault(file, []).append(row)
    return found, missing


def _file(name: str, root: Path) -> str | None:
    """The file that a cell means: as written, without blanks around it, or with Windows' backslashes turned."""
    for spelling in (name, name.strip(), name.strip().replace("\\", "/")):
        file = os.path.normpath(os.path.join(root, spelling))
        if os.path.isfile(file):
            return file
    return None


def _merged(path: Path, rows: Sequence[_Row], separator: str, *, multi_label: bool) -> tuple[str, ...]:
    """The labels that all rows of one image give it, sorted."""
    first = rows[0]
    seen: dict[str, str] = {}  # label -> where
    for row in rows:
        if (row.group, row.split) != (first.group, first.split):
            raise DataError(
                f"{path}: {row.image!r} has two groups or splits, in {first.where} and {row.where}; "
                "all rows of an image must agree"
            )
        for label in _labels(row.label, separator):
            if label in seen:
                raise DataError(
                    f"{path}: {row.image!r} has the label {label!r} twice, in {seen[label]} and {row.where}; remove one"
                )
            seen[label] = row.where
    if len(seen) > 1 and not multi_label:
        (one, line), (two, other) = list(seen.items())[:2]
        raise DataError(
            f"{path}: {first.image!r} has two labels, {one!r} in {line} and {two!r} in {other}; keep one, "
            f"or if images may have several, write '{one}|{two}' or use --task multilabel"
        )
    if len(rows) > 1 and not multi_label:
        raise DataError(f"{path}: {first.image!r} is in {first.where} and in {rows[1].where}; remove one")
    return tuple(sorted(seen))


def _labels(cell: str, separator: str) -> list[str]:
    parts = cell.split(separator) if separator else [cell]
    return [part.strip() for part in parts if part.strip()]


def _check(path: Path, classes: Sequence[str], *, multi_label: bool) -> None:
    if not classes:
        raise DataError(f"{path}: no image has a label")
    if len(classes) == 1 and not multi_label:
        raise DataError(f"{path} has only one class with images, '{classes[0]}'; a classifier needs two or more")


# ---- writing


def write(listing: Listing, path: Path) -> None:
    """Write a table by the suffix of ``path``: .csv, .tsv or .parquet. Its image column holds the record ids.

    Read it back with ``images=listing.root``, or write it into that folder. Raises DataError when the file exists or a
    label would read back differently; StorageError when writing fails.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"a table ends in {', '.join(SUFFIXES)}, got {path}")
    if path.exists():
        raise DataError(f"{path} exists; give a new file")
    columns = list(listing.classes) if listing.numeric else ["label"]
    _check_names(listing)
    header = ["image", *columns]
    grouped = any(record.group is not None for record in listing.records)
    header += ["group"] * grouped + ["split"] * listing.has_user_split
    rows = [
        [record.id, *(["|".join(record.labels)] if record.values is None else map(repr, record.values))]
        + [record.group or ""] * grouped
        + [record.split or ""] * listing.has_user_split
        for record in listing.records
    ]
    write_rows(path, header, rows)


def _check_names(listing: Listing) -> None:
    """Raises DataError for what would read back differently."""
    roles = {name for role in ("image", "group", "split") for name in COLUMNS[role]}
    for name in listing.classes:
        if listing.numeric and (plain(name) in roles or name != name.strip() or is_counter(name)):
            raise DataError(f"a column named '{name}' would not be read back as numbers; rename it")
        if name != name.strip() or not name or (listing.multi_label and any(mark in name for mark in SEPARATORS)):
            raise DataError(
                f"the class '{name}' cannot be written to a table: blanks around it, or one of {SEPARATORS}"
            )
