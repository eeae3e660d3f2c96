"""The models at work: an image goes through a decoder, a thread that prepares it, and the batches of its model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from snellen.core.errors import SnellenError
from snellen.core.geometry import Size
from snellen.serve.batching import Batcher, ModelFailed, Shared
from snellen.serve.decoding import Decoded, Decoders
from snellen.serve.ledger import Hold, Ledger
from snellen.serve.limits import Limits
from snellen.serve.models import Served
from snellen.serve.outputs import Output, outputs_of
from snellen.serve.refusal import Refusal, busy, quoted
from snellen.serve.telemetry import Statistics, Telemetry

T = TypeVar("T")

_WARM_UP = (64, 48)  # width and height of the image that each model answers before anyone asks
_DESCRIBING = 2  # threads that parse requests and word answers


@dataclass(frozen=True, slots=True, eq=False)
class Working:
    """A model with the thread that owns it."""

    name: str
    served: Served
    batcher: Batcher
    statistics: Statistics
    outputs: Mapping[str, Output]

    @property
    def task(self) -> Any:
        return self.served.answering.task


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """An image as its model gets it, its (width, height), and how many bytes its pixels take.

    What a model gets may be all of the pixels: an exported one shrinks them by itself.
    """

    prepared: Any
    size: Size
    held: int


class Service:
    """Starts what models need; ``close`` ends it, after everything taken in was answered.

    Every model has answered one image before ``__init__`` is done. Raises what a model raises that cannot.
    """

    def __init__(self, models: Mapping[str, Served], limits: Limits) -> None:
        self.limits, self.telemetry = limits, Telemetry()
        self._models: dict[str, Working] = {}
        self._decoders = Decoders(limits, self.telemetry.decode_error)
        self._reading = ThreadPoolExecutor(limits.decoders, "reading")
        self._describing = ThreadPoolExecutor(_DESCRIBING, "describing")
        self._explaining = ThreadPoolExecutor(1, "explaining")
        self._is_explaining = False
        self._pixels = Ledger(limits.max_held)
        try:
            for name, served in models.items():
                self._models[name] = self._started(name, served)
        except BaseException:
            self.close()
            raise

    def _started(self, name: str, served: Served) -> Working:
        statistics = Statistics(name, self.telemetry)
        batcher = Batcher(served.answering, self.limits, statistics)
        self.telemetry.watch_queue(name, lambda: batcher.taken_in)
        working = Working(name, served, batcher, statistics, outputs_of(served.answering.task))
        self._models[name] = working
        grey = np.full((_WARM_UP[1], _WARM_UP[0], 3), 128, np.uint8)
        try:
            batcher.submit(served.answering.prepare(grey, _WARM_UP)).result()
        except ModelFailed as failed:
            raise failed.error from None
        return working

    def close(self) -> None:
        for working in self._models.values():
            working.batcher.close()
        for pool in (self._reading, self._describing, self._explaining):
            pool.shutdown(wait=False, cancel_futures=True)
        self._decoders.close()

    # ---- models

    @property
    def models(self) -> Sequence[Working]:
        return tuple(self._models.values())

    def model(self, name: str | None) -> Working:
        """The model of that name; None: the only one. Raises Refusal 404, or 400 where a name is needed."""
        if name is None and len(self._models) == 1:
            return next(iter(self._models.values()))
        known = ", ".join(list(self._models)[:10])
        if name is None:
            raise Refusal(400, f"say which model is asked, as ?model=NAME: {known}")
        if name not in self._models:
            raise Refusal(404, f"no model is called {quoted(name)}; there is: {known}")
        return self._models[name]

    # ---- answers

    async def targets(
        self, working: Working, images: Sequence[np.ndarray] | Sequence[bytes]
    ) -> tuple[list[Any], list[Size]]:
        """What the model says of images, each the bytes of a file or pixels uint8 [H, W, 3], and how large they are.

        Raises Refusal. When the task that waits is cancelled, what is not in the model yet never gets there.
        """
        num, each = len(images), enumerate[np.ndarray | bytes](images)
        with working.batcher.places(num), self._pixels.request() as hold:
            seen = await _all(self._seen(working, image, hold, i if num > 1 else None) for i, image in each)
            futures = [asyncio.wrap_future(working.batcher.submit(one.prepared)) for one in seen]
            return await _all(futures), [one.size for one in seen]

    async def _seen(self, working: Working, image: np.ndarray | bytes, hold: Hold, number: int | None) -> Seen:
        """``number`` is told where the image is refused, of several."""
        try:
            seen = await self._run(self._reading, self._prepared, working, image)
        except Refusal as refusal:
            if number is None:
                raise
            told = f"image {number}: {refusal.message}"
            raise Refusal(refusal.status, told, retry_after=refusal.retry_after) from None
        hold(seen.held)
        return seen

    def _prepared(self, working: Working, image: np.ndarray | bytes) -> Seen:
        answering = working.served.answering
        if isinstance(image, bytes):
            decoded = self._decoders.decode(image, min_side=answering.min_side)
        else:
            decoded = Decoded(image, (image.shape[1], image.shape[0]))
        try:
            return Seen(answering.prepare(decoded.pixels, decoded.size), decoded.size, decoded.pixels.nbytes)
        except Exception as error:
            raise ModelFailed(error) from error

    async def decoded(self, file: bytes, *, min_side: int, max_side: int) -> Decoded:
        """The pixels of a file, made small enough to be shown."""
        return await self._run(self._reading, lambda: self._decoders.decode(file, min_side=min_side, max_side=max_side))

    async def explained(self, working: Working, pixels: np.ndarray) -> tuple[Any, str]:
        """A picture of what the answer rests on, and a sentence; one at a time, as it asks the model hundreds of
        times. Raises Refusal 404 where the model has no such thing, 503 while another is made."""
        explain = working.served.explain
        if explain is None:
            raise Refusal(404, f"what the answers of {quoted(working.name)} rest on cannot be shown")
        if self._is_explaining:
            raise busy("another explanation is being made")
        shared = Shared(working.served.answering, working.batcher, self.limits)

        def explaining() -> tuple[Any, str]:
            try:
                return explain(shared, pixels)
            except Refusal:
                raise
            except SnellenError as error:  # the model finds nothing to explain
                raise Refusal(422, str(error)) from None
            except Exception as error:
                raise ModelFailed(error) from error

        self._is_explaining = True
        future = self._explaining.submit(explaining)
        future.add_done_callback(self._end_explaining)  # also of one that is cancelled before it began
        try:
            return await asyncio.wrap_future(future)
        finally:
            shared.given_up = True

    def _end_explaining(self, future: Future[Any]) -> None:
        self._is_explaining = False

    async def describing(self, work: Callable[..., T], *arguments: Any) -> T:
        """``work`` in a thread, as it would hold up other requests."""
        return await self._run(self._describing, work, *arguments)

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)


async def _all(works: Iterable[Awaitable[T]]) -> list[T]:
    """All results in order; when one fails, the others are given up."""
    futures = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*futures))
    finally:
        for future in futures:
            future.cancel()
        await asyncio.gather(*futures, return_exceptions=True)
