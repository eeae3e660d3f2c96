"""Tables of boxes: which columns are the box, whether it is in pixels, and what is lost."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listings import ids, left_out
from object_listings import boxed, conserved, lost, marked, object_listing, objects_by_image, picture, plainly
from snellen.core.annotation import Annotation
from snellen.core.errors import DataError
from snellen.core.record import Listing, Record
from snellen.data.formats import box_table

IMAGES = ("1.jpg", "2.jpg", "sub/3.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in IMAGES:
        picture(tmp_path / name)
    return tmp_path


def table(root: Path, text: str, name: str = "t.csv") -> Path:
    (root / name).write_text(text)
    return root / name


def read(path: Path, **options: Any) -> Listing:
    assert box_table.matches(path)
    listing = box_table.read(path, **options)
    assert conserved(listing)
    return listing


def says(listing: Listing, words: str) -> bool:
    return any(words in note for note in listing.notes)


@pytest.mark.parametrize(
    ("header", "cells"),
    [
        ("image,xmin,ymin,xmax,ymax,label", "1.jpg,10,5,30,25,cat"),
        ("label,YMax,YMin,XMax,XMin,ImageID", "cat,25,5,30,10,1.jpg"),
        ("filename,width,height,class,xmin,ymin,xmax,ymax", "1.jpg,40,30,cat,10,5,30,25"),
        ("x1,y1,x2,y2,file_name,category", "10,5,30,25,1.jpg,cat"),
        ("x0,y0,x1,y1,file_name,category", "10,5,30,25,1.jpg,cat"),
        ("image,label,x,y,width,height", "1.jpg,cat,10,5,20,20"),
        ("image,label,X Center,Y Center,W,H", "1.jpg,cat,20,15,20,20"),
        ("image_id,width,height,bbox,label", '1,40,30,"[10.0, 5.0, 20.0, 20.0]",cat'),
        ("path;class name;left;top;right;bottom", ".\\1.jpg;cat;10;5;30;25"),
    ],
)
def test_a_box_is_found_by_the_names_of_its_columns(photos: Path, header: str, cells: str) -> None:
    listing = read(table(photos, f"{header}\n{cells}\n"))
    assert marked(listing) == {"1.jpg": (boxed("cat", 10, 5, 30, 25),)}
    assert says(listing, "boxes are read as pixels")
    assert says(listing, "read as x, y, width, height") == ("bbox" in header)


def test_fractions_are_known_by_their_size_and_said(photos: Path) -> None:
    listing = read(table(photos, "image,label,cx,cy,w,h\n1.jpg,cat,.5,.5,.5,.2\n2.jpg,dog,1,.5,.0625,.2\n"))
    assert {name: plainly(objects) for name, objects in marked(listing).items()} == {
        "1.jpg": [boxed("cat", 10, 12, 30, 18)],
        "2.jpg": [boxed("dog", 38.75, 12, 40, 18)],
    }
    assert says(listing, "fractions of the image: none is above 1.5") and says(listing, "reached beyond their image")
    assert says(read(table(photos, "image,label,cx,cy,w,h\n1.jpg,cat,2,2,1,1\n")), "as pixels")


def test_a_line_without_a_box_is_an_image_that_shows_nothing(photos: Path) -> None:
    listing = read(
        table(photos, "image,xmin,ymin,xmax,ymax,label\n1.jpg,1,2,3,4,cat\n2.jpg,,,,,\n3.png,nan,NaN,,nan,No\n")
    )
    assert marked(listing) == {"1.jpg": (boxed("cat", 1, 2, 3, 4),), "2.jpg": (), "sub/3.png": ()}
    assert listing.num_annotations == 1 and listing.classes == ("cat",)


def test_boxes_without_labels_are_of_one_class(photos: Path) -> None:
    listing = read(table(photos, 'image_id,bbox\n1,"[1, 2, 3, 4]"\n1,"[5 6 7 8]"\n'))
    assert marked(listing) == {"1.jpg": (boxed("object", 1, 2, 4, 6), boxed("object", 5, 6, 12, 14))}
    assert says(listing, "all boxes are of one class, 'object'")


def test_every_line_is_an_object_or_lost_with_a_reason(photos: Path) -> None:
    text = (
        "image,xmin,ymin,xmax,ymax,label\n1.jpg,1,2,3,4,cat\n1.jpg,9,2,3,4,cat\n1.jpg,1,,3,4,cat\n1.jpg,a,2,3,4,cat\n"
        "1.jpg,50,2,60,4,cat\n1.jpg,1,2,3,4,\ngone.jpg,1,2,3,4,cat\n,1,2,3,4,cat\n,,,,,cat\n"
    )
    listing = read(table(photos, text))
    assert marked(listing) == {"1.jpg": (boxed("cat", 1, 2, 3, 4), boxed("cat", 3, 2, 9, 4))}
    assert listing.num_annotations == 8
    words = {
        "line 4": "not a finite number",
        "line 5": "not a finite number",
        "line 6": "outside of the image",
        "line 7": "no label",
        "line 8": "its image is left out: file not found",
        "line 9": "names no image",
    }
    assert lost(listing).keys() == words.keys()
    assert all(words[where] in reason for where, reason in lost(listing).items())
    assert left_out(listing) == {
        "gone.jpg": "file not found",
        "line 9": "names no image",
        "line 10": "names no image",
    }
    assert says(listing, "not named in the table")


def test_splits_groups_and_flags_are_read(photos: Path) -> None:
    text = (
        "image,xmin,ymin,xmax,ymax,label,subset,group,iscrowd,difficult\n"
        "1.jpg,1,2,3,4,cat,Train,anna,0,1\n1.jpg,1,2,3,4,cat,train,anna,1,0\n2.jpg,1,2,3,4,cat,valid,bert,0,0\n"
    )
    listing = read(table(photos, text))
    assert [(record.split, record.group) for record in listing.records] == [("train", "anna"), ("val", "bert")]
    first, second = listing.records[0].objects or ()
    assert (first.difficult, first.crowd, second.difficult, second.crowd) == (True, False, False, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,xmin,ymin,xmax,label\n1.jpg,1,2,3,cat\n", "has no columns 'xmin', 'ymin', 'xmax', 'ymax', but 'image'"),
        ("photo,xmin,ymin,xmax,ymax\n1.jpg,1,2,3,4\n", "has no column 'image', but 'photo'"),
        ("image,xmin,ymin,xmax,ymax\n1.jpg,1,2,3\n", "line 2: 4 cells under 5 column names"),
        ("image,xmin,ymin,xmax,ymax,split\n1.jpg,1,2,3,4,dev\n", "line 2: unknown split 'dev'"),
        (
            "image,xmin,ymin,xmax,ymax,split\n1.jpg,1,2,3,4,train\n1.jpg,1,2,3,4,val\n",
            "the lines of '1.jpg', the first line 2, differ in their split or group",
        ),
        ("image,xmin,ymin,xmax,ymax\nx.jpg,1,2,3,4\n", "none of the 1 images"),
        ("image,xmin,ymin,xmax,ymax\n1.jpg,,,,\n", "no image has an object"),
        ("image,xmin,ymin,xmax,ymax\n", "no image is named"),
        ("", "is empty"),
    ],
)
def test_an_unfit_table_gets_one_line(photos: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        box_table.read(table(photos, text))
    assert "\n" not in str(caught.value)


def test_only_images_below_the_root_are_read(photos: Path) -> None:
    picture(photos.parent / "secret.jpg")
    text = f"image,xmin,ymin,xmax,ymax\n../secret.jpg,1,2,3,4\n{photos.parent / 'secret.jpg'},1,2,3,4\n1.jpg,1,2,3,4\n"
    assert ids(read(table(photos, text))) == ["1.jpg"]


def test_images_are_found_where_the_user_says(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = table(tmp_path_factory.mktemp("other"), "image,xmin,ymin,xmax,ymax\nsub/3.png,1,2,3,4\n")
    assert ids(read(path, images=photos)) == ["sub/3.png"]
    with pytest.raises(DataError, match="none of the 1 images"):
        box_table.read(path)


@pytest.mark.parametrize(
    "text", ["image,label\n1.jpg,cat\n", "image,x,y,width\n", "xmin,ymin,xmax,ymax\n", "", '"image\n', "image,boxes\n"]
)
def test_other_tables_are_not_taken_for_boxes(photos: Path, text: str) -> None:
    assert not box_table.matches(table(photos, text))
    assert not box_table.matches(table(photos, text, "t.parquet"))
    assert not box_table.matches(photos)


def test_a_regression_over_such_columns_is_left_to_the_other_table(photos: Path) -> None:
    path = table(photos, "image,x,y,w,h\n1.jpg,1,2,3,4\n2.jpg,5,6,7,8\n")
    listing = box_table.read(path, numeric=True)
    assert listing.classes == ("x", "y", "w", "h") and not listing.marks_objects


def test_parquet_with_lists_for_boxes_is_not_taken(photos: Path) -> None:
    file = photos / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": ["1.jpg"], "bbox": [[1.0, 2.0, 3.0, 4.0]]}), file)
    assert not box_table.matches(file)
    numbers = {name: [value] for value, name in enumerate(("xmin", "ymin", "xmax", "ymax"), start=1)}
    pyarrow.parquet.write_table(pyarrow.table({"image": ["1.jpg"], **numbers}), file)
    assert marked(read(file)) == {"1.jpg": (boxed("object", 1, 2, 3, 4),)}


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_damaged_tables_read_or_raise_data_error(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)
    root = tmp_path_factory.mktemp("data")
    picture(root / "1.jpg")
    data = bytearray(b"image,xmin,ymin,xmax,ymax,label,split\n1.jpg,1,2,3,4,a,train\n1.jpg,1,2,33,4,a,train\n")
    for _ in range(rng.randint(1, 5)):
        data[rng.randrange(len(data))] = rng.choice(b',;|"\n\r\t\x00\xff./ag1e')
    (root / "t.csv").write_bytes(bytes(data))
    box_table.matches(root / "t.csv")
    try:
        listing = box_table.read(root / "t.csv")
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert conserved(listing)


# ---- writing


@given(
    found=objects_by_image(),
    divided=st.booleans(),
    grouped=st.booleans(),
    suffix=st.sampled_from(["csv", "tsv", "parquet"]),
)
def test_what_is_written_reads_back(
    tmp_path_factory: pytest.TempPathFactory,
    found: dict[str, list[Annotation]],
    divided: bool,
    grouped: bool,
    suffix: str,
) -> None:
    root = tmp_path_factory.mktemp("data")
    found = {**found, "far.png": [boxed("cat", 1, 2, 30, 20, difficult=True), boxed("dog", 1, 2, 3, 4, crowd=True)]}
    sides: Any = {name: ("train", "val", "test")[place % 3] for place, name in enumerate(sorted(found))}
    listing = object_listing(root, found, splits=sides if divided and len(found) > 1 else None)
    if grouped:
        records = [Record(**{**_fields(record), "group": record.id[0]}) for record in listing.records]
        listing = Listing(root=root, format="made", records=records, classes=listing.classes)
    box_table.write(listing, root / f"t.{suffix}")
    back = read(root / f"t.{suffix}")
    assert marked(back) == marked(listing)
    assert [(r.split, r.group) for r in back.records] == [(r.split, r.group) for r in listing.records]


def _fields(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in Record.__slots__}


def test_what_a_table_cannot_hold_is_not_written(tmp_path: Path) -> None:
    tiny = object_listing(tmp_path, {"a.jpg": [boxed("cat", 0, 0, 1, 1)]})
    with pytest.raises(DataError, match="would be read back as fractions"):
        box_table.write(tiny, tmp_path / "new.csv")
    odd = object_listing(tmp_path, {"a.jpg": [boxed(" cat", 0, 0, 9, 9)]})
    with pytest.raises(DataError, match="would read back differently"):
        box_table.write(odd, tmp_path / "new.csv")
    with pytest.raises(DataError, match=r"a table ends in \.csv"):
        box_table.write(tiny, tmp_path / "new.txt")
    with pytest.raises(DataError, match="exists"):
        box_table.write(tiny, table(tmp_path, "x"))
    assert not (tmp_path / "new.csv").exists()
