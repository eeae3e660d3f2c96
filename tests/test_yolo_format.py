from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from object_listings import (
    SIZE,
    boxed,
    conserved,
    lost,
    marked,
    object_listing,
    objects_by_image,
    picture,
    plainly,
)
from snellen.core.annotation import Annotation
from snellen.core.errors import DataError
from snellen.core.masks import annotation_mask, encode, polygon_mask
from snellen.core.record import Listing
from snellen.data.formats import Marks, yolo

YAML = "train: images/train\nval: images/val\nnames: [cat, dog]\n"
TRIANGLE = "0 0.1 0.1 0.9 0.1 0.5 0.9"
FOUR = "1 0.25 0.2 0.75 0.2 0.75 0.8 0.25 0.8"


def put(root: Path, texts: dict[str, str], *images: str) -> Path:
    for name in images:
        picture(root / name)
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def one(
    root: Path, lines: str, yaml: str = "train: images\nnames: [cat, dog]\n", marks: Marks | None = None
) -> Listing:
    """What is read of the labels of one image, with another that is healthy."""
    put(
        root,
        {"data.yaml": yaml, "labels/a.txt": lines, "labels/b.txt": "1 .5 .5 .5 .5\n"},
        "images/a.png",
        "images/b.png",
    )
    return yolo.read(root, marks=marks)


def objects(listing: Listing, name: str = "images/a.png") -> list[Annotation]:
    return plainly(marked(listing)[name])


# ---- where images, labels and names are


def test_a_yaml_file_with_a_folder_for_each_split(tmp_path: Path) -> None:
    texts = {
        "data.yaml": YAML,
        "labels/train/1.txt": "0 0.5 0.5 0.5 0.2\n\n1 0.25 0.5 0.5 1\n",
        "labels/val/3.txt": "1 .5 .5 1 1",
    }
    put(tmp_path, texts, "images/train/1.png", "images/train/2.png", "images/val/3.png")
    for data in (tmp_path, tmp_path / "data.yaml"):
        assert yolo.matches(data)
        listing = yolo.read(data)
        assert [(record.id, record.split) for record in listing.records] == [
            ("images/train/1.png", "train"),
            ("images/train/2.png", "train"),
            ("images/val/3.png", "val"),
        ]
        assert objects(listing, "images/train/1.png") == [boxed("cat", 10, 12, 30, 18), boxed("dog", 0, 0, 20, 30)]
        assert marked(listing)["images/train/2.png"] == ()
        assert (listing.classes, listing.num_annotations, listing.lost) == (("cat", "dog"), 3, ())
        assert listing.notes == ("images without an object, which are background: 1",)


@pytest.mark.parametrize(
    "yaml",
    [
        "train: train/images\nval: valid/images\nnc: 2\nnames: ['cat', 'dog']\n",
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames:\n- cat\n- dog\n",
        "path: .\ntrain: [train/images]\nval:\n  - valid/images\nnames:\n  0: cat\n  1: dog\n",
        "path: /nowhere/at/all\ntrain: train/images\nval: valid/images\nnames: {1: dog, 0: cat}\n",
        "train: train.txt\nvalid: lists/val.txt\nnames: [cat, dog]\n",
    ],
)
def test_yaml_files_as_people_write_them(tmp_path: Path, yaml: str) -> None:
    texts = {
        "data.yaml": "\ufeff" * ("nc" in yaml) + yaml,
        "train/labels/1.txt": "0 .5 .5 .5 .5",
        "valid/labels/2.txt": "1 .5 .5 .5 .5",
        "train.txt": "./train/images/1.png\n",
        "lists/val.txt": "../valid/images/2.png\n\n",
    }
    put(tmp_path, texts, "train/images/1.png", "valid/images/2.png")
    assert yolo.matches(tmp_path)
    listing = yolo.read(tmp_path)
    assert [(r.id, r.split, r.labels) for r in listing.records] == [
        ("train/images/1.png", "train", ("cat",)),
        ("valid/images/2.png", "val", ("dog",)),
    ]


