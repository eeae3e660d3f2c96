"""LabelMe: which shapes are objects, which are one object, and whose a file is."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listings import ids, left_out
from object_listings import boxed, conserved, lost, marked, object_listing, objects_by_image, picture, plainly
from snellen.core.annotation import Annotation
from snellen.core.errors import DataError
from snellen.core.masks import decode, encode, polygon_mask
from snellen.core.record import Listing, Record
from snellen.data.formats import labelme

TRIANGLE = [[2, 3], [12, 3], [12, 9]]


def shape(label: Any, points: Any, kind: str = "polygon", **fields: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **fields}


def page(path: Path, *shapes: Any, image: str | None = None, **fields: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": image or f"{path.stem}.jpg"}
    path.write_text(json.dumps({**content, "imageData": None, "imageHeight": 30, "imageWidth": 40, **fields}))
    return path


def one(root: Path, *shapes: Any, **fields: Any) -> Listing:
    picture(root / "a.jpg")
    page(root / "a.json", *shapes, **fields)
    assert labelme.matches(root)
    listing = labelme.read(root)
    assert conserved(listing)
    return listing


def objects(listing: Listing) -> tuple[Annotation, ...]:
    return listing.records[0].objects or ()


def says(listing: Listing, words: str) -> bool:
    return any(words in note for note in listing.notes)


def test_polygons_and_rectangles_with_corners_in_any_order_are_objects(tmp_path: Path) -> None:
    listing = one(
        tmp_path,
        shape("cat", TRIANGLE),
        shape("dog", [[20, 3], [5, 9]], "rectangle"),
        shape(7, [[5, 3], [20, 3], [20, 9], [5, 9]], "rectangle"),
    )
    cat, dog, seven = objects(listing)
    assert cat == boxed("cat", 2, 3, 12, 9, polygons=((2.0, 3.0, 12.0, 3.0, 12.0, 9.0),))
    assert dog == boxed("dog", 5, 3, 20, 9) and seven == boxed("7", 5, 3, 20, 9)
    assert listing.classes == ("7", "cat", "dog")


def test_a_circle_is_an_outline_of_its_area(tmp_path: Path) -> None:
    (circle,) = objects(one(tmp_path, shape("coin", [[20, 15], [26, 23]], "circle")))
    assert circle.box == pytest.approx((10, 5, 30, 25))
    area = polygon_mask(circle.polygons, (40, 30)).sum()
    assert area == pytest.approx(math.pi * 100, rel=0.02)


def test_parts_of_one_group_are_one_object(tmp_path: Path) -> None:
    other = [[20, 20], [25, 20], [25, 25]]
    listing = one(
        tmp_path,
        shape("dog", other, group_id=1),
        shape("cat", TRIANGLE, group_id=1),
        shape("cat", TRIANGLE, group_id=2),
        shape("cat", other, group_id=1, flags={"difficult": True}),
        shape("cat", [[1, 1], [3, 3]], "rectangle", group_id=1),
    )
    assert [(item.label, len(item.polygons), item.box) for item in objects(listing)] == [
        ("dog", 1, (20, 20, 25, 25)),
        ("cat", 2, (2, 3, 25, 25)),
        ("cat", 1, (2, 3, 12, 9)),
        ("cat", 0, (1, 1, 3, 3)),
    ]
    assert objects(listing)[1].difficult
    assert says(listing, "outlines that share a group_id: 1")


def test_rotated_rectangles_keep_their_corners(tmp_path: Path) -> None:
    points = [[10.0, 5.0], [14.0, 9.0], [9.0, 14.0], [5.0, 10.0]]
    (ship,) = objects(one(tmp_path, shape("ship", points, "rotation")))
    assert ship.corners == tuple(number for point in points for number in point)
    assert ship.box == (5, 5, 14, 14)


def test_what_marks_no_object_or_is_unfit_is_lost_with_a_reason(tmp_path: Path) -> None:
    listing = one(
        tmp_path,
        shape("cat", TRIANGLE),
        shape("eye", [[1, 1]], "point"),
        shape("wire", [[1, 1], [5, 5]], "linestrip"),
        shape("cube", [[1, 1]], "cuboid"),
        shape("two", [[1, 1], [5, 5]]),
        shape("text", [["1", 1], [5, 5], [9, 9]]),
        shape("flat", [1, 2, 3]),
        shape("none", None),
        shape("nan", [[math.nan, 1], [5, 5], [9, 9]]),
        shape(None, TRIANGLE),
        shape("out", [[50, 1], [60, 1], [60, 9]]),
        shape("mask", [[1, 1], [5, 5]], "mask", mask="???"),
        "shape",
        shape("three", TRIANGLE, "rectangle"),
    )
    assert len(objects(listing)) == 1
    words = {
        2: "a point marks no object",
        3: "a line marks no object",
        4: "'cuboid' are not known",
        5: "an outline has three or more points, and it has 2",
        6: "not pairs of numbers",
        7: "not pairs of numbers",
        8: "not a list",
        9: "not pairs of numbers",
        10: "no label",
        11: "outside of the image",
        12: "no text of an image",
        13: "it is not a shape",
        14: "a rectangle has two corners, and it has 3",
    }
    reasons = lost(listing)
    assert len(reasons) == len(words) and listing.num_annotations == 14
    for place, reason in words.items():
        assert reason in reasons[f"a.json, shape {place}"]


def test_an_image_belongs_to_the_file_of_its_own_name(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.jpg")
    page(tmp_path / "labels/a.json", shape("one", TRIANGLE), image="..\\images\\a.jpg")
    picture(tmp_path / "renamed.jpg")
    page(tmp_path / "renamed.json", shape("two", TRIANGLE), image="old.jpg", imageData="iVBORw0KGgo" * 1000)
    page(tmp_path / "gone.json", shape("three", TRIANGLE))
    picture(tmp_path.parent / "secret.jpg")
    page(tmp_path / "evil.json", shape("four", TRIANGLE), image="../secret.jpg")
    listing = labelme.read(tmp_path)
    assert conserved(listing)
    assert {r.id: r.labels for r in listing.records} == {"images/a.jpg": ("one",), "renamed.jpg": ("two",)}
    assert left_out(listing) == {"gone.jpg": "file not found", "evil.jpg": "file not found"}
    assert says(listing, "JSON files that name another image than the one called like them, which counts: 1")


def test_sides_are_given_by_folders(tmp_path: Path) -> None:
    for side in ("train", "val", "more"):
        picture(tmp_path / side / "a.jpg")
        page(tmp_path / side / "a.json", shape("cat", TRIANGLE))
    listing = labelme.read(tmp_path)
    assert conserved(listing)
    assert {record.id: record.split for record in listing.records} == {"train/a.jpg": "train", "val/a.jpg": "val"}
    assert left_out(listing) == {"more/a.jpg": "beside the folders of the splits"}
    assert lost(listing) == {"more/a.json, shape 1": "its image is beside the folders of the splits"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not valid JSON"),
        (b'{"shapes": [', "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b'{"images": [], "annotations": []}', "has no list 'shapes'"),
        (b'{"shapes": {}}', "has no list 'shapes'"),
        (b"[1]", "has no list 'shapes'"),
        (b'"\xff"', "is not valid JSON"),
    ],
)
def test_a_file_that_cannot_be_read_costs_only_itself(tmp_path: Path, content: bytes, reason: str) -> None:
    one(tmp_path, shape("cat", TRIANGLE))
    (tmp_path / "b.json").write_bytes(content)
    listing = labelme.read(tmp_path)
    assert ids(listing) == ["a.jpg"] and left_out(listing)["b.json"].startswith(reason)
    (tmp_path / "a.json").unlink()
    with pytest.raises(DataError, match="holds no annotations of LabelMe; the first: ") as caught:
        labelme.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_mask_needs_a_size_that_can_be(tmp_path: Path) -> None:
    whole = shape("cat", [[0, 0], [1, 1]], "mask", mask="AAAA")
    listing = one(tmp_path, shape("dog", TRIANGLE), whole, imageWidth=10**9, imageHeight=10**9)
    assert "imageWidth" in lost(listing)["a.json, shape 2"]


def test_other_data_is_not_taken_for_labelme(tmp_path: Path) -> None:
    picture(tmp_path / "cats/1.jpg")
    (tmp_path / "annotations.json").write_text('{"images": [], "annotations": []}')
    assert not labelme.matches(tmp_path)
    assert not labelme.matches(tmp_path / "annotations.json")


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_damaged_files_read_or_raise_data_error(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)
    root = tmp_path_factory.mktemp("data")
    picture(root / "a.jpg")
    page(root / "b.json", shape("cat", TRIANGLE))
    picture(root / "b.jpg")
    shapes = (shape("cat", TRIANGLE), shape("dog", [[1, 2], [3, 4]], "circle"))
    data = bytearray(page(root / "a.json", *shapes).read_bytes())
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.choice(b'[]{}",:0-en1')
    (root / "a.json").write_bytes(bytes(data))
    assert conserved(labelme.read(root))


# ---- writing


@given(found=objects_by_image(shapes=("box", "polygon", "parts", "mask")), divided=st.booleans())
def test_what_is_written_reads_back(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, list[Annotation]], divided: bool
) -> None:
    root = tmp_path_factory.mktemp("data")
    sides: Any = {name: ("train", "val", "test")[place % 3] for place, name in enumerate(sorted(found))}
    listing = object_listing(root / "made", found, splits=sides if divided and len(found) > 1 else None)
    if not any(item.mask is None or decode(item.mask).any() for marks in found.values() for item in marks):
        return  # masks of no pixel mark nothing
    labelme.write(listing, root / "new")
    back = labelme.read(root / "new")
    assert conserved(back)
    found_again = {record.id: record for record in back.records}
    assert len(found_again) == len(listing.records)
    for old in listing.records:
        new = found_again[f"{old.split}/{old.id}" if old.split else old.id]
        assert new.split == old.split
        shown = [item for item in old.objects or () if item.mask is None or decode(item.mask).any()]
        assert list(map(_known, shown)) == list(map(_known, new.objects or ()))


def _known(item: Annotation) -> Annotation:
    """What LabelMe keeps: beside a mask, the box is the mask's own."""
    (plain,) = plainly([item])
    return plain if item.mask is None else Annotation(label=item.label, box=(0, 0, 1, 1), mask=item.mask)


