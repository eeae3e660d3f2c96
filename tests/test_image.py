from __future__ import annotations

import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from evil_images import (
    chunk,
    encoded,
    exif,
    grey_16_ramp,
    palette_with_hidden_red,
    png,
    samples,
    scene,
)
from snellen.data.image import decode, read_header

SAMPLES = samples()
WHITE = [255, 255, 255]


@pytest.mark.parametrize("name", SAMPLES)
def test_every_format_decodes_to_the_pixels_of_the_picture(name: str) -> None:
    pixels = decode(SAMPLES[name])
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous and pixels.flags.writeable
    assert pixels.shape == (24, 40, 3)
    assert np.abs(pixels.astype(int) - np.asarray(scene())).mean() < 6  # GIF has 256 colours, JPEG loses some


@pytest.mark.parametrize("name", SAMPLES)
def test_header_agrees_with_the_decoded_picture(name: str) -> None:
    header = read_header(SAMPLES[name])
    assert (header.height, header.width) == decode(SAMPLES[name]).shape[:2]
    assert name.split()[-1] == header.format or name.split()[0] == header.format
    assert header.orientation == 1


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "TIFF deflate", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations_come_out_as_a_viewer_shows_them(format: str, orientation: int) -> None:
    options = {"compression": "tiff_adobe_deflate"} if "deflate" in format else {}
    data = encoded(scene(), format.split()[0], exif=exif(orientation), **options)
    with Image.open(BytesIO(data)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    assert np.array_equal(decode(data), expected)
    header = read_header(data)
    assert (header.height, header.width) == expected.shape[:2]
    assert header.orientation == orientation


def test_exif_after_the_pixels_of_a_png_counts_as_well() -> None:
    rows = b"".join(b"\x00" + bytes(12) for _ in range(7))
    data = png(4, 7, 8, 2, rows, late=chunk(b"eXIf", exif(6)[6:]))
    header = read_header(data)
    assert (header.width, header.height, header.orientation) == (7, 4, 6)
    assert decode(data).shape == (4, 7, 3)


@pytest.mark.parametrize("orientation", [0, 9, 400])
def test_an_orientation_that_does_not_exist_is_upright(orientation: int) -> None:
    data = encoded(scene(), "JPEG", exif=exif(orientation))
    assert read_header(data).orientation == 1
    assert decode(data).shape == (24, 40, 3)


def test_16_bit_grey_keeps_its_256_levels() -> None:
    pixels = decode(grey_16_ramp())
    assert np.array_equal(pixels[0, :, 0], np.arange(256))


def test_16_bit_values_of_a_12_bit_camera_follow_the_same_rule() -> None:
    values = np.arange(0, 4096, 16, dtype=np.uint16)[None, :]
    assert np.array_equal(decode(encoded(Image.fromarray(values), "PNG"))[0, :, 0], values[0] >> 8)


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_16_bit_tiff_of_both_byte_orders(byte_order: str) -> None:
    values = np.arange(0, 65536, 257, dtype=np.uint16)[None, :]
    mark = b"II*\x00" if byte_order == "<" else b"MM\x00*"
    tags = [(256, 256), (257, 1), (258, 16), (259, 1), (262, 1), (273, 128), (277, 1), (278, 1), (279, 512)]
    entries = b"".join(
        struct.pack(byte_order + "HHI", tag, 3, 1) + struct.pack(byte_order + "HH", value, 0) for tag, value in tags
    )
    head = mark + struct.pack(byte_order + "IH", 8, len(tags)) + entries + bytes(4)
    data = head.ljust(128, b"\0") + values.astype(byte_order + "u2").tobytes()
    assert np.array_equal(decode(data)[0, :, 0], np.arange(256))


INTEGER_AND_FLOAT = [
    ("integers that fit 16 bits", np.array([[0, 256, 65535]], np.int32), [0, 1, 255]),
    ("large integers", np.array([[0, 1_000_000, 2_000_000]], np.int32), [0, 128, 255]),
    ("negative integers", np.array([[-300, 0, 300]], np.int32), [0, 128, 255]),
    ("constant integers", np.array([[70_000, 70_000]], np.int32), [0, 0]),
    ("floats of 0..1", np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
    ("floats of 0..255", np.array([[0.0, 100.4, 255.0]], np.float32), [0, 100, 255]),
    ("large floats", np.array([[0.0, 5e8, 1e9]], np.float32), [0, 128, 255]),
    ("negative floats", np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
    ("not a number", np.array([[np.nan, np.inf, 0.5]], np.float32), [0, 0, 128]),
]


@pytest.mark.parametrize(
    ("values", "expected"), [case[1:] for case in INTEGER_AND_FLOAT], ids=[c[0] for c in INTEGER_AND_FLOAT]
)
def test_32_bit_greys_follow_the_documented_rule(values: np.ndarray, expected: list[int]) -> None:
    pixels = decode(encoded(Image.fromarray(values), "TIFF"))
    assert pixels[0, :, 0].tolist() == expected


def transparent_red(mode: str) -> Image.Image:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((0, 0), (0, 0, 255, 255))
    return image.convert(mode)


HIDDEN = {
    "RGBA PNG": encoded(transparent_red("RGBA"), "PNG"),
    "RGBA WEBP": encoded(transparent_red("RGBA"), "WEBP", lossless=True, exact=True),
    "RGBA TIFF": encoded(transparent_red("RGBA"), "TIFF"),
    "palette, one index": palette_with_hidden_red(1),
    "palette, alpha for each index": palette_with_hidden_red(b"\xff\x00"),
    "RGB colour key": png(
        2, 1, 8, 2, b"\0\x00\x00\xff\xff\x00\x00", extra=chunk(b"tRNS", struct.pack(">3H", 255, 0, 0))
    ),
    "16-bit RGB colour key": png(
        2,
        1,
        16,
        2,
        b"\0" + struct.pack(">6H", 0, 0, 65535, 65535, 0, 0),
        extra=chunk(b"tRNS", struct.pack(">3H", 65535, 0, 0)),
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_colours_do_not_show(name: str) -> None:
    pixels = decode(HIDDEN[name])
    assert pixels[0, 0].tolist() == [0, 0, 255]
    assert pixels[-1, -1].tolist() == WHITE


GREY_KEYS = {
    # depth, one row of samples, key -> what shows
    1: (b"\x00\x40", 1, [0, 255]),
    2: (b"\x00\x10", 1, [0, 255]),
    4: (b"\x00\x03", 3, [0, 255]),
    8: (b"\x00\x00\x03", 3, [0, 255]),
    16: (b"\x00\x00\x00\x03\x00", 0x300, [0, 255]),
}


@pytest.mark.parametrize("depth", GREY_KEYS)
def test_a_transparent_grey_is_white_at_every_depth(depth: int) -> None:
    row, key, expected = GREY_KEYS[depth]
    data = png(2, 1, depth, 0, row, extra=chunk(b"tRNS", struct.pack(">H", key)))
    assert decode(data)[0, :, 0].tolist() == expected


def test_half_transparent_grey_is_mixed_with_white() -> None:
    pixels = decode(encoded(Image.new("LA", (2, 2), (0, 128)), "PNG"))
    assert pixels[0, 0].tolist() == [127, 127, 127]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_opaque_alpha_changes_nothing(width: int, height: int, seed: int) -> None:
    colours = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(colours)
    image.putalpha(255)
    assert np.array_equal(decode(encoded(image, "PNG")), colours)


@pytest.mark.parametrize(
    ("mode", "format", "colour", "expected"),
    [
        ("CMYK", "JPEG", (0, 255, 255, 0), [255, 0, 0]),
        ("CMYK", "TIFF", (0, 255, 255, 0), [255, 0, 0]),
        ("1", "PNG", 1, WHITE),
        ("1", "TIFF", 0, [0, 0, 0]),
        ("L", "JPEG", 77, [77, 77, 77]),
        ("P", "BMP", 0, [0, 0, 0]),
        ("LAB", "TIFF", (255, 128, 128), WHITE),
        ("YCbCr", "JPEG", (200, 128, 128), [200, 200, 200]),
        ("I;16", "JPEG2000", 0x8040, [0x80, 0x80, 0x80]),
    ],
)
def test_modes_become_rgb(mode: str, format: str, colour: int | tuple[int, ...], expected: list[int]) -> None:
    pixels = decode(encoded(Image.new(mode, (16, 16), colour), format))
    assert np.abs(pixels[8, 8].astype(int) - expected).max() <= 2


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_first_frame_of_an_animation_is_used(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    assert np.abs(decode(data)[4, 4].astype(int) - [255, 0, 0]).max() <= 2


def test_the_first_picture_of_a_jpeg_that_carries_two_is_used() -> None:
    data = encoded(scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    assert read_header(data).format == "MPO"
    assert decode(data).shape == (24, 40, 3)


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(SAMPLES["JPEG"])
    assert read_header(path).format == "JPEG"
    assert np.array_equal(decode(str(path)), decode(SAMPLES["JPEG"]))


# ---- reduced decoding


@pytest.mark.parametrize(("min_side", "scale"), [(8, 8), (16, 4), (32, 2), (64, 1), (100, 1), (1000, 1)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_large_jpeg_is_decoded_at_the_smallest_scale_that_leaves_twice_min_side(
    min_side: int, scale: int, mode: str
) -> None:
    data = encoded(scene(208, 136).convert(mode), "JPEG", quality=95)
    pixels = decode(data, min_side=min_side)
    assert pixels.shape == (136 // scale, 208 // scale, 3)
    assert min(pixels.shape[:2]) >= min(2 * min_side, 136)
    whole = Image.fromarray(decode(data))
    expected = np.asarray(whole.resize((pixels.shape[1], pixels.shape[0]), Image.Resampling.BOX), dtype=int)
    assert np.abs(pixels - expected).mean() < 2


@pytest.mark.parametrize("orientation", [1, 6])
def test_reduced_decoding_turns_the_picture_too(orientation: int) -> None:
    data = encoded(scene(200, 120), "JPEG", exif=exif(orientation))
    assert decode(data, min_side=30).shape == ((60, 100, 3) if orientation == 1 else (100, 60, 3))


@pytest.mark.parametrize("name", SAMPLES)
def test_min_side_leaves_small_images_alone(name: str) -> None:
    assert np.array_equal(decode(SAMPLES[name], min_side=13), decode(SAMPLES[name]))


def test_decoding_imports_no_heavy_package() -> None:
    program = (
        "import sys, snellen.data.image; print(sorted({'torch', 'sklearn', 'pyarrow', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