def test_names_stay_text_and_numbers_without_one_are_told(tmp_path: Path) -> None:
    listing = one(tmp_path, "0 .5 .5 .5 .5\n2 .5 .5 .5 .5\n", "train: images\nnames: {0: no, 1: 012, 3: 1:30}\n")
    assert [record.labels for record in listing.records] == [("class 2", "no"), ("012",)]
    assert "classes without objects are left out: 1:30" in listing.notes
    unnamed = one(tmp_path / "more", "7 .5 .5 .5 .5", "train: images\nnc: 8\n")
    assert unnamed.classes == ("class 1", "class 7")
    assert "there are no names of classes; they are called by their number" in unnamed.notes


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("images", "images"), [None, None]),
        (("images/train", "images/val"), ["train", "val"]),
        (("train/images", "valid/images"), ["train", "val"]),
        (("images/train", "images/train"), [None, None]),
        (("images/day", "images/night"), [None, None]),
    ],
)
def test_folders_without_a_yaml_file(tmp_path: Path, folders: tuple[str, str], splits: list[str | None]) -> None:
    texts = {"classes.txt": "cat\ndog\n"}
    for number, folder in enumerate(folders):
        texts[f"{folder.replace('images', 'labels')}/{number}.txt"] = f"{number} .5 .5 .5 .5"
    put(tmp_path, texts, *(f"{folder}/{number}.png" for number, folder in enumerate(folders)))
    assert yolo.matches(tmp_path)
    listing = yolo.read(tmp_path)
    assert [record.split for record in listing.records] == splits
    assert [record.labels for record in listing.records] == [("cat",), ("dog",)] and listing.left_out == ()


def test_labels_beside_images_as_labelimg_leaves_them(tmp_path: Path) -> None:
    put(tmp_path, {"classes.txt": "cat\ndog\n", "a.txt": "1 .5 .5 .5 .5"}, "a.png", "b.png")
    assert yolo.matches(tmp_path)
    assert [record.labels for record in yolo.read(tmp_path).records] == [("dog",), ()]


def test_folders_of_other_kinds_do_not_match(tmp_path: Path) -> None:
    put(tmp_path / "masks", {"classes.txt": "a"}, "images/1.png", "labels/1.png")
    put(tmp_path / "classes", {"notes.txt": "text"}, "cat/1.png", "dog/2.png")
    put(tmp_path / "config", {"train.yaml": "train: true\nlr: 0.1\n", "names.yaml": "names: [a]\n"})
    for name in ("masks", "classes", "config", "nowhere", "config/train.yaml"):
        assert not yolo.matches(tmp_path / name)


def test_one_side_or_twice_the_same_images_is_no_division(tmp_path: Path) -> None:
    listing = one(tmp_path, "0 .5 .5 .5 .5", "train: images\nval: images\nnames: [cat, dog]\n")
    assert not listing.has_user_split and "train and val name the same images: no split is given" in listing.notes
    (tmp_path / "list.txt").write_text("images/a.png")
    with pytest.raises(DataError, match="is in train and in val; name it once"):
        one(tmp_path, "", "train: images\nval: list.txt\nnames: [cat, dog]\n")


