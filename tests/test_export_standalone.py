"""The forty lines beside an artifact read images as Snellen does, or say that they cannot."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from snellen.data.image import decode
from snellen.export.write import standalone_source

WAYS = {
    "jpg": ("RGB", "L", "CMYK"),
    "png": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
    "tif": ("RGB", "RGBA", "L", "CMYK", "I;16", "1"),
    "webp": ("RGB", "RGBA"),
    "gif": ("P",),
    "bmp": ("RGB", "L"),
    "pgm": ("L", "I;16"),
}


@pytest.fixture(scope="module")
def pixels_of() -> Callable[[str], np.ndarray]:
    """The function of the script, without what it does when it is run."""
    tree = ast.parse(standalone_source().read_text())
    parts = [each for each in tree.body if isinstance(each, ast.Import | ast.ImportFrom | ast.FunctionDef)]
    names: dict[str, Any] = {}
    exec(compile(ast.Module(parts, []), "predict.py", "exec"), names)
    return names["pixels_of"]  # type: ignore[no-any-return]


def an_image(mode: str, rng: np.random.Generator) -> Image.Image:
    width, height = rng.integers(1, 40, 2)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (height, width)).astype(np.uint16))
    image = Image.fromarray(rng.integers(0, 256, (height, width, 4), dtype=np.uint8))
    image = image if mode in ("RGBA", "LA") else image.convert("RGB")
    return image.convert(mode)


@pytest.mark.parametrize("suffix", WAYS)
def test_the_script_sees_the_pixels_that_snellen_sees(
    suffix: str, pixels_of: Callable[[str], np.ndarray], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    turns = range(1, 9) if suffix in ("jpg", "png", "tif", "webp") else (1,)
    for mode in WAYS[suffix]:
        for orientation in turns:
            path = tmp_path / f"{mode[0]}{orientation}.{suffix}"
            exif = Image.Exif()
            exif[0x0112] = orientation
            an_image(mode, rng).save(path, exif=exif) if len(turns) > 1 else an_image(mode, rng).save(path)
            np.testing.assert_array_equal(pixels_of(str(path)), decode(path), err_msg=path.name)


def test_the_script_refuses_pixels_whose_range_it_does_not_know(
    pixels_of: Callable[[str], np.ndarray], tmp_path: Path
) -> None:
    for values in (np.ones((3, 4), np.float32), np.full((3, 4), 100_000, np.int32)):
        Image.fromarray(values).save(tmp_path / "deep.tif")
        with pytest.raises(SystemExit, match=r"deep\.tif has 32 bits a pixel, which may mean any range: save it"):
            pixels_of(str(tmp_path / "deep.tif"))
