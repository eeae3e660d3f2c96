"""The frames of a video, one after another. OpenCV decodes them, which the extra snellen[video] brings.

A frame is decoded once for the answer and, where it is drawn, once more: in between no pixels are kept.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snellen.core.errors import ConfigError, ImageError
from snellen.core.geometry import Size
from snellen.data.image import Pixels
from snellen.predict.images import SourceImage, Unreadable

VIDEO_SUFFIXES = frozenset(".mp4 .mov .avi .mkv .webm .m4v .mpg".split())


def check_decoder(path: Path) -> None:
    """Raises ConfigError where videos cannot be decoded here."""
    try:
        _cv2()
    except ImportError:
        raise ConfigError(
            f"{path} is a video, and OpenCV is not installed to decode it: pip install 'snellen[video]'"
        ) from None


def frames_of(path: Path, key: str, every: int) -> Iterator[SourceImage]:
    """Each ``every``-th frame from the first on; what cannot be decoded is one image that cannot be read."""
    capture, found = _opened(path), False
    try:
        video = Video(path, key)
        for index, pixels in _decoded(capture, every):
            found = True
            yield VideoFrame(video, index, pixels)
    finally:
        if capture is not None:
            capture.release()
    if not found:
        yield Unreadable(str(path), key, "cannot be decoded as a video")


class Video:
    """A video whose frames are asked for again, mostly in their order: then each is decoded once more, in all."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self._capture: Any = None
        self._next = 0  # the frame that the capture gives next
        self._lock = threading.Lock()

    def frame(self, index: int) -> Pixels:
        """Raises ImageError where the file no longer has it."""
        with self._lock:
            if self._capture is None or index < self._next:
                self._capture, self._next = _opened(self.path), 0
            while self._capture is not None and self._capture.grab():
                self._next += 1
                if self._next == index + 1:
                    return _retrieved(self._capture)
            raise ImageError(f"{self.path} has no frame {index} any more")


class VideoFrame:
    """Its pixels are handed out once; whoever asks again has it decoded again."""

    holds_pixels = True

    def __init__(self, video: Video, index: int, pixels: Pixels) -> None:
        self._video, self._index = video, index
        self._size = (pixels.shape[1], pixels.shape[0])
        self._pixels: Pixels | None = pixels

    @property
    def name(self) -> str:
        return f"{self._video.path}#{self._index:06d}"

    @property
    def key(self) -> str:
        return f"{self._video.key}#{self._index:06d}"

    @property
    def place(self) -> str:
        return f"{self._video.key}/{self._index:06d}"

    def size(self) -> Size:
        return self._size

    def read(self, min_side: int | None = None) -> tuple[Size, Pixels]:
        pixels, self._pixels = self._pixels, None
        return self._size, self._video.frame(self._index) if pixels is None else pixels


def _cv2() -> Any:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what is wrong with a file, we say ourselves
    import cv2

    return cv2


def _opened(path: Path) -> Any:
    """None where it cannot be. By FFmpeg alone: other readers take a name with digits for a series of images."""
    cv2 = _cv2()
    loud = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
    except (cv2.error, UnicodeError):
        return None
    finally:
        cv2.utils.logging.setLogLevel(loud)
    return capture if capture.isOpened() else None


def _decoded(capture: Any, every: int) -> Iterator[tuple[int, Pixels]]:
    index = 0
    while capture is not None and capture.grab():
        if index % every == 0:
            yield index, _retrieved(capture)
        index += 1


def _retrieved(capture: Any) -> Pixels:
    cv2 = _cv2()
    _, pixels = capture.retrieve()
    found: Pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return found