def test_what_a_yaml_file_names_in_vain_is_told(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("images/a.png\nimages/gone.png\nlist.txt\n")
    listing = one(tmp_path, "0 .5 .5 .5 .5", "train: list.txt\ntest: nowhere\nnames: [cat, dog]\n")
    assert {item.path: item.reason for item in listing.left_out} == {
        "images/gone.png": "file not found; it is named in list.txt",
        "list.txt": "not an image by its suffix .txt; it is named in list.txt",
        "nowhere": "not there; it is named in data.yaml as test",
        "labels/b.txt": "there is no image of its name",
    }
    assert lost(listing) == {"labels/b.txt, line 1": "there is no image for its file"} and conserved(listing)


def test_two_images_do_not_share_labels(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.jpg")
    listing = one(tmp_path, "0 .5 .5 .5 .5")
    assert list(marked(listing)) == ["images/a.jpg", "images/b.png"] and listing.num_annotations == 2
    (item,) = listing.left_out
    assert item.path == "images/a.png" and "shares its labels, labels/a.txt, with images/a.jpg" in item.reason


def test_a_file_that_is_no_text_costs_its_image_only(tmp_path: Path) -> None:
    one(tmp_path, "0 .5 .5 .5 .5")
    (tmp_path / "labels/a.txt").write_bytes(b"\xff\xfe\x00")
    listing = yolo.read(tmp_path)
    assert list(marked(listing)) == ["images/b.png"] and "not UTF-8" in listing.left_out[0].reason


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("train: [unclosed\nnames: [a]", "is not YAML"),
        ("- train\n- names", "should have lines such as"),
        ("train: images\nnames: {a: cat}\n", "'names' should be a list"),
        ("train: images\nnames: [[cat]]\n", "'names' should be a list"),
        ("train: images\nnames: cat\n", "'names' should be a list"),
        ("train: {a: b}\nnames: [cat]\n", "'train' should be a folder"),
        ("train: nowhere\nnames: [cat]\n", "names .*nowhere, which is neither a folder"),
        ("train: data.yaml\nnames: [cat]\n", r"neither a folder that is there nor a \.txt"),
        ("val: nowhere\nnames: [cat]\n", "names no image that is there"),
        ("train: images\nnames: [cat]\nkpt_shape: [17, 4]\n", "'kpt_shape' should be such as"),
        ("train: images\nnames: [cat]\nkpt_shape: many\n", "'kpt_shape' should be such as"),
        ("train: images\nnames: [cat]\noutlines: both\n", "'outlines' is polygon or corners"),
        ("names: [cat]\ntrain: " + "[" * 100_000, "is not YAML: nested too deeply"),
        ("train: !!python/object/apply:os.system [echo]\nnames: [cat]\n", "which is neither a folder"),
    ],
)
def test_yaml_files_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path, yaml: str, message: str) -> None:
    put(tmp_path, {"data.yaml": yaml}, "images/a.png")
    with pytest.raises(DataError, match=message) as caught:
        yolo.read(tmp_path / "data.yaml")
    assert "\n" not in str(caught.value)


def test_two_yaml_files_are_one_too_many(tmp_path: Path) -> None:
    put(tmp_path, {"a.yaml": YAML, "b.yaml": YAML})
    with pytest.raises(DataError, match=r"holds a\.yaml and b\.yaml; give the one"):
        yolo.matches(tmp_path)
    put(tmp_path, {"b.yaml": YAML, "data.yaml": YAML})
    assert yolo.matches(tmp_path)
    with pytest.raises(DataError, match="no numbers to be predicted"):
        yolo.read(tmp_path, numeric=True)


# ---- lines


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 cat .5 .5 .5", "it is not all numbers"),
        ("0 .5 .5 .5", "it has 4 numbers; a box has 5, an outline 7, 9, 11, ..."),
        ("0 .5 .5 .5 .5 .9", "it has 6 numbers"),
        ("2 .5 .5 .5 .5", "it is of the class 2, but the last of the 2 names is that of 1"),
        ("-1 .5 .5 .5 .5", "its class -1 is not a whole number"),
        ("0.5 .5 .5 .5 .5", "its class 0.5 is not a whole number"),
        ("nan .5 .5 .5 .5", "its class nan is not a whole number"),
        ("0 20 15 10 10", "20 is not a fraction of the image, 0 to 1; if these are pixels"),
        ("0 .5 .5 .5 nan", "nan is not a fraction"),
        ("0 .5 .5 inf .5", "inf is not a fraction"),
        ("0 .5 .5 -.5 .5", "-0.5 is not a fraction"),
        ("0 .5 .5 0 .5", "has no width or no height"),
        ("0 .1 .1 20 .1 .5 .9", "20 is not a fraction"),
    ],
)
def test_a_line_that_cannot_be_used_costs_nothing_but_itself(tmp_path: Path, line: str, reason: str) -> None:
    listing = one(tmp_path, f"0 .5 .5 .5 .5\n{line}\n1 .5 .5 1 1\n")
    assert reason in lost(listing)["labels/a.txt, line 2"]
    assert len(objects(listing)) == 2 and conserved(listing) and listing.num_annotations == 4


def test_what_reaches_a_little_beyond_the_image_is_cut_off_and_counted(tmp_path: Path) -> None:
    listing = one(tmp_path, "0 0.95 1.02 0.3 0.2\n0.0 0.5 0.5 1.0000001 1\n")
    assert objects(listing) == [boxed("cat", 32, 27.6, 40, 30), boxed("cat", 0, 0, 40, 30)]
    assert "boxes that reached beyond their image and were cut off at its edge: 1" in listing.notes