def test_masks_corners_and_flags_survive_writing(tmp_path: Path) -> None:
    ring = np.zeros((30, 40), bool)
    ring[5:20, 8:30] = True
    ring[9:12, 12:20] = False
    made = [
        boxed("ring", 8, 5, 30, 20, mask=encode(ring)),
        boxed("ship", 5, 5, 14, 14, corners=(10.0, 5.0, 14.0, 9.0, 9.0, 14.0, 5.0, 10.0)),
        boxed("cat", 1, 2, 3, 4, difficult=True),
        boxed("flock", 1, 2, 30, 4, crowd=True),
    ]
    labelme.write(object_listing(tmp_path / "made", {"a.jpg": made}), tmp_path / "new")
    assert marked(labelme.read(tmp_path / "new")) == {"a.jpg": tuple(made)}


def test_what_labelme_cannot_hold_is_not_written(tmp_path: Path) -> None:
    made = object_listing(tmp_path / "made", {"a.jpg": [boxed("cat", 1, 2, 3, 4)], "a.png": []})
    with pytest.raises(DataError, match=r"two images would share a\.json"):
        labelme.write(made, tmp_path / "new")
    path = made.records[0].path
    for record, message in (
        (Record(id="a.jpg", path=path, labels=("cat",)), "LabelMe holds marked objects"),
        (Record(id="a.jpg", path=path, objects=(), size=(40, 30), group="g"), "cannot hold groups"),
    ):
        with pytest.raises(DataError, match=message):
            labelme.write(Listing(root=path.parent, format="made", records=(record,), classes=()), tmp_path / "new")
    assert not (tmp_path / "new").exists()
