"""What segmentation says about one image. The same type holds the truth and a prediction."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from snellen.core.errors import DataError
from snellen.core.geometry import Matrix, Size
from snellen.core.masks import annotation_mask
from snellen.core.record import BACKGROUND, Record
from snellen.data.elastic import ElasticField
from snellen.data.mask_files import VOID, read_mask
from snellen.data.tiles import Region, nearest
from snellen.data.warp import warp_mask

"""The class of what no object covers, where truth comes from the outlines of objects."""

Map = NDArray[np.uint8]
_COUNTED = 2**20  # pixels counted together


@dataclass(frozen=True, slots=True, eq=False)
class ClassMap:
    """A class for each pixel of an image.

    size    (width, height); one pixel stands for any size that is the same all over
    packed  the classes, row by row, one byte a pixel (255: void), compressed by zlib: thousands of maps fit in memory
    scores  float32 [C]: mean probability of each class over the pixels that were given to it; None for truth
    """

    size: Size
    packed: bytes
    scores: NDArray[np.float32] | None = None

    @classmethod
    def from_array(cls, classes: Map, scores: NDArray[np.float32] | None = None) -> ClassMap:
        """classes uint8 [H, W]"""
        return cls((classes.shape[1], classes.shape[0]), zlib.compress(classes.tobytes(), 1), scores)

    @classmethod
    def of(cls, record: Record, classes: Sequence[str]) -> ClassMap:
        """The truth of a record: its mask, or else its objects, the later ones on top of the earlier.

        What no object covers is the class 'background'. Raises DataError where a record has neither, where objects
        are boxes only, and where a mask does not fit the image or the classes.
        """
        if record.mask is not None:
            return cls.from_array(_of_mask(record, classes))
        if record.objects is not None:
            return cls.from_array(_of_objects(record, classes))
        raise DataError(f"{record.id}: no class is given for its pixels; give masks, or outlines of objects")

    @classmethod
    def assembled(cls, parts: Sequence[ClassMap], regions: Sequence[Region], size: Size, num_classes: int) -> ClassMap:
        """The maps of an image's tiles as one: each pixel as in the tile whose middle is nearest.

        ``scores`` are those of the parts, weighted by how many pixels of a class each has given.
        """
        found = np.full(size[::-1], VOID, np.uint8)
        sums, counts = np.zeros(num_classes), np.zeros(num_classes)
        for part, (left, top, _, _), (x0, y0, x1, y1) in zip(parts, regions, nearest(regions), strict=True):
            piece = part.array[y0 - top : y1 - top, x0 - left : x1 - left]
            found[y0:y1, x0:x1] = piece
            if part.scores is not None:
                given = class_counts(piece, num_classes)
                sums, counts = sums + given * part.scores, counts + given
        return cls.from_array(found, (sums / np.maximum(counts, 1)).astype(np.float32))

    @property
    def array(self) -> Map:
        """The classes, uint8 [H, W]; 255 is void."""
        return np.frombuffer(zlib.decompress(self.packed), np.uint8).reshape(self.size[1], self.size[0])

    def shares(self, num_classes: int) -> NDArray[np.float64]:
        """The share of each class in the pixels that are not void, [C]; zeros where all are."""
        counts = class_counts(self.array, num_classes)
        return np.asarray(counts / max(1, int(counts.sum())), np.float64)

    def filling(self, size: Size) -> Map:
        """The classes at ``size``: as they are, or of one pixel repeated. ValueError for another size."""
        if self.size == size:
            return self.array
        if self.size != (1, 1):
            raise ValueError(f"a map of {self.size[0]} x {self.size[1]} does not fill {size[0]} x {size[1]} pixels")
        return np.broadcast_to(self.array, (size[1], size[0]))

    def moved(self, matrix: Matrix, size: Size, field: ElasticField | None) -> ClassMap:
        """As its image after ``matrix``, and then ``field``, brought it to ``size``; void where it shows no image."""
        return ClassMap.from_array(warp_mask(self.array, matrix, size, ignore=VOID, field=field), self.scores)


def class_counts(classes: Map, num_classes: int) -> NDArray[np.int64]:
    """How many pixels of a map each class has, [C]. Some rows at a time, as numpy makes eight bytes of each pixel."""
    rows = max(1, _COUNTED // max(1, classes.shape[1]))
    parts = (classes[top : top + rows] for top in range(0, len(classes), rows))
    counts = (np.bincount(part.ravel(), minlength=num_classes)[:num_classes] for part in parts)
    return np.asarray(sum(counts, np.zeros(num_classes, np.int64)))


def _of_mask(record: Record, classes: Sequence[str]) -> Map:
    assert record.mask is not None
    found = read_mask(record.mask)
    size = (found.shape[1], found.shape[0])
    if record.size is not None and size != record.size:
        raise DataError(
            f"{record.id}: its mask {record.mask.path.name} has {size[0]} x {size[1]} pixels and the image "
            f"{record.size[0]} x {record.size[1]}; give a mask of the image's size"
        )
    too_large = found[(found != VOID) & (found >= len(classes))]
    if too_large.size:
        raise DataError(
            f"{record.id}: its mask {record.mask.path.name} holds the class {too_large[0]}, and there are "
            f"{len(classes)} classes ({', '.join(classes)})"
        )
    return found


def _of_objects(record: Record, classes: Sequence[str]) -> Map:
    if record.size is None:
        raise DataError(f"{record.id}: the size of the image is not known, so its objects cannot be drawn")
    width, height = record.size
    found = np.full((height, width), VOID, np.uint8)
    for each in record.objects or ():
        mask = annotation_mask(each, record.size)
        if mask is None:
            raise DataError(
                f"{record.id}: '{each.label}' is given by a box only, which says nothing about pixels; give outlines "
                "or masks, or --task detection"
            )
        if each.label not in classes:
            raise DataError(f"{record.id}: '{each.label}' is not one of the classes ({', '.join(classes)})")
        found[mask] = classes.index(each.label)
    if BACKGROUND in classes:
        found[found == VOID] = classes.index(BACKGROUND)
    elif (found == VOID).any():
        raise DataError(
            f"{record.id}: pixels that no object covers have no class; '{BACKGROUND}' must be one of the classes "
            f"({', '.join(classes)})"
        )
    return found


def to_arrays(maps: Sequence[ClassMap], name: str) -> dict[str, np.ndarray]:
    """Any number of maps as three arrays: ``<name>`` uint8, the packed bytes of all one after another;
    ``<name>_ends`` int64 [n], where those of each end; ``<name>_sizes`` int32 [n, 2], width and height."""
    return {
        name: np.frombuffer(b"".join(each.packed for each in maps), np.uint8),
        f"{name}_ends": np.cumsum([len(each.packed) for each in maps], dtype=np.int64),
        f"{name}_sizes": np.array([each.size for each in maps], np.int32).reshape(-1, 2),
    }


def from_arrays(arrays: Mapping[str, np.ndarray], name: str) -> list[ClassMap]:
    """What ``to_arrays`` wrote. Raises KeyError for what it did not write."""
    packed, ends, sizes = (arrays[key] for key in (name, f"{name}_ends", f"{name}_sizes"))
    starts = [0, *ends.tolist()]
    return [
        ClassMap((int(width), int(height)), packed[start:end].tobytes())
        for start, end, (width, height) in zip(starts, ends.tolist(), sizes, strict=False)
    ]
