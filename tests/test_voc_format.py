"""Pascal VOC: what its pixels are called, whose a file is, which side it is on, and what is lost."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listings import ids, left_out
from object_listings import boxed, conserved, lost, marked, object_listing, objects_by_image, picture, plainly
from snellen.core.annotation import Annotation
from snellen.core.errors import DataError
from snellen.core.geometry import rotated_box_corners
from snellen.core.record import Listing, Record
from snellen.data.formats import Marks, voc


def item(name: str, *box: object, more: str = "") -> str:
    edges = "".join(f"<{tag}>{v}</{tag}>" for tag, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name>{more}<bndbox>{edges}</bndbox></object>"


def page(path: Path, *objects: str, stated: str = "", size: tuple[int, int] | None = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    stated_size = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    body = f"<filename>{stated}</filename>{stated_size}{''.join(objects)}"
    path.write_text(f"<annotation>{body}</annotation>")
    return path


def one(root: Path, *objects: str, marks: Marks | None = None) -> Listing:
    picture(root / "a.jpg")
    page(root / "a.xml", *objects)
    listing = voc.read(root, marks=marks)
    assert conserved(listing)
    return listing


def says(listing: Listing, words: str) -> bool:
    return any(words in note for note in listing.notes)


# ---- pixels


def test_boxes_are_counted_from_1_and_their_last_pixel_is_inside(tmp_path: Path) -> None:
    listing = one(tmp_path, item("cat", 1, 1, 40, 30), item("dog", 5, 6, 5, 6))
    assert marked(listing) == {"a.jpg": (boxed("cat", 0, 0, 40, 30), boxed("dog", 4, 5, 5, 6))}
    assert listing.classes == ("cat", "dog") and listing.multi_label and listing.records[0].size == (40, 30)
    assert says(listing, "boxes are counted from 1, as Pascal VOC says")


def test_a_box_that_begins_at_0_shows_that_all_are_counted_from_0(tmp_path: Path) -> None:
    listing = one(tmp_path, item("cat", 3, 0, 10, 10), item("dog", 5, 6, 9, 9))
    assert marked(listing) == {"a.jpg": (boxed("cat", 3, 0, 10, 10), boxed("dog", 5, 6, 9, 9))}
    assert says(listing, "a box begins at 0 (a.xml, object 1): all are read as counted from 0")


@pytest.mark.parametrize("origin", [0, 1])
def test_the_user_may_say_what_the_first_pixel_is_called(tmp_path: Path, origin: int) -> None:
    marks = Marks(origin=1 if origin else 0)
    listing = one(tmp_path, item("cat", 3, 4, 10, 10), item("dog", 0, 5, 9, 9), marks=marks)
    first = (listing.records[0].objects or ())[0]
    assert first.box == (3 - origin, 4 - origin, 10, 10)
    assert says(listing, f"the first pixel is called {origin}, as was said")
    assert says(listing, "reached beyond their image") == bool(origin)


def test_bad_boxes_follow_the_rule_of_all_formats(tmp_path: Path) -> None:
    listing = one(
        tmp_path,
        item("swapped", 10, 12, 5, 6),
        item("beyond", 30, 20, 60, 25),
        item("outside", 50, 2, 60, 9),
        item("text", "five", 1, 9, 9),
        item("", 1, 1, 9, 9),
        "<object><name>nothing</name></object>",
        "<object><name>part</name><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>",
    )
    assert marked(listing) == {"a.jpg": (boxed("swapped", 4, 5, 10, 12), boxed("beyond", 29, 19, 40, 25))}
    reasons = ("is outside of the image", "not a finite number", "no label", "no box", "no box")
    for (where, reason), place, words in zip(lost(listing).items(), (3, 4, 5, 6, 7), reasons, strict=True):
        assert where == f"a.xml, object {place}" and words in reason
    assert listing.num_annotations == 7
    assert says(listing, "corners were swapped") and says(listing, "reached beyond their image")


def test_difficult_objects_rotated_boxes_and_outlines_are_kept(tmp_path: Path) -> None:
    rotated = "".join(
        f"<{tag}>{value}</{tag}>"
        for tag, value in zip(("cx", "cy", "w", "h", "angle"), (20, 15, 10, 4, 0.5), strict=True)
    )
    outline = "<polygon><x1>3</x1><y1>2</y1><x2>9</x2><y2>2</y2><x3>9</x3><y3>8</y3></polygon>"
    listing = one(
        tmp_path,
        item("cat", 2, 2, 9, 9, more="<difficult>1</difficult><truncated>1</truncated>"),
        f"<object><name>ship</name><robndbox>{rotated}</robndbox></object>",
        item("leaf", 4, 3, 9, 8, more=outline),
    )
    cat, ship, leaf = listing.records[0].objects or ()
    assert cat.difficult and not ship.difficult
    corners = rotated_box_corners([(20, 15, 10, 4, 0.5)])[0]
    assert ship.corners == pytest.approx(corners.ravel())
    assert ship.box == pytest.approx((*corners.min(axis=0), *corners.max(axis=0)))
    assert leaf.polygons == ((3, 2, 9, 2, 9, 8),) and leaf.box == (3, 2, 9, 8)


def test_a_photo_marked_as_it_is_stored_is_turned_with_its_boxes(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", (40, 30), orientation=6)
    page(tmp_path / "a.xml", item("cat", 36, 1, 40, 2))
    listing = voc.read(tmp_path)
    assert listing.records[0].size == (30, 40)
    assert marked(listing) == {"a.jpg": (boxed("cat", 28, 35, 30, 40),)}
    assert says(listing, "marked as they are stored")


# ---- layouts


def test_the_devkit_layout_gives_sides_by_its_lists(tmp_path: Path) -> None:
    for name in "abcd":
        picture(tmp_path / f"VOC/JPEGImages/{name}.jpg")
        page(tmp_path / f"VOC/Annotations/{name}.xml", item("cat", 2, 2, 9, 9), stated=f"{name}.jpg")
    picture(tmp_path / "VOC/JPEGImages/alone.jpg")
    folder = tmp_path / "VOC/ImageSets/Main"
    folder.mkdir(parents=True)
    for side, lines in (("train", "a\n"), ("val", "b \n"), ("trainval", "a\nb\n"), ("test", "c  1\n")):
        (folder / f"{side}.txt").write_text(lines)
    for root, prefix in ((tmp_path, "VOC/"), (tmp_path / "VOC", "")):
        assert voc.matches(root)
        listing = voc.read(root)
        assert conserved(listing)
        assert {record.id: record.split for record in listing.records} == {
            f"{prefix}JPEGImages/a.jpg": "train",
            f"{prefix}JPEGImages/b.jpg": "val",
            f"{prefix}JPEGImages/c.jpg": "test",
        }
        assert left_out(listing) == {f"{prefix}JPEGImages/d.jpg": "in none of the lists of ImageSets"}
        assert lost(listing) == {
            f"{prefix}Annotations/d.xml, object 1": "its image is in none of the lists of ImageSets"
        }
        assert says(listing, "not named in the XML files")


def test_trainval_is_the_training_side_where_no_list_parts_it(tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / f"JPEGImages/{name}.jpg")
        page(tmp_path / f"Annotations/{name}.xml", item("cat", 2, 2, 9, 9))
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/trainval.txt").write_text("a\n")
    assert not voc.read(tmp_path).has_user_split
    (tmp_path / "ImageSets/Main/test.txt").write_text("b\n")
    assert [record.split for record in voc.read(tmp_path).records] == ["train", "test"]


def test_folders_of_sides_are_read_with_images_beside_their_files(tmp_path: Path) -> None:
    for side in ("train", "valid", "test"):
        picture(tmp_path / side / "same.jpg")
        page(tmp_path / side / "same.xml", item(side, 2, 2, 9, 9), stated="same.jpg")
    assert voc.matches(tmp_path)
    listing = voc.read(tmp_path)
    assert {record.id: (record.split, record.labels) for record in listing.records} == {
        "train/same.jpg": ("train", ("train",)),
        "valid/same.jpg": ("val", ("valid",)),
        "test/same.jpg": ("test", ("test",)),
    }


def test_an_image_belongs_to_the_file_of_its_own_name(tmp_path: Path) -> None:
    for name in ("1", "2"):
        picture(tmp_path / f"{name}.png")
    page(tmp_path / "1.xml", item("one", 2, 2, 9, 9), stated="2.jpg")  # renamed since
    page(tmp_path / "2.xml", item("two", 2, 2, 9, 9), stated="2.jpg")
    picture(tmp_path / "deep/photo.jpg")
    page(tmp_path / "x.xml", item("three", 2, 2, 9, 9), stated=r"C:\deep\photo.jpg")
    page(tmp_path / "gone.xml", item("four", 2, 2, 9, 9))
    page(tmp_path / "empty.xml", stated="2.png")
    listing = voc.read(tmp_path)
    assert conserved(listing)
    labels = {record.id: record.labels for record in listing.records}
    assert labels == {"1.png": ("one",), "2.png": ("two",), "deep/photo.jpg": ("three",)}
    assert left_out(listing) == {"gone.jpg": "file not found"}
    assert lost(listing) == {"gone.xml, object 1": "its image is left out: file not found"}
    assert says(listing, "XML files that name another image than the one called like them, which counts: 1")


def test_images_may_stand_elsewhere(tmp_path: Path) -> None:
    picture(tmp_path / "photos/sub/a.jpg")
    page(tmp_path / "xml/a.xml", item("cat", 2, 2, 9, 9), stated="a.jpg")
    listing = voc.read(tmp_path / "xml", images=tmp_path / "photos")
    assert ids(listing) == ["sub/a.jpg"] and listing.root == tmp_path / "photos"
    with pytest.raises(DataError, match="none of the 1 images"):
        voc.read(tmp_path / "xml")


def test_only_files_below_the_root_are_read(tmp_path: Path) -> None:
    picture(tmp_path / "secret.jpg")
    picture(tmp_path / "data/b.jpg")
    page(tmp_path / "data/a.xml", item("cat", 2, 2, 9, 9), stated="../secret.jpg")
    page(tmp_path / "data/c.xml", item("cat", 2, 2, 9, 9), stated=str(tmp_path / "secret.jpg"))
    page(tmp_path / "data/b.xml", item("cat", 2, 2, 9, 9))
    listing = voc.read(tmp_path / "data")
    assert ids(listing) == ["b.jpg"]
    assert set(left_out(listing).values()) == {"file not found"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not valid XML"),
        (b"<annotation><object>", "is not valid XML"),
        (b"<annotations/>", "begins with <annotations>, and Pascal VOC with <annotation>"),
        (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>', "has a DOCTYPE"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>'.encode("utf-16"), "has a DOCTYPE"),
        (b'<?xml version="1.0" encoding="unknown-8"?><annotation/>', "is not valid XML"),
        (b"<annotation>\xff</annotation>", "is not valid XML"),
    ],
)
def test_a_file_that_cannot_be_read_costs_only_itself(tmp_path: Path, content: bytes, reason: str) -> None:
    listing = one(tmp_path, item("cat", 2, 2, 9, 9))
    (tmp_path / "b.xml").write_bytes(content)
    listing = voc.read(tmp_path)
    assert ids(listing) == ["a.jpg"]
    assert left_out(listing)["b.xml"].startswith(reason)
    (tmp_path / "a.xml").unlink()
    with pytest.raises(DataError, match="holds no annotations of Pascal VOC; the first: ") as caught:
        voc.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_other_data_is_not_taken_for_pascal_voc(tmp_path: Path) -> None:
    picture(tmp_path / "cats/1.jpg")
    (tmp_path / "annotations.xml").write_text("<annotations><version>1.1</version></annotations>")
    assert not voc.matches(tmp_path)
    assert not voc.matches(tmp_path / "annotations.xml")
    assert not voc.matches(tmp_path / "gone")


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_damaged_files_read_or_raise_data_error(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)
    root = tmp_path_factory.mktemp("data")
    picture(root / "a.jpg")
    data = bytearray(page(root / "a.xml", item("cat", 2, 2, 9, 9), item("dog", 3, 3, 8, 8)).read_bytes())
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.choice(b"<>/&0-e\x00\xffn")
    (root / "a.xml").write_bytes(bytes(data[: rng.randint(len(data) // 2, 2 * len(data))]))
    try:
        listing = voc.read(root)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert conserved(listing)


# ---- writing


@given(objects=objects_by_image(), divided=st.booleans())
def test_what_is_written_reads_back(
    tmp_path_factory: pytest.TempPathFactory, objects: dict[str, list[Annotation]], divided: bool
) -> None:
    root = tmp_path_factory.mktemp("data")
    names = {f"JPEGImages/{name}": marks for name, marks in objects.items()}
    sides = {name: ("train", "val", "test")[place % 3] for place, name in enumerate(sorted(names))}
    listing = object_listing(root / "made", names, splits=sides if divided and len(names) > 1 else None)  # type: ignore[arg-type]
    voc.write(listing, root / "voc")
    assert voc.matches(root / "voc")
    back = voc.read(root / "voc")
    assert conserved(back)
    assert {name: plainly(marks) for name, marks in marked(back).items()} == {
        name: plainly(marks) for name, marks in marked(listing).items()
    }
    assert [record.split for record in back.records] == [record.split for record in listing.records]
    voc.write(back, root / "again")
    assert marked(voc.read(root / "again")).keys() == marked(listing).keys()


def test_rotated_boxes_and_difficult_objects_survive_writing(tmp_path: Path) -> None:
    corners = tuple(rotated_box_corners([(20, 15, 10, 4, math.radians(130))]).ravel().tolist())
    hull = (min(corners[::2]), min(corners[1::2]), max(corners[::2]), max(corners[1::2]))
    objects = [
        Annotation(label="ship", box=hull, corners=corners),
        boxed("cat", 1, 2, 3, 4, difficult=True),
        boxed("crowd", 1, 2, 30, 14, crowd=True),
        boxed("odd", 1, 2, 30, 14, corners=(1.0, 2.0, 30.0, 2.0, 20.0, 14.0, 1.0, 14.0)),
    ]
    voc.write(object_listing(tmp_path / "made", {"a.jpg": objects}), tmp_path / "voc")
    ship, cat, crowd, odd = voc.read(tmp_path / "voc").records[0].objects or ()
    assert ship.corners == pytest.approx(corners) and ship.box == pytest.approx(hull)
    assert (cat.difficult, crowd.difficult, crowd.crowd) == (True, True, False)
    assert odd.corners is None and odd.box == (1, 2, 30, 14)


def test_what_voc_cannot_hold_is_not_written(tmp_path: Path) -> None:
    made = object_listing(tmp_path / "made", {"a.jpg": [boxed("cat", 1, 2, 3, 4)], "a.png": []})
    with pytest.raises(DataError, match=r"two images would share Annotations/a\.xml"):
        voc.write(made, tmp_path / "voc")
    path = made.records[0].path
    for record, message in (
        (Record(id="a.jpg", path=path, labels=("cat",)), "Pascal VOC holds marked objects"),
        (Record(id="a.jpg", path=path, objects=(), size=(40, 30), group="g"), "cannot hold groups"),
    ):
        with pytest.raises(DataError, match=message):
            voc.write(Listing(root=path.parent, format="made", records=(record,), classes=()), tmp_path / "voc")
    assert not (tmp_path / "voc").exists()
