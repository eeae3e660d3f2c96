"""From a path to data that is known: every image decoded once, duplicates found, sides chosen."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from snellen.core.console import Console
from snellen.core.errors import ConfigError, DataError, ImageError
from snellen.core.record import BACKGROUND, LeftOut, Listing, Record, Split
from snellen.data import formats, samples, scan_cache
from snellen.data.duplicates import Duplicate, find_duplicates
from snellen.data.folds import take_fold
from snellen.data.groups import find_groups
from snellen.data.image import read_header
from snellen.data.manifest import Manifest
from snellen.data.marked import with_marks
from snellen.data.overlay import apply_overlay, read_overlay
from snellen.data.scan import ImageFacts, Keep, scan, worthwhile_threads
from snellen.data.split import split

if TYPE_CHECKING:
    from snellen.core.config import Config

SAMPLE_PREFIX = "sample:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is in the data. Records, facts and manifest rows are of the same images: those that could be decoded.

    notes   sentences about what was decided, for the user
    """

    name: str
    listing: Listing
    records: Mapping[str, Record]
    facts: Mapping[str, ImageFacts]
    left_out: Sequence[LeftOut]
    pairs: Sequence[Duplicate]
    manifest: Manifest
    notes: Sequence[str]

    def side(self, name: Split) -> list[Record]:
        """The records on one side, in the manifest's order."""
        return [self.records[row.id] for row in self.manifest.rows if row.split == name]


def read_listing(config: Config, cache: Path, console: Console | None = None) -> tuple[str, Listing]:
    """The data's short name, and what its format found, with the changes that ``config.overlay`` asks for.

    ``console`` is told a sample's licence. Raises DataError.
    """
    if config.overlay is None:
        return _as_found(config, cache, console)
    source = Path(config.overlay)
    changes = read_overlay(source)  # what is wrong in it is told before the data are read
    name, listing = _as_found(config, cache, console)
    return name, apply_overlay(listing, changes, source)


def _as_found(config: Config, cache: Path, console: Console | None) -> tuple[str, Listing]:
    multi_label = {"classification": False, "multilabel": True, "regression": False}.get(config.task)
    numeric = {"auto": None, "regression": True}.get(config.task, False)
    marks = formats.Marks(void=config.void_values, outlines=config.outlines, origin=config.box_origin)
    if config.data.startswith(SAMPLE_PREFIX):
        name = config.data.removeprefix(SAMPLE_PREFIX)
        folder = samples.sample(name, cache, console)
        return name, formats.read(folder, multi_label=multi_label, numeric=numeric, marks=marks)
    listing = formats.read(config.data, images=config.images, multi_label=multi_label, numeric=numeric, marks=marks)
    if config.task == "segmentation" and listing.marks_objects:  # what no object covers is a class as well
        listing = replace(listing, classes=(BACKGROUND, *(name for name in listing.classes if name != BACKGROUND)))
    return Path(config.data).resolve().stem, listing


def task_of(config: Config, listing: Listing) -> str:
    if config.task != "auto":
        return config.task
    if listing.numeric:
        return "regression"
    if listing.marks_objects:
        return "detection"
    if listing.has_masks:
        return "segmentation"
    return "multilabel" if listing.multi_label else "classification"


def image_sizes(records: Sequence[Record], workers: int) -> list[tuple[int, int]]:
    """(width, height) of every image whose header can be read. Raises DataError when there is none."""

    def size(record: Record) -> tuple[int, int] | None:
        try:
            header = read_header(record.path)
        except ImageError:
            return None
        return header.width, header.height

    with ThreadPoolExecutor(worthwhile_threads(records, workers)) as pool:
        sizes = [found for found in pool.map(size, records) if found is not None]
    if not sizes:
        raise DataError(f"none of the {len(records)} files can be read as an image; the first is {records[0].path}")
    return sizes


def survey(
    name: str,
    listing: Listing,
    config: Config,
    *,
    console: Console,
    workers: int,
    cache: Path | None = None,
    min_side: int | None = None,
    keep: Keep | None = None,
) -> Survey:
    """Decode, compare and divide. Raises DataError when no fair split is possible.

    cache  what is seen of the images is kept there, and what was seen before is taken from it
    keep   gets each image that is decoded
    """
    place = None if cache is None else scan_cache.place_of(cache, config.data, min_side)
    seen = scan_cache.Seen({}) if place is None else scan_cache.load(place)
    with console.progress("Reading images", len(listing.records)) as advance:
        scanned = scan(
            listing.records, min_side=min_side, keep=keep, seen=seen.facts, workers=workers, progress=advance
        )
    known = sum(facts.sha256 in seen.facts for facts in scanned.facts.values())
    if known:
        console.say(f"{known} images were seen before: they are not decoded again until their pixels are needed")
    records = {record.id: record for record in listing.records if record.id in scanned.facts}
    if not records:
        raise DataError(f"none of the {len(listing.records)} images can be decoded; see {scanned.left_out[0].path}")
    pairs = seen.pairs
    if seen.compared != scan_cache.names_of(scanned.facts):
        pairs = find_duplicates(scanned.facts)
        if place is not None:
            scan_cache.save(place, scanned.facts, pairs, console)
    regrouped = {change.image for change in listing.changes if change.action == "group"}
    groups, notes = _groups(config.groups, list(records.values()), regrouped)
    manifest = split(
        list(records.values()),
        pairs=pairs,
        fractions=config.split,
        seed=config.seed_of_sides,
        groups=groups,
        sha256={image_id: facts.sha256 for image_id, facts in scanned.facts.items()},
        classes=listing.classes,
        multi_label=listing.multi_label,
    )
    manifest = with_marks(manifest, records, workers)
    if config.folds is not None and config.fold is not None:
        manifest = take_fold(manifest, config.folds, config.fold, config.seed)
    return Survey(
        name=name,
        listing=listing,
        records={row.id: replace(records[row.id], split=row.split, group=row.group) for row in manifest.rows},
        facts=scanned.facts,
        left_out=[*listing.left_out, *scanned.left_out],
        pairs=pairs,
        manifest=manifest,
        notes=[*listing.notes, *notes, *manifest.reasons],
    )


def _groups(rule: str, records: Sequence[Record], regrouped: Container[str]) -> tuple[dict[str, str] | None, list[str]]:
    """Groups from the data's own column, else by ``rule``. None: every image for itself.

    ``regrouped`` images have theirs from an overlay, which says nothing of the others.
    """
    if any(record.group is not None and record.id not in regrouped for record in records):
        return {record.id: record.group for record in records if record.group is not None}, []
    if rule == "none":
        return None, []
    if rule == "auto":
        found = find_groups(records)
        return (None, []) if found is None else (dict(found.of), [found.sentence])
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise ConfigError(f"groups = {rule!r} is not a regular expression: {error}") from None
    if pattern.groups < 1:
        raise ConfigError(f"groups = {rule!r} needs a part in parentheses, which is the group's name")
    matches = {record.id: pattern.search(record.id) for record in records}
    missed = [image_id for image_id, match in matches.items() if match is None]
    if missed:
        raise DataError(f"groups = {rule!r} does not match {len(missed)} image names; the first is {missed[0]}")
    return {image_id: match[1] for image_id, match in matches.items() if match is not None}, []
