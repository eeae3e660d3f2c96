"""Changes to the data that touch no file: read from JSON, made on what a format found, and proposed by findings.

    {"version": 1, "data": "photos", "changes": [
      {"image": "ants/07.jpg", "action": "leave out", "because": "exact-duplicates"},
      {"image": "ants/12.jpg", "action": "relabel", "value": "bee", "because": "suspect-labels"},
      {"image": "bees/03.jpg", "action": "group", "value": "garden 4"},
      {"image": "bees/04.jpg", "action": "side", "value": "train"}]}

Only ``changes`` is needed, so that such a file may be written by hand; ``because`` may be any words. The value of
"relabel" is a class, or a list of classes where images have several; for numbers it is a number, or a list of them in
the order of the columns.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from snellen.core.errors import DataError, did_you_mean
from snellen.core.files import write_json
from snellen.core.finding import Finding
from snellen.core.record import ACTIONS, SPLITS, Action, Change, LeftOut, Listing, Record

VERSION = 1
_Wishes = Mapping[Action, tuple[int, Change]]  # what is asked for one image, each with its number in the file
_FIELDS = ("image", "action", "value", "because")
_DONE: Mapping[Action, str] = {
    "leave out": "left out",
    "relabel": "relabelled",
    "group": "put into a group",
    "side": "put on a side",
}
_WISHES: Mapping[Action, str] = {
    "leave out": "leave its value away",
    "relabel": "give a class, or a number where images have numbers; a list where they have several",
    "group": "give the name of its group",
    "side": f"give one of {', '.join(SPLITS)}",
}


# ---- files


def read_overlay(path: Path) -> tuple[Change, ...]:
    """The changes in a file, in its order. Raises DataError, which says what is wrong in which of them."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"no file of changes at {path}: check --overlay") from None
    except OSError as error:
        raise DataError(f"cannot read the file of changes {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("changes"), list):
        raise DataError(f'{path} is no file of changes: it must hold {{"changes": [...]}}, as an audit writes it')
    version = content.get("version", VERSION)
    if version != VERSION:
        raise DataError(f"{path} has version {version!r}, this Snellen reads {VERSION}: update Snellen")
    return tuple(_change(fields, f"{path}, change {i}") for i, fields in enumerate(content["changes"], start=1))


def write_overlay(path: Path, data: str, changes: Sequence[Change]) -> None:
    """``data`` is the data's short name, for its reader. Raises StorageError."""
    write_json(path, {"version": VERSION, "data": data, "changes": [change.to_json() for change in changes]})


def _change(fields: Any, where: str) -> Change:
    if not isinstance(fields, dict):
        raise DataError(f'{where}: it must be as {{"image": ..., "action": ...}}, got {_short(fields)}')
    for name in fields:
        if name not in _FIELDS:
            raise DataError(f"{where}: unknown field {_short(name)}{did_you_mean(name, _FIELDS)}")
    image, action, because = fields.get("image"), fields.get("action"), fields.get("because", "")
    if not isinstance(image, str) or not image:
        raise DataError(f"{where}: 'image' must name an image by its id, as findings.json has it, got {_short(image)}")
    if action not in ACTIONS:
        raise DataError(f"{where}: unknown action {_short(action)}{did_you_mean(str(action), ACTIONS)}")
    if not isinstance(because, str):
        raise DataError(f"{where}: 'because' must be text, got {_short(because)}")
    value = fields.get("value")
    value = tuple(value) if isinstance(value, list) else value
    if not _fits(action, value):
        raise DataError(f"{where}: {_short(value)} is no value for '{action}': {_WISHES[action]}")
    return Change(image=image, action=action, value=value, because=because)


def _fits(action: Action, value: Any) -> bool:
    match action:
        case "leave out":
            return value is None
        case "relabel":
            return all(isinstance(each, str) or _is_number(each) for each in _several(value))
        case "group":
            return isinstance(value, str) and bool(value)
        case "side":
            return value in SPLITS


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _several(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _short(value: Any) -> str:
    return repr(value)[:80]


# ---- what is changed


def apply_overlay(listing: Listing, changes: Sequence[Change], source: Path) -> Listing:
    """``listing`` as ``changes`` have it; what was done is told in its notes, what is left out in ``left_out``.

    Of an image that is to be left out nothing else is changed. ``source`` is named in errors: DataError for an image or
    a class that the data has not, for two changes that contradict each other, and for a change that cannot be made.
    """
    known = {record.id: record for record in listing.records}
    _check_images(changes, known, source)
    asked = _by_image(changes, source)
    records, left_out, alike = [], [], 0
    for record in listing.records:
        wishes = asked.get(record.id)
        if wishes is None:
            records.append(record)
        elif "leave out" in wishes:
            left_out.append(LeftOut(path=record.id, reason=_reason(wishes["leave out"][1])))
        else:
            changed = _changed(record, wishes, listing, source)
            alike += changed == record
            records.append(changed)
    if not records:
        raise DataError(f"{source} leaves out all {len(known)} images: keep some")
    if not listing.has_user_split:
        _check_sides(records, source)
    gone = sum(len(known[left.path].objects or ()) for left in left_out)
    return replace(
        listing,
        records=records,
        left_out=[*listing.left_out, *left_out],
        notes=[*listing.notes, *_notes(asked, alike, source)],
        num_annotations=listing.num_annotations - gone,
        changes=tuple(changes),
    )


def _check_images(changes: Sequence[Change], known: Mapping[str, Record], source: Path) -> None:
    unknown = [(i, change) for i, change in enumerate(changes, start=1) if change.image not in known]
    if not unknown:
        return
    number, change = unknown[0]
    name = PurePosixPath(change.image).name
    alike = [image_id for image_id in known if PurePosixPath(image_id).name == name]
    hint = f"did you mean '{alike[0]}'" if alike else f"ids here are like '{next(iter(known), '')}'"
    num = f"{len(unknown)} of {len(changes)} changes are of images" if len(unknown) > 1 else "one change is of an image"
    raise DataError(
        f"{source}: {num} that the data has not, the first is change {number}, '{change.image[:200]}'; {hint}; "
        "correct the name, or take the change out of the file"
    )


def _by_image(changes: Sequence[Change], source: Path) -> dict[str, dict[Action, tuple[int, Change]]]:
    asked: dict[str, dict[Action, tuple[int, Change]]] = {}
    for number, change in enumerate(changes, start=1):
        earlier, first = asked.setdefault(change.image, {}).setdefault(change.action, (number, change))
        if first.value != change.value:
            raise DataError(
                f"{source}: changes {earlier} and {number} contradict each other: '{change.action}' of {change.image} "
                f"is {_short(first.value)} and {_short(change.value)}; keep one"
            )
    return asked


def _changed(record: Record, wishes: _Wishes, listing: Listing, source: Path) -> Record:
    for action, (number, change) in wishes.items():
        match action:
            case "relabel":
                record = _relabelled(record, change, listing, f"{source}, change {number}")
            case "group":
                record = replace(record, group=str(change.value))
            case "side":
                record = replace(record, split=next(side for side in SPLITS if side == change.value))
    return record


def _relabelled(record: Record, change: Change, listing: Listing, where: str) -> Record:
    said = _several(change.value)
    if record.objects is not None or record.mask is not None:
        raise DataError(
            f"{where}: {record.id} has no class of its own, only what is marked in it has: correct the marks in their "
            "file, or leave the image out"
        )
    if record.values is not None:
        numbers = tuple(float(each) for each in said if _is_number(each))
        if len(numbers) != len(record.values) or len(numbers) != len(said):
            wanted = "a number" if len(record.values) == 1 else f"a list of {len(record.values)} numbers"
            raise DataError(f"{where}: give {wanted} ({', '.join(listing.classes)}), got {_short(change.value)}")
        return replace(record, values=numbers)
    for label in said:
        if label not in listing.classes:
            raise DataError(f"{where}: the data has no class {_short(label)}{_nearest(label, listing.classes)}")
    if not listing.multi_label and len(said) != 1:
        raise DataError(f"{where}: each image has one class, got {_short(change.value)}: give one name")
    return replace(record, labels=tuple(sorted(set(map(str, said)))))


def _nearest(label: Any, classes: Sequence[str]) -> str:
    return did_you_mean(label, classes) if isinstance(label, str) else "; give the name of a class"


def _check_sides(records: Sequence[Record], source: Path) -> None:
    """The data came undivided: either all of its images get a side here, or none."""
    placed = sum(record.split is not None for record in records)
    if 0 < placed < len(records):
        raise DataError(
            f"{source} puts {placed} of {len(records)} images on a side, and the data puts the others on none: put "
            "every image on a side, or keep images together with 'group' instead"
        )


def _reason(change: Change) -> str:
    return f"left out by the overlay ({change.because})" if change.because else "left out by the overlay"


def _notes(asked: Mapping[str, _Wishes], alike: int, source: Path) -> list[str]:
    if not asked:
        return [f"nothing is changed by {source.name}"]
    counts: Counter[Action] = Counter()
    for wishes in asked.values():
        counts.update(["leave out"] if "leave out" in wishes else list(wishes))
    told = ", ".join(f"{counts[action]:,} {_DONE[action]}" for action in ACTIONS if counts[action])
    same = f"; {alike:,} {'was' if alike == 1 else 'were'} so before" if alike else ""
    changed = "1 image is" if len(asked) == 1 else f"{len(asked):,} images are"
    return [f"{changed} changed by {source.name}: {told}{same}"]


# ---- what is proposed


def proposed(findings: Iterable[Finding]) -> list[Change]:
    """The changes to the data that would treat ``findings``, in their order; see ``merged``."""
    return merged(
        _change({**fields, "because": finding.code}, f"the treatment of {finding.code}")
        for finding in findings
        for fields in finding.treatment.get("overlay", ())
    )


def merged(changes: Iterable[Change]) -> list[Change]:
    """At most one change of each kind for an image, the first; leaving it out makes all others needless."""
    kept: dict[tuple[str, Action], Change] = {}
    for change in changes:
        kept.setdefault((change.image, change.action), change)
    gone = {image for image, action in kept if action == "leave out"}
    return [change for (image, action), change in kept.items() if action == "leave out" or image not in gone]


def renamed(ids: Sequence[str], given: Sequence[str], meant: Mapping[str, str]) -> list[dict[str, str]]:
    """The overlay of a ``Finding.treatment`` for images whose classes go by other names: ``meant``, by given name."""
    return [
        {"image": image, "action": "relabel", "value": meant[name]}
        for image, name in zip(ids, given, strict=True)
        if meant.get(name, name) != name
    ]
