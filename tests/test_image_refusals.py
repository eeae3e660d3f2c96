from __future__ import annotations

import os
import random
import re
import threading
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evil_images import bomb_png, grey_16_ramp, jpeg_with_damaged_exif, palette_with_hidden_red, png, samples
from snellen.core.errors import ImageError
from snellen.data import image as module
from snellen.data.image import MAX_PIXELS, decode, read_header

SAMPLES = samples()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty.jpg", b"", "empty (0 bytes)"),
        ("page.jpg", b"<!DOCTYPE html><html>404</html>", "not an image"),
        ("one.png", b"\x89", "not an image"),
        ("photo.heic", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00heicmif1", "convert it to JPEG"),
        ("cut.jpg", SAMPLES["JPEG"][: len(SAMPLES["JPEG"]) * 9 // 10], "truncated"),
        ("header.jpg", SAMPLES["JPEG"][: len(SAMPLES["JPEG"]) // 2], "truncated in its header"),
        ("bomb.png", bomb_png(), "more than the limit"),
        ("run.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ],
)
def test_an_unfit_file_is_named_with_the_reason(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ImageError) as from_path:
        decode(path)
    assert str(path) in str(from_path.value) and reason in str(from_path.value)
    assert "\n" not in str(from_path.value)
    with pytest.raises(ImageError, match="the uploaded image"):
        decode(data)


def test_what_is_no_file_is_named_with_the_reason(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "two\nlines.jpg").write_bytes(b"no image")
    for name, reason in {
        "missing.jpg": "does not exist",
        ".": "is a folder",
        "pipe.jpg": "not a regular file",
        "nul\0.jpg": "null byte",
        "two\nlines.jpg": r"two\\nlines.jpg' is not an image",
    }.items():
        for read in (decode, read_header):
            with pytest.raises(ImageError, match=reason) as caught:
                read(tmp_path / name)
            assert "\n" not in str(caught.value)


def test_a_bomb_is_refused_before_any_pixel_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bomb_png()
    assert len(data) < 60_000
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("pixels were decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("pixels were decoded"))
    for read in (decode, read_header):
        with pytest.raises(ImageError, match=f"20000 x 20000 = 400000000 pixels, more than the limit of {MAX_PIXELS}"):
            read(data)


def test_images_between_pillows_limits_and_ours_are_read_without_a_warning() -> None:
    side = 13_500  # 182 million pixels: Image.open raises here
    data = png(side, side, 1, 0, b"\x00")
    with pytest.raises(Image.DecompressionBombError):
        Image.open(BytesIO(data))
    assert read_header(data).width == side
    tall = png(60_000, 1, 1, 0, b"\x00" + bytes(7_500))
    assert decode(tall).shape == (1, 60_000, 3)


def test_pillows_own_limit_is_left_alone() -> None:
    before = Image.MAX_IMAGE_PIXELS
    decode(SAMPLES["PNG"])
    assert before == Image.MAX_IMAGE_PIXELS


# ---- damage


@pytest.mark.parametrize("name", SAMPLES)
def test_every_truncation_decodes_whole_or_raises_image_error(name: str) -> None:
    data = SAMPLES[name]
    whole = decode(data)
    refused = 0
    for end in range(0, len(data), max(1, len(data) // 300)):
        for read in (decode, read_header):
            try:
                result = read(data[:end])
            except ImageError:
                refused += 1
            else:
                # JPEG 2000 is made to be cut: a shorter stream is the same picture, coarser.
                assert read is read_header or name == "JPEG2000" or np.array_equal(result, whole)
    assert refused > 0


@pytest.mark.parametrize("name", SAMPLES)
def test_flipped_bytes_decode_or_raise_image_error(name: str) -> None:
    rng = random.Random(name)
    for _ in range(150):
        data = bytearray(SAMPLES[name])
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(min(len(data), 400))] = rng.randrange(256)
        try:
            header = read_header(bytes(data))
            if header.width * header.height > 10_000_000:  # allowed, but slow to decode here
                continue
            assert decode(bytes(data)).shape == (header.height, header.width, 3)
        except ImageError:
            pass


def test_damaged_exif_is_no_reason_to_lose_a_photo() -> None:
    data = jpeg_with_damaged_exif()
    with pytest.warns(UserWarning), Image.open(BytesIO(data)) as opened:
        opened.getexif()
    assert decode(data).shape == (24, 40, 3)
    assert read_header(data).orientation == 1


# ---- warnings and threads


def test_scikit_learn_runs_in_parallel_after_an_image_was_read() -> None:
    """It copies the filters of warnings to its workers, and takes those of modules for regular expressions."""
    from sklearn.utils.parallel import Parallel, delayed

    with warnings.catch_warnings():
        with module._pillow_warnings_off():
            pass
        assert module._FILTER in warnings.filters
        assert Parallel(n_jobs=1)(delayed(abs)(each) for each in (-1, 2)) == [1, 2]
    assert re.match(module._DecodingThread.pattern, "PIL.TiffImagePlugin")


def test_pillow_warnings_are_silent_only_while_decoding() -> None:
    data = jpeg_with_damaged_exif()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        decode(data)
        assert seen == []
        with Image.open(BytesIO(data)) as opened:
            opened.getexif()
        assert seen != []


def test_other_peoples_filters_stay_and_ours_is_there_once() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("default", ResourceWarning)
        others = [item for item in warnings.filters if item is not module._FILTER]
        for _ in range(3):
            decode(SAMPLES["GIF"])
            warnings.filters.insert(0, ("default", None, BytesWarning, None, 0))
            others.insert(0, warnings.filters[0])
            decode(SAMPLES["GIF"])
        assert warnings.filters == [module._FILTER, *others]


def test_many_threads_decode_the_same_pixels() -> None:
    inputs = [*SAMPLES.values(), jpeg_with_damaged_exif(), grey_16_ramp(), palette_with_hidden_red(b"\xff\x00")]
    expected = [decode(data) for data in inputs]
    failures: list[object] = []

    def work() -> None:
        for data, pixels in zip(inputs, expected, strict=True):
            try:
                if not np.array_equal(decode(data), pixels):
                    failures.append("other pixels")
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
