"""Masks: whose they are, what stands in them, what it means, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from listings import ids, left_out
from object_listings import picture
from snellen.core.annotation import MaskFile
from snellen.core.errors import DataError, ImageError
from snellen.core.record import Listing, Record
from snellen.data.formats import Marks, mask_folder
from snellen.data.mask_files import COLOURS, VOID, read_mask, read_raw, save_mask

SIZE = (6, 4)  # width, height


def mask(*values: int, dtype: Any = np.uint8) -> np.ndarray:
    """A mask [4, 6] with the given values in it, column by column; the first fills the rest."""
    pixels = np.full((SIZE[1], SIZE[0]), values[0], dtype)
    for place, value in enumerate(values):
        pixels.T.flat[place] = value
    return pixels


def save(path: Path, pixels: np.ndarray, palette: list[int] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette)
    image.save(path)
    return path


def scenes(root: Path, masks: Mapping[str, np.ndarray], palette: list[int] | None = None) -> Path:
    """images/a.jpg and masks/a.png for each name."""
    for name, pixels in masks.items():
        picture(root / "images" / f"{name}.jpg", SIZE)
        save(root / "masks" / f"{name}.png", pixels, palette)
    return root


def says(listing: Listing, *words: str) -> bool:
    return any(all(word in note for word in words) for note in listing.notes)


def index_maps(listing: Listing) -> list[set[int]]:
    found = []
    for record in listing.records:
        assert record.mask is not None
        found.append({int(value) for value in np.unique(read_mask(record.mask))})
    return found


# ---- whose mask it is


@pytest.mark.parametrize(
    ("image", "its_mask"),
    [
        ("images/a.jpg", "masks/a.png"),
        ("train/images/a.jpg", "train/masks/a.png"),
        ("images/train/a.jpg", "labels/train/a.png"),
        ("train/a.jpg", "train_labels/a_L.png"),
        ("train/a.png", "trainannot/a.png"),
        ("JPEGImages/a.jpg", "SegmentationClass/a.png"),
        ("leftImg8bit/train/x/x_1_leftImg8bit.png", "gtFine/train/x/x_1_gtFine_labelIds.png"),
        ("images/a.jpg", "annotations/trimaps/a.png"),
        ("photos/image_1.png", "gt/mask_1.png"),
        ("a.jpg", "a_mask.png"),
        ("train/1_sat.jpg", "train/1_mask.png"),
    ],
)
def test_a_mask_is_found_by_names(tmp_path: Path, image: str, its_mask: str) -> None:
    picture(tmp_path / image, SIZE)
    save(tmp_path / its_mask, mask(0, 1))
    assert mask_folder.matches(tmp_path)
    (record,) = mask_folder.read(tmp_path).records
    assert record.id == image
    assert record.mask is not None and record.mask.path == tmp_path / its_mask
    assert record.size == SIZE


def test_other_data_is_not_taken_for_masks(tmp_path: Path) -> None:
    names = (
        "mask/1.jpg",
        "no_mask/2.jpg",
        "normal/1.jpg",
        "cats/cat_l.jpg",
        "data/images/ski_mask/1.jpg",
        "data/images/ski/2.jpg",
    )
    for name in names:
        picture(tmp_path / name, SIZE)
    assert not mask_folder.matches(tmp_path)
    assert not mask_folder.matches(tmp_path / "mask" / "1.jpg")
    for number in range(12):  # a chance pair among many images
        picture(tmp_path / f"cats/{number}.jpg", SIZE)
    picture(tmp_path / "cats/3_l.jpg", SIZE)
    assert not mask_folder.matches(tmp_path)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "1.txt").write_text("0 .5 .5 .1 .1\n")
    picture(tmp_path / "images" / "1.jpg", SIZE)
    for name in names[:4]:
        (tmp_path / name).unlink()
    assert not mask_folder.matches(tmp_path)


def test_of_several_renderings_the_training_indices_are_taken(tmp_path: Path) -> None:
    picture(tmp_path / "leftImg8bit/x_leftImg8bit.png", SIZE)
    for ending in ("labelIds", "labelTrainIds", "color", "instanceIds"):
        save(tmp_path / f"gtFine/x_gtFine_{ending}.png", mask(0, 1))
    listing = mask_folder.read(tmp_path)
    assert listing.records[0].mask is not None
    assert listing.records[0].mask.path.name == "x_gtFine_labelTrainIds.png"
    assert says(listing, "masks that go with no image: 3")


def test_every_image_is_a_record_or_left_out_with_a_reason(tmp_path: Path) -> None:
    scenes(tmp_path, {"good": mask(0, 1), "small": mask(0, 1)[:2], "broken": mask(0), "image": mask(1)})
    picture(tmp_path / "images/alone.jpg", SIZE)
    picture(tmp_path / "images/two.jpg", SIZE)
    for name in ("two.png", "two.tif"):
        save(tmp_path / "masks" / name, mask(0))
    picture(tmp_path / "images/turned.jpg", SIZE, orientation=6)
    save(tmp_path / "masks/turned.png", mask(0, 1))
    (tmp_path / "masks/broken.png").write_bytes(b"nothing")
    (tmp_path / "images/image.jpg").write_bytes(b"")
    save(tmp_path / "masks/nobody.png", mask(0))
    listing = mask_folder.read(tmp_path)
    assert ids(listing) == ["images/good.jpg"]
    reasons = left_out(listing)
    assert reasons["images/alone.jpg"] == "has no mask"
    assert reasons["images/two.jpg"] == "has two masks, masks/two.png and masks/two.tif; remove one"
    assert reasons["images/small.jpg"] == "its mask is of 6 x 2 pixels, and it of 6 x 4"
    assert "its mask masks/broken.png is not an image" in reasons["images/broken.jpg"]
    assert reasons["images/image.jpg"] == "is empty (0 bytes)"
    assert "before its EXIF orientation" in reasons["images/turned.jpg"]
    assert listing.num_found == 7
    assert says(listing, "masks that go with no image: 3")


def test_a_mask_of_a_turned_photo_counts_in_upright_pixels(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.jpg", SIZE, orientation=6)
    save(tmp_path / "masks/a.png", mask(0, 1).T.copy())
    (record,) = mask_folder.read(tmp_path).records
    assert record.size == (4, 6)


@pytest.mark.parametrize("where", ["{side}/images/{name}.jpg", "images/{side}/{name}.jpg"])
def test_sides_are_given_by_folders(tmp_path: Path, where: str) -> None:
    for side, name in (("train", "a"), ("valid", "b"), ("test", "c")):
        file = where.format(side=side, name=name)
        picture(tmp_path / file, SIZE)
        save(tmp_path / file.replace("images", "masks").replace("jpg", "png"), mask(0, 1))
    picture(tmp_path / "images/extra.jpg", SIZE)
    save(tmp_path / "masks/extra.png", mask(0, 1))
    listing = mask_folder.read(tmp_path)
    assert {record.path.stem: record.split for record in listing.records} == {"a": "train", "b": "val", "c": "test"}
    assert left_out(listing) == {"images/extra.jpg": "beside the folders of the splits"}


def test_sides_are_given_by_pascal_vocs_lists(tmp_path: Path) -> None:
    for name in "abc":
        picture(tmp_path / f"JPEGImages/{name}.jpg", SIZE)
        save(tmp_path / f"SegmentationClass/{name}.png", mask(0, 1), COLOURS.ravel().tolist())
    folder = tmp_path / "ImageSets/Segmentation"
    folder.mkdir(parents=True)
    for side, lines in (("train", "a\n"), ("val", "b\n"), ("trainval", "a\nb\n")):
        (folder / f"{side}.txt").write_text(lines)
    listing = mask_folder.read(tmp_path)
    assert [(record.path.stem, record.split) for record in listing.records] == [("a", "train"), ("b", "val")]
    assert left_out(listing) == {"JPEGImages/c.jpg": "in none of the lists of ImageSets"}
    (folder / "val.txt").write_text("a\n")
    with pytest.raises(DataError, match=r"'a' is in train\.txt and in val\.txt"):
        mask_folder.read(tmp_path)


# ---- what stands in a file


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_and_palettes_of_few_bits_keep_their_indices(tmp_path: Path, bits: int) -> None:
    values = mask(*range(min(2**bits, 20)))
    for name, kind in (("palette", "P"), ("grey", "L")):
        image = Image.fromarray(values)
        if kind == "P":
            image.putpalette([9, 8, 7] * 256)
            image.save(tmp_path / f"{name}.png", bits=bits)
        else:
            write_grey(tmp_path / f"{name}.png", values, bits)
        assert np.array_equal(read_raw(tmp_path / f"{name}.png").values, values), kind


def write_grey(path: Path, values: np.ndarray, bits: int) -> None:
    """A grey PNG of few bits, which Pillow does not write."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape
    rows = b""
    for row in values:
        places = "".join(f"{value:0{bits}b}" for value in row)
        places += "0" * (-len(places) % 8)
        rows += b"\0" + bytes(int(places[i : i + 8], 2) for i in range(0, len(places), 8))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


