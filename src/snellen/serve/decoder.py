"""The process that decodes: requests on standard input, pixels on standard output. See ``decoding``."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np
from PIL import Image

from snellen.core.errors import ImageError
from snellen.data.image import read_header, read_image
from snellen.serve.decoding import OUT_OF_TIME, PIXELS, REFUSED, REPLY, REQUEST

_BASE_MEMORY = 2**30  # bytes of address space: the interpreter and its libraries
_BYTES_A_PIXEL = 40  # the most that ``data.image`` needs at once, for 32-bit floats


def main() -> None:
    _confine()
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a library prints gets between the replies
    while len(head := requests.read(REQUEST.size)) == REQUEST.size:
        length, min_side, max_side, max_pixels, seconds = REQUEST.unpack(head)
        file = requests.read(length)
        if len(file) < length:
            return
        _limit_memory(max_pixels)
        before = time.process_time()
        with _ended_after(seconds):
            found = _decoded(file, min_side or None, max_side or None, max_pixels)
        _reply(replies, *found, time.process_time() - before)


MOST_SIDE = 32_768  # pixels: a graph's resize holds tables as long as a side


def _confine() -> None:
    """No file may be written and no memory dumped, whatever a file makes a decoder do; and it can be ended."""
    if OUT_OF_TIME is not None:
        signal.signal(OUT_OF_TIME, signal.SIG_DFL)  # who ignores it hands that on
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """The system ends this process when it has used the processor for so long, whatever library is at work."""
    if OUT_OF_TIME is None:
        yield
        return
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _limit_memory(max_pixels: int) -> None:
    try:
        import resource
    except ImportError:
        return
    most = _BASE_MEMORY + _BYTES_A_PIXEL * max_pixels
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _decoded(
    file: bytes, min_side: int | None, max_side: int | None, max_pixels: int
) -> tuple[int, tuple[int, int], np.ndarray | bytes]:
    """Kind, (width, height) and pixels uint8 [H, W, 3], or kind, (0, 0) and why not."""
    try:
        header = read_header(file)
        if max(header.width, header.height) > MOST_SIDE:
            raise ImageError(
                f"the uploaded image claims {header.width} x {header.height} pixels, and no side may have more than "
                f"{MOST_SIDE}; make it smaller"
            )
        if header.width * header.height > max_pixels:
            raise ImageError(
                f"the uploaded image claims {header.width} x {header.height} = {header.width * header.height} pixels, "
                f"more than the limit of {max_pixels}; make it smaller"
            )
        header, pixels = read_image(file, min_side=min_side)
    except ImageError as error:
        return REFUSED, (0, 0), str(error).encode("utf-8", "replace")
    if max_side is not None and max(pixels.shape[:2]) > max_side:
        pixels = _smaller(pixels, max_side)
    return PIXELS, (header.width, header.height), pixels


def _smaller(pixels: np.ndarray, max_side: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    scale = max_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0))


def _reply(replies: IO[bytes], kind: int, size: tuple[int, int], content: np.ndarray | bytes, seconds: float) -> None:
    shape = content.shape[:2] if isinstance(content, np.ndarray) else (0, 0)
    body = np.ascontiguousarray(content).data.cast("B") if isinstance(content, np.ndarray) else content
    replies.write(REPLY.pack(kind, *size, *shape, len(body), seconds))
    replies.write(body)
    replies.flush()
