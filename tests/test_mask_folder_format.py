"""Masks: whose they are, what stands in them, what is left out, and that they are written as they were read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from listings import ids, left_out
from mask_folders import SIZE, mask, save, says, scenes
from object_listings import picture
from snellen.core.annotation import MaskFile
from snellen.core.errors import DataError, ImageError
from snellen.core.record import Listing, Record
from snellen.data.formats import Marks, mask_folder
from snellen.data.mask_files import COLOURS, VOID, read_mask, read_raw, save_mask

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
