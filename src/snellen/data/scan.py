"""Every image is read and decoded once: out come facts, hashes and fingerprints; the caller keeps the pixels it needs.

Threads are enough, since Pillow and hashlib work without the interpreter's lock. At most a few images per thread are in
memory at any time.
"""

from __future__ import annotations

import hashlib
import statistics
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from PIL import Image

from snellen.core.errors import ImageError
from snellen.core.record import LeftOut, Record
from snellen.data.fingerprint import Fingerprint, Pixels, fingerprint
from snellen.data.image import read_image

Keep = Callable[[Record, Pixels], None]
Progress = Callable[[int, int], None]

_AHEAD = 4  # images in flight per thread: enough to ride over a slow one
_SMALL = 6_000  # bytes of a file
_LOOKED_AT = 25  # files, to know how large they are
_LEVELS = np.arange(256) / 255.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What one look at an image tells.

    width, height     pixels of the file's image, upright (after EXIF)
    mode, format      Pillow's names for the file: 'RGB', 'L', 'CMYK', ...; 'JPEG', 'PNG', ...
    orientation       EXIF orientation, 1..8
    brightness        mean luma, 0..1
    contrast          standard deviation of the luma, 0..0.5; 0 means that the picture is one flat grey
    channel_means     mean of red, green and blue, 0..1
    channel_squares   mean of their squares, 0..1: the variance is channel_squares - channel_means ** 2
    sha256            of the file's bytes
    pixel_hash        of the decoded pixels and their shape: equal for a BMP and a PNG of the same picture
    fingerprint       a small picture, for near-duplicates
    """

    width: int
    height: int
    mode: str
    format: str
    orientation: int
    brightness: float
    contrast: float
    channel_means: tuple[float, float, float]
    channel_squares: tuple[float, float, float]
    sha256: str
    pixel_hash: str
    fingerprint: Fingerprint = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """Facts by record id, in the records' order, and the images that couldn't be decoded. Together they are all."""

    facts: dict[str, ImageFacts]
    left_out: list[LeftOut]


def scan(
    records: Sequence[Record],
    *,
    min_side: int | None = None,
    keep: Keep | None = None,
    seen: Mapping[str, ImageFacts] | None = None,
    workers: int = 2,
    progress: Progress | None = None,
) -> Scan:
    """Decode every record's image once and gather its facts; what cannot be decoded is left out, with the reason.

    min_side  see ``snellen.data.image.decode``: large JPEGs are decoded at reduced scale. Brightness, pixel hash and
              fingerprint are then those of the reduced picture; width and height stay those of the file
    keep      called with every decoded record and its pixels, uint8 [H, W, 3], from worker threads and in any order;
              what it raises ends the scan and is raised here
    seen      facts by the sha256 of a file, gathered with the same ``min_side``: such images are not decoded
    progress  called with (images done, images in all), from the calling thread

    Ctrl-C ends the scan after the images that are being decoded.
    """
    facts: dict[str, ImageFacts] = {}
    left_out: list[LeftOut] = []
    with closing(_results(records, partial(_look, min_side=min_side, keep=keep, seen=seen or {}), workers)) as results:
        for done, (record, result) in enumerate(results, start=1):
            if isinstance(result, ImageFacts):
                facts[record.id] = result
            else:
                left_out.append(LeftOut(path=record.id, reason=result))
            if progress is not None:
                progress(done, len(records))
    return Scan(facts=facts, left_out=left_out)


def worthwhile_threads(records: Sequence[Record], most: int) -> int:
    """``most``, or 1 for small files: two threads would take longer to agree on whose turn it is than to decode them.

    Of 32 x 32 pixels one thread scans 1,050 images a second, two 670; of 128 x 128 as many; of 400 x 400 two scan 1.7
    times as many (docs/measurements.md).
    """
    sizes = []
    for record in records[:: max(1, len(records) // _LOOKED_AT)]:
        try:
            sizes.append(record.path.stat().st_size)
        except OSError:
            continue  # it is left out, with the reason, when its turn comes
    return max(1, most) if not sizes or statistics.median(sizes) > _SMALL else 1


def _results(
    records: Sequence[Record], look: Callable[[Record], ImageFacts | str], workers: int
) -> Generator[tuple[Record, ImageFacts | str]]:
    workers = worthwhile_threads(records, workers)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="snellen-scan")
    waiting: deque[tuple[Record, Future[ImageFacts | str]]] = deque()
    try:
        for record in records:
            waiting.append((record, pool.submit(look, record)))
            if len(waiting) >= _AHEAD * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _look(
    record: Record, *, min_side: int | None, keep: Keep | None, seen: Mapping[str, ImageFacts]
) -> ImageFacts | str:
    """The facts of one image, or why there are none."""
    try:
        # Only a regular file may be read whole: a pipe would never end. The rest decode names by itself.
        source = record.path.read_bytes() if record.path.is_file() else record.path
        sha256 = hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else ""
        if sha256 in seen:
            return seen[sha256]
        header, pixels = read_image(source, min_side=min_side)
    except ImageError as error:
        return _reason(error, record)
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    if keep is not None:
        keep(record, pixels)
    picture = Image.fromarray(pixels)
    means, squares = _moments(picture.histogram())
    (luma,), (luma_square,) = _moments(picture.convert("L").histogram())
    return ImageFacts(
        width=header.width,
        height=header.height,
        mode=header.mode,
        format=header.format,
        orientation=header.orientation,
        brightness=luma,
        contrast=max(0.0, luma_square - luma * luma) ** 0.5,
        channel_means=(means[0], means[1], means[2]),
        channel_squares=(squares[0], squares[1], squares[2]),
        sha256=sha256,
        pixel_hash=_pixel_hash(pixels),
        fingerprint=fingerprint(pixels),
    )


def _reason(error: ImageError, record: Record) -> str:
    """The error's text without the name in front of it: the name stands beside it in every list."""
    return str(error).removeprefix("the uploaded image ").removeprefix(f"{record.path} ")


def _moments(histogram: list[int]) -> tuple[list[float], list[float]]:
    """Means, and means of squares, of each channel of a Pillow histogram; values 0..1."""
    counts = np.asarray(histogram, np.float64).reshape(-1, 256)
    counts /= counts.sum(axis=1, keepdims=True)
    return (counts @ _LEVELS).tolist(), (counts @ _LEVELS**2).tolist()


def _pixel_hash(pixels: Pixels) -> str:
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
