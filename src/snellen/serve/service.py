"""The models at work: an image goes through a decoder, a thread that prepares it, and the batches of its model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Thread
from typing import Any, TypeVar

import numpy as np

from snellen.core.errors import SnellenError
from snellen.core.geometry import Size
from snellen.core.process import give_up
from snellen.serve.batching import Batcher, ModelFailed, Shared
from snellen.serve.decoding import Allowance, Decoded, Decoders
from snellen.serve.ledger import Ledger
from snellen.serve.limits import Limits
from snellen.serve.models import Served
from snellen.serve.outputs import Output, outputs_of
from snellen.serve.refusal import Refusal, busy, quoted
from snellen.serve.telemetry import Statistics, Telemetry
from snellen.serve.turns import Turns

T = TypeVar("T")

_WARM_UP = (64, 48)  # width and height of the image that each model answers before anyone asks
PICTURE_SIDE = 1280  # pixels of the longer side of a picture that is shown
_PICTURE_DETAIL = 640  # pixels of the short side, below which a JPEG is not decoded for one
_LAST_BATCH = 0.5  # seconds; nobody waits for what takes longer
_DESCRIBING = 2  # threads that parse requests and word answers


@dataclass(frozen=True, slots=True, eq=False)
class Working:
    """A model with the threads that own it."""

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
    """Starts what models need; ``close`` ends it, after everything taken in was answered. Only a batch that takes its
    model longer than ``_LAST_BATCH`` then goes on in its thread, which does not hold up the end of the process.

    Every model has answered one image before ``__init__`` is done. Raises what a model raises that cannot.
    """

    def __init__(self, models: Mapping[str, Served], limits: Limits) -> None:
        self.limits, self.telemetry = limits, Telemetry()
        self._models: dict[str, Working] = {}
        self._decoders = Decoders(limits, self.telemetry.decode_error)
        self._reading, self._turns = ThreadPoolExecutor(limits.decoders, "reading"), Turns(limits.decoders)
        self._describing = ThreadPoolExecutor(_DESCRIBING, "describing")
        self._is_explaining = self._closed = False
        self._pixels = Ledger(limits.max_held)
        try:
            for name, served in models.items():
                self._models[name] = self._started(name, served)
        except BaseException:
            self.close()
            raise

    def _started(self, name: str, served: Served) -> Working:
        statistics = Statistics(name, self.telemetry)
        batcher = Batcher(served.answering, self.limits, statistics, served.streams)
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
        if self._closed:
            return
        self._closed, waited_for = True, time.monotonic() + _LAST_BATCH
        for working in self._models.values():
            working.batcher.close(0)  # all are told before any is waited for
        for working in self._models.values():
            working.batcher.close(max(0.0, waited_for - time.monotonic()))
        for pool in (self._reading, self._describing):
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
        self, working: Working, images: Sequence[np.ndarray] | Sequence[bytes], client: str
    ) -> tuple[list[Any], list[Size]]:
        """What the model says of images, each the bytes of a file or pixels uint8 [H, W, 3], and how large they are.
        ``client``: who asks.

        Raises Refusal. When the task that waits is cancelled, what is not in the model yet never gets there.
        """
        num, allowance = len(images), Allowance(self.limits.request_decode_seconds)

        async def taking_turns(number: int, image: np.ndarray | bytes) -> Seen:
            async with self._turns.turn(client):
                seen = await self._seen(working, image, allowance, number if num > 1 else None)
            hold(seen.held)
            return seen

        with working.batcher.places(num, client) as submit, self._pixels.request() as hold:
            seen = await _all(taking_turns(i, image) for i, image in enumerate[np.ndarray | bytes](images))
            futures = [asyncio.wrap_future(submit(one.prepared)) for one in seen]
            return await _all(futures), [one.size for one in seen]

    async def _seen(
        self, working: Working, image: np.ndarray | bytes, allowance: Allowance, number: int | None
    ) -> Seen:
        """``number`` is told where the image is refused, of several."""
        try:
            return await self._run(self._reading, self._prepared, working, image, allowance)
        except Refusal as refusal:
            if number is None:
                raise
            told = f"image {number}: {refusal.message}"
            raise Refusal(refusal.status, told, retry_after=refusal.retry_after) from None

    def _prepared(self, working: Working, image: np.ndarray | bytes, allowance: Allowance) -> Seen:
        answering = working.served.answering
        if isinstance(image, bytes):
            decoded = self._decoders.decode(image, min_side=answering.min_side, allowance=allowance)
        else:
            decoded = Decoded(image, (image.shape[1], image.shape[0]))
        try:
            return Seen(answering.prepare(decoded.pixels, decoded.size), decoded.size, decoded.pixels.nbytes)
        except Exception as error:
            raise ModelFailed(error) from error

    async def shown(self, file: bytes, client: str) -> np.ndarray:
        """The pixels of a file, made small enough to be shown."""
        async with self._turns.turn(client):
            return await self._run(self._reading, self._small, file)

    def _small(self, file: bytes) -> np.ndarray:
        return self._decoders.decode(file, min_side=_PICTURE_DETAIL, max_side=PICTURE_SIDE).pixels

    def check_explaining(self, working: Working, of: str | None) -> None:
        """Raises Refusal: 404 where the model's answers cannot be explained, 400 for a class that it does not know, 503
        while another explanation is made. What is refused then need not be read."""
        if working.served.explain is None:
            raise Refusal(404, f"what the answers of {quoted(working.name)} rest on cannot be shown")
        if of is not None and of not in working.task.classes:
            known = ", ".join(working.task.classes[:10])
            raise Refusal(400, f"the model knows no class {quoted(of)}; among those it knows: {known}")
        if self._is_explaining:
            raise busy("another explanation is being made")

    async def explained(self, working: Working, file: bytes, of: str | None) -> tuple[Any, str]:
        """A picture of what the answer for an image rests on, and a sentence; of the class ``of``, else of the first of
        the answer. One at a time, as it asks the model hundreds of times. Raises Refusal as ``check_explaining`` does,
        and 503 where it takes too long."""
        self.check_explaining(working, of)
        explain, shared = working.served.explain, Shared(working.served.answering, working.batcher, self.limits)
        assert explain is not None

        def explaining() -> tuple[Any, str]:
            pixels = self._small(file)
            try:
                return explain(shared, pixels, of)
            except Refusal:
                raise
            except SnellenError as error:  # the model finds nothing to explain
                raise Refusal(422, str(error)) from None
            except Exception as error:
                raise ModelFailed(error) from error

        self._is_explaining = True
        future = _in_a_thread(explaining, "explaining")
        future.add_done_callback(self._end_explaining)
        try:
            async with asyncio.timeout(self.limits.explain_seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            told = (
                f"the explanation takes more than {self.limits.explain_seconds:g} s: the model is slow, or much asked"
            )
            raise Refusal(503, told) from None
        finally:
            shared.given_up = True

    def _end_explaining(self, future: Future[Any]) -> None:
        self._is_explaining = False

    async def describing(self, work: Callable[..., T], *arguments: Any) -> T:
        """``work`` in a thread, as it would hold up other requests."""
        return await self._run(self._describing, work, *arguments)

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)


def _in_a_thread(work: Callable[[], T], name: str) -> Future[T]:
    """``work`` in a thread of its own that holds up no exit, as those of a pool do. It cannot be cancelled."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    thread = Thread(target=run, name=name, daemon=True)
    give_up(thread)
    thread.start()
    return future


async def _all(works: Iterable[Awaitable[T]]) -> list[T]:
    """All results in order; when one fails, the others are given up."""
    futures = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*futures))
    finally:
        for future in futures:
            future.cancel()
        await asyncio.gather(*futures, return_exceptions=True)
