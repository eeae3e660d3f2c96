"""A trained model on new images: in their order, broken files named and passed over, memory flat."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from snellen.core.device import available_cores
from snellen.core.errors import ConfigError, DataError, ImageError
from snellen.core.estimate import amount
from snellen.core.geometry import Size
from snellen.core.preprocessing import Preprocessing
from snellen.core.sample import Batch, Frame
from snellen.data.image import IMAGE_SUFFIXES, decode, read_header, read_image
from snellen.data.loader import EVALUATION_BATCH, stack
from snellen.data.store import frame_of, prepare
from snellen.data.tiles import Region, Tiling
from snellen.tasks.base import Task
from snellen.tasks.loading import LoadedModel


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one image. A notebook shows it as the picture with the answer on it.

    path    as it was given
    result  label, confidence and probabilities (one class), labels and probabilities (any number), values (a number by
            name), or what is where and a text about it; None when the image could not be read
    error   why, in that case
    """

    path: str
    result: dict[str, Any] | None
    error: str | None = None
    _draw: Any = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> str | None:
        """The class, the labels joined by '|' as in a table, the numbers with their names, or what is where."""
        if self.result is None:
            return None
        if "text" in self.result:
            return str(self.result["text"])
        if "values" in self.result:
            return ", ".join(f"{name} {amount(value)}" for name, value in self.result["values"].items())
        return str(self.result["label"]) if "label" in self.result else "|".join(self.result["labels"])

    @property
    def confidence(self) -> float | None:
        return None if self.result is None else self.result.get("confidence")

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, **(self.result or {"error": self.error})}

    def _repr_png_(self) -> bytes | None:
        if self._draw is None:
            return None
        written = io.BytesIO()
        self._draw().save(written, "PNG")
        return written.getvalue()


class Predictor:
    """A loaded model that answers for files; with ``tiling``, for tiles of them.

    Raises ConfigError where the model's answers for tiles cannot become one.
    """

    def __init__(self, model: LoadedModel, tiling: Tiling | None = None) -> None:
        from snellen.nn.folding import for_inference

        if tiling is not None:
            tiling = replace(tiling, merge=model.task.merging(tiling.merge))
            if model.plan.preprocessing.fit == "center crop":
                raise ConfigError(
                    "tile does not fit a model that sees the middle of an image only, as what lies at the borders of "
                    "tiles would be missed: leave it out, or train with fit = letterbox"
                )
        self._model, self._tiling = model, tiling
        self._network = for_inference(model.network)

    def predict(self, images: Iterable[str | Path]) -> Iterator[Prediction]:
        """One prediction for each image, in order; an image that cannot be read has an ``error`` instead."""
        with ThreadPoolExecutor(max(2, available_cores())) as pool:
            yield from self._whole(images, pool) if self._tiling is None else self._tiled(images, pool, self._tiling)

    def _whole(self, images: Iterable[str | Path], pool: ThreadPoolExecutor) -> Iterator[Prediction]:
        paths = iter(images)
        waiting: deque[tuple[str, Future[_Seen]]] = deque()
        try:
            while True:
                for path in islice(paths, 3 * EVALUATION_BATCH - len(waiting)):
                    waiting.append((str(path), pool.submit(self._read, Path(path))))
                if not waiting:
                    return
                batch = [waiting.popleft() for _ in range(min(EVALUATION_BATCH, len(waiting)))]
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

    def _read(self, path: Path) -> _Seen:
        preprocessing = self._model.plan.preprocessing
        if not self._model.task.dense:
            image = decode(path, min_side=preprocessing.decode_min_side)
            return _Seen(prepare(image, preprocessing), None)
        header, image = read_image(path, min_side=preprocessing.decode_min_side)
        size = (header.width, header.height)
        return _Seen(prepare(image, preprocessing, size), frame_of(size, preprocessing))

    def _batch(self, waiting: Sequence[tuple[str, Future[_Seen]]]) -> Iterator[Prediction]:
        seen, errors = {}, {}
        for i, (_, future) in enumerate(waiting):
            try:
                seen[i] = future.result()
            except ImageError as error:
                errors[i] = str(error)
        frames = [each.frame for each in seen.values() if each.frame is not None]
        decoded = dict(zip(seen, self.decide([each.pixels for each in seen.values()], frames), strict=True))
        for i, (path, _) in enumerate(waiting):
            yield Prediction(path, None, errors[i]) if i in errors else self._answer(path, decoded[i])

    def _answer(self, path: str, decoded: Any) -> Prediction:
        return Prediction(path, self._model.task.describe(decoded), None, _Drawing(self._model.task, path, decoded))

    def _open(self, path: Path, tiling: Tiling) -> _Sheet:
        """An image that is one tile is decoded as without tiles, at a reduced scale where that costs no detail."""
        header = read_header(path)
        size = (header.width, header.height)
        regions = tiling.regions(size, whole=self._model.task.tiles_and_whole)
        min_side = self._model.plan.preprocessing.decode_min_side if len(regions) == 1 else None
        return _Sheet(decode(path, min_side=min_side), size, regions)

    def _in_tiles(self, path: str, opened: Future[_Sheet], pool: ThreadPoolExecutor) -> Prediction:
        try:
            sheet = opened.result()
        except ImageError as error:
            return Prediction(path, None, str(error))
        task, preprocessing, parts = self._model.task, self._model.plan.preprocessing, list[Any]()
        for start in range(0, len(sheet.regions), EVALUATION_BATCH):
            some = sheet.regions[start : start + EVALUATION_BATCH]
            seen = list(pool.map(lambda region: sheet.piece(region, preprocessing), some))
            parts += self.decide([each.pixels for each in seen], [each.frame for each in seen if each.frame])
        if len(parts) == 1:
            return self._answer(path, parts[0])
        assert self._tiling is not None and self._tiling.merge is not None
        return self._answer(path, task.merge(parts, sheet.regions, sheet.size, self._tiling.merge))

    def decide(self, images: Sequence[np.ndarray], frames: Sequence[Frame] = ()) -> Sequence[Any]:
        """Prepared images uint8 [h, w, 3] -> the task's targets; ``frames`` as in ``Task.decode``."""
        import torch

        from snellen.nn.placement import to_device
        from snellen.nn.precision import arithmetic

        if not images:
            return []
        plan = self._model.plan
        batch: Batch[Any] = to_device(Batch(images=stack(images), targets=(), ids=()), plan)
        with torch.inference_mode(), arithmetic(torch.device(plan.device), plan.precision):
            return self._model.task.decode(self._network(batch.images), frames)


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """An image as the network gets it, and how it came to be so where answers are about places."""

    pixels: np.ndarray
    frame: Frame | None


