"""CVAT's XML: which shapes are objects, rotations, sides, tracks of a video, and what is lost."""

from __future__ import annotations

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
from snellen.core.masks import decode, encode
from snellen.core.record import Listing, Record
from snellen.data.formats import cvat
from snellen.data.formats.outlines import as_rectangle, corners_of, ellipse

BOX = '<box label="cat" xtl="2" ytl="3" xbr="12" ybr="9"/>'


def image(name: str, *shapes: str, more: str = "") -> str:
    return f'<image id="0" name="{name}" width="40" height="30" {more}>{"".join(shapes)}</image>'


def save(root: Path, *elements: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "annotations.xml").write_text(f"<?xml version='1.0'?><annotations>{''.join(elements)}</annotations>")
    return root


def one(root: Path, *shapes: str) -> Listing:
    picture(root / "images/a.jpg")
    assert cvat.matches(save(root, image("a.jpg", *shapes)))
    listing = cvat.read(root)
    assert conserved(listing)
    return listing


def objects(listing: Listing) -> tuple[Annotation, ...]:
    return listing.records[0].objects or ()


def says(listing: Listing, words: str) -> bool:
    return any(words in note for note in listing.notes)


def test_boxes_and_polygons_are_objects(tmp_path: Path) -> None:
    listing = one(
        tmp_path,
        BOX,
        '<polygon label="dog" points="2.5,3;12,3;12,9.25"><attribute name="difficult">true</attribute></polygon>',
        '<box label="flock" xtl="0" ytl="0" xbr="9" ybr="9"><attribute name="Crowd">1</attribute></box>',
    )
    dog = boxed("dog", 2.5, 3, 12, 9.25, polygons=((2.5, 3.0, 12.0, 3.0, 12.0, 9.25),), difficult=True)
    assert marked(listing) == {"images/a.jpg": (boxed("cat", 2, 3, 12, 9), dog, boxed("flock", 0, 0, 9, 9, crowd=True))}
    assert cvat.matches(tmp_path / "annotations.xml")
    assert marked(cvat.read(tmp_path / "annotations.xml")) == marked(listing)


def test_a_rotation_turns_a_box_clockwise_about_its_middle(tmp_path: Path) -> None:
    quarter, eighth = objects(
        one(
            tmp_path,
            '<box label="ship" xtl="10" ytl="10" xbr="20" ybr="14" rotation="90"/>',
            '<box label="ship" xtl="10" ytl="10" xbr="20" ybr="14" rotation="30.0"/>',
        )
    )
    assert quarter.box == pytest.approx((13, 7, 17, 17))
    assert quarter.corners == pytest.approx((17, 7, 17, 17, 13, 17, 13, 7))
    cos, sin = math.cos(math.pi / 6), math.sin(math.pi / 6)
    assert eighth.corners is not None
    assert eighth.corners[2:4] == pytest.approx((15 + 5 * cos + 2 * sin, 12 + 5 * sin - 2 * cos))


def test_an_ellipse_is_its_outline(tmp_path: Path) -> None:
    (coin,) = objects(one(tmp_path, '<ellipse label="coin" cx="20" cy="15" rx="10" ry="5" rotation="90"/>'))
    assert coin.box == pytest.approx((15, 5, 25, 25)) and len(coin.polygons) == 1


def test_a_mask_is_runs_along_the_rows_of_its_own_box(tmp_path: Path) -> None:
    shape = '<mask label="cat" rle="1, 2, 1, 2" left="4" top="5" width="3" height="2"/>'
    (cat,) = objects(one(tmp_path, shape))
    wanted = np.zeros((30, 40), bool)
    wanted[5, 5:7] = wanted[6, 5:7] = True
    assert cat.mask is not None and np.array_equal(decode(cat.mask), wanted)
    assert cat.box == (5, 5, 7, 7)


def test_outlines_of_one_group_are_one_object(tmp_path: Path) -> None:
    points = "2,3;12,3;12,9"
    listing = one(
        tmp_path,
        *(f'<polygon label="cat" group_id="{group}" points="{points}"/>' for group in (1, 0, 1, 0)),
        f'<polygon label="dog" group_id="1" points="{points}"/>',
        '<box label="cat" group_id="1" xtl="2" ytl="3" xbr="12" ybr="9"/>',
    )
    assert [(item.label, len(item.polygons)) for item in objects(listing)] == [
        ("cat", 2),
        ("cat", 1),
        ("cat", 1),
        ("dog", 1),
        ("cat", 0),
    ]
    assert says(listing, "share a group_id: 1")


