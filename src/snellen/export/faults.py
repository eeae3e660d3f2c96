"""What goes wrong between a file and a network when a model is deployed: each fault as the code that commits it.

Goldens are chosen so that they notice these (``goldens.py``). Most come from threads in which somebody's exported model
was worse than the one that was trained: channels, resize, normalisation, layout, geometry, decoding.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from snellen.core.geometry import Matrix, compose, invert, translation
from snellen.core.preprocessing import Preprocessing
from snellen.data.store import frame_of, prepare

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Fault = Callable[[Pixels, Preprocessing], Floats]
"""An image uint8 [H, W, 3] -> what the network would be fed, float32 [h, w, 3], where 0..255 is as it should be."""

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
NUDGE = 0.01  # of a grey level: moves scores about as much as another order of sums in single precision does


def right(image: Pixels, preprocessing: Preprocessing) -> Floats:
    """No fault."""
    return prepare(image, preprocessing, (image.shape[1], image.shape[0])).astype(np.float32)


def nudged(pixels: Floats, draw: int) -> Floats:
    """No fault either: each pixel is at most ``NUDGE`` off, otherwise with each draw."""
    return (pixels + np.random.default_rng(draw).uniform(-NUDGE, NUDGE, pixels.shape)).astype(np.float32)


def _changed(change: Callable[[Pixels], NDArray[Any]]) -> Fault:
    """The image is changed before it is placed."""
    return lambda image, how: right(np.ascontiguousarray(change(image)).astype(np.uint8), how)


def _fed(change: Callable[[Floats], NDArray[Any]]) -> Fault:
    """What the network gets is changed."""
    return lambda image, how: np.asarray(change(right(image, how)), np.float32)


def _otherwise(**changes: Any) -> Fault:
    """Another preprocessing is used."""
    return lambda image, how: right(image, replace(how, **changes))


def _normalised(mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> Fault:
    """Standardised by other numbers; None: by the right ones."""

    def fault(image: Pixels, how: Preprocessing) -> Floats:
        own_mean, own_std = np.array(how.mean), np.array(how.std)
        wrong = (right(image, how) / 255 - (own_mean if mean is None else mean)) / (own_std if std is None else std)
        return np.asarray(255 * (wrong * own_std + own_mean), np.float32)

    return fault


def _filtered(resample: Image.Resampling) -> Fault:
    """The resize has another filter: the whole image at the size that the right one gives it, placed alike."""

    def fault(image: Pixels, how: Preprocessing) -> Floats:
        matrix = frame_of((image.shape[1], image.shape[0]), how).matrix
        size = (max(1, round(image.shape[1] * matrix[0, 0])), max(1, round(image.shape[0] * matrix[1, 1])))
        resized = np.asarray(Image.fromarray(image).resize(size, resample))
        out = right(image, how)
        left, top = round(matrix[0, 2]), round(matrix[1, 2])
        x0, y0 = max(0, left), max(0, top)
        x1, y1 = min(out.shape[1], left + size[0]), min(out.shape[0], top + size[1])
        out[y0:y1, x0:x1] = resized[y0 - top : y1 - top, x0 - left : x1 - left]
        return out

    return fault


def _sampled(image: Pixels, how: Preprocessing, *, moved: Callable[[Matrix, Preprocessing], Matrix]) -> Floats:
    """Bilinear, between the four nearest pixels only; ``moved`` changes where they are looked for."""
    matrix = moved(frame_of((image.shape[1], image.shape[0]), how).matrix, how)
    flat = invert(matrix).ravel()[:6].tolist()
    kind = Image.Transform.AFFINE
    made = Image.fromarray(image).transform(how.input_size, kind, flat, Image.Resampling.BILINEAR, fillcolor=(124,) * 3)
    return np.asarray(made, np.float32)


def _stay(matrix: Matrix, how: Preprocessing) -> Matrix:
    return matrix


def _no_half_pixel(matrix: Matrix, how: Preprocessing) -> Matrix:
    """Pixel i of the output is looked for at i times the scale, as where centres are forgotten."""
    return compose(translation(-0.5, -0.5), matrix, translation(0.5, 0.5))


def _aligned_corners(matrix: Matrix, how: Preprocessing) -> Matrix:
    """The outermost centres lie on each other."""
    width, height = how.input_size
    shrunk = np.diag([(width - 1) / width, (height - 1) / height, 1.0])
    return compose(matrix, shrunk, translation(0.5, 0.5))


def _shifted(pixels: float) -> Fault:
    return partial(_sampled, moved=lambda matrix, how: compose(matrix, translation(pixels, pixels)))


def _twice(image: Pixels, how: Preprocessing) -> Floats:
    """Resized to a common size first, as by a web page that makes thumbnails."""
    half = (max(1, image.shape[1] // 2), max(1, image.shape[0] // 2))
    return right(np.asarray(Image.fromarray(image).resize(half, Image.Resampling.BILINEAR)), how)


def _compressed(image: Pixels) -> Pixels:
    written = io.BytesIO()
    Image.fromarray(image).save(written, "JPEG", quality=40)
    return np.asarray(Image.open(io.BytesIO(written.getvalue())).convert("RGB"))


def _zoomed(image: Pixels, how: Preprocessing) -> Floats:
    height, width = image.shape[:2]
    x, y = width // 10, height // 10
    return right(np.ascontiguousarray(image[y : height - y, x : width - x]), how)


def _in_a_corner(image: Pixels, how: Preprocessing) -> Floats:
    """The whole image at the top left with black around it: as a letterbox of another kind."""
    width, height = how.input_size
    scale = min(width / image.shape[1], height / image.shape[0])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    out = np.zeros((height, width, 3), np.float32)
    out[: size[1], : size[0]] = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    return out


def _grey(image: Pixels) -> Pixels:
    return np.repeat(np.asarray(Image.fromarray(image).convert("L"))[:, :, None], 3, axis=2)


def _stretched(x: Floats) -> Floats:
    return np.asarray((x - x.min()) * (255 / max(1.0, float(x.max() - x.min()))), np.float32)


FAULTS: Mapping[str, Fault] = {
    "blue and red swapped": _changed(lambda image: image[:, :, ::-1]),
    "red and green swapped": _changed(lambda image: image[:, :, [1, 0, 2]]),
    "grey instead of colour": _changed(_grey),
    "no antialiasing": partial(_sampled, moved=_stay),
    "nearest pixel": _filtered(Image.Resampling.NEAREST),
    "box filter": _filtered(Image.Resampling.BOX),
    "bicubic": _filtered(Image.Resampling.BICUBIC),
    "Lanczos": _filtered(Image.Resampling.LANCZOS),
    "corners aligned": partial(_sampled, moved=_aligned_corners),
    "centres of pixels forgotten": partial(_sampled, moved=_no_half_pixel),
    "half a pixel off": _shifted(0.5),
    "one pixel off": _shifted(1.0),
    "shrunk twice": _twice,
    "divided by 255 twice": _fed(lambda x: x / 255),
    "not divided by 255": _fed(lambda x: x * 255),
    "no mean subtracted": _normalised((0.0, 0.0, 0.0), None),
    "not divided by the deviation": _normalised(None, (1.0, 1.0, 1.0)),
    "another mean and deviation": lambda image, how: _normalised(
        *(_HALVES if np.allclose(how.mean, _IMAGENET[0], atol=0.02) else _IMAGENET)
    )(image, how),
    "twice the contrast": _fed(lambda x: 2 * x - 127.5),
    "contrast stretched": _fed(_stretched),
    "linear light": _fed(lambda x: 255 * (x / 255) ** 2.2),
    "video range": _fed(lambda x: x * (219 / 255) + 16),
    "bytes with a sign": _fed(lambda x: np.where(x > 127, x - 256, x)),
    "compressed again": _changed(_compressed),
    "channels first": _fed(lambda x: x.transpose(2, 0, 1).reshape(x.shape)),
    "rows for columns": _changed(lambda image: image.transpose(1, 0, 2)),
    "mirrored": _changed(lambda image: image[:, ::-1]),
    "upside down": _changed(lambda image: image[::-1]),
    "orientation ignored": _changed(lambda image: np.rot90(image)),
    "cut at the borders": _zoomed,
    "in a corner, black around it": _in_a_corner,
    "squashed": _otherwise(fit="squash"),
    "letterbox": _otherwise(fit="letterbox"),
    "centre crop": _otherwise(fit="center crop"),
}


def is_one(fault: Fault, image: Pixels, preprocessing: Preprocessing) -> bool:
    """Whether it changes what a network is fed at all: 'squashed' is no fault of a model that squashes."""
    return not np.array_equal(fault(image, preprocessing), right(image, preprocessing))
