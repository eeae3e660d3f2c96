"""Divide the data into train, val and test: duplicates and groups stay together, classes stay in proportion.

Images that are duplicates of each other, or of one group, form a unit; units are dealt out whole by iterative
stratification (Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011): the class with the fewest units left is dealt first,
each unit to the side that still wants that class most. For single-label data that is ordinary stratification; where
the images have numbers instead of classes, the tenths of one of them stand in for classes.

Every choice follows from the seed and the ids: the order of the listing changes nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from snellen.core.errors import DataError
from snellen.core.record import SPLITS, Record, Split
from snellen.core.seeds import keyed_seed
from snellen.data.duplicates import Duplicate, clusters, link, root
from snellen.data.manifest import Manifest, Row

Fractions = tuple[float, float, float]
SideT = TypeVar("SideT", bound=Hashable)
_UNLABELLED = ""  # stands for "no label" in multi-label data; no class can have this name
_MOST_STRATA = 10  # parts of equal size that a number is divided into
_FEWEST_IN_STRATUM = 5  # images: with fewer, rounding leaves no side its share


@dataclass(frozen=True, slots=True)
class _Unit:
    """Images that stay together. counts: how many of them carry each class."""

    key: str
    ids: tuple[str, ...]
    counts: Mapping[str, int]


def split(
    records: Sequence[Record],
    *,
    pairs: Sequence[Duplicate],
    fractions: Fractions = (0.70, 0.15, 0.15),
    seed: int = 0,
    groups: Mapping[str, str] | None = None,
    sha256: Mapping[str, str] | None = None,
    classes: Sequence[str] | None = None,
    multi_label: bool = False,
) -> Manifest:
    """Put every record on a side.

    fractions        of the images for train, val and test; test may be 0
    groups, sha256   by record id: groups for records that name none themselves, hashes of files for the manifest
    classes          all class names; those of the records when None

    A class with three units or more is on every side; with two units it is on the first and the last side (train and
    test); with one in train. (Where units carry several classes, one can stand in another's way.) The sides' sizes are
    as near to the fractions as whole units allow.

    A split that the user made is kept: with train and val only, there is no test; with train and test only, val is
    taken from train; with train only, val and test are.

    Raises DataError when the fractions make no sense, a single-label record has no single label, only some records name
    a side, train or val would be empty, or train would hold fewer than two classes, or a number that never changes.
    """
    _check(records, fractions, multi_label)
    records = sorted(records, key=lambda record: record.id)
    group_of = {record.id: record.group or (groups or {}).get(record.id) for record in records}
    cluster_of = {
        image_id: members[0] for members in clusters((record.id for record in records), pairs) for image_id in members
    }
    given = _given_sides(records)
    names = _classes(records) if classes is None else tuple(classes)
    dealt, by = _strata(records, names)
    side_of, reasons = _sides(dealt, by, _units_from(group_of, cluster_of.items()), fractions, seed, given)
    rows = tuple(
        Row(
            id=record.id,
            labels=record.labels,
            split=side_of[record.id],
            group=group_of[record.id],
            cluster=cluster_of.get(record.id),
            sha256=(sha256 or {}).get(record.id),
            values=record.values,
        )
        for record in records
    )
    manifest = Manifest(
        rows=rows,
        classes=names,
        multi_label=multi_label,
        seed=seed,
        fractions=fractions,
        origin="user" if given else "snellen",
        reasons=(*reasons, *kept_together(rows, given), *_rare_classes(rows, given)),
    )
    check_sides(manifest)
    return manifest


def deal(
    records: Sequence[Record],
    classes: Sequence[str],
    pairs: Iterable[tuple[str, str]],
    shares: Mapping[SideT, float],
    seed: int,
) -> dict[str, SideT]:
    """The side of every image by id, as ``split`` chooses it: ``shares`` of the images go to each side.

    pairs    ids that must not part; nor do the records of a group
    classes  or the names of the records' values
    """
    stratified, _ = _strata(records, classes)
    unit_of = _units_from({record.id: record.group for record in records}, pairs)
    return _deal(_units(sorted(stratified, key=lambda record: record.id), unit_of), shares, seed)


def leaks(manifest: Manifest, pairs: Iterable[Duplicate]) -> list[Duplicate]:
    """The pairs whose two images are on different sides: only a split that the user made can have any."""
    side_of = {row.id: row.split for row in manifest.rows}
    return [
        pair
        for pair in pairs
        if pair.first in side_of and pair.second in side_of and side_of[pair.first] != side_of[pair.second]
    ]


# ---- what the user gave


def _check(records: Sequence[Record], fractions: Fractions, multi_label: bool) -> None:
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise DataError(f"split fractions must be three numbers of 0 or more that sum to 1, got {list(fractions)}")
    if fractions[0] == 0 or fractions[1] == 0:
        raise DataError(f"split fractions for train and val must be above 0, got {list(fractions)}")
    if not records:
        raise DataError("no images are left to divide: see what was left out, and why")
    if len({record.id for record in records}) < len(records):
        (image_id, _), *_ = Counter(record.id for record in records).most_common(1)
        raise DataError(f"{image_id} is listed more than once: every image needs an id of its own")
    if any(record.values is not None for record in records):
        return
    unclear = next((record for record in records if not multi_label and len(record.labels) != 1), None)
    if unclear is not None:
        raise DataError(
            f"{unclear.id} has {len(unclear.labels)} labels, single-label data needs exactly one: "
            "give it one label, leave it out, or train with several labels per image"
        )


def _given_sides(records: Sequence[Record]) -> frozenset[Split]:
    given = frozenset(record.split for record in records if record.split is not None)
    homeless = [record.id for record in records if record.split is None]
    if given and homeless:
        raise DataError(
            f"{len(homeless)} of {len(records)} images are on no side of the given split ({homeless[0]}): "
            "put every image on a side, or none"
        )
    if given and "train" not in given:
        raise DataError(f"the given split has no train images, only {' and '.join(sorted(given))}: add a train part")
    return given


def _strata(records: Sequence[Record], names: Sequence[str]) -> tuple[list[Record], str]:
    """The records with what they are dealt by as labels (classes, or the part of the range that a number is in), and
    what that is in words.

    Of several numbers it is the one with most different values, the first of equals. Equal values never part.
    """
    numbers = {record.id: record.values for record in records if record.values is not None}
    if not numbers:
        return list(records), "class"
    columns = list(zip(*numbers.values(), strict=True))
    most = max(range(len(columns)), key=lambda i: len(set(columns[i])))
    ordered = sorted(columns[most])
    parts = max(1, min(_MOST_STRATA, len(ordered) // _FEWEST_IN_STRATUM))
    edges = sorted({ordered[len(ordered) * part // parts] for part in range(1, parts)})
    strata = {image_id: f"part {bisect_left(edges, values[most])}" for image_id, values in numbers.items()}
    return [replace(record, labels=(strata[record.id],)) for record in records], f"{names[most]} (in equal parts)"


def _sides(
    records: Sequence[Record],
    by: str,
    unit_of: Mapping[str, str],
    fractions: Fractions,
    seed: int,
    given: frozenset[Split],
) -> tuple[dict[str, Split], list[str]]:
    """The side of every record by id, and sentences that say how it came about."""
    kept: dict[str, Split] = {record.id: record.split for record in records if record.split is not None}
    wanted = dict(zip(SPLITS, fractions, strict=True))
    if given >= {"train", "val"}:
        missing = "" if "test" in given else "; it has no test images, so the result is told on val"
        return kept, [f"the given split is kept as it is{missing}"]
    made: tuple[Split, ...] = ("train", "val") if "test" in given else SPLITS
    shares = {side: wanted[side] / sum(wanted[each] for each in made) for side in made if wanted[side] > 0}
    free = [record for record in records if not given or record.split == "train"]
    dealt = _deal(_units(free, unit_of), shares, seed)
    parts = ", ".join(f"{side} {100 * share:.0f} %" for side, share in shares.items())
    if not given:
        reason = f"divided by {by} into {parts} with seed {seed}; duplicates and groups stay together"
    elif "test" in given:
        reason = f"the given test images are kept; val is taken from the given train images ({parts}, seed {seed})"
    else:
        reason = f"the given split has train images only; val and test are taken from them ({parts}, seed {seed})"
    return {**kept, **dealt}, [reason]


def _classes(records: Iterable[Record]) -> tuple[str, ...]:
    return tuple(sorted({label for record in records for label in record.labels}))


def kept_together(rows: Sequence[Row], given: frozenset[Split]) -> list[str]:
    if given >= {"train", "val"}:
        return []
    sentences = []
    for name, keys in (("group", [row.group for row in rows]), ("set of duplicates", [row.cluster for row in rows])):
        sizes = Counter(key for key in keys if key is not None)
        if sizes:
            plural = {"group": "groups", "set of duplicates": "sets of duplicates"}[name] if len(sizes) > 1 else name
            sentences.append(
                f"{sizes.total()} images are in {len(sizes)} {plural}, the largest of {max(sizes.values())}"
            )
    return sentences


def _rare_classes(rows: Sequence[Row], given: frozenset[Split]) -> list[str]:
    if given:
        return []
    found: Counter[str] = Counter(label for row in rows for label in row.labels)
    alone = sorted(label for label, count in found.items() if count == 1)
    if not alone:
        return []
    names = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
    have = "class has" if len(alone) == 1 else "classes have"
    return [f"{len(alone)} {have} a single image, which cannot be divided and is in train ({names})"]


def check_sides(manifest: Manifest) -> None:
    """Raises DataError when train or val is empty, or train has nothing to tell apart."""
    for side in ("train", "val"):
        if not manifest.ids(side):
            raise DataError(
                f"no {side} images among {len(manifest.rows)}: there are too few images, or too few groups of them, "
                "to divide; add images, or give the split yourself"
            )
    if manifest.numeric:
        _check_values(manifest)
        return
    known = {label for row in manifest.rows if row.split == "train" for label in row.labels}
    needed = 1 if manifest.multi_label else 2
    if len(known) < needed:
        raise DataError(
            f"train has images of {len(known)} class{'' if len(known) == 1 else 'es'} ({', '.join(sorted(known))}): "
            f"at least {needed} {'is' if needed == 1 else 'are'} needed, one folder or label for each"
        )


def _check_values(manifest: Manifest) -> None:
    train = [row.values for row in manifest.rows if row.split == "train" and row.values is not None]
    for name, column in zip(manifest.classes, zip(*train, strict=True), strict=True):
        if min(column) == max(column):
            raise DataError(
                f"every train image has the same '{name}', {column[0]:g}: there is nothing to learn; "
                "give a column whose numbers differ"
            )


# ---- units


def _units_from(group_of: Mapping[str, str | None], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The unit's key (its smallest id) by record id: clusters and groups that touch are one unit."""
    parent = {image_id: image_id for image_id in group_of}
    link(parent, pairs)
    first_of: dict[str, str] = {}
    for image_id, group in group_of.items():
        if group is not None:
            link(parent, [(first_of.setdefault(group, image_id), image_id)])
    return {image_id: root(parent, image_id) for image_id in parent}


def _units(records: Sequence[Record], unit_of: Mapping[str, str]) -> list[_Unit]:
    members: dict[str, list[Record]] = {}
    for record in records:
        members.setdefault(unit_of[record.id], []).append(record)
    units = []
    for key, found in members.items():
        counts = Counter(label for record in found for label in (sorted(set(record.labels)) or [_UNLABELLED]))
        units.append(_Unit(key, tuple(record.id for record in found), counts))
    return units


# ---- dealing


def _deal(units: Sequence[_Unit], shares: Mapping[SideT, float], seed: int) -> dict[str, SideT]:
    """The side of every image by id."""
    order = sorted(units, key=lambda unit: (-len(unit.ids), keyed_seed("split", seed, unit.key)))
    waiting: dict[str, list[_Unit]] = {}
    for unit in order:
        for label in unit.counts:
            waiting.setdefault(label, []).append(unit)
    table = _Table(units, shares)
    left = {label: len(found) for label, found in waiting.items()}
    tie = {label: keyed_seed("class", seed, label) for label in left}
    while left:
        label = min(left, key=lambda each: (each == _UNLABELLED, left[each], tie[each]))
        for unit in waiting[label]:
            if unit.key not in table.side_of:
                table.put(unit, table.neediest(label))
                for each in unit.counts:
                    left[each] -= 1
        del left[label]
        table.carry_over(label)
    for label in sorted(waiting, key=lambda each: (len(waiting[each]), each)):
        if label != _UNLABELLED:
            table.spread(label, waiting[label])
    return {image_id: table.side_of[unit.key] for unit in units for image_id in unit.ids}


class _Table(Generic[SideT]):
    """Who sits where while units are dealt, and what every side still wants of every class (in images)."""

    def __init__(self, units: Sequence[_Unit], shares: Mapping[SideT, float]) -> None:
        self.sides = list(shares)
        self.side_of: dict[str, SideT] = {}
        totals: Counter[str] = Counter()
        for unit in units:
            totals.update(unit.counts)
        self.wants = {side: {label: share * n for label, n in totals.items()} for side, share in shares.items()}
        self.room = {side: share * sum(len(unit.ids) for unit in units) for side, share in shares.items()}
        self.carried = dict.fromkeys(self.sides, 0.0)
        self.holds: dict[SideT, Counter[str]] = {side: Counter() for side in self.sides}

    def put(self, unit: _Unit, side: SideT) -> None:
        self.side_of[unit.key] = side
        self.room[side] -= len(unit.ids)
        for label, count in unit.counts.items():
            self.wants[side][label] -= count
            self.holds[side][label] += 1

    def take(self, unit: _Unit) -> None:
        side = self.side_of.pop(unit.key)
        self.room[side] += len(unit.ids)
        for label, count in unit.counts.items():
            self.wants[side][label] += count
            self.holds[side][label] -= 1

    def neediest(self, label: str) -> SideT:
        """The side that wants the class most. Up to half an image of earlier rounding decides what a fraction would:
        without it every class of nine would round the same way, and the sides' sizes drift."""

        def need(side: SideT) -> tuple[float, float]:
            return self.wants[side][label] + min(0.5, max(-0.5, self.carried[side])), self.room[side]

        return max(self.sides, key=need)

    def carry_over(self, label: str) -> None:
        for side in self.sides:
            self.carried[side] += self.wants[side][label]

    def spread(self, label: str, units: Sequence[_Unit]) -> None:
        """Bring a class with enough units to every side: to all with three, to train and the last side with two."""
        enough = len(units) >= len(self.sides)
        for side in self.sides if enough else [self.sides[0], self.sides[-1]][: len(units)]:
            if self.holds[side][label] == 0 and (unit := self._spare(label, units)) is not None:
                self.take(unit)
                self.put(unit, side)

    def _spare(self, label: str, units: Sequence[_Unit]) -> _Unit | None:
        """The smallest unit that its side can give away without losing a class that it holds only there."""
        wanted = {self.sides[0], self.sides[-1]} if len(units) < len(self.sides) else set(self.sides)
        movable = [
            unit
            for unit in reversed(units)
            if self.side_of[unit.key] not in wanted
            or all(self.holds[self.side_of[unit.key]][each] > 1 for each in unit.counts if each != _UNLABELLED)
        ]
        return min(movable, key=lambda unit: (len(unit.ids), -self.holds[self.side_of[unit.key]][label]), default=None)