def test_what_marks_no_object_or_is_unfit_is_lost_with_a_reason(tmp_path: Path) -> None:
    mask = '<mask label="cat" rle="{}" left="{}" top="5" width="3" height="2"/>'
    listing = one(
        tmp_path,
        BOX,
        '<points label="eye" points="1,2"/>',
        '<polyline label="wire" points="1,2;3,4"/>',
        '<skeleton label="man"><points label="1" points="1,2"/></skeleton>',
        '<tag label="sunny"/>',
        '<polygon label="two" points="1,2;3,4"/>',
        '<polygon label="text" points="a,2;3,4;5,6"/>',
        '<box label="cat" xtl="2"/>',
        '<box xtl="2" ytl="3" xbr="12" ybr="9"/>',
        '<box label="cat" xtl="50" ytl="3" xbr="60" ybr="9"/>',
        mask.format("1, 2", 4),
        mask.format("1, x, 5", 4),
        mask.format("6", 39),
        mask.format("6", -1),
    )
    assert len(objects(listing)) == 1 and listing.num_annotations == 14
    words = (
        "'points' marks no object",
        "'polyline' marks no object",
        "'skeleton' marks no object",
        "'tag' marks no object",
        "three or more points",
        "not a finite number",
        "not a finite number",
        "no label",
        "outside of the image",
        "do not fill 3 x 2 pixels",
        "do not fill 3 x 2 pixels",
        "reaches beyond the image",
        "not told in whole pixels",
    )
    reasons = lost(listing)
    for place, reason in enumerate(words, start=2):
        assert reason in reasons[f"a.jpg, shape {place}"]


def test_subsets_are_sides_where_all_are_called_so(tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / f"images/{name}.jpg")
    save(tmp_path, image("a.jpg", BOX, more='subset="Train"'), image("b.jpg", BOX, more='subset="Validation"'))
    assert [record.split for record in cvat.read(tmp_path).records] == ["train", "val"]
    save(tmp_path, image("a.jpg", BOX, more='subset="Train"'), image("b.jpg", BOX, more='subset="default"'))
    assert not cvat.read(tmp_path).has_user_split


def test_images_are_found_by_name_below_the_root_only(tmp_path: Path) -> None:
    root = tmp_path / "data"
    picture(tmp_path / "secret.jpg")
    picture(root / "images/sub/a.jpg")
    picture(root / "images/extra.jpg")
    save(root, image("sub/a.jpg", BOX), image("gone.jpg", BOX), image("../../secret.jpg", BOX), image("", BOX))
    listing = cvat.read(root)
    assert conserved(listing)
    assert ids(listing) == ["images/sub/a.jpg"]
    assert left_out(listing) == {
        "gone.jpg": "file not found",
        "../../secret.jpg": "file not found",
        "": "names no image",
    }
    assert says(listing, "not named in annotations.xml")
    assert ids(cvat.read(root / "annotations.xml", images=root / "images")) == ["sub/a.jpg"]


# ---- video


def track(label: str, *places: tuple[int, int]) -> str:
    """(frame, outside) each."""
    boxes = (f'<box frame="{f}" outside="{o}" keyframe="1" xtl="{f}" ytl="3" xbr="12" ybr="9"/>' for f, o in places)
    return f'<track id="0" label="{label}">{"".join(boxes)}</track>'


def test_tracks_are_read_where_the_frames_are_there(tmp_path: Path) -> None:
    for frame in (0, 1, 2, 4):
        picture(tmp_path / f"images/frame_{frame:06d}.png")
    save(tmp_path, track("cat", (0, 0), (1, 1), (2, 0), (3, 0), (4, 1)), track("dog", (4, 0)))
    listing = cvat.read(tmp_path)
    assert conserved(listing)
    assert {record.path.stem: record.labels for record in listing.records} == {
        "frame_000000": ("cat",),
        "frame_000001": (),
        "frame_000002": ("cat",),
        "frame_000004": ("dog",),
    }
    assert lost(listing) == {"track 1, frame 3": "its frame is not there as an image"}


def test_tracks_with_frames_or_places_missing_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    with pytest.raises(
        DataError, match=r"frames are not there as frame_000000\.png .* export the task as 'CVAT for images"
    ):
        cvat.read(save(tmp_path, track("cat", (0, 0), (1, 1))))
    for frame in range(4):
        picture(tmp_path / f"images/frame_{frame:06d}.png")
    with pytest.raises(DataError, match="track 1 does not say where it is in frame 1, between 0 and 3"):
        cvat.read(save(tmp_path, track("cat", (0, 0), (3, 1))))
    with pytest.raises(DataError, match="two places in a frame"):
        cvat.read(save(tmp_path, track("cat", (0, 0), (0, 1))))


# ---- unfit


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid XML"),
        (b"<annotations><image>", "is not valid XML"),
        (b"<annotation/>", "begins with <annotation>, and CVAT's files with <annotations>"),
        (b"<annotations/>", "no image is named"),
        (b'<!DOCTYPE a [<!ENTITY x "y">]><annotations>&x;</annotations>', "has a DOCTYPE"),
    ],
)
def test_an_unfit_file_gets_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "annotations.xml").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        cvat.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_other_data_is_not_taken_for_cvat(tmp_path: Path) -> None:
    assert not cvat.matches(tmp_path)
    (tmp_path / "annotations.xml").write_text("<annotation><filename>a.jpg</filename></annotation>")
    assert not cvat.matches(tmp_path) and not cvat.matches(tmp_path / "annotations.xml")
    assert not cvat.matches(tmp_path / "gone.xml")


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_damaged_files_read_or_raise_data_error(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)
    root = tmp_path_factory.mktemp("data")
    picture(root / "images/a.jpg")
    mask = '<mask label="cat" rle="1, 2, 1, 2" left="4" top="5" width="3" height="2"/>'
    file = save(root, image("a.jpg", BOX, mask, '<polygon label="d" points="1,1;9,9;1,9"/>')) / "annotations.xml"
    data = bytearray(file.read_bytes())
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(50, len(data))] = rng.choice(b'<>/"&0-e,; 9x')
    file.write_bytes(bytes(data))
    try:
        listing = cvat.read(root)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert conserved(listing)


