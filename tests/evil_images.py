"""Makers of images as they come from cameras, scanners, scrapers and attackers. All in memory, all a few kB."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

ORIENTATION_TAG = 0x0112


def scene(width: int = 40, height: int = 24) -> Image.Image:
    """A smooth picture without any symmetry: the four corners differ."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return Image.fromarray(np.stack([255 * x, 255 * y, 255 * x * (1 - y)], axis=2).astype(np.uint8))


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[ORIENTATION_TAG] = orientation
    return tags.tobytes()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *, extra: bytes = b"", late: bytes = b""
) -> bytes:
    """A PNG from its parts: ``rows`` as in the file (each row begins with its filter byte), ``extra`` chunks before
    the pixels and ``late`` ones after them."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + pixels + late + chunk(b"IEND", b"")


def grey_16_ramp(*, key: int | None = None) -> bytes:
    """256 x 2 pixels, 16-bit grey, column i holds 257 * i; ``key`` is the transparent value."""
    row = b"\x00" + np.arange(0, 65536, 257, dtype=">u2").tobytes()
    return png(256, 2, 16, 0, row * 2, extra=b"" if key is None else chunk(b"tRNS", struct.pack(">H", key)))


def bomb_png(side: int = 20_000) -> bytes:
    """About 49 kB that decode to side * side pixels of 1 bit."""
    return png(side, side, 1, 0, (b"\x00" + bytes((side + 7) // 8)) * side)


def jpeg_with_damaged_exif() -> bytes:
    """A sound JPEG whose EXIF points beyond its end, as cameras and scrapers leave it; Pillow warns about it."""
    bad = b"Exif\x00\x00II*\x00\x08\x00\x00\x00" + b"\x02\x00" + struct.pack("<HHII", 0x010E, 2, 500_000, 400_000) * 2
    return encoded(scene(), "JPEG", exif=bad)


def palette_with_hidden_red(transparency: int | bytes) -> bytes:
    """One blue pixel; the red ones are transparent, by an index or by an alpha for each index."""
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 255, 255, 0, 0])
    image.putpixel((0, 0), 0)
    return encoded(image, "PNG", transparency=transparency)


def samples() -> dict[str, bytes]:
    """One sound file of each format that is read."""
    image = scene()
    return {
        "JPEG": encoded(image, "JPEG", quality=90),
        "progressive JPEG": encoded(image, "JPEG", progressive=True),
        "PNG": encoded(image, "PNG"),
        "GIF": encoded(image, "GIF"),
        "BMP": encoded(image, "BMP"),
        "WEBP": encoded(image, "WEBP", lossless=True),
        "TIFF": encoded(image, "TIFF"),
        "TIFF deflate": encoded(image, "TIFF", compression="tiff_adobe_deflate"),
        "PPM": encoded(image, "PPM"),
        "JPEG2000": encoded(image, "JPEG2000"),
        "AVIF": encoded(image, "AVIF"),
    }
