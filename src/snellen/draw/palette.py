"""The colours of classes."""

from __future__ import annotations

import colorsys
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]

# Told apart with any colour vision, on dark and light ground (Okabe & Ito 2008, without its black and grey).
COLOURS: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_HUES, _LIGHTNESSES, _SATURATIONS = 24, (0.3, 0.45, 0.6, 0.75), (1.0, 0.5)


def colour_of(index: int) -> Colour:
    """RGB, 0..255, of class number ``index``; they come again after some two hundred."""
    return _palette()[index % len(_palette())]


@lru_cache(maxsize=1)
def _palette() -> tuple[Colour, ...]:
    """``COLOURS``, and then always what is farthest from all before it, as it is seen (Glasbey et al. 2007,
    doi:10.1002/col.20327)."""
    rest = [
        (round(255 * red), round(255 * green), round(255 * blue))
        for hue in range(_HUES)
        for lightness in _LIGHTNESSES
        for saturation in _SATURATIONS
        for red, green, blue in [colorsys.hls_to_rgb(hue / _HUES, lightness, saturation)]
    ]
    seen, chosen = _as_seen(rest), list(COLOURS)
    nearest = np.linalg.norm(seen[:, None] - _as_seen(COLOURS), axis=2).min(axis=1)
    for _ in rest:
        best = int(nearest.argmax())
        chosen.append(rest[best])
        nearest = np.minimum(nearest, np.linalg.norm(seen - seen[best], axis=1))
        nearest[best] = -1.0
    return tuple(chosen)


def _as_seen(colours: list[Colour] | tuple[Colour, ...]) -> NDArray[np.float64]:
    """sRGB [n, 3] -> Oklab [n, 3], where distances are about as large as they look (Ottosson 2020)."""
    encoded = np.array(colours, float) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.asarray(
        np.cbrt(cones)
        @ np.array(
            [
                [0.2104542553, 1.9779984951, 0.0259040371],
                [0.7936177850, -2.4285922050, 0.7827717662],
                [-0.0040720468, 0.4505937099, -0.8086757660],
            ]
        )
    )
