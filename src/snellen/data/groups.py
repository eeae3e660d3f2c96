"""Groups that the file names give away: patient12_slide3.png, plantA-01.jpg, video3_frame0012.jpg.

Images of one patient on both sides of a split make a model look better than it is. A guess that is wrong only makes the
split coarser, but it surprises, so this is careful: one pattern must cover nearly all files and look like groups.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

from snellen.core.record import Record

_COVERED = 0.95  # share of the files that must follow the pattern
_LARGEST = 0.6  # no group may hold more than this share of the files: nothing would be left to divide
_PARTS_OF_ONE = "aug|clip|copy|crop|cut|f|frame|page|part|patch|pose|rot|scan|shot|slice|slide|tile|v|view|window|z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """of: the group of every image that follows the pattern, by record id. sentence: what was found, to be printed."""

    of: Mapping[str, str]
    sentence: str


@dataclass(frozen=True, slots=True)
class _Pattern:
    """expression has the groups ``group`` and ``rest``; counted: ``rest`` must also be a counter within each group."""

    shape: str
    expression: re.Pattern[str]
    counted: bool


_PATTERNS = (
    _Pattern("NAME.rf.HASH", re.compile(r"(?P<group>.+)\.rf\.(?P<rest>[0-9a-f]{16,})"), False),
    _Pattern(
        "NAME_frame12 (also crop, slide, tile, view, ...)",
        re.compile(rf"(?P<group>.+?)[ _.-]+(?:{_PARTS_OF_ONE})[ _-]?(?P<rest>\d+)", re.IGNORECASE),
        False,
    ),
    _Pattern("NAME_12", re.compile(r"(?P<group>.+)[ _-][A-Za-z]?(?P<rest>\d+)"), True),
)
_ID = re.compile(r"\d|(?:^|[ _-])[A-Za-z]$|[a-z][A-Z]$")


def find_groups(records: Sequence[Record]) -> Groups | None:
    """The groups in the records' file names, or None when no pattern is convincing.

    A pattern must cover 95 % of the files and give three groups or more with two images or more each on average, none
    with over 60 % of the files. The groups' names must carry an id (a digit, or a single letter as in plantA): words
    alone are kinds of things rather than individuals. Class names in front of a counter are no groups, nor is anything
    else with fewer than three groups to a class when each group is of one class. Where the rest of the name is a bare
    number, it must count within its group (1, 2, 3 or 30, 60, 90): random numbers and times of day are no counters.
    """
    for pattern in _PATTERNS:
        members = _members(records, pattern)
        if _convincing(members, records, pattern):
            of = {record.id: group for group, found in members.items() for record, _ in found}
            mean = len(of) / len(members)
            example = min(of)
            sentence = (
                f"the file names follow {pattern.shape}: {len(members)} groups of {mean:.1f} images on average "
                f"({PurePosixPath(example).name} is of group {of[example]}), each kept on one side of the split"
            )
            return Groups(of=of, sentence=sentence)
    return None


Members = Mapping[str, Sequence[tuple[Record, str]]]


def _members(records: Iterable[Record], pattern: _Pattern) -> Members:
    """Records and the rest of their names by group."""
    members: dict[str, list[tuple[Record, str]]] = {}
    for record in records:
        if match := pattern.expression.fullmatch(PurePosixPath(record.id).stem):
            members.setdefault(match["group"], []).append((record, match["rest"]))
    return members


def _convincing(members: Members, records: Sequence[Record], pattern: _Pattern) -> bool:
    sizes = [len(found) for found in members.values()]
    covered = sum(sizes)
    if len(sizes) < 3 or covered < _COVERED * len(records) or covered < 2 * len(sizes):
        return False
    if max(sizes) > _LARGEST * len(records) or _follows_the_classes(members):
        return False
    if pattern.shape == "NAME.rf.HASH":  # an export of several augmented versions of each image; any name will do
        return True
    with_id = sum(bool(_ID.search(group)) for group in members)
    return with_id >= _COVERED * len(sizes) and (not pattern.counted or _counts(members))


def _follows_the_classes(members: Members) -> bool:
    """True when the groups say no more than the classes: class names, or too few to a class to divide it."""
    classes = {label.casefold() for found in members.values() for record, _ in found for label in record.labels}
    if {group.casefold() for group in members} <= classes:
        return True
    labels = [{record.labels for record, _ in found} for found in members.values()]
    if any(len(of_group) > 1 for of_group in labels):
        return False
    groups_of = Counter(next(iter(of_group)) for of_group in labels)
    return min(groups_of.values()) < 3


def _counts(members: Members) -> bool:
    """True when the rests step evenly within their groups, as 1 2 3 or 6690 6720 6750: half of the steps are equal."""
    steps: Counter[int] = Counter()
    for found in members.values():
        numbers = sorted({int(rest) for _, rest in found})
        steps.update(after - before for before, after in pairwise(numbers))
    return bool(steps) and max(steps.values()) >= 0.5 * steps.total()