def test_longer_lines_are_outlines_and_their_box_is_the_hull(tmp_path: Path) -> None:
    listing = one(tmp_path, f"{TRIANGLE}\n0 .5 .5 .5 .5\n")
    assert objects(listing) == [
        boxed("cat", 4, 3, 36, 27, polygons=((4, 3, 36, 3, 20, 27),)),
        boxed("cat", 10, 7.5, 30, 22.5),
    ]


def test_nine_numbers_alone_are_asked_about(tmp_path: Path) -> None:
    polygon = boxed("dog", 10, 6, 30, 24, polygons=((10, 6, 30, 6, 30, 24, 10, 24),))
    corners = boxed("dog", 10, 6, 30, 24, corners=(10, 6, 30, 6, 30, 24, 10, 24))
    with pytest.raises(DataError, match="say so with --outlines polygon or --outlines corners"):
        one(tmp_path, f"{FOUR}\n0 .5 .5 .5 .5\n")
    assert objects(one(tmp_path, FOUR, marks=Marks(outlines="polygon"))) == [polygon]
    assert objects(one(tmp_path, FOUR, marks=Marks(outlines="corners"))) == [corners]
    assert objects(one(tmp_path, FOUR, "train: images\nnames: [cat, dog]\noutlines: corners\n")) == [corners]
    decided = one(tmp_path, f"{FOUR}\n{TRIANGLE}\n")
    assert objects(decided)[0] == polygon
    assert "lines of nine numbers are taken for polygons, since others are" in decided.notes
    assert "lines of nine numbers are taken for polygons, since others are" not in one(tmp_path, TRIANGLE).notes


@pytest.mark.parametrize(
    ("shape", "points"),
    [("[2, 3]", ".25 .5 2 0.7 0.7 0"), ("[2, 2]", ".25 .5 0 0"), ("[2, 3]", ".25 .5 2.000000 0 0 0")],
)
def test_keypoints_follow_the_box(tmp_path: Path, shape: str, points: str) -> None:
    listing = one(tmp_path, f"0 .5 .5 .5 .5 {points}\n", f"train: images\nnames: [cat, dog]\nkpt_shape: {shape}\n")
    assert objects(listing) == [boxed("cat", 10, 7.5, 30, 22.5, keypoints=((10, 15, 2), (0, 0, 0)))]
    assert objects(listing, "images/b.png") == [boxed("dog", 10, 7.5, 30, 22.5)]


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        (".1 .1 3 0 0 0", "visibility 3"),
        (".1 9 2 0 0 0", "9 is not a fraction"),
        (".1 .1 2 0", "one with keypoints 11"),
    ],
)
def test_keypoints_that_cannot_be_used_cost_their_line(tmp_path: Path, points: str, reason: str) -> None:
    yaml = "train: images\nnames: [cat, dog]\nkpt_shape: [2, 3]\n"
    listing = one(tmp_path, f"0 .5 .5 .5 .5 {points}\n", yaml)
    assert reason in lost(listing)["labels/a.txt, line 1"] and conserved(listing)


def test_a_data_set_in_pixels_is_refused_with_the_reason(tmp_path: Path) -> None:
    put(tmp_path, {"classes.txt": "cat", "labels/a.txt": "0 20 15 10 10"}, "images/a.png")
    with pytest.raises(DataError, match=r"no image has an object; lost are 1: labels/a\.txt, line 1: 20 is not a frac"):
        yolo.read(tmp_path)


# ---- writing


def there_and_back(listing: Listing, path: Path) -> Listing:
    yolo.write(listing, path)
    assert yolo.matches(path)
    return yolo.read(path)


@given(objects_by_image(shapes=("box", "polygon")))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, found: dict[str, list[Annotation]]
) -> None:
    root = tmp_path_factory.mktemp("yolo")
    listing = object_listing(root / "data", found)
    back = there_and_back(listing, root / "out")
    assert {name: plainly(items) for name, items in marked(back).items()} == {
        f"images/{name}": plainly(items) for name, items in marked(listing).items()
    }
    assert (back.classes, back.num_annotations, back.lost) == (listing.classes, listing.num_annotations, ())
    again = there_and_back(back, root / "again")
    assert [record.id for record in again.records] == [record.id for record in back.records]


