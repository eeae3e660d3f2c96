"""The one decoder: training, prediction and serving all read pixels here, so that they see the same picture.

How a file becomes uint8 RGB (content decides the format, never the suffix):

* EXIF orientation is applied, so width and height are those a viewer shows. Colour profiles are not applied.
* 16 bits a channel: the high byte, so 0..65535 becomes 0..255 whatever part of it the file uses.
* 32-bit integers: as 16 bits when they fit in 0..65535, else the image's own minimum..maximum becomes 0..255.
* floats: 0..1 becomes 0..255; 0..255 is rounded; else as above. NaN and infinities become 0.
* transparency (alpha, palette, colour key) is laid on white: colours hidden behind it do not show.
* grey, 1-bit, palette, CMYK and LAB are converted; of an animation or a stack of pages the first is used.

Everything that cannot be decoded, truncated files too, raises ImageError. Nothing is kept in global Pillow state.
"""

from __future__ import annotations

import os
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,  # noqa: F401  (importing a plugin enters it in Image.OPEN)
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    Jpeg2KImagePlugin,  # noqa: F401
    JpegImagePlugin,
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,
    WebPImagePlugin,  # noqa: F401
)

from snellen.core.errors import ImageError

MAX_PIXELS = 200_000_000
"""Images that claim more pixels are refused from their header; at the limit a decode needs about 1.4 GB.

Phones take 200-megapixel photos (16320 x 12240); a 49 kB file can claim 400 million. (Pillow itself stops WebP images
and single TIFF tiles at 179 million.)"""

IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .gif .bmp .webp .tif .tiff .ppm .pgm .pbm .pnm .pfm .jp2 .j2k .avif".split()
)
"""Lower-case suffixes by which formats tell images from other files in a folder."""

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""Tried in this order. Pillow knows more; formats without a signature take any file for an image, and EPS runs a
program."""

ORIENTATION_TAG = 0x0112

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """What a file says about itself before its pixels are decoded.

    width, height  pixels, after the EXIF orientation is applied: what ``decode`` returns
    mode           Pillow's name of the pixel format in the file: 'RGB', 'L', 'P', 'CMYK', 'I;16', ...
    format         'JPEG', 'PNG', ... or 'MPO' for a JPEG that carries further pictures
    orientation    EXIF orientation 1..8; 1 is upright
    """

    width: int
    height: int
    mode: str
    format: str
    orientation: int


def read_header(source: Path | str | bytes) -> ImageHeader:
    """The header of an image file, or of its bytes, without decoding pixels.

    Raises ImageError when it is no image, cannot be read, or claims more than MAX_PIXELS.
    """
    with opened(source) as image:
        return header_of(image)


def decode(source: Path | str | bytes, *, min_side: int | None = None) -> Pixels:
    """The pixels of an image file, or of its bytes: uint8 [height, width, 3], RGB, upright.

    With ``min_side`` (pixels) a JPEG may come back at 1/2, 1/4 or 1/8 of its scale, as long as its short side stays at
    least 2 * min_side; everything else is unchanged. The decoder then skips most of the work on a large photo. The
    factor of 2 leaves the final resize to ``min_side`` something to average over: on photographs resized to 32 to 224
    pixels the mean difference from a full decode is 0.4 to 1.6 grey levels, against 0.5 to 3.9 with a factor of 1.
    The last row and column of such a picture may reach up to 7/8 of a pixel beyond its edge.

    Raises ImageError, which names the file and the reason.
    """
    return read_image(source, min_side=min_side)[1]


def read_image(source: Path | str | bytes, *, min_side: int | None = None) -> tuple[ImageHeader, Pixels]:
    """What ``read_header`` and ``decode`` return, with the file opened once."""
    with opened(source) as image:
        header = header_of(image)
        orientation = 1 if turns_itself(image) else header.orientation
        if min_side is not None and isinstance(image, JpegImagePlugin.JpegImageFile):
            image.draft(None, (2 * min_side, 2 * min_side))
        _mend_colour_key(image)
        image.load()
        return header, np.ascontiguousarray(turned(_to_rgb(image), orientation))


# ---- opening


@contextmanager
def opened(source: Path | str | bytes) -> Iterator[Image.Image]:
    """Open an image with its pixels still undecoded; whatever goes wrong inside the block becomes an ImageError."""
    name = "the uploaded image" if isinstance(source, bytes) else _printable(source)
    try:
        with _pillow_warnings_off(), _stream(source) as stream:
            image = _identified(stream)
            _check_size(image)
            yield image
    except ImageError as error:
        raise ImageError(f"{name} {error}") from error.__cause__
    except MemoryError as error:
        raise ImageError(f"{name} needs more memory to decode than there is") from error
    except Exception as error:
        # Damaged files make Pillow's plugins raise almost anything: OSError, SyntaxError, struct.error, EOFError, ...
        raise ImageError(f"{name} cannot be decoded: {_one_line(error)}") from error


def _printable(path: Path | str) -> str:
    text = str(path)
    return text if text.isprintable() else repr(text)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _stream(source: Path | str | bytes) -> IO[bytes]:
    if isinstance(source, bytes):
        if not source:
            raise ImageError("is empty (0 bytes)")
        return BytesIO(source)
    try:
        # stat before open: opening a named pipe would wait for ever.
        status = os.stat(source)
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("is a folder, not an image")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("is not a regular file")
        if status.st_size == 0:
            raise ImageError("is empty (0 bytes)")
        return open(source, "rb")
    except FileNotFoundError as error:
        raise ImageError("does not exist") from error
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or _one_line(error)}") from error


def _identified(stream: IO[bytes]) -> Image.Image:
    """The image whose format's signature the stream opens with.

    Not Image.open: that one warns above 89 million pixels and refuses above 179 million by a global setting, and tries
    some 40 formats.
    """
    prefix = stream.read(16)
    reason = ""
    for format in FORMATS:
        factory, accept = Image.OPEN[format]
        accepted = accept(prefix) if accept else True
        if isinstance(accepted, str):
            reason = f"cannot be decoded: {accepted}"
        elif accepted:
            stream.seek(0)
            try:
                return factory(stream, "")
            except SyntaxError as error:  # how a plugin says that it is not its format, or damaged
                cut = isinstance(error.__cause__, (IndexError, TypeError, EOFError, struct.error))
                why = "truncated in its header" if cut else _one_line(error)
                reason = f"is a damaged or unusual {format} file: {why}"
    if prefix[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftyphevc"):
        reason = "is a HEIC photo, which cannot be decoded; convert it to JPEG"
    raise ImageError(reason or f"is not an image in a format that can be read ({', '.join(FORMATS)})")


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"claims {width} x {height} = {width * height} pixels, more than the limit of {MAX_PIXELS}; "
            "make it smaller or leave it out"
        )


class _DecodingThread:
    """Matches Pillow's modules, and only in a thread that is decoding. For the module field of a warning filter.

    warnings.catch_warnings would swap the whole process's filters, which is not safe while other threads run; and a
    filter of "error" would turn a warning about a photo's odd EXIF into a photo that cannot be read.

    pattern  as that of a compiled expression, for those who copy filters to other processes (scikit-learn does)
    """

    pattern = r"PIL\."

    def match(self, module: str) -> bool:
        return getattr(_thread, "decoding", False) and module.startswith("PIL.")


_thread = threading.local()
_FILTER = ("ignore", None, Warning, _DecodingThread(), 0)
_filter_lock = threading.Lock()


@contextmanager
def _pillow_warnings_off() -> Iterator[None]:
    # Put in front again when anything was put before it. The list itself, since warnings.filterwarnings would also
    # make every module forget which warnings it has shown once.
    filters = cast(list[Any], warnings.filters)
    if not filters or filters[0] is not _FILTER:
        with _filter_lock:
            if _FILTER in filters:
                filters.remove(_FILTER)
            filters.insert(0, _FILTER)
    before = getattr(_thread, "decoding", False)
    _thread.decoding = True
    try:
        yield
    finally:
        _thread.decoding = before


# ---- header and orientation


def header_of(image: Image.Image) -> ImageHeader:
    orientation = _orientation(image)
    width, height = image.size
    if orientation >= 5 and not turns_itself(image):
        width, height = height, width
    return ImageHeader(width=width, height=height, mode=image.mode, format=image.format or "", orientation=orientation)


def _orientation(image: Image.Image) -> int:
    """EXIF (or XMP) orientation 1..8. Damaged metadata counts as upright: the pixels may still be fine."""
    try:
        if isinstance(image, PngImagePlugin.PngImageFile) and "exif" not in image.info:
            _fetch_late_exif(image)
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            value = image.tag_v2.get(ORIENTATION_TAG)
        else:
            # The base method: PNG's own one decodes all pixels first.
            value = Image.Image.getexif(image).get(ORIENTATION_TAG)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _fetch_late_exif(image: PngImagePlugin.PngImageFile) -> None:
    """A PNG may carry its eXIf chunk after the pixels: walk the chunk headers to it."""
    stream = image.fp
    if stream is None:
        return
    position = stream.tell()
    stream.seek(8)
    while len(head := stream.read(8)) == 8:
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"eXIf":
            image.info["exif"] = b"Exif\x00\x00" + stream.read(length)
            break
        stream.seek(length + 4, os.SEEK_CUR)  # its data and its checksum
    stream.seek(position)


def turns_itself(image: Image.Image) -> bool:
    return isinstance(image, TiffImagePlugin.TiffImageFile)


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """Bring [height, width, 3] pixels upright; the eight cases of the EXIF standard."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


