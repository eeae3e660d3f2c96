"""What the values in masks mean: which are classes, under which names, and which are void.

Every mask has been looked at before, so the rule can be about the values that occur. In this order:

1. A table of colours (mask_names.py) holds for colour masks, and for palette or grey masks if their colours are in it.
2. Other names hold for values: the first name for 0 and so on. One name for masks of two values names the object, and
   the rest is background. With two names, grey 255 stands for the second where 0 and 255 are all there is.
3. Without names each value that occurs is a class of its own, in order: "class 3", or "colour #ff0000".

Void is what ``Marks.void`` says. Where that is left open: 255 in palette masks; 255 in grey masks if there are others
than 0 and they are low and mostly without gaps. Classes called void, ignore or unlabelled are void, and so is every
value that the names leave out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from snellen.core.errors import DataError
from snellen.core.geometry import Size
from snellen.data.formats.mask_names import VOID_NAMES, Names
from snellen.data.mask_files import MOST_CLASSES, VOID, RawMask, distinct

_MOST_SCATTERED = 40  # values with gaps between them and no names; resized masks have more

_GREY = 0x010101  # times a grey level: that grey as a packed colour


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one mask holds.

    values   those that occur, sorted: indices, grey values or packed colours
    colours  value -> packed colour, where the file says or it is plain: palettes, and grey up to 255
    """

    size: Size
    values: tuple[int, ...]
    colour: bool
    palette: bool
    lossy: bool
    colours: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """classes in the order of their indices; how a mask is read; sentences for the user.

    marks       mark -> class index
    by_colour   whether marks are packed colours
    """

    classes: tuple[str, ...]
    marks: Mapping[int, int]
    by_colour: bool
    notes: tuple[str, ...]

    def values(self, look: Look) -> dict[int, int]:
        """Value in the file -> class index, for ``MaskFile``."""
        if not look.colour and not look.palette and not self.by_colour:
            return dict(self.marks)
        found = {value: mark_of(look, value, by_colour=self.by_colour) for value in look.values}
        return {value: self.marks[mark] for value, mark in found.items() if mark in self.marks}


def look_at(raw: RawMask) -> Look:
    values = tuple(distinct(raw.values))
    if raw.colour:
        colours = {value: value for value in values}
    elif raw.palette is not None:
        colours = {value: raw.palette[value] for value in values if value in raw.palette}
    else:
        colours = {value: value * _GREY for value in values if 0 <= value <= 255}
    return Look(
        size=(raw.values.shape[1], raw.values.shape[0]),
        values=values,
        colour=raw.colour,
        palette=raw.palette is not None,
        lossy=raw.lossy,
        colours=colours,
    )


def mark_of(look: Look, value: int, *, by_colour: bool) -> int:
    """What is looked up for a value; -1 for a value that has no colour where colours count."""
    if by_colour:
        return look.colours.get(value, -1)
    return value & 255 if look.colour else value


def is_blurred(look: Look, names: Names | None) -> bool:
    """Whether a JPEG holds what nobody drew: others than black and white, and than the table's colours."""
    if not look.lossy:
        return False
    known = set(names.marks) if names is not None and names.colours else set()
    return not set(look.colours.values()) <= (known or {0, 0xFFFFFF})


def decide(looks: Sequence[Look], names: Names | None, void: tuple[int, ...] | None) -> Meaning:
    """Raises DataError when the masks cannot be told to hold classes, or hold fewer than two."""
    by_colour = _by_colour(looks, names)
    holders: dict[int, int] = {}  # mark -> how many masks hold it
    for look in looks:
        for mark in {mark_of(look, value, by_colour=by_colour) for value in look.values}:
            holders[mark] = holders.get(mark, 0) + 1
    empty, why = _void(sorted(holders), looks, names, void, by_colour=by_colour)
    rows, named = _rows([mark for mark in sorted(holders) if mark not in empty], names, by_colour=by_colour)
    notes = [_how_read(looks, by_colour), *why, *named]
    if names is not None:
        never = [f"'{name}'" for mark, name in rows.items() if mark not in holders]
        notes.append(f"classes are named by {names.file.name}" + f"; no mask shows {', '.join(never)}" * bool(never))
    called = [name for name in rows.values() if name.lower() in VOID_NAMES]
    notes += [f"the class '{name}' is void by its name: such pixels are neither learnt nor judged" for name in called]
    classes = {mark: name for mark, name in rows.items() if mark not in empty and name not in called}
    unknown = [mark for mark in sorted(holders) if mark not in rows and mark not in empty]
    if unknown:
        notes.append(_unnamed(unknown, holders, names, by_colour))
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise DataError(
            f"the masks hold {len(classes)} classes ({', '.join(list(classes.values())[:5])}), and there must be 2 to "
            f"{MOST_CLASSES}; what is void is told with --void, and names are read from classes.txt"
        )
    return Meaning(
        classes=tuple(classes.values()),
        marks={mark: index for index, mark in enumerate(classes)},
        by_colour=by_colour,
        notes=tuple(notes),
    )


