"""A trained model on new images: in their order, broken files named and passed over, memory flat."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from snellen.core.device import available_cores
from snellen.core.errors import ConfigError, ImageError
from snellen.core.geometry import Size
from snellen.data.image import decode, read_header, read_image
from snellen.data.tiles import Region, Tiling
from snellen.predict.answering import Answering, NetworkAnswering
from snellen.predict.prediction import Drawing, Prediction
from snellen.tasks.loading import LoadedModel


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

    def predict(self, images: Iterable[str | Path]) -> Iterator[Prediction]:
        """One prediction for each image, in order; an image that cannot be read has an ``error`` instead."""
        with ThreadPoolExecutor(max(2, available_cores())) as pool:
            yield from self._whole(images, pool) if self._tiling is None else self._tiled(images, pool, self._tiling)

    def _whole(self, images: Iterable[str | Path], pool: ThreadPoolExecutor) -> Iterator[Prediction]:
        paths, together = iter(images), self._answering.batch
        waiting: deque[tuple[str, Future[Any]]] = deque()
        try:
            while True:
                for path in islice(paths, 3 * together - len(waiting)):
                    waiting.append((str(path), pool.submit(self._read, Path(path))))
                if not waiting:
                    return
                batch = [waiting.popleft() for _ in range(min(together, len(waiting)))]
                yield from self._batch(batch)
        finally:
            for _, future in waiting:
                future.cancel()

    def _tiled(self, images: Iterable[str | Path], pool: ThreadPoolExecutor, tiling: Tiling) -> Iterator[Prediction]:
        """One image after another, while the next one is read: two are in memory."""
        waiting: deque[tuple[str, Future[_Sheet]]] = deque()
        try:
            for path in images:
                waiting.append((str(path), pool.submit(self._open, Path(path), tiling)))
                if len(waiting) == 2:
                    yield self._in_tiles(*waiting.popleft(), pool)
            if waiting:
                yield self._in_tiles(*waiting.popleft(), pool)
        finally:
            for _, future in waiting:
                future.cancel()

    def _read(self, path: Path) -> Any:
        header, image = read_image(path, min_side=self._answering.min_side)
        return self._answering.prepare(image, (header.width, header.height))

    def _batch(self, waiting: Sequence[tuple[str, Future[Any]]]) -> Iterator[Prediction]:
        seen, errors = {}, {}
        for i, (_, future) in enumerate(waiting):
            try:
                seen[i] = future.result()
            except ImageError as error:
                errors[i] = str(error)
        decided = dict(zip(seen, self._answering.decide(list(seen.values())), strict=True))
        for i, (path, _) in enumerate(waiting):
            yield Prediction(path, None, errors[i]) if i in errors else self._answer(path, decoded=decided[i])

    def _answer(self, path: str, decoded: Any) -> Prediction:
        task = self._answering.task
        return Prediction(path, task.describe(decoded), None, Drawing(task, path, decoded))

    def _open(self, path: Path, tiling: Tiling) -> _Sheet:
        """An image that is one tile is decoded as without tiles, at a reduced scale where that costs no detail."""
        header = read_header(path)
        size = (header.width, header.height)
        regions = tiling.regions(size, whole=self._answering.task.tiles_and_whole)
        min_side = self._answering.min_side if len(regions) == 1 else None
        return _Sheet(decode(path, min_side=min_side), size, regions)

    def _in_tiles(self, path: str, opened: Future[_Sheet], pool: ThreadPoolExecutor) -> Prediction:
        try:
            sheet = opened.result()
        except ImageError as error:
            return Prediction(path, None, str(error))
        answering, parts = self._answering, list[Any]()
        for start in range(0, len(sheet.regions), answering.batch):
            some = sheet.regions[start : start + answering.batch]
            parts += answering.decide(list(pool.map(lambda region: answering.prepare(*sheet.piece(region)), some)))
        if len(parts) == 1:
            return self._answer(path, parts[0])
        assert self._tiling is not None and self._tiling.merge is not None
        return self._answer(path, answering.task.merge(parts, sheet.regions, sheet.size, self._tiling.merge))


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