# ---- pixels


def _mend_colour_key(image: Image.Image) -> None:
    """Bring a PNG's transparent colour to the 8 bits of its pixels.

    Pillow scales 2- and 4-bit grey up and cuts 16-bit colours down, but leaves the key as it is written in the file.
    """
    key = image.info.get("transparency")
    if key is None or not isinstance(image, PngImagePlugin.PngImageFile) or not image.tile:
        return
    raw_mode = image.tile[0].args
    if raw_mode in ("L;2", "L;4"):
        image.info["transparency"] = min(255, key * (85 if raw_mode == "L;2" else 17))
    elif raw_mode == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)


def _to_rgb(image: Image.Image) -> Pixels:
    if image.mode.startswith("I;16"):
        return _grey_16(image)
    if image.mode in ("I", "F"):
        return _as_rgb(_scaled(np.asarray(image)))
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"))
    return np.array(image.convert("RGB"))


def _grey_16(image: Image.Image) -> Pixels:
    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey[values == key] = 255
    return _as_rgb(grey)


def _scaled(values: NDArray[Any]) -> Pixels:
    """32-bit integer or float grey [height, width] to 0..255, by the rules at the top of this module."""
    finite = np.where(np.isfinite(values), values, 0).astype(np.float64)
    low, high = float(finite.min()), float(finite.max())
    if values.dtype.kind in "iu" and low >= 0 and high <= 65535:
        return cast(Pixels, (finite // 256).astype(np.uint8))
    if values.dtype.kind == "f" and low >= 0 and high <= 255:
        return cast(Pixels, np.rint(finite * (255 if high <= 1 else 1)).astype(np.uint8))
    return cast(Pixels, np.rint((finite - low) * (255 / max(high - low, 1e-300))).astype(np.uint8))


def _as_rgb(grey: Pixels) -> Pixels:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _on_white(image: Image.Image) -> Pixels:
    white = Image.new("RGBA", image.size, "white")
    return np.array(Image.alpha_composite(white, image).convert("RGB"))