def _how_read(looks: Sequence[Look], by_colour: bool) -> str:
    if by_colour:
        return "masks are read by colour"
    kinds = ["palette indices"] * any(look.palette for look in looks)
    kinds += ["grey values"] * any(not look.palette for look in looks)
    differ: dict[int, int] = {}
    for look in looks:
        if look.palette and any(differ.setdefault(value, colour) != colour for value, colour in look.colours.items()):
            return "masks are read by their palette indices; the palettes differ between masks, and are not looked at"
    return f"masks are read by their {' and '.join(kinds)}"


def _by_colour(looks: Sequence[Look], names: Names | None) -> bool:
    """Whether colours name the classes, rather than values."""
    tinted = sorted({v for look in looks if look.colour for v in look.values if v != (v & 255) * _GREY})
    if names is None:
        if tinted and not all(look.colour for look in looks):
            raise DataError("some masks hold colours and some indices; write class_dict.csv: name,r,g,b for each class")
        return bool(tinted)
    occurring = {colour for look in looks for colour in look.colours.values()}
    if names.colours and len(occurring & set(names.marks)) >= min(2, len(occurring)):
        return True
    if tinted:
        lacks = "names none of them" if names.colours else "has no colours"
        raise DataError(
            f"the masks hold colours, such as #{tinted[0]:06x}, and {names.file.name} {lacks}; "
            "write class_dict.csv: name,r,g,b for each class"
        )
    return False


def _rows(marks: Sequence[int], names: Names | None, *, by_colour: bool) -> tuple[dict[int, str], list[str]]:
    """Mark -> name in the order of the classes, of ``marks`` that are not void; and what to say of it."""
    if names is None:
        scattered = not by_colour and marks[-1:] != [len(marks) - 1]
        if len(marks) > (_MOST_SCATTERED if by_colour or scattered else MOST_CLASSES):
            raise DataError(
                f"the masks hold {len(marks)} different {'colours' if by_colour else 'values'}; resized or blurred "
                "masks look so. If they are classes, name them: class_dict.csv with name,r,g,b for colours, "
                "classes.txt for values"
            )
        return {mark: f"colour #{mark:06x}" if by_colour else f"class {mark}" for mark in marks}, []
    known = names.marks if by_colour or not names.colours else tuple(range(len(names.names)))
    last = names.names[-1]
    if not by_colour and known == (0,) and marks in ([0, 1], [0, 255]):
        return {0: "background", marks[1]: last}, [f"'{last}' is {marks[1]} in the masks, and 0 is background"]
    if not by_colour and known == (0, 1) and marks == [0, 255]:
        return {0: names.names[0], 255: last}, [f"'{last}' is 255 in the masks; if 255 means void, give --void 255"]
    return dict(zip(known, names.names, strict=True)), []


def _void(
    occurring: Sequence[int],
    looks: Sequence[Look],
    names: Names | None,
    void: tuple[int, ...] | None,
    *,
    by_colour: bool,
) -> tuple[set[int], list[str]]:
    """Marks that mean nothing, and why."""
    if void is not None:
        absent = [value for value in void if value not in occurring]
        told = f"void, as was said: {', '.join(map(str, void)) or 'nothing'}"
        return set(void), [told + "".join(f"; no mask holds {value}" for value in absent)]
    if by_colour or VOID not in occurring or (names is not None and VOID in names.marks):
        return set(), []
    if all(look.palette for look in looks):
        return {VOID}, ["index 255 is void, as in Pascal VOC: such pixels are neither learnt nor judged"]
    others = [value for value in occurring if value != VOID]
    if others != [0] and others and others[-1] < 2 * len(others):
        return {VOID}, ["255 is void: such pixels are neither learnt nor judged"]
    if names is not None:
        return set(), []
    first = "the masks hold only 0 and 255" if others == [0] else "the other values are not the numbers from 0 on"
    return set(), [f"{first}: 255 is read as an object; if 255 means void, give --void 255"]


def _unnamed(unknown: Sequence[int], holders: Mapping[int, int], names: Names | None, by_colour: bool) -> str:
    first = f"#{unknown[0]:06x}" if by_colour else str(unknown[0])
    kind = "colour" if by_colour else "value"
    source = names.file.name if names is not None else "the names"
    count = (
        f"1 {kind} that {source} does not name is"
        if len(unknown) == 1
        else (f"{len(unknown)} {kind}s that {source} does not name are")
    )
    masks = holders[unknown[0]]
    return f"{count} read as void; the first, {first}, stands in {masks} {'mask' if masks == 1 else 'masks'}"
