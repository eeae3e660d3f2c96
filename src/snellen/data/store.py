"""The pixels of every image at the size that is needed: decoded once, and kept while memory allows."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from snellen.core import geometry
from snellen.core.preprocessing import Preprocessing
from snellen.core.record import Record
from snellen.core.sample import Frame
from snellen.data.image import decode
from snellen.data.warp import warp_image

if TYPE_CHECKING:
    import numpy as np

# Random crops reach down to a third of the area: from twice the input's side they are never enlarged by much.
_SOURCE_FACTOR = 2


def prepare(image: np.ndarray, preprocessing: Preprocessing, size: geometry.Size | None = None) -> np.ndarray:
    """A decoded image uint8 [H, W, 3] -> the network's input uint8 [h, w, 3]: one antialiased resize and a crop.

    size  (width, height) of the image on disk, where it was decoded at a reduced scale and pixels must lie where
          ``frame_of`` says

    The same for validation, test, prediction and export; the network itself normalises.
    """
    decoded = (image.shape[1], image.shape[0])
    matrix = _placement(size or decoded, preprocessing)
    if size is not None and size != decoded:
        matrix = geometry.compose(geometry.squash(decoded, size), matrix)
    return warp_image(image, matrix, preprocessing.input_size)


def frame_of(size: geometry.Size, preprocessing: Preprocessing) -> Frame:
    """How ``prepare`` places an image whose size on disk is (width, height)."""
    return Frame(size=size, matrix=_placement(size, preprocessing), input_size=preprocessing.input_size)


def _placement(size: geometry.Size, preprocessing: Preprocessing) -> geometry.Matrix:
    match preprocessing.fit:
        case "squash":
            return geometry.squash(size, preprocessing.input_size)
        case "letterbox":
            return geometry.letterbox(size, preprocessing.input_size)
        case "center crop":
            return geometry.center_crop(size, preprocessing.input_size, preprocessing.crop_fraction)


def training_source(image: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """What training images are cut from: the whole image, shrunk where it is far larger than the input needs."""
    height, width = image.shape[:2]
    scale = _SOURCE_FACTOR * max(preprocessing.input_size) / min(width, height)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return warp_image(image, geometry.squash((width, height), size), size)


@dataclass(slots=True)
class ImageStore:
    """``prepared`` and ``source`` give the pixels of a record, from memory or from its file: the same either way.

    preprocessing  of the network
    keep_sources   ids of the images that are trained on with per-image augmentation
    budget         bytes of memory that may be filled
    """

    preprocessing: Preprocessing
    budget: int
    keep_sources: bool = True
    _kept: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, record: Record, decoded: np.ndarray) -> None:
        """Called with each freshly decoded image, from any thread."""
        self._put("prepared", record, prepare(decoded, self.preprocessing, record.size))
        if self.keep_sources and record.split != "test":
            self._put("source", record, training_source(decoded, self.preprocessing))

    def prepared(self, record: Record) -> np.ndarray:
        """uint8 [h, w, 3] of the preprocessing's input size. Raises ImageError."""
        kept = self._kept.get(("prepared", record.id))
        if kept is None:
            image = decode(record.path, min_side=self.preprocessing.decode_min_side)
            kept = prepare(image, self.preprocessing, record.size)
            self._put("prepared", record, kept)
        return kept

    def source(self, record: Record) -> np.ndarray:
        """uint8 [H, W, 3], at most twice the input's side. Raises ImageError."""
        kept = self._kept.get(("source", record.id))
        if kept is None:
            image = decode(record.path, min_side=self.preprocessing.decode_min_side)
            kept = training_source(image, self.preprocessing)
            self._put("source", record, kept)
        return kept

    def frame(self, record: Record) -> Frame:
        """How the prepared pixels of a record came about; its size must be known."""
        assert record.size is not None, record.id
        return frame_of(record.size, self.preprocessing)

    def forget_sources(self, ids: Mapping[str, object] | set[str]) -> None:
        """Free the training sources of images that turned out to be for validation or test."""
        with self._lock:
            for key in [key for key in self._kept if key[0] == "source" and key[1] in ids]:
                self.budget += self._kept.pop(key).nbytes

    def _put(self, kind: str, record: Record, pixels: np.ndarray) -> None:
        with self._lock:
            key = (kind, record.id)
            if key not in self._kept and pixels.nbytes <= self.budget:
                self.budget -= pixels.nbytes
                self._kept[key] = pixels
