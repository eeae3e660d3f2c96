"""Masks: which classes their values are, by themselves and by files of names, what is void, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from mask_folders import SIZE, mask, save, says, scenes
from object_listings import picture
from snellen.core.errors import DataError
from snellen.core.record import Listing
from snellen.data.formats import Marks, mask_folder
from snellen.data.mask_files import COLOURS, VOID, read_mask


def index_maps(listing: Listing) -> list[set[int]]:
    found = []
    for record in listing.records:
        assert record.mask is not None
        found.append({int(value) for value in np.unique(read_mask(record.mask))})
    return found


def test_classes_are_the_values_that_occur_in_order(tmp_path: Path) -> None:
    listing = mask_folder.read(scenes(tmp_path, {"a": mask(0, 2), "b": mask(1, 10)}))
    assert listing.classes == ("class 0", "class 1", "class 2", "class 10")
    assert [record.labels for record in listing.records] == [("class 0", "class 2"), ("class 1", "class 10")]
    assert listing.has_masks and listing.multi_label
    assert index_maps(listing) == [{0, 2}, {1, 3}]


def test_void_is_what_the_user_says(tmp_path: Path) -> None:
    root = scenes(tmp_path, {"a": mask(0, 1, 3), "b": mask(0, 3)})
    listing = mask_folder.read(root, marks=Marks(void=(3, 9)))
    assert listing.classes == ("class 0", "class 1")
    assert index_maps(listing) == [{0, 1, VOID}, {0, VOID}]
    assert says(listing, "void, as was said: 3, 9; no mask holds 9")
    listing = mask_folder.read(root, marks=Marks(void=(0,)))
    assert listing.classes == ("class 1", "class 3")
    assert index_maps(listing) == [{0, 1, VOID}, {1, VOID}]


@pytest.mark.parametrize(
    ("values", "classes", "note"),
    [
        ((0, 1, 255), ("class 0", "class 1"), "255 is void"),
        ((0, 1, 3, 255), ("class 0", "class 1", "class 3"), "255 is void"),
        (
            (0, 255),
            ("class 0", "class 255"),
            "only 0 and 255: 255 is read as an object; if 255 means void, give",
        ),
        ((0, 127, 255), ("class 0", "class 127", "class 255"), "255 is read as an object; if 255 means void"),
    ],
)
def test_what_255_means_is_decided_and_said(
    tmp_path: Path, values: tuple[int, ...], classes: tuple[str, ...], note: str
) -> None:
    listing = mask_folder.read(scenes(tmp_path, {"a": mask(*values)}))
    assert listing.classes == classes
    assert says(listing, note)


def test_255_is_void_in_palette_masks(tmp_path: Path) -> None:
    root = scenes(tmp_path, {"a": mask(0, 5, 255)}, COLOURS.ravel().tolist())
    listing = mask_folder.read(root)
    assert listing.classes == ("class 0", "class 5")
    assert says(listing, "masks are read by their palette indices") and says(listing, "index 255 is void")


def test_names_are_read_by_line_and_what_they_leave_out_is_void(tmp_path: Path) -> None:
    root = scenes(tmp_path, {"a": mask(0, 1, 3), "b": mask(3)})
    (root / "classes.txt").write_text("road\ntree\nsky\n")
    listing = mask_folder.read(root)
    assert listing.classes == ("road", "tree", "sky")
    assert listing.records[0].labels == ("road", "tree")
    assert index_maps(listing) == [{0, 1, VOID}, {VOID}]
    assert says(listing, "1 value that classes.txt does not name is read as void; the first, 3, stands in 2 masks")


def test_a_class_called_void_is_void(tmp_path: Path) -> None:
    root = scenes(tmp_path, {"a": mask(0, 1, 2)})
    (root / "data.yaml").write_text("names: {0: road, 1: Void, 2: tree}\n")
    listing = mask_folder.read(root)
    assert listing.classes == ("road", "tree")
    assert index_maps(listing) == [{0, 1, VOID}]
    assert says(listing, "'Void' is void by its name")


@pytest.mark.parametrize("top", [1, 255])
def test_one_or_two_names_go_with_masks_of_two_values(tmp_path: Path, top: int) -> None:
    root = scenes(tmp_path, {"a": mask(0, top)})
    (root / "classes.txt").write_text("crack\n")
    assert mask_folder.read(root).classes == ("background", "crack")
    (root / "classes.txt").write_text("wall\ncrack\n")
    listing = mask_folder.read(root)
    assert listing.classes == ("wall", "crack")
    assert index_maps(listing) == [{0, 1}]


def test_colours_are_classes_by_a_table_and_others_are_void(tmp_path: Path) -> None:
    pixels = COLOURS[mask(0, 1, 2)]
    pixels[3, 5] = (1, 2, 3)
    root = scenes(tmp_path, {"a": pixels, "b": COLOURS[mask(2)]})
    (root / "class_dict.csv").write_text("r,g,b,name\n0,128,0,tree\n128,0,0,road\n0,0,0,sky\n7,7,7,never\n")
    listing = mask_folder.read(root)
    assert listing.classes == ("tree", "road", "sky", "never")
    assert index_maps(listing) == [{0, 1, 2, VOID}, {0}]
    assert says(listing, "classes are named by class_dict.csv; no mask shows 'never'")
    assert says(listing, "1 colour that class_dict.csv does not name is read as void; the first, #010203, stands in 1")


def test_a_table_of_colours_names_the_indices_of_every_palette(tmp_path: Path) -> None:
    colours = [0, 0, 0, 250, 50, 83, 36, 179, 83]
    root = scenes(tmp_path, {"a": mask(0, 1, 2)}, colours)
    save(root / "masks/b.png", mask(0, 1, 2), colours[3:] + colours[:3])
    picture(root / "images/b.jpg", SIZE)
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\ndog:36,179,83::\n"
    )
    listing = mask_folder.read(root)
    assert listing.classes == ("background", "cat", "dog")
    first, second = (read_mask(record.mask) for record in listing.records if record.mask)
    assert np.array_equal(first, mask(0, 1, 2)) and np.array_equal(second, mask(1, 2, 0))
    (root / "labelmap.txt").unlink()
    assert says(mask_folder.read(root), "the palettes differ between masks, and are not looked at")


def test_grey_pixels_saved_as_colour_are_indices(tmp_path: Path) -> None:
    root = scenes(tmp_path, {"a": np.repeat(mask(0, 1, 2)[:, :, None], 3, axis=2), "b": mask(0, 2)})
    listing = mask_folder.read(root)
    assert listing.classes == ("class 0", "class 1", "class 2")
    assert index_maps(listing) == [{0, 1, 2}, {0, 2}]


def test_pixel_values_are_named_as_roboflow_does(tmp_path: Path) -> None:
    picture(tmp_path / "train/a.jpg", SIZE)
    save(tmp_path / "train/a_mask.png", mask(0, 2))
    (tmp_path / "train/_classes.csv").write_text("Pixel Value, Class\n0, background\n2, leaf\n")
    listing = mask_folder.read(tmp_path)
    assert listing.classes == ("background", "leaf")
    assert index_maps(listing) == [{0, 1}]


def test_16_bit_masks_keep_large_indices(tmp_path: Path) -> None:
    listing = mask_folder.read(scenes(tmp_path, {"a": mask(0, 300, 40_000, dtype=np.uint16)}))
    assert listing.classes == ("class 0", "class 300", "class 40000")
    assert index_maps(listing) == [{0, 1, 2}]


def test_jpeg_masks_are_refused_unless_nothing_is_blurred(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.jpg", (64, 64))
    rng = np.random.default_rng(0)
    save(tmp_path / "masks/a.jpg", (rng.random((64, 64)) < 0.5).astype(np.uint8) * 255)
    with pytest.raises(DataError, match=r"no mask can be used; .*a JPEG, which blurs classes .*; save masks as PNG"):
        mask_folder.read(tmp_path)
    half = np.zeros((64, 64), np.uint8)
    half[:, 32:] = 255  # along the blocks that JPEG works in
    save(tmp_path / "masks/a.jpg", half)
    assert mask_folder.read(tmp_path).classes == ("class 0", "class 255")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"classes.txt": b"a\nb\na\n"}, r"has the name 'a' twice"),
        ({"classes.txt": b"\n"}, "names no classes"),
        ({"classes.txt": b"\xff\xfe\n"}, "not UTF-8 text"),
        ({"class_dict.csv": b"name,r,g,b\na,0,0,0\nb,0,0,0\n"}, "has the colour #000000 twice"),
        ({"class_dict.csv": b"name,r,g,b\na,0,0,256\n"}, "line 2: the parts of a colour are 0 to 255"),
        ({"class_dict.csv": b"name,r,g,b\na,0,0,x\n"}, "line 2: a colour is three whole numbers"),
        ({"class_dict.csv": b"name,colour\na,red\n"}, "needs the columns name,r,g,b"),
        ({"labelmap.txt": b"a:1,2::\n"}, "line 1: a colour is three whole numbers"),
        ({"data.yaml": b"names: 3\n"}, "needs a list 'names'"),
        ({"data.yaml": b"names: [a\n"}, "not valid YAML"),
        ({"data.yaml": b"names: {x: a}\n"}, "a value in a mask is a whole number"),
    ],
)
def test_an_unfit_file_of_names_gets_one_line(tmp_path: Path, files: Mapping[str, bytes], message: str) -> None:
    root = scenes(tmp_path, {"a": mask(0, 1)})
    for name, content in files.items():
        (root / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        mask_folder.read(root)
    assert "\n" not in str(caught.value)


def test_masks_that_hold_no_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the masks hold 1 classes \(class 7\)"):
        mask_folder.read(scenes(tmp_path / "one", {"a": mask(7)}))
    wide = np.linspace(0, 250, 60).astype(np.uint8).reshape(6, 10)
    picture(tmp_path / "many/images/a.jpg", (10, 6))
    save(tmp_path / "many/masks/a.png", wide)
    with pytest.raises(DataError, match="the masks hold 60 different values; resized or blurred masks look so"):
        mask_folder.read(tmp_path / "many")
    mixed = scenes(tmp_path / "mixed", {"a": mask(0, 1), "b": COLOURS[mask(0, 1)]})
    with pytest.raises(DataError, match=r"some masks hold colours and some indices; write class_dict\.csv"):
        mask_folder.read(mixed)
    coloured = scenes(tmp_path / "coloured", {"a": COLOURS[mask(0, 1)]})
    (coloured / "classes.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"#800000, and classes\.txt has no colours"):
        mask_folder.read(coloured)
    picture(tmp_path / "none/images/a.jpg", SIZE)
    save(tmp_path / "none/masks/b.png", mask(0))
    assert mask_folder.matches(tmp_path / "none")
    with pytest.raises(DataError, match=r"no image has a mask; .*masks/b\.png goes with no image"):
        mask_folder.read(tmp_path / "none")
    with pytest.raises(DataError, match="is not a folder"):
        mask_folder.read(tmp_path / "gone")
