from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as oracle
from pycocotools.coco import COCO

from object_listings import SIZE, boxed, conserved, lost, marked, object_listing, objects_by_image, picture
from snellen.core.annotation import Annotation, Rle
from snellen.core.errors import DataError
from snellen.core.masks import annotation_mask, encode
from snellen.core.record import Listing
from snellen.data.formats import coco
from snellen.data.formats.coco_entry import draft_of, entry_of

WIDTH, HEIGHT = SIZE
CATS = [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}]


def image(id: Any = 1, file_name: str = "a.png", **fields: Any) -> dict[str, Any]:
    return {"id": id, "file_name": file_name, "width": WIDTH, "height": HEIGHT, **fields}


def annotation(id: Any = 1, bbox: Any = (1, 2, 10, 20), image_id: Any = 1, category_id: Any = 1, **fields: Any) -> Any:
    return {"id": id, "image_id": image_id, "category_id": category_id, "bbox": list(bbox), **fields}


def written(path: Path, images: Sequence[Any], annotations: Sequence[Any], categories: Any = CATS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def one(tmp_path: Path, *annotations: Any, **fields: Any) -> Listing:
    """What is read of annotations of one image, with a healthy one in front."""
    picture(tmp_path / "a.png")
    found = [annotation(id="first"), *annotations]
    return coco.read(written(tmp_path / "c.json", [image(**fields)], found))


def second(listing: Listing) -> Annotation:
    return (listing.records[0].objects or ())[1]


# ---- what is read


def test_a_file_as_coco_writes_it(tmp_path: Path) -> None:
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png"), picture(tmp_path / "c.png")
    runs = {"size": [HEIGHT, WIDTH], "counts": [31, 5, WIDTH * HEIGHT - 36]}
    path = written(
        tmp_path / "instances.json",
        [image(900, "b.png"), image(12, "a.png")],
        [
            annotation(5, image_id=900, area=70.5, iscrowd=0, segmentation=[[1, 2, 11, 2, 11, 22]]),
            annotation(6, image_id=900, category_id=7, area=5, iscrowd=1, segmentation=runs, bbox=(1, 1, 1, 5)),
            annotation(8, image_id=900, keypoints=[0, 0, 0, 5, 6, 1, 7, 8, 2], num_keypoints=2),
        ],
    )
    assert coco.matches(path)
    listing = coco.read(path)
    assert marked(listing) == {
        "a.png": (),
        "b.png": (
            boxed("cat", 1, 2, 11, 22, polygons=((1, 2, 11, 2, 11, 22),), area=70.5, source="5"),
            boxed(
                "dog", 1, 1, 2, 6, mask=Rle(size=(HEIGHT, WIDTH), counts=(31, 5, 1164)), crowd=True, area=5, source="6"
            ),
            boxed("cat", 1, 2, 11, 22, keypoints=((0, 0, 0), (5, 6, 1), (7, 8, 2)), source="8"),
        ),
    }
    assert (listing.classes, listing.num_annotations, listing.lost) == (("cat", "dog"), 3, ())
    assert listing.notes == (
        "images without an object, which are background: 1",
        "images that are not named in the annotations and are not used: 1",
    )


@pytest.mark.parametrize("counts", ["list", "text"])
def test_runs_are_the_pixels_that_pycocotools_sees(tmp_path: Path, counts: str) -> None:
    pixels = np.zeros((HEIGHT, WIDTH), dtype=bool)
    pixels[3:20, 5:9] = pixels[7, 2:30] = True
    theirs = oracle.encode(np.asfortranarray(pixels, dtype=np.uint8))
    runs = list(encode(pixels).counts) if counts == "list" else theirs["counts"].decode()
    item = second(one(tmp_path, {**annotation(2), "bbox": None, "segmentation": {"size": [30, 40], "counts": runs}}))
    mask = annotation_mask(item, SIZE)
    assert mask is not None and np.array_equal(mask, pixels)
    assert item.box == (2, 3, 30, 20)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"bbox": None, "segmentation": [[3, 4, 9, 4, 9, 8]]}, (3, 4, 9, 8)),
        ({"bbox": [], "segmentation": [[3, 4, 9, 4, 9, 8], [1, 1, 2, 2, 3, 1]]}, (1, 1, 9, 8)),
        ({"bbox": [0, 0, 0, 0], "segmentation": [[3, 4, 9, 4, 9, 8]]}, (3, 4, 9, 8)),
        ({"segmentation": [3, 4, 9, 4, 9, 8]}, (1, 2, 11, 22)),
        ({"segmentation": []}, (1, 2, 11, 22)),
        ({"segmentation": [[]]}, (1, 2, 11, 22)),
        ({"segmentation": None, "keypoints": None, "area": "?"}, (1, 2, 11, 22)),
        ({"bbox": [11, 22, -10, -20]}, (1, 2, 11, 22)),
        ({"area": float("nan")}, (1, 2, 11, 22)),
    ],
)
def test_entries_as_tools_leave_them(tmp_path: Path, fields: dict[str, Any], expected: tuple[float, ...]) -> None:
    item = second(one(tmp_path, {**annotation(2), **fields}))
    assert item.box == expected and item.area is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"image_id": 2}, "of the image 2, which is not there"),
        ({"image_id": None}, "it is of no image"),
        ({"image_id": True}, "it is of no image"),
        ({"category_id": 99}, "of the category 99, which is not there"),
        ({"category_id": [1]}, "it is of no category"),
        ({"bbox": [1, 2, 3]}, "its bbox has 3 numbers"),
        ({"bbox": "1 2 3 4"}, "its bbox is not a list of numbers"),
        ({"bbox": [1, 2, None, 4]}, "its bbox is not a list of numbers"),
        ({"bbox": [1, 2, True, 4]}, "its bbox is not a list of numbers"),
        ({"bbox": None}, "it has no box"),
        ({"bbox": [0, 0, 0, 0]}, "no width or no height"),
        ({"bbox": [1, 2, float("nan"), 4]}, "not a finite number"),
        ({"bbox": [1, 2, 10**400, 4]}, "beyond all images"),
        ({"bbox": [100, 2, 10, 4]}, "outside of the image"),
        ({"segmentation": "runs"}, "neither outlines nor runs"),
        ({"segmentation": [["a", 2]]}, "its segmentation is not a list of numbers"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "odd number"),
        ({"segmentation": {"counts": [1]}}, "not height and width"),
        ({"segmentation": {"size": [30, 40], "counts": 7}}, "neither text nor a list"),
        ({"segmentation": {"size": [30, 40], "counts": "\n"}}, "no compressed runs"),
        ({"segmentation": {"size": [30, 40], "counts": [1, 2]}}, "must sum to 40 x 30"),
        ({"segmentation": {"size": [10**9, 10**9], "counts": [10**18]}}, "its mask is of"),
        ({"keypoints": [1, 2]}, "its keypoints"),
        ({"keypoints": [1, 2, 3]}, "its keypoints"),
        ({"keypoints": [1, float("nan"), 2]}, "not a finite number"),
    ],
)
def test_an_entry_that_cannot_be_used_is_lost_with_its_reason(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    listing = one(tmp_path, {**annotation(77), **fields}, annotation(78))
    assert reason in lost(listing)["c.json, annotation 77"]
    assert conserved(listing) and listing.num_annotations == 3 and len(listing.records[0].objects or ()) == 2


def test_ids_of_any_kind_are_kept(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name)
    listing = coco.read(
        written(
            tmp_path / "c.json",
            [image(0, "a.png"), image("x-1", "b.png"), image(3.0, "c.png")],
            [
                annotation(0, image_id=0, category_id="c"),
                annotation("é", image_id="x-1", category_id=0),
                annotation(None, image_id=3, category_id=0),
                annotation(10**400, image_id="3", category_id="0"),
            ],
            [{"id": "c", "name": "cat"}, {"id": 0, "name": "dog"}],
        )
    )
    found = {name: [(item.label, item.source) for item in items or ()] for name, items in marked(listing).items()}
    assert found["a.png"] == [("cat", "0")] and found["b.png"] == [("dog", "é")]
    assert found["c.png"][0] == ("dog", None) and len(found["c.png"]) == 2


def test_classes_are_names_and_those_without_objects_are_none(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    categories = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "animals"},
        {"id": 5, "name": "cat "},
        {"id": 9, "name": "unseen"},
    ]
    entries = [annotation(1, category_id=1), annotation(2, category_id=5)]
    listing = coco.read(written(tmp_path / "c.json", [image()], entries, categories))
    assert listing.classes == ("cat",) and len(listing.records[0].objects or ()) == 2
    assert "categories with a name that another has, which are one class: 1" in listing.notes
    assert "classes without objects are left out: animals, unseen" in listing.notes


