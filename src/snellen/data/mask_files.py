"""Image files that hold a class for each pixel: what stands in them names a class, and is no shade to be converted.

What is read from a file, by its Pillow mode:

* palette (P): the indices. The colours are kept beside them, since some tables name classes by colour.
* grey (1, L, I;16, I): the values. Pillow stretches grey of 2 and 4 bits to 0..255; that is undone.
* colour (RGB): each colour packed into one number, R << 16 | G << 8 | B.
* transparency is dropped; of several pages the first is read; the file's own EXIF orientation is applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from snellen.core.annotation import MaskFile
from snellen.core.errors import ImageError
from snellen.data.image import Pixels, header_of, opened, turned, turns_itself

VOID = 255
"""Stands in class maps for pixels that mean nothing: they are neither learnt nor judged."""

MOST_CLASSES = 255

_GREY_STEPS = {"L;2": 85, "L;4": 17}  # what Pillow multiplies grey of few bits by
_LOSSY = ("JPEG", "MPO")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawMask:
    """What stands in a mask file.

    values   [H, W] integers: indices, grey values or packed colours
    colour   whether they are packed colours
    palette  of a palette image: index -> packed colour; else None
    lossy    whether the file was compressed in a way that changes values (JPEG)
    """

    values: npt.NDArray[Any]
    colour: bool
    palette: Mapping[int, int] | None
    lossy: bool


def read_mask(mask: MaskFile) -> Pixels:
    """uint8 [H, W] of class indices; VOID where the file holds what ``mask.values`` does not.

    Raises ImageError when the file cannot be decoded, or is of another kind than when ``mask`` was made.
    """
    raw = read_raw(mask.path)
    if raw.colour != mask.colour:
        kinds = ("indices", "colours")
        raise ImageError(
            f"{mask.path} holds {kinds[raw.colour]} but is to be read as {kinds[mask.colour]}; was it replaced?"
        )
    if raw.values.dtype == np.uint8:
        table = np.full(256, VOID, np.uint8)
        for value, index in mask.values.items():
            if 0 <= value < len(table):
                table[value] = index
        return np.asarray(table[raw.values])
    return _mapped(raw.values, mask.values)


def read_raw(path: Path) -> RawMask:
    """The values in a mask file, unconverted. Raises ImageError, which names the file and the reason."""
    with opened(path) as image:
        header = header_of(image)
        orientation = 1 if turns_itself(image) else header.orientation
        step = _GREY_STEPS.get(_raw_mode(image), 1)
        image.load()
        palette = _palette(image)
        values = _values(image) // step if step > 1 else _values(image)
        colour = values.dtype == np.uint32
        upright = np.ascontiguousarray(turned(values[:, :, None], orientation)[:, :, 0])
    return RawMask(values=upright, colour=colour, palette=palette, lossy=header.format in _LOSSY)


def distinct(values: npt.NDArray[Any]) -> list[int]:
    """The values that occur, sorted."""
    if values.dtype == np.uint8:
        return [int(value) for value in np.flatnonzero(np.bincount(values.ravel(), minlength=256))]
    return [int(value) for value in np.unique(values.ravel()[_run_starts(values)])]


def _mapped(values: npt.NDArray[Any], classes: Mapping[int, int]) -> Pixels:
    """Each run of equal values is looked up once: masks are made of runs, and a table of all colours is 16 MB."""
    starts = _run_starts(values)
    keys = np.array(sorted(classes), np.int64)
    indices = np.array([classes[int(key)] for key in keys] + [VOID], np.uint8)
    first = values.ravel()[starts].astype(np.int64)
    place = np.searchsorted(keys, first)
    found = np.append(keys, -1)[place] == first
    of_runs = indices[np.where(found, place, len(keys))]
    return np.repeat(of_runs, np.diff(starts, append=values.size)).reshape(values.shape)


def _run_starts(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    flat = values.ravel()
    return np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])


# ---- one file


def _raw_mode(image: Image.Image) -> str:
    """How the pixels are packed in the file; known only before they are decoded."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return ""
    args = image.tile[0].args
    return str(args[0]) if isinstance(args, tuple) and args else str(args)


def _palette(image: Image.Image) -> dict[int, int] | None:
    if image.mode not in ("P", "PA"):
        return None
    flat = image.getpalette("RGB") or []
    return {index: pack(*flat[3 * index : 3 * index + 3]) for index in range(len(flat) // 3)}


def pack(red: int, green: int, blue: int) -> int:
    return red << 16 | green << 8 | blue


def _values(image: Image.Image) -> npt.NDArray[Any]:
    """uint8, uint16 or int32 [H, W] for indices and grey; uint32 for packed colours. Raises ImageError."""
    mode = image.mode
    if mode in ("P", "L", "I"):
        return np.asarray(image)
    if mode == "1":
        return np.asarray(image).astype(np.uint8)
    if mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)  # big-endian files keep their order in Pillow
    if mode in ("PA", "LA", "La"):
        return np.asarray(image)[:, :, 0]
    if mode in ("RGB", "RGBA", "RGBX"):
        four = np.asarray(image if mode != "RGB" else image.convert("RGBX"))
        return np.asarray(four.view(">u4")[:, :, 0] >> 8, np.uint32)
    raise ImageError(f"is of the kind {mode}, which holds no classes; save the mask as a PNG of indices or colours")


# ---- writing


def save_mask(indices: Pixels, path: Path) -> None:
    """Write uint8 [H, W] as a PNG of indices, with a palette to look at. Raises OSError."""
    image = Image.fromarray(indices, "L")
    image.putpalette(COLOURS.tobytes())  # makes it a palette image; the values stay
    image.save(path, "PNG")


def _colours() -> Pixels:
    """uint8 [256, 3]: the colours of Pascal VOC, in which the bits of the index are dealt out to R, G, B in turn."""
    index = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for level in range(3):
        for channel in range(3):
            colours[:, channel] |= ((index >> (3 * level + channel) & 1) << (7 - level)).astype(np.uint8)
    return colours


COLOURS = _colours()