# ---- writing


@given(found=objects_by_image(shapes=("box", "polygon", "parts", "mask")), divided=st.booleans())
def test_what_is_written_reads_back(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, list[Annotation]], divided: bool
) -> None:
    root = tmp_path_factory.mktemp("data")
    found = {f"images/{name}": [item for item in marks if _shows(item)] for name, marks in found.items()}
    sides: Any = {name: ("train", "val", "test")[place % 3] for place, name in enumerate(sorted(found))}
    listing = object_listing(root / "made", found, splits=sides if divided and len(found) > 1 else None)
    if not any(found.values()):
        return
    cvat.write(listing, root / "new")
    assert cvat.matches(root / "new")
    back = cvat.read(root / "new")
    assert conserved(back)
    assert [(r.id, r.split) for r in back.records] == [(r.id, r.split) for r in listing.records]
    for old, new in zip(listing.records, back.records, strict=True):
        assert list(map(_known, old.objects or ())) == list(map(_known, new.objects or ()))


def _shows(item: Annotation) -> bool:
    """A mask of no pixel marks nothing."""
    return item.mask is None or bool(decode(item.mask).any())


def _known(item: Annotation) -> Annotation:
    """What CVAT keeps: beside a mask, the box is the mask's own."""
    (plain,) = plainly([item])
    return plain if item.mask is None else Annotation(label=item.label, box=(0, 0, 1, 1), mask=item.mask)


def test_masks_rotations_and_flags_survive_writing(tmp_path: Path) -> None:
    ring = np.zeros((30, 40), bool)
    ring[5:20, 8:30] = True
    ring[9:12, 12:20] = False
    corners = corners_of(20, 15, 10, 4, 0.7)
    hull = (min(corners[::2]), min(corners[1::2]), max(corners[::2]), max(corners[1::2]))
    made = [
        boxed("ring", 8, 5, 30, 20, mask=encode(ring), difficult=True),
        boxed("ship", *hull, corners=corners),
        boxed("flock", 1, 2, 30, 4, crowd=True),
        boxed("odd", 1, 2, 30, 14, corners=(1.0, 2.0, 30.0, 2.0, 20.0, 14.0, 1.0, 14.0)),
    ]
    cvat.write(object_listing(tmp_path / "made", {"a.jpg": made}), tmp_path / "new")
    ring_, ship, flock, odd = objects(cvat.read(tmp_path / "new"))
    assert (ring_, flock) == (made[0], made[2])
    assert ship.corners == pytest.approx(corners) and ship.box == pytest.approx(hull)
    assert odd.corners is None and odd.box == (1, 2, 30, 14)


def test_what_cvat_cannot_hold_is_not_written(tmp_path: Path) -> None:
    made = object_listing(tmp_path / "made", {"a.jpg": [boxed("cat", 1, 2, 3, 4)], "images/a.jpg": []})
    with pytest.raises(DataError, match=r"two images would be images/a\.jpg"):
        cvat.write(made, tmp_path / "new")
    path = made.records[0].path
    for record, message in (
        (Record(id="a.jpg", path=path, labels=("cat",)), "CVAT holds marked objects"),
        (Record(id="a.jpg", path=path, objects=(), size=(40, 30), group="g"), "cannot hold groups"),
    ):
        with pytest.raises(DataError, match=message):
            cvat.write(Listing(root=path.parent, format="made", records=(record,), classes=()), tmp_path / "new")
    assert not (tmp_path / "new").exists()


# ---- outlines


@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(0.1, 60), st.floats(0.1, 60), st.floats(-math.pi, math.pi))
def test_the_corners_of_a_rectangle_tell_what_it_was(
    x: float, y: float, width: float, height: float, angle: float
) -> None:
    found = as_rectangle(corners_of(x, y, width, height, angle))
    assert found is not None
    assert found[:4] == pytest.approx((x, y, width, height), abs=1e-6)
    assert corners_of(*found) == pytest.approx(corners_of(x, y, width, height, angle), abs=1e-6)


def test_an_ellipse_has_its_area_and_turns_clockwise() -> None:
    points = np.reshape(ellipse(5, 6, 4, 2), (-1, 2))
    x, y = points.T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    assert area == pytest.approx(math.pi * 8, rel=2e-3)
    assert ellipse(0, 0, 4, 2, math.pi / 2)[:2] == pytest.approx((0, 4))