def test_a_file_that_is_mostly_crowd_regions_is_remarked_on(tmp_path: Path) -> None:
    note = "are crowd regions, which are neither learnt nor counted"
    assert any(note in said for said in one(tmp_path, *[annotation(i, iscrowd=1) for i in range(3)]).notes)
    assert not any(note in said for said in one(tmp_path, annotation(2, iscrowd=1), annotation(3)).notes)


# ---- where files and images are


def test_splits_come_from_the_names_of_files_or_of_folders(tmp_path: Path) -> None:
    for side in ("train2017", "val2017"):
        picture(tmp_path / f"coco/{side}/1.png")
        written(tmp_path / f"coco/annotations/instances_{side}.json", [image(file_name="1.png")], [annotation()])
    written(tmp_path / "coco/annotations/captions_val2017.json", [image(file_name="1.png")], [{"caption": "a cat"}])
    assert coco.matches(tmp_path / "coco")
    listing = coco.read(tmp_path / "coco")
    sides = [(record.id, record.split) for record in listing.records]
    assert sides == [("train2017/1.png", "train"), ("val2017/1.png", "val")]
    for folder in ("train", "valid", "test"):
        picture(tmp_path / f"robo/{folder}/1.png")
        written(tmp_path / f"robo/{folder}/_annotations.coco.json", [image(file_name="1.png")], [annotation()])
    assert coco.matches(tmp_path / "robo")
    listing = coco.read(tmp_path / "robo")
    assert [(record.id, record.split) for record in listing.records] == [
        ("test/1.png", "test"),
        ("train/1.png", "train"),
        ("valid/1.png", "val"),
    ]
    assert conserved(listing) and listing.num_annotations == 3


