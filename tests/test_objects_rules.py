"""The rule by which what a file says becomes objects, whatever the format."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from object_listings import SIZE, boxed, conserved, lost, marked, object_listing, picture, within
from snellen.core.annotation import Rle
from snellen.core.errors import DataError, StorageError
from snellen.core.geometry import map_points
from snellen.core.masks import decode, encode
from snellen.core.record import LeftOut, Listing
from snellen.data.formats.drafts import Draft, settle, turned, upright
from snellen.data.formats.image_files import ImageFiles
from snellen.data.formats.objects import Sheet, assemble, new_folder, objects_of, refuse_existing, unnamed

WIDTH, HEIGHT = SIZE
NAN, INF = math.nan, math.inf


def draft(*box: float, where: str = "here", label: str = "cat", **fields: object) -> Draft:
    given = {"box": box or None, **fields}
    return Draft(where=where, label=label, **given)  # type: ignore[arg-type]


def made(root: Path, *sheets: Sheet) -> Listing:
    return assemble(sheets, ImageFiles(root), format="made")


# ---- one annotation


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (draft(1, 1, 5, 5, label=" "), "it has no label"),
        (draft(NAN, 1, 5, 5), "not a finite number"),
        (draft(1, 1, INF, 5), "not a finite number"),
        (draft(1, 1, 1e300, 5), "beyond all images"),
        (draft(1, 1, 5, 5, polygons=((1.0, 1.0, NAN, 2.0, 3.0, 3.0),)), "not a finite number"),
        (draft(1, 1, 5, 5, keypoints=((NAN, 1.0, 2),)), "not a finite number"),
        (draft(1, 1, 5, 5, polygons=((1.0, 1.0, 2.0, 2.0, 3.0),)), "odd number of coordinates"),
        (draft(1, 1, 5, 5, corners=(1.0, 1.0, 2.0, 2.0)), "not four corners"),
        (draft(1, 1, 5, 5, mask=Rle(size=(WIDTH, HEIGHT), counts=(1200,))), "its mask is of 30 x 40 pixels"),
        (draft(1, 1, 5, 5, mask=Rle(size=(HEIGHT, WIDTH), counts=(1199,))), "must sum to 40 x 30"),
        (draft(mask=Rle(size=(HEIGHT, WIDTH), counts=(1200,))), "it has no box"),
        (draft(), "it has no box"),
        (draft(WIDTH, 1, WIDTH + 9, 5), "is outside of the image, which has 40 x 30 pixels"),
        (draft(-9, -9, -1, -1), "outside of the image"),
        (draft(3, 1, 3, 5), "has no width or no height"),
        (draft(3, 1, 9, 1.0000001), "has no width or no height"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_lost_with_its_reason_and_costs_nothing_else(
    bad: Draft, reason: str
) -> None:
    settled = settle([draft(1, 1, 5, 5), bad, draft(2, 2, 6, 6)], SIZE)
    assert [item.box for item in settled.objects] == [(1, 1, 5, 5), (2, 2, 6, 6)]
    (item,) = settled.lost
    assert item.path == "here" and reason in item.reason


def test_healthy_boxes_come_through_as_they_are_and_nothing_is_counted() -> None:
    settled = settle([draft(0, 0, WIDTH, HEIGHT), draft(0.25, 1.5, 3.75, 2)], SIZE)
    assert [item.box for item in settled.objects] == [(0, 0, WIDTH, HEIGHT), (0.25, 1.5, 3.75, 2)]
    assert (settled.lost, settled.swapped, settled.clipped, settled.thin) == ((), 0, 0, 0)


def test_swapped_corners_are_put_in_order_and_counted() -> None:
    settled = settle([draft(9, 2, 3, 8), draft(3, 8, 9, 2), draft(3, 2, 9, 8)], SIZE)
    assert {item.box for item in settled.objects} == {(3, 2, 9, 8)} and len(settled.objects) == 3
    assert settled.swapped == 2


def test_what_reaches_beyond_the_image_is_cut_off_and_counted_but_not_for_rounding() -> None:
    settled = settle([draft(-5, 2, 9, 99), draft(1, 1, WIDTH + 0.004, 5)], SIZE)
    assert [item.box for item in settled.objects] == [(0, 2, 9, HEIGHT), (1, 1, WIDTH, 5)]
    assert settled.clipped == 1


def test_outlines_are_clamped_thin_parts_passed_over_and_keypoints_never_moved() -> None:
    (item,) = settle(
        [
            draft(
                -5,
                0,
                50,
                9,
                polygons=((-5.0, 0.0, 50.0, 0.0, 50.0, 9.0), (1.0, 1.0, 2.0, 2.0)),
                keypoints=((0.0, 0.0, 0), (-3.0, 99.0, 0), (45.0, 2.0, 1)),
            )
        ],
        SIZE,
    ).objects
    assert item.polygons == ((0, 0, WIDTH, 0, WIDTH, 9),)
    assert item.keypoints == ((0.0, 0.0, 0), (-3.0, 99.0, 0), (45.0, 2.0, 1))


def test_a_box_that_is_not_given_is_the_hull_of_the_shape() -> None:
    pixels = np.zeros((HEIGHT, WIDTH), dtype=bool)
    pixels[3:7, 5:11] = True
    polygons = ((5.0, 3.0, 11.0, 3.0, 8.0, 5.0), (6.0, 4.0, 9.0, 4.0, 9.0, 7.0))
    drafts = [draft(polygons=polygons), draft(mask=encode(pixels)), draft(corners=(8.0, 3, 11, 5, 8, 7, 5, 5))]
    assert [item.box for item in settle(drafts, SIZE).objects] == [(5, 3, 11, 7)] * 3


NUMBERS = st.one_of(st.floats(-60, 60, width=32), st.sampled_from([NAN, INF, -INF, 1e308, 0.0, 40.0]))


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), max_size=6))
def test_every_draft_is_an_object_within_the_image_or_lost(corners: list[tuple[float, float, float, float]]) -> None:
    settled = settle([draft(*box) for box in corners], SIZE)
    assert len(settled.objects) + len(settled.lost) == len(corners)
    assert all(within(item.box, SIZE) for item in settled.objects)
    again = settle([draft(*item.box) for item in settled.objects], SIZE)
    assert (again.objects, again.lost, again.clipped, again.swapped) == (settled.objects, (), 0, 0)


# ---- EXIF orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_was_marked_as_stored_lands_on_the_same_pixels_of_the_upright_image(orientation: int) -> None:
    pixels = np.zeros((5, 8), dtype=bool)
    pixels[1:3, 2:7] = True
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(pixels.astype(np.uint8) * 255)
    image.getexif().update(exif)
    shown = np.asarray(ImageOps.exif_transpose(image)) > 0
    marked = draft(2, 1, 7, 3, mask=encode(pixels), keypoints=((2.0, 1.0, 2), (0.0, 0.0, 0)))
    moved = turned(marked, orientation, (8, 5))
    assert moved.mask is not None and np.array_equal(decode(moved.mask), shown)
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    assert moved.box == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    expected = map_points(upright(orientation, (8, 5)), [2.0, 1.0])
    assert moved.keypoints == ((*expected.tolist(), 2), (0.0, 0.0, 0))


STORED, UPRIGHT = (100, 60), (60, 100)  # of orientation 6


def test_boxes_that_fit_only_the_stored_image_are_turned_and_it_is_said(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", STORED, orientation=6)
    for stated in (STORED, UPRIGHT, None):
        listing = made(tmp_path, Sheet(name="a.jpg", drafts=(draft(70, 10, 90, 30),), size=stated))
        assert [item.box for item in marked(listing)["a.jpg"] or ()] == [(30, 70, 50, 90)]
        assert listing.records[0].size == UPRIGHT
        assert any(
            note.startswith("images marked as they are stored") and note.endswith(": 1") for note in listing.notes
        )


def test_boxes_that_fit_only_the_upright_image_stay_even_if_the_stored_size_is_stated(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", STORED, orientation=6)
    for stated in (STORED, UPRIGHT, None):
        listing = made(tmp_path, Sheet(name="a.jpg", drafts=(draft(10, 70, 30, 90),), size=stated))
        assert [item.box for item in marked(listing)["a.jpg"] or ()] == [(10, 70, 30, 90)]
        assert listing.notes == ()


def test_where_boxes_fit_both_orientations_the_stated_size_decides(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", STORED, orientation=6)
    boxes = [
        (marked(made(tmp_path, Sheet(name="a.jpg", drafts=(draft(10, 20, 30, 50),), size=stated)))["a.jpg"] or ())[
            0
        ].box
        for stated in (STORED, UPRIGHT, None)
    ]
    assert boxes == [(10, 10, 40, 30), (10, 20, 30, 50), (10, 20, 30, 50)]


def test_images_that_cannot_tell_go_with_those_that_can(tmp_path: Path) -> None:
    picture(tmp_path / "tells.jpg", STORED, orientation=6)
    picture(tmp_path / "turned.jpg", STORED, orientation=3)
    picture(tmp_path / "plain.jpg", STORED)
    other = Sheet(name="turned.jpg", drafts=(draft(10, 20, 30, 50),), size=STORED)
    plain = Sheet(name="plain.jpg", drafts=(draft(10, 20, 30, 50),), size=STORED)
    alone = made(tmp_path, other, plain)
    assert [(marked(alone)[name] or ())[0].box for name in ("plain.jpg", "turned.jpg")] == [(10, 20, 30, 50)] * 2
    tells = Sheet(name="tells.jpg", drafts=(draft(70, 10, 90, 30),), size=STORED)
    together = made(tmp_path, tells, other, plain)
    assert (marked(together)["turned.jpg"] or ())[0].box == (70, 10, 90, 40)
    assert (marked(together)["plain.jpg"] or ())[0].box == (10, 20, 30, 50)
    assert any(note.startswith("images marked as they are stored") and note.endswith(": 2") for note in together.notes)


# ---- stated sizes


def test_an_image_resized_after_marking_is_left_out_with_its_annotations(tmp_path: Path) -> None:
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    resized = Sheet(name="a.png", drafts=(draft(1, 1, 5, 5), draft(2, 2, 6, 6)), size=(80, 60))
    listing = made(tmp_path, resized, Sheet(name="b.png", drafts=(draft(1, 1, 5, 5),), size=(41, 30)))
    assert list(marked(listing)) == ["b.png"] and conserved(listing) and listing.num_annotations == 3
    (item,) = listing.left_out
    assert item.path == "a.png" and "of an image of 80 x 60 pixels, and the file has 40 x 30" in item.reason


def test_a_stated_size_that_the_boxes_deny_is_passed_over_and_said(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    listing = made(tmp_path, Sheet(name="a.png", drafts=(draft(20, 20, 38, 28),), size=(10, 10)))
    assert (marked(listing)["a.png"] or ())[0].box == (20, 20, 38, 28)
    assert any("of another size than the annotations say" in note for note in listing.notes)


def test_fractions_are_of_the_upright_image(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", STORED, orientation=6)
    shape = ((0.5, 0.5, 1.0, 0.5, 1.0, 1.0),)
    listing = made(tmp_path, Sheet(name="a.jpg", drafts=(draft(0.5, 0.5, 1, 1, polygons=shape),), fractions=True))
    (item,) = marked(listing)["a.jpg"] or ()
    assert item.box == (30, 50, 60, 100) and item.polygons == ((30, 50, 60, 50, 60, 100),)


# ---- finding images


@pytest.mark.parametrize(
    "name",
    [
        "photos/1.jpg",
        "photos\\1.jpg",
        "./photos/1.jpg",
        " photos/1.jpg ",
        "1.jpg",
        "C:\\Users\\anna\\photos\\1.jpg",
        "/home/anna/photos/1.jpg",
        "../../photos/1.jpg",
        "other/1.jpg",
        "photos/1.png",
        "1",
    ],
)
def test_images_are_found_as_annotation_tools_spell_them(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "photos/1.jpg"), picture(tmp_path / "photos/2.jpg")
    listing = made(tmp_path, Sheet(name=name, drafts=(draft(1, 1, 5, 5),)))
    assert [record.id for record in listing.records] == ["photos/1.jpg"]


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "..\\secret.png", "a/../../secret.png", "", "..", "/"]
)
def test_nothing_outside_of_the_root_is_ever_taken(tmp_path: Path, name: str) -> None:
    picture(tmp_path / "secret.png"), picture(tmp_path / "data/a.png")
    good = Sheet(name="a.png", drafts=(draft(1, 1, 5, 5),))
    listing = made(tmp_path / "data", good, Sheet(name=name, drafts=(draft(1, 1, 5, 5, where="there"),)))
    assert list(marked(listing)) == ["a.png"]
    assert lost(listing)["there"].startswith("its image is left out") and conserved(listing)
    assert listing.num_found == 2


def test_a_name_that_could_mean_several_files_means_none_unless_its_folder_says(tmp_path: Path) -> None:
    picture(tmp_path / "a/1.jpg"), picture(tmp_path / "b/1.jpg"), picture(tmp_path / "c.jpg")
    files = ImageFiles(tmp_path)
    assert files.find("1.jpg") == "several files could be meant: a/1.jpg, b/1.jpg"
    assert files.find("1.jpg", "b") == ("b/1.jpg", True)
    assert files.find("x/1.png", "b") == ("b/1.jpg", False)


def test_a_file_is_not_taken_for_an_image_that_is_missing(tmp_path: Path) -> None:
    picture(tmp_path / "b/1.jpg")
    sheets = [Sheet(name=name, drafts=(draft(1, 1, 5, 5, where=name),)) for name in ("a/1.jpg", "b/1.jpg")]
    listing = made(tmp_path, *sheets)
    assert list(marked(listing)) == ["b/1.jpg"] and "is another image's" in lost(listing)["a/1.jpg"]


def test_an_image_that_is_named_twice_has_the_objects_of_both(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    listing = made(
        tmp_path,
        Sheet(name="a.png", drafts=(draft(1, 1, 5, 5),)),
        Sheet(name="a.png", drafts=(draft(2, 2, 6, 6, label="dog"),)),
    )
    assert listing.records[0].labels == ("cat", "dog") and conserved(listing)
    assert any("named more than once" in note for note in listing.notes)


def test_an_image_on_two_sides_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png is in train and in val"):
        made(tmp_path, *(Sheet(name="a.png", drafts=(draft(1, 1, 5, 5),), split=side) for side in ("train", "val")))


# ---- the listing


def test_a_listing_tells_what_was_found_and_what_was_not(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "more.png"):
        picture(tmp_path / name)
    (tmp_path / "broken.png").write_text("no image")
    listing = assemble(
        [
            Sheet(name="b.png", drafts=(draft(1, 1, 5, 5, label="dog"), draft(-3, 1, 5, 5), draft(9, 9, 2, 2))),
            Sheet(name="a.png"),
            Sheet(name="gone.png", drafts=(draft(1, 1, 5, 5, where="gone 1"),)),
            Sheet(name="broken.png", drafts=(draft(1, 1, 5, 5, where="broken 1"),)),
        ],
        files := ImageFiles(tmp_path),
        format="made",
        lost=[LeftOut(path="line 7", reason="no numbers")],
        notes=["read so"],
    )
    assert [record.id for record in listing.records] == ["a.png", "b.png"]
    assert [record.labels for record in listing.records] == [(), ("cat", "dog")]
    assert listing.classes == ("cat", "dog") and listing.multi_label and listing.marks_objects
    assert [item.path for item in listing.left_out] == ["broken.png", "gone.png"]
    assert set(lost(listing)) == {"line 7", "gone 1", "broken 1"}
    assert listing.num_annotations == 6 and conserved(listing)
    assert listing.notes == (
        "read so",
        "boxes whose corners were swapped and put in order: 1",
        "boxes that reached beyond their image and were cut off at its edge: 1",
        "images without an object, which are background: 1",
    )
    assert unnamed(files, listing, "the file").notes[-1] == "images that are not named in the file and are not used: 1"


def test_data_without_images_or_without_objects_is_refused_with_what_to_do(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"none of the 1 images is below .*'b\.png': file not found.*--images"):
        made(tmp_path, Sheet(name="b.png"))
    with pytest.raises(DataError, match="no image is named"):
        made(tmp_path)
    with pytest.raises(DataError, match="no image has an object; lost are 1: here: its box"):
        made(tmp_path, Sheet(name="a.png", drafts=(draft(3, 3, 3, 3),)))
    with pytest.raises(DataError, match="does not exist; give it with --images"):
        ImageFiles(tmp_path / "nowhere")


def test_either_all_images_are_in_a_split_or_none(tmp_path: Path) -> None:
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"1 of 2 images are in no split, the first b\.png"):
        made(tmp_path, Sheet(name="a.png", drafts=(draft(1, 1, 5, 5),), split="train"), Sheet(name="b.png"))


# ---- writing


def test_a_new_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_folder(tmp_path / "out") as partial:
        (partial / "a").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "out") as partial:
        (partial / "a").write_text("whole")
    assert (tmp_path / "out/a").read_text() == "whole"
    with pytest.raises(DataError, match="is not an empty folder"), new_folder(tmp_path / "out"):
        pass
    with pytest.raises(DataError, match="exists; give a new file"):
        refuse_existing(tmp_path / "out/a")
    with pytest.raises(StorageError), new_folder(tmp_path / "out/a/b"):
        pass


def test_only_marked_objects_can_be_written(tmp_path: Path) -> None:
    (record,) = object_listing(tmp_path, {"a.png": [boxed("cat", 1, 1, 5, 5)]}).records
    assert objects_of(record, "COCO") == (boxed("cat", 1, 1, 5, 5),)
    with pytest.raises(DataError, match=r"COCO holds marked objects, and a\.png has none"):
        objects_of(replace(record, objects=None), "COCO")
