"""Small sets of images with objects in them, on disk and as listings, and what to compare of those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from PIL import Image

from snellen.core.annotation import Annotation, Box
from snellen.core.masks import encode, polygon_mask
from snellen.core.record import Listing, Record, Split

SIZE = (40, 30)  # width, height


def picture(path: Path, size: tuple[int, int] = SIZE, orientation: int = 1) -> Path:
    """Write a grey image, ``size`` being (width, height) as it is stored: upright it is turned by ``orientation``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    kind = "JPEG" if path.suffix.lower() in (".jpg", ".jpeg") else "PNG"
    Image.new("L", size, 128).save(path, kind, exif=exif.tobytes() if orientation != 1 else b"")
    return path


def boxed(label: str, *box: float, **fields: Any) -> Annotation:
    x0, y0, x1, y1 = map(float, box)
    return Annotation(label=label, box=(x0, y0, x1, y1), **fields)


def object_listing(
    root: Path,
    objects: Mapping[str, Sequence[Annotation]],
    *,
    size: tuple[int, int] = SIZE,
    splits: Mapping[str, Split] | None = None,
) -> Listing:
    """Image files below ``root``, one for each name, and the listing that a faultless reader makes of them."""
    records = []
    for name, marked in sorted(objects.items()):
        picture(root / name, size)
        records.append(
            Record(
                id=name,
                path=root / name,
                labels=tuple(sorted({item.label for item in marked})),
                objects=tuple(marked),
                size=size,
                split=None if splits is None else splits[name],
            )
        )
    return Listing(
        root=root,
        format="made",
        records=tuple(records),
        classes=tuple(sorted({label for record in records for label in record.labels})),
        multi_label=True,
        num_annotations=sum(map(len, objects.values())),
    )


def marked(listing: Listing) -> dict[str, tuple[Annotation, ...] | None]:
    """The objects of each image, by its id."""
    return {record.id: record.objects for record in listing.records}


def plainly(objects: Sequence[Annotation] | None, *, digits: int = 3, **fields: Any) -> list[Annotation]:
    """Objects with rounded coordinates, and with ``fields`` set as given: for formats that keep no more than that."""

    def rounded(numbers: Sequence[float]) -> tuple[float, ...]:
        # Sixteenths, which examples like, lie half-way between thousandths: written and read they may round either way.
        return tuple(round(number + 0.000137, digits) + 0.0 for number in numbers)

    return [
        replace(
            item,
            box=rounded(item.box),
            polygons=tuple(rounded(part) for part in item.polygons),
            corners=None if item.corners is None else rounded(item.corners),
            keypoints=tuple((*rounded(point[:2]), point[2]) for point in item.keypoints),
            **fields,
        )
        for item in objects or ()
    ]


def lost(listing: Listing) -> dict[str, str]:
    return {item.path: item.reason for item in listing.lost}


def conserved(listing: Listing) -> bool:
    """Whether every annotation is an object or lost, and all that a record must promise holds."""
    for record in listing.records:
        assert record.objects is not None and record.size is not None
        assert record.labels == tuple(sorted({item.label for item in record.objects}))
        assert all(within(item.box, record.size) for item in record.objects)
    return listing.num_annotations == sum(len(record.objects or ()) for record in listing.records) + len(listing.lost)


def within(box: Box, size: tuple[int, int]) -> bool:
    return 0 <= box[0] < box[2] <= size[0] and 0 <= box[1] < box[3] <= size[1]


# ---- any objects, for property tests

LABELS = st.sampled_from(["cat", "dog", "a b", "Größe"])


@st.composite
def boxes(draw: st.DrawFn, size: tuple[int, int] = SIZE, *, whole: bool = False) -> Box:
    """Boxes within an image, at least a pixel wide and high; ``whole`` puts them on whole pixels."""
    width, height = size
    number = (lambda low, high: st.integers(low, high)) if whole else (lambda low, high: st.floats(low, high, width=32))
    x0, y0 = draw(number(0, width - 1)), draw(number(0, height - 1))
    x1, y1 = draw(number(0, width)), draw(number(0, height))
    return float(x0), float(y0), float(min(width, max(x0 + 1, x1))), float(min(height, max(y0 + 1, y1)))


@st.composite
def annotations(
    draw: st.DrawFn, size: tuple[int, int] = SIZE, *, whole: bool = False, shapes: Sequence[str] = ("box",)
) -> Annotation:
    """Objects of the given ``shapes``: 'box', 'polygon' (of one part), 'parts' (two), 'mask'. The box is their hull."""
    label, box, shape = draw(LABELS), draw(boxes(size, whole=whole)), draw(st.sampled_from(list(shapes)))
    x0, y0, x1, y1 = box
    part = (x0, y0, x1, y0, x1, y1, (x0 + x1) / 2, y1, x0, (y0 + y1) / 2)
    if shape == "polygon":
        return Annotation(label=label, box=box, polygons=(part,))
    if shape == "parts":
        return Annotation(label=label, box=box, polygons=(part, (x0, y0, x1, y0, x1, y1)))
    if shape == "mask":
        return Annotation(label=label, box=box, mask=encode(polygon_mask([part], size)))
    return Annotation(label=label, box=box)


def objects_by_image(
    size: tuple[int, int] = SIZE, *, whole: bool = False, shapes: Sequence[str] = ("box",)
) -> st.SearchStrategy[dict[str, list[Annotation]]]:
    """Some images with some objects; at least one object in all."""
    some = st.lists(annotations(size, whole=whole, shapes=shapes), max_size=3)
    names = st.sampled_from(["a.png", "sub/b.png", "c.jpg"])
    return st.dictionaries(names, some, min_size=1).filter(lambda found: any(found.values()))