@pytest.mark.parametrize("place", ["train", "images/train", "images", "", "train/images"])
def test_images_are_found_in_the_folders_that_people_use(tmp_path: Path, place: str) -> None:
    picture(tmp_path / place / "1.png")
    path = written(tmp_path / "annotations/instances_train.json", [image(file_name="1.png")], [annotation()])
    for data in (path, tmp_path):
        (record,) = coco.read(data).records
        assert record.path == tmp_path / place / "1.png" and record.split is None


def test_images_elsewhere_are_told_of(tmp_path: Path) -> None:
    picture(tmp_path / "photos/deep/1.png")
    path = written(tmp_path / "c/labels.json", [image(file_name="1.png")], [annotation()])
    with pytest.raises(DataError, match="--images"):
        coco.read(path)
    assert [record.id for record in coco.read(path, images=tmp_path / "photos").records] == ["deep/1.png"]


def test_several_files_that_are_no_splits_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "1.png")
    for name in ("old.json", "train.json"):
        written(tmp_path / name, [image(file_name="1.png")], [annotation()])
    with pytest.raises(DataError, match=r"old\.json is not named for one split; give the file that is meant"):
        coco.read(tmp_path)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "..\\..\\secret.png", "\ud800.png"])
def test_names_that_lead_out_of_the_images_lead_nowhere(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "secret.png"), picture(tmp_path / "data/a.png")
    path = written(tmp_path / "data/c.json", [image(), image(2, name)], [annotation(), annotation(2, image_id=2)])
    if "\ud800" in name:
        with pytest.raises(DataError, match="has no id or no file_name"):
            coco.read(path)
        return
    listing = coco.read(path)
    assert list(marked(listing)) == ["a.png"] and len(listing.lost) == 1 and conserved(listing)


# ---- what is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ('{"images": [], "annotations": [{"id": 1', "not JSON, or not all of it is there"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("\ufeffnull", "is not COCO"),
        ("[]", "is not COCO: it should be an object"),
        ('{"images": [], "annotations": []}', "'categories' should be a list of objects"),
        ('{"images": {}, "annotations": [], "categories": []}', "'images' should be a list of objects"),
        ('{"images": [3], "annotations": [], "categories": []}', "'images' should be a list of objects"),
        ('{"images": [], "annotations": [], "categories": []}', "no image is named"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "image at place 0 has no id or no file_name"),
        ('{"images": [{"file_name": "a"}], "annotations": [], "categories": []}', "has no id or no file_name"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": 3}]}', "has no id or no name"),
        (
            '{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": [], '
            '"categories": []}',
            "'a' and 'b' both have the image id 1",
        ),
        ('{"images": [], "annotations": [], "categories": [], "x": ' + "9" * 5000 + "}", "not JSON"),
    ],
)
def test_what_is_no_coco_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        coco.read(tmp_path / "c.json")
    assert "\n" not in str(caught.value)