def test_splits_corners_and_keypoints_are_read_back(tmp_path: Path) -> None:
    turned = [boxed("no", 10, 5, 30, 25, corners=(20, 5, 30, 15, 20, 25, 10, 15))]
    sides = {"a.png": "train", "b.png": "val", "sub/c.png": "test"}
    listing = object_listing(tmp_path / "1", {"a.png": turned, "b.png": [], "sub/c.png": turned}, splits=sides)  # type: ignore[arg-type]
    back = there_and_back(listing, tmp_path / "turned")
    assert [(record.id, record.split) for record in back.records] == [
        (f"images/{name}", side) for name, side in sides.items()
    ]
    assert objects(back) == turned
    points = [boxed("a", 10, 5, 30, 25, keypoints=((0, 0, 0), (12, 6, 1), (13, 7, 2))), boxed("b", 1, 1, 9, 9)]
    back = there_and_back(object_listing(tmp_path / "2", {"a.png": points}), tmp_path / "points")
    assert objects(back) == [points[0], replace(points[1], keypoints=((0, 0, 0),) * 3)]


def test_a_mask_is_written_as_the_outline_of_its_pixels(tmp_path: Path) -> None:
    pixels = polygon_mask([(3.0, 3.0, 30.0, 9.0, 12.0, 28.0)], SIZE)
    back = there_and_back(
        object_listing(tmp_path / "data", {"a.png": [boxed("a", 3, 3, 30, 28, mask=encode(pixels))]}), tmp_path / "out"
    )
    (item,) = marked(back)["images/a.png"] or ()
    mask = annotation_mask(item, SIZE)
    assert mask is not None and np.array_equal(mask, pixels)


RING = np.ones((SIZE[1], SIZE[0]), dtype=bool)
RING[5:9, 5:9] = False
SQUARE = (1.0, 1.0, 9.0, 1.0, 9.0, 9.0, 1.0, 9.0)


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        ([boxed("a", 1, 1, 9, 9, polygons=(SQUARE, SQUARE))], "its outline has 2 parts"),
        ([boxed("a", 0, 0, 40, 30, mask=encode(RING))], "its mask has a hole"),
        ([boxed("a", 1, 1, 9, 9, crowd=True)], "it is a crowd region"),
        (
            [boxed("a", 1, 1, 9, 9, keypoints=((1, 1, 2),)), boxed("a", 1, 1, 9, 9, keypoints=((1, 1, 2), (2, 2, 2)))],
            "it has 1 keypoints, and others have 2",
        ),
        ([boxed("a", 1, 1, 9, 9, keypoints=((1, 1, 2),), polygons=(SQUARE,))], "and there are keypoints"),
        (
            [boxed("a", 1, 1, 9, 9, polygons=(SQUARE,)), boxed("a", 1, 1, 9, 9, corners=SQUARE)],
            "cannot hold rotated boxes beside outlines",
        ),
    ],
)
def test_what_would_come_back_as_something_else_is_refused(
    tmp_path: Path, items: list[Annotation], reason: str
) -> None:
    listing = object_listing(tmp_path / "data", {"a.png": [boxed("a", 1, 1, 5, 5)], "b.png": items})
    with pytest.raises(DataError, match=f"{reason}.*; write COCO"):
        yolo.write(listing, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_groups_shared_labels_and_folders_with_contents_are_refused(tmp_path: Path) -> None:
    listing = object_listing(tmp_path / "data", {"a.png": [boxed("a", 1, 1, 5, 5)]})
    grouped = replace(listing, records=[replace(listing.records[0], group="g")])
    with pytest.raises(DataError, match="cannot hold groups"):
        yolo.write(grouped, tmp_path / "out")
    with pytest.raises(DataError, match="is not an empty folder"):
        yolo.write(listing, tmp_path / "data")
    alike = object_listing(tmp_path / "alike", {"a.png": [boxed("a", 1, 1, 5, 5)], "a.jpg": []})
    with pytest.raises(DataError, match=r"would share the labels labels/a\.txt"):
        yolo.write(alike, tmp_path / "out")