@given(hnp.arrays(np.uint8, (5, 7)), st.dictionaries(st.integers(0, 255), st.integers(0, 254), max_size=9))
def test_indices_are_looked_up_pixel_by_pixel(
    tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray, values: dict[int, int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "lookup.png"
    wanted = [[values.get(int(value), VOID) for value in row] for row in pixels]
    Image.fromarray(pixels).save(path)
    assert read_mask(MaskFile(path=path, values=values)).tolist() == wanted
    Image.fromarray(pixels.astype(np.uint16) * 257).save(path)
    wide = {value * 257: index for value, index in values.items()}
    assert read_mask(MaskFile(path=path, values=wide)).tolist() == wanted
    Image.fromarray(np.stack([pixels, 255 - pixels, pixels // 2], axis=2)).save(path)
    packed = {v << 16 | (255 - v) << 8 | v // 2: index for v, index in values.items()}
    assert read_mask(MaskFile(path=path, values=packed, colour=True)).tolist() == wanted


@given(hnp.arrays(np.uint8, (3, 5)))
def test_a_saved_mask_reads_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray) -> None:
    path = tmp_path_factory.getbasetemp() / "saved.png"
    save_mask(pixels, path)
    raw = read_raw(path)
    assert np.array_equal(raw.values, pixels)
    assert raw.palette is not None and raw.palette[1] == 0x800000 and raw.palette[15] == 0xC08080


def test_a_replaced_or_unfit_mask_is_an_image_error(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(ImageError, match="holds colours but is to be read as indices; was it replaced"):
        read_mask(MaskFile(path=path, values={0: 0}))
    save(tmp_path / "f.tif", np.zeros((4, 6), np.float32))
    with pytest.raises(ImageError, match=r"f\.tif is of the kind F, which holds no classes"):
        read_mask(MaskFile(path=tmp_path / "f.tif", values={0: 0}))
    with pytest.raises(ImageError, match="does not exist"):
        read_mask(MaskFile(path=tmp_path / "gone.png", values={0: 0}))


# ---- what it means


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


# ---- writing


def content(listing: Listing) -> dict[str, Any]:
    """What a listing says, without where the masks stand and how they are packed."""
    return {
        record.path.name: (record.labels, record.size, record.split, read_mask(record.mask).tolist())
        for record in listing.records
        if record.mask is not None
    }


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(hnp.arrays(np.uint8, (4, 6), elements=st.sampled_from([0, 1, 2, 77])), st.booleans()), max_size=3
    )
)
def test_what_is_written_reads_back(
    tmp_path_factory: pytest.TempPathFactory, masks: list[tuple[np.ndarray, bool]]
) -> None:
    root = tmp_path_factory.mktemp("data")
    masks = [(mask(0, 1, 2), True), (mask(1, 2), False), *masks]
    for place, (pixels, train) in enumerate(masks):
        side = "train" if train else "val"
        picture(root / f"{side}/images/{place}.jpg", SIZE)
        save(root / f"{side}/masks/{place}.png", pixels)
    listing = mask_folder.read(root, marks=Marks(void=(77,)))
    mask_folder.write(listing, root / "copy")
    back = mask_folder.read(root / "copy")
    assert content(back) == content(listing)
    assert (ids(back), back.classes) == (ids(listing), listing.classes)
    mask_folder.write(back, root / "again")
    assert {file.name for file in (root / "again").rglob("*.png")} == {f"{i}.png" for i in range(len(masks))}


def test_names_that_would_mislead_are_flattened_when_written(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / f"data/masks-of-val/{name}/x.jpg", SIZE)
        save(tmp_path / f"data/{name}.png", mask(0, 1))
    records = tuple(
        Record(
            id=f"masks-of-val/{name}/x.jpg",
            path=tmp_path / f"data/masks-of-val/{name}/x.jpg",
            labels=("p", "q"),
            mask=MaskFile(path=tmp_path / f"data/{name}.png", values={0: 0, 1: 1}),
            size=SIZE,
        )
        for name in "ab"
    )
    listing = Listing(root=tmp_path / "data", format="made", records=records, classes=("p", "q"), multi_label=True)
    mask_folder.write(listing, tmp_path / "new")
    back = mask_folder.read(tmp_path / "new")
    assert ids(back) == ["images/masks-of-val-a-x.jpg", "images/masks-of-val-b-x.jpg"]
    assert not back.has_user_split and back.classes == ("p", "q")


def test_what_masks_cannot_hold_is_not_written(tmp_path: Path) -> None:
    listing = mask_folder.read(scenes(tmp_path / "data", {"a": mask(0, 1)}))
    (record,) = listing.records

    def refused(message: str, *records: Record, classes: tuple[str, ...] = ("a", "b")) -> None:
        made = Listing(root=listing.root, format="made", records=records, classes=classes)
        with pytest.raises(DataError, match=message):
            mask_folder.write(made, tmp_path / "new")
        assert not (tmp_path / "new").exists()

    refused("would read back differently", record, classes=("a", " b"))
    refused("would read back differently", record, classes=("a", "void"))
    refused("has no mask", Record(id="a.jpg", path=record.path))
    refused("cannot hold groups", Record(id="a.jpg", path=record.path, mask=record.mask, group="g"))
    twice = Record(id="images/a.png", path=record.path, mask=record.mask)
    refused("two images would have the mask", record, twice)
    with pytest.raises(DataError, match="not an empty folder"):
        mask_folder.write(listing, tmp_path / "data")