def test_other_files_and_folders_do_not_match(tmp_path: Path) -> None:
    labelme, both = '{"shapes": [], "imagePath": "a.png"}', '{"images": [], "annotations": []}'
    for name, text in {"l.json": labelme, "list.json": f"[{both}]", "empty.json": "", "text.txt": both}.items():
        (tmp_path / name).write_text(text)
        assert not coco.matches(tmp_path / name)
    assert not coco.matches(tmp_path) and not coco.matches(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no COCO file"):
        coco.read(tmp_path)
    (tmp_path / "bom.json").write_text(f"\ufeff {both}", encoding="utf-8")
    assert coco.matches(tmp_path / "bom.json")
    with pytest.raises(DataError, match="no numbers to be predicted"):
        coco.read(tmp_path / "bom.json", numeric=True)


# ---- writing


def with_areas(listing: Listing) -> dict[str, list[Annotation]]:
    """The objects, without what a first writing gives them: an id, and an area where none was stated."""
    return {
        name: [replace(item, source=None, area=None) for item in items or ()] for name, items in marked(listing).items()
    }


@given(objects_by_image(shapes=("box", "polygon", "parts", "mask")), st.booleans(), st.booleans())
def test_what_is_written_is_read_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, objects: dict[str, list[Annotation]], divided: bool, crowd: bool
) -> None:
    root = tmp_path_factory.mktemp("coco")
    objects = {
        name: [
            replace(
                item, crowd=crowd, difficult=not crowd, keypoints=((0.0, 0.0, 0), (1.5, 2.25, 2)), corners=(0.5,) * 8
            )
            for item in items
        ]
        for name, items in objects.items()
    }
    listing = object_listing(root, objects, splits=dict.fromkeys(objects, "val") if divided else None)
    coco.write(listing, root / "first.json")
    first = coco.read(root / "first.json")
    assert with_areas(first) == with_areas(listing) and conserved(first)
    assert [record.split for record in first.records] == [record.split for record in listing.records]
    coco.write(first, root / "second.json")
    second = coco.read(root / "second.json")
    assert marked(second) == marked(first) and second.classes == first.classes and conserved(second)


@given(st.floats(0, 5000), st.floats(0, 5000))
def test_a_box_survives_the_width_that_coco_writes(low: float, high: float) -> None:
    low, high = sorted((low, high))
    entry = json.loads(json.dumps(entry_of(boxed("cat", low, 0, high, 1), SIZE)))
    assert draft_of(entry, "cat", "here").box == (low, 0, high, 1)


def test_ids_that_other_tools_can_use_are_kept_and_others_replaced(tmp_path: Path) -> None:
    def ids(*sources: str | None) -> list[str | None]:
        name = f"{len(list(tmp_path.iterdir()))}.json"
        objects = [boxed("cat", 1, 1, 5, 5, source=source) for source in sources]
        coco.write(object_listing(tmp_path, {"a.png": objects}), tmp_path / name)
        return [item.source for item in marked(coco.read(tmp_path / name))["a.png"] or ()]

    assert ids("17", "3") == ["17", "3"]
    assert ids("0", "3") == ids("3", "3") == ids(None, "3") == ids("a", "3") == ["1", "2"]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_written_file_is_what_pycocotools_and_hotcoco_read(tmp_path: Path) -> None:
    pixels = np.zeros((HEIGHT, WIDTH), dtype=bool)
    pixels[3:20, 5:9] = True
    objects = [
        boxed("cat", 1, 2, 11, 22, polygons=((1.0, 2.0, 11.0, 2.0, 11.0, 22.0, 1.0, 22.0),)),
        boxed("dog", 5, 3, 9, 20, mask=encode(pixels), crowd=True),
        boxed("cat", 0, 0, 4, 5, keypoints=((0.0, 0.0, 0), (1.0, 2.0, 2))),
    ]
    coco.write(object_listing(tmp_path, {"a.png": objects, "b.png": []}), tmp_path / "c.json")
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = COCO(str(tmp_path / "c.json"))
    found = theirs.loadAnns(theirs.getAnnIds(imgIds=[1]))
    assert [(item["bbox"], item["area"], item["iscrowd"]) for item in found] == [
        ([1, 2, 10, 20], 200, 0),
        ([5, 3, 4, 17], 68, 1),
        ([0, 0, 4, 5], 20, 0),
    ]
    assert np.array_equal(theirs.annToMask(found[1]), pixels)
    assert theirs.annToMask(found[0]).sum() == 200 and found[2]["num_keypoints"] == 1
    assert len(theirs.imgs) == 2 and [item["name"] for item in theirs.loadCats([1, 2])] == ["cat", "dog"]
    assert len(hotcoco.COCO(str(tmp_path / "c.json")).get_ann_ids()) == 3


def test_writing_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    listing = object_listing(tmp_path, {"a.png": [boxed("cat", 1, 1, 5, 5)]})
    coco.write(listing, tmp_path / "c.json")
    with pytest.raises(DataError, match="exists"):
        coco.write(listing, tmp_path / "c.json")
    with pytest.raises(DataError, match=r"ends in \.json"):
        coco.write(listing, tmp_path / "c.txt")
    unmarked = replace(listing, records=[replace(listing.records[0], objects=None)])
    with pytest.raises(DataError, match="has none marked"):
        coco.write(unmarked, tmp_path / "d.json")
