"""Names of the classes of masks, from the little files that lie beside them.

| file | holds |
|---|---|
| class_dict.csv | the columns name, r, g, b: a colour for each class |
| _classes.csv | the columns Pixel Value, Class |
| labelmap.txt | ``name:r,g,b:parts:actions`` (CVAT) |
| classes.txt, labels.txt | a name on each line; the first is that of value 0 |
| data.yaml | ``names``, a list or a table of value: name |

The first that is there is read, in the root or in a folder of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snellen.core.errors import DataError
from snellen.data.formats.numbers import plain
from snellen.data.formats.rows import read_rows
from snellen.data.mask_files import pack

VOID_NAMES = frozenset(("void", "ignore", "ignored", "unlabelled", "unlabeled"))
"""Lower-case names that say that a class is none."""

_MOST_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What a file calls the classes.

    file     its path
    names    in the order of the file
    marks    what stands for each in the masks: a value, or a packed colour
    colours  whether marks are packed colours
    """

    file: Path
    names: tuple[str, ...]
    marks: tuple[int, ...]
    colours: bool


def read_names(root: Path) -> Names | None:
    """The first file of names below ``root``. Raises DataError when it cannot be read or contradicts itself."""
    folders = [root, *sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))]
    for name, reader in _READERS.items():
        for folder in folders:
            file = folder / name
            if file.is_file():
                return _checked(reader(file))
    return None


def _checked(found: Names) -> Names:
    if not found.names:
        raise DataError(f"{found.file} names no classes")
    for kind, items in (("name", found.names), ("colour" if found.colours else "value", found.marks)):
        twice = next((item for place, item in enumerate(items) if item in items[:place]), None)
        if twice is not None:
            shown = f"#{twice:06x}" if kind == "colour" else f"'{twice}'"
            raise DataError(f"{found.file} has the {kind} {shown} twice; each class needs its own")
    return found


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise DataError(f"{file} is too large to be a list of classes; remove it or rename it")
        return file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text; save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error


def _colour(file: Path, where: str, cells: Sequence[str]) -> int:
    try:
        red, green, blue = (int(cell) for cell in cells)
    except ValueError:
        raise DataError(f"{file}, {where}: a colour is three whole numbers r, g, b; got {','.join(cells)}") from None
    if not all(0 <= number <= 255 for number in (red, green, blue)):
        raise DataError(f"{file}, {where}: the parts of a colour are 0 to 255, got {','.join(cells)}")
    return pack(red, green, blue)


def _class_dict(file: Path) -> Names:
    table = read_rows(file)
    header = [plain(cell) for cell in table.header]
    wanted = [{"name", "class", "label", "class_name"}, {"r", "red"}, {"g", "green"}, {"b", "blue"}]
    at = [next((place for place, cell in enumerate(header) if cell in names), None) for names in wanted]
    if None in at:
        raise DataError(f"{file} needs the columns name,r,g,b; it has {','.join(table.header)}")
    rows = [(f"{table.unit} {number}", [cells[place or 0].strip() for place in at]) for number, cells in table.rows]
    return Names(
        file=file,
        names=tuple(cells[0] for _, cells in rows),
        marks=tuple(_colour(file, where, cells[1:]) for where, cells in rows),
        colours=True,
    )


def _pixel_values(file: Path) -> Names:
    table = read_rows(file)
    header = [plain(cell).replace(" ", "_") for cell in table.header]
    if "pixel_value" not in header or "class" not in header:
        raise DataError(f"{file} needs the columns 'Pixel Value' and 'Class'; it has {','.join(table.header)}")
    values, names = header.index("pixel_value"), header.index("class")
    marks = tuple(_value(file, cells[values]) for _, cells in table.rows)
    return Names(file=file, names=tuple(cells[names].strip() for _, cells in table.rows), marks=marks, colours=False)


def _value(file: Path, cell: Any) -> int:
    text = str(cell).strip()
    if not text.isdecimal() or not text.isascii() or len(text) > 5:
        raise DataError(f"{file}: a value in a mask is a whole number of 0 or more, got '{text}'")
    return int(text)


def _labelmap(file: Path) -> Names:
    names, marks = [], []
    for number, line in enumerate(_text(file).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        names.append(name.strip())
        marks.append(_colour(file, f"line {number}", rest.partition(":")[0].split(",")))
    return Names(file=file, names=tuple(names), marks=tuple(marks), colours=True)


def _lines(file: Path) -> Names:
    names = tuple(line.strip() for line in _text(file).splitlines() if line.strip())
    return Names(file=file, names=names, marks=tuple(range(len(names))), colours=False)


def _yaml(file: Path) -> Names:
    import yaml

    try:
        content = yaml.safe_load(_text(file))
    except (yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{file} is not valid YAML: {' '.join(str(error).split())}") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        raise DataError(f"{file} needs a list 'names'; put the names of the classes there")
    marks = tuple(_value(file, value) for value in names)
    return Names(file=file, names=tuple(str(name).strip() for name in names.values()), marks=marks, colours=False)


_READERS: dict[str, Callable[[Path], Names]] = {
    "class_dict.csv": _class_dict,
    "_classes.csv": _pixel_values,
    "labelmap.txt": _labelmap,
    "classes.txt": _lines,
    "labels.txt": _lines,
    "data.yaml": _yaml,
}