@dataclass(frozen=True, slots=True, eq=False)
class _Sheet:
    """An image that is looked at in parts, at full resolution unless the only part is the whole."""

    pixels: np.ndarray
    size: Size
    regions: Sequence[Region]

    def piece(self, region: Region, preprocessing: Preprocessing) -> _Seen:
        """A part as an image of its own; the whole as it is seen without tiles."""
        if region == (0, 0, *self.size):
            return _Seen(prepare(self.pixels, preprocessing, self.size), frame_of(self.size, preprocessing))
        x0, y0, x1, y1 = region
        frame = frame_of((x1 - x0, y1 - y0), preprocessing)
        return _Seen(prepare(self.pixels[y0:y1, x0:x1], preprocessing), frame)


@dataclass(frozen=True, slots=True)
class _Drawing:
    """Draws only when it is looked at; a million predictions keep no pixels."""

    task: Task[Any]
    path: str
    target: Any

    def __call__(self) -> Any:
        return self.task.draw(decode(Path(self.path), min_side=600), self.target)


def images_of(sources: Iterable[str | Path]) -> list[Path]:
    """Files as they are given, folders as the images in them, sorted. Raises DataError for what is not there."""
    found: list[Path] = []
    for given in sources:
        source = Path(given)
        if not str(given):
            raise DataError("one of the images has an empty name: give image files, or a folder of them")
        if source.is_dir():
            inside = sorted(
                path for path in source.rglob("*") if _is_image(path.relative_to(source)) and path.is_file()
            )
            if not inside:
                raise DataError(f"{source} holds no images: give image files, or a folder of them")
            found.extend(inside)
        elif source.is_file():
            found.append(source)
        else:
            raise DataError(f"{source} does not exist: give image files, or a folder of them")
    if not found:
        raise DataError("no images were given: name image files, or a folder of them")
    return found


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in path.parts)
