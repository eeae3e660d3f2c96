"""What the audit looks at: the listing, what the scan saw, the duplicates, and the split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from snellen.audit.capture_times import find_bursts
from snellen.audit.labelled import Labelled
from snellen.audit.marks import MarkedObjects, MaskPixels
from snellen.audit.other_side import OtherSide
from snellen.audit.small_images import small_images
from snellen.core.record import SPLITS, LeftOut, Listing, Record, Split
from snellen.data.duplicates import Duplicate
from snellen.data.image import Pixels
from snellen.data.manifest import Manifest, Row
from snellen.data.scan import ImageFacts

MAX_IMAGES = 24  # ids named in one finding


@dataclass(frozen=True, kw_only=True)
class AuditSubject:
    """The data set under audit.

    facts     of every image that could be decoded, by record id
    left_out  everything that isn't used: what the format and what the scan left out
    pairs     duplicates, of the images in ``facts``
    manifest  of the images in ``facts``
    features  what a frozen network sees, float32 [d] by record id, of all images or a sample of them; None: not asked
    maps      what it sees at each place, float16 [rows, columns, d] by record id, of images with marks; None: not asked
    """

    listing: Listing
    facts: Mapping[str, ImageFacts]
    left_out: Sequence[LeftOut]
    pairs: Sequence[Duplicate]
    manifest: Manifest
    features: Mapping[str, npt.NDArray[np.float32]] | None = None
    maps: Mapping[str, npt.NDArray[np.float16]] | None = None

    @cached_property
    def rows(self) -> dict[str, Row]:
        """The manifest's rows by record id."""
        return {row.id: row for row in self.manifest.rows}

    @cached_property
    def records(self) -> dict[str, Record]:
        """What was read of the images in the manifest, by record id."""
        return {record.id: record for record in self.listing.records if record.id in self.rows}

    @cached_property
    def is_marked(self) -> bool:
        """Whether the classes are those of objects or pixels, and not of whole images."""
        return any(record.objects is not None or record.mask is not None for record in self.records.values())

    @cached_property
    def objects(self) -> MarkedObjects:
        """Every object of the images in the manifest, none where objects are not marked."""
        return MarkedObjects.of(list(self.records.values()), self.manifest.classes)

    @cached_property
    def object_counts(self) -> dict[str, Counter[Split]]:
        """Objects of every class on every side, in the order of the classes; empty where objects are not marked."""
        if not self.objects.ids:
            return {}
        sides = [self.rows[image_id].split for image_id in self.objects.ids]
        counts: dict[str, Counter[Split]] = {name: Counter() for name in self.objects.names}
        for image, label in zip(self.objects.image.tolist(), self.objects.label.tolist(), strict=True):
            counts[self.objects.names[label]][sides[image]] += 1
        return counts

    @cached_property
    def mask_pixels(self) -> MaskPixels:
        """Pixels of each class, in masks that are read for it: 300 at most, none where there are no masks."""
        return MaskPixels.of(self.records, len(self.manifest.classes))

    @cached_property
    def small_images(self) -> dict[str, Pixels]:
        """A sample of the images that have marks, uint8 [h, w, 3], the long side at most 256 pixels."""
        return small_images(self.records, self.facts)

    @cached_property
    def labelled(self) -> Labelled | None:
        """Images of one class each with features, and what a model says of them that was fitted without them.

        None where there are no features, too few images, or classes are not those of whole images.
        """
        if self.features is None or self.is_marked:
            return None
        return Labelled.of(self.manifest, self.features, self.unit_of)

    @cached_property
    def other_side(self) -> OtherSide | None:
        """Training labels judged by those of validation or test; None where the sides did not come with the data."""
        if self.labelled is None or self.manifest.origin != "user":
            return None
        return OtherSide.of(self.labelled, self.sides)

    def unit_of(self, image_id: str) -> str:
        """What an image belongs to and has one vote with: its group, else its duplicates, else itself."""
        row = self.rows[image_id]
        return row.group or row.cluster or image_id

    @cached_property
    def bursts(self) -> dict[str, list[str]]:
        """Images that one camera took within seconds of each other, by the name of the burst."""
        return find_bursts(self.records, {image_id: facts.format for image_id, facts in self.facts.items()})

    @cached_property
    def class_counts(self) -> dict[str, Counter[Split]]:
        """Images of every class on every side, in the order of the classes; classes without images included.

        Empty where images have numbers instead of classes.
        """
        if self.manifest.numeric:
            return {}
        counts: dict[str, Counter[Split]] = {name: Counter() for name in self.manifest.classes}
        for row in self.manifest.rows:
            for label in set(row.labels):
                counts.setdefault(label, Counter())[row.split] += 1
        return counts

    @cached_property
    def values(self) -> dict[str, dict[str, float]]:
        """The numbers by name, then by record id, in the order of the manifest; empty for classes."""
        if not self.manifest.numeric:
            return {}
        rows = [row for row in self.manifest.rows if row.values is not None]
        return {
            name: {row.id: row.values[i] for row in rows if row.values is not None}
            for i, name in enumerate(self.manifest.classes)
        }

    @cached_property
    def sides(self) -> list[Split]:
        """The sides that have images, in the order train, val, test."""
        used = {row.split for row in self.manifest.rows}
        return [side for side in SPLITS if side in used]


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 image``, ``2,000 images``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(names: Iterable[str], most: int = 5) -> str:
    """``a, b, c and 4 more``."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
