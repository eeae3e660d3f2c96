"""Predictions as pictures: each image with its answer on it."""

from __future__ import annotations

import io
from typing import Any, ClassVar

from snellen.core.errors import ImageError
from snellen.core.files import write_bytes
from snellen.predict.prediction import Answer
from snellen.predict.writers.base import Writer, file_for

_LONGEST_SIDE = 16383  # pixels, of WebP


class Pictures(Writer):
    """``pictures/``: a WebP for each image that could be read, where it lies among the images. Large photos are drawn
    at a part of their scale."""

    makes = "pictures"
    suffix: ClassVar[str] = ".webp"
    options: ClassVar[dict[str, Any]] = {"format": "WEBP", "quality": 85, "method": 2}

    def add(self, answer: Answer) -> None:
        try:
            picture = answer.prediction.picture()
        except ImageError:  # it was there a moment ago
            return
        if picture is None:
            return
        if max(picture.size) > _LONGEST_SIDE:
            picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
        written = io.BytesIO()
        picture.save(written, **self.options)
        write_bytes(file_for(self.folder / self.makes, answer.image, self.suffix), written.getvalue())


class JpegPictures(Pictures):
    """As ``Pictures``, for programs that know no WebP."""

    suffix = ".jpg"
    options: ClassVar[dict[str, Any]] = {"format": "JPEG", "quality": 90}


class PngPictures(Pictures):
    """As ``Pictures``, without loss."""

    suffix = ".png"
    options: ClassVar[dict[str, Any]] = {"format": "PNG"}
