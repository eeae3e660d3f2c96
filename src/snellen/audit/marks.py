"""What is marked in the images, as columns: one row an object, or one an image with a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snellen.core.errors import ImageError
from snellen.core.record import Record
from snellen.core.seeds import keyed_seed
from snellen.data.mask_files import VOID, read_mask

MOST_MASKS = 300  # that are read: of 2048 x 1024 pixels 20 ms each
_THREADS = 4


@dataclass(frozen=True, slots=True, eq=False)
class MarkedObjects:
    """The objects of all images; crowds, which are no single objects, left out.

    ids    of the images, also of those without objects, in the order of ``image``
    names  of the classes, in the order of ``label``
    image, label  [n] places in these
    boxes  [n, 4] x0, y0, x1, y1 in pixels
    sizes  [images, 2] width and height
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    image: NDArray[np.intp]
    label: NDArray[np.intp]
    boxes: NDArray[np.float64]
    sizes: NDArray[np.float64]

    @classmethod
    def of(cls, records: Sequence[Record], names: Sequence[str]) -> MarkedObjects:
        """Of the records that can have objects."""
        marked = [record for record in records if record.objects is not None]
        rows = [(i, each) for i, record in enumerate(marked) for each in record.objects or () if not each.crowd]
        known = dict.fromkeys((*names, *(each.label for _, each in rows)))
        place = {name: i for i, name in enumerate(known)}
        return cls(
            ids=tuple(record.id for record in marked),
            names=tuple(known),
            image=np.array([i for i, _ in rows], np.intp),
            label=np.array([place[each.label] for _, each in rows], np.intp),
            boxes=np.array([each.box for _, each in rows], np.float64).reshape(-1, 4),
            sizes=np.array([record.size or (1, 1) for record in marked], np.float64).reshape(-1, 2),
        )

    def __len__(self) -> int:
        return len(self.image)

    @property
    def sides(self) -> NDArray[np.float64]:
        """Width and height of each, [n, 2]."""
        return self.boxes[:, 2:] - self.boxes[:, :2]

    @property
    def shares(self) -> NDArray[np.float64]:
        """The area of each box, as a share of its image's, [n]."""
        return np.asarray(self.sides.prod(axis=1) / self.sizes[self.image].prod(axis=1))

    @property
    def per_image(self) -> NDArray[np.intp]:
        """How many there are in each image, [images]."""
        return np.bincount(self.image, minlength=len(self.ids))

    def images_of(self, rows: NDArray[np.intp]) -> tuple[str, ...]:
        """The images of some rows, those with most of them first."""
        counts = np.bincount(self.image[rows], minlength=len(self.ids))
        order = np.argsort(-counts, kind="stable")
        return tuple(self.ids[i] for i in order[: np.count_nonzero(counts)])


@dataclass(frozen=True, slots=True, eq=False)
class MaskPixels:
    """Pixels of each class in a sample of the masks.

    ids     of the images that were looked at
    counts  [images, C + 1], the last of them void
    total   how many images have masks
    """

    ids: tuple[str, ...]
    counts: NDArray[np.int64]
    total: int

    @classmethod
    def of(cls, records: Mapping[str, Record], num_classes: int) -> MaskPixels:
        """The 300 masks with the smallest hashed ids, or all; masks that cannot be read are passed over."""
        masked = [record for record in records.values() if record.mask is not None]
        chosen = sorted(masked, key=lambda each: (keyed_seed("mask", each.id), each.id))[:MOST_MASKS]
        chosen.sort(key=lambda each: each.id)
        with ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(lambda record: _pixels(record, num_classes), chosen))
        read = [(record.id, counts) for record, counts in zip(chosen, found, strict=True) if counts is not None]
        return cls(
            ids=tuple(image_id for image_id, _ in read),
            counts=np.array([counts for _, counts in read], np.int64).reshape(-1, num_classes + 1),
            total=len(masked),
        )

    @property
    def void(self) -> NDArray[np.float64]:
        """The share of void pixels in each mask, [images]."""
        return np.asarray(self.counts[:, -1] / np.maximum(self.counts.sum(axis=1), 1))


def _pixels(record: Record, num_classes: int) -> NDArray[np.int64] | None:
    assert record.mask is not None
    try:
        counts = np.bincount(read_mask(record.mask).ravel(), minlength=VOID + 1)
    except ImageError:
        return None
    return np.append(counts[:num_classes], counts[num_classes:].sum())
