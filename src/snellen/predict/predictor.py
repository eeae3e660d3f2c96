"""A trained model on new images: in their order, broken files named and passed over, memory flat."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from snellen.core.device import available_cores
from snellen.core.errors import ConfigError, ImageError
from snellen.core.geometry import Size
from snellen.data.tiles import Region, Tiling
from snellen.predict.answering import Answering, NetworkAnswering
from snellen.predict.images import ImageFile, SourceImage
from snellen.predict.prediction import Answer, Drawing, Prediction
from snellen.tasks.base import Task
from snellen.tasks.loading import LoadedModel

_MOST_LARGE = 4  # decoded frames of a video that wait to be made small


class Predictor:
    """A model that answers for files; with ``tiling``, for tiles of them.

    Raises ConfigError where the model's answers for tiles cannot become one.
    """

    def __init__(self, model: LoadedModel | Answering, tiling: Tiling | None = None) -> None:
        answering: Answering = NetworkAnswering(model) if isinstance(model, LoadedModel) else model
        if tiling is not None:
            tiling = replace(tiling, merge=answering.task.merging(tiling.merge))
            if answering.preprocessing.fit == "center crop":
                raise ConfigError(
                    "tile does not fit a model that sees the middle of an image only, as what lies at the borders of "
                    "tiles would be missed: leave it out, or train with fit = letterbox"
                )
        self._answering, self._tiling = answering, tiling

    @property
    def task(self) -> Task[Any]:
        return self._answering.task

    @property
    def batch(self) -> int:
        """How many images are answered together. A prediction that goes on after a multiple of it gives the same bits
        as one that was never interrupted."""
        return self._answering.batch

    def predict(self, images: Iterable[str | Path]) -> Iterator[Prediction]:
        """One prediction for each image, in order; an image that cannot be read has an ``error`` instead."""
        return self.predictions(ImageFile(Path(path), Path(path).name) for path in images)

    def predictions(self, images: Iterable[SourceImage]) -> Iterator[Prediction]:
        """As ``predict``, of images from anywhere."""
        return (answer.prediction for answer in self.answers(images))

    def answers(self, images: Iterable[SourceImage]) -> Generator[Answer, None, None]:
        """With what was decided for each; a few images are read ahead."""
        with ThreadPoolExecutor(max(2, available_cores())) as pool:
            yield from self._whole(images, pool) if self._tiling is None else self._tiled(images, pool, self._tiling)

    def _whole(self, images: Iterable[SourceImage], pool: ThreadPoolExecutor) -> Iterator[Answer]:
        coming, together = iter(images), self._answering.batch
        waiting: deque[tuple[SourceImage, Future[Any]]] = deque()
        large: deque[Future[Any]] = deque()  # of images whose pixels wait in memory to be made small
        try:
            while True:
                for image in islice(coming, 3 * together - len(waiting)):
                    waiting.append((image, pool.submit(self._read, image)))
                    if image.holds_pixels:
                        large.append(waiting[-1][1])
                    if len(large) > _MOST_LARGE:
                        wait([large.popleft()])
                if not waiting:
                    return
                batch = [waiting.popleft() for _ in range(min(together, len(waiting)))]
                yield from self._batch(batch)
        finally:
            for _, future in waiting:
                future.cancel()

    def _tiled(self, images: Iterable[SourceImage], pool: ThreadPoolExecutor, tiling: Tiling) -> Iterator[Answer]:
        """One image after another, while the next one is read: two are in memory."""
        waiting: deque[tuple[SourceImage, Future[_Sheet]]] = deque()
        try:
            for image in images:
                waiting.append((image, pool.submit(self._open, image, tiling)))
                if len(waiting) == 2:
                    yield self._in_tiles(*waiting.popleft(), pool)
            if waiting:
                yield self._in_tiles(*waiting.popleft(), pool)
        finally:
            for _, future in waiting:
                future.cancel()

    def _read(self, image: SourceImage) -> Any:
        size, pixels = image.read(self._answering.min_side)
        return self._answering.prepare(pixels, size)

    def _batch(self, waiting: Sequence[tuple[SourceImage, Future[Any]]]) -> Iterator[Answer]:
        seen, errors = {}, {}
        for i, (_, future) in enumerate(waiting):
            try:
                seen[i] = future.result()
            except ImageError as error:
                errors[i] = str(error)
        decided = dict(zip(seen, self._answering.decide(list(seen.values())), strict=True))
        for i, (image, _) in enumerate(waiting):
            yield _not_read(image, errors[i]) if i in errors else self._answer(image, decoded=decided[i])

    def _answer(self, image: SourceImage, decoded: Any) -> Answer:
        described = self.task.describe(decoded)
        return Answer(image, Prediction(image.name, described, None, Drawing(self.task, image, decoded)), decoded)

    def _open(self, image: SourceImage, tiling: Tiling) -> _Sheet:
        """An image that is one tile is decoded as without tiles, at a reduced scale where that costs no detail."""
        size = image.size()
        regions = tiling.regions(size, whole=self._answering.task.tiles_and_whole)
        min_side = self._answering.min_side if len(regions) == 1 else None
        return _Sheet(image.read(min_side)[1], size, regions)

    def _in_tiles(self, image: SourceImage, opened: Future[_Sheet], pool: ThreadPoolExecutor) -> Answer:
        try:
            sheet = opened.result()
        except ImageError as error:
            return _not_read(image, str(error))
        answering, parts = self._answering, list[Any]()
        for start in range(0, len(sheet.regions), answering.batch):
            some = sheet.regions[start : start + answering.batch]
            parts += answering.decide(list(pool.map(lambda region: answering.prepare(*sheet.piece(region)), some)))
        if len(parts) == 1:
            return self._answer(image, parts[0])
        assert self._tiling is not None and self._tiling.merge is not None
        return self._answer(image, answering.task.merge(parts, sheet.regions, sheet.size, self._tiling.merge))


@dataclass(frozen=True, slots=True, eq=False)
class _Sheet:
    """An image that is looked at in parts, at full resolution unless the only part is the whole."""

    pixels: np.ndarray
    size: Size
    regions: Sequence[Region]

    def piece(self, region: Region) -> tuple[np.ndarray, Size]:
        """A part as an image of its own, and its size; the whole as it is seen without tiles."""
        if region == (0, 0, *self.size):
            return self.pixels, self.size
        x0, y0, x1, y1 = region
        return self.pixels[y0:y1, x0:x1], (x1 - x0, y1 - y0)


def _not_read(image: SourceImage, error: str) -> Answer:
    return Answer(image, Prediction(image.name, None, error))
