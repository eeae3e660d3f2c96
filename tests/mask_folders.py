"""Folders of images with masks made of a few values, and what their listings say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from object_listings import picture
from snellen.core.record import Listing

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
