"""One thread owns a model; what asks it waits in a queue of bounded length and is answered in batches.

What an image is answered does not depend on who shares its batch. ONNX Runtime gives the same bits for every size of a
batch; torch in eager mode differs in the eighth digit between sizes (other kernels, another order of sums), and the
decision with it only where two classes are that near.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Any, Protocol

import numpy as np

from snellen.core.geometry import Size
from snellen.core.preprocessing import Preprocessing
from snellen.predict.answering import Answering
from snellen.serve.limits import Limits
from snellen.serve.refusal import Refusal, busy
from snellen.tasks.base import Task

_SHARED = 4  # images of an explanation that are asked together: requests wait for no more than these


class Observer(Protocol):
    """Is told of every batch, in the thread of the model; seconds each image waited, and seconds the model took."""

    def batch(self, waited: Sequence[float], seconds: float, failed: int) -> None: ...


class ModelFailed(Refusal):
    """The model raised an exception for this image."""

    def __init__(self, error: Exception) -> None:
        super().__init__(500, "the model failed on this image; the server's log says how")
        self.error = error


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    seen: Any
    future: Future[Any]
    since: float


class Batcher:
    """Gathers images until there are ``max_batch``, or until the first has waited ``max_delay``."""

    def __init__(self, answering: Answering, limits: Limits, observer: Observer) -> None:
        self._answering, self._limits, self._observer = answering, limits, observer
        self._most = min(limits.max_batch, answering.batch)  # what the model can take at once counts as well
        self._waiting: deque[_Waiting] = deque()
        self._changed = Condition()
        self._taken_in, self._closed = 0, False
        self._thread = Thread(target=self._run, name=f"model {answering.task.name}", daemon=True)
        self._thread.start()

    @property
    def taken_in(self) -> int:
        """Images that have a place in the queue: being decoded, waiting, or being answered."""
        return self._taken_in

    @contextmanager
    def places(self, num: int) -> Iterator[None]:
        """Places in the queue for ``num`` images. Only in the event loop's thread, so nothing is locked.

        Raises Refusal: 413 for more than ever fit, 503 when there is no room now.
        """
        if num > self._limits.queue:
            raise Refusal(413, f"{num} images in one request are more than the {self._limits.queue} that are taken")
        if self._closed or self._taken_in + num > self._limits.queue:
            raise busy("the server is stopping" if self._closed else "too many images are waiting already")
        self._taken_in += num
        try:
            yield
        finally:
            self._taken_in -= num

    def check_room(self) -> None:
        """Raises Refusal 503 when there is no room for an image, which need not be read then."""
        with self.places(1):
            pass

    def submit(self, seen: Any) -> Future[Any]:
        """What ``Answering.prepare`` gave -> a target of the task, later. One that is cancelled is not answered.

        Raises Refusal when the model stopped; the future raises ModelFailed.
        """
        future: Future[Any] = Future()
        with self._changed:
            if self._closed:
                raise busy("the server is stopping")
            self._waiting.append(_Waiting(seen, future, time.monotonic()))
            if len(self._waiting) in (1, self._most):  # else the thread has no reason to look
                self._changed.notify()
        return future

    def close(self) -> None:
        """Answers what it was given, then ends."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            wanted = [each for each in batch if each.future.set_running_or_notify_cancel()]
            if wanted:
                self._answer(wanted)

    def _next(self) -> list[_Waiting]:
        """The next batch; empty when there will be no more."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return []
                self._changed.wait()
            closes = self._waiting[0].since + self._limits.max_delay / 1000
            while len(self._waiting) < self._most and not self._closed:
                left = closes - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), self._most))]

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        started = time.monotonic()
        answers: list[Any] = self._decided([each.seen for each in batch])
        if len(batch) > 1 and all(isinstance(answer, ModelFailed) for answer in answers):
            # One of them may be to blame for all.
            answers = [answer for each in batch for answer in self._decided([each.seen])]
        failed = sum(isinstance(answer, ModelFailed) for answer in answers)
        self._observer.batch([started - each.since for each in batch], time.monotonic() - started, failed)
        for each, answer in zip(batch, answers, strict=True):
            if isinstance(answer, ModelFailed):
                each.future.set_exception(answer)
            else:
                each.future.set_result(answer)

    def _decided(self, seen: Sequence[Any]) -> list[Any]:
        """A target for each, or ModelFailed for all."""
        try:
            targets = list(self._answering.decide(seen))
            if len(targets) != len(seen):
                raise RuntimeError(f"the model gave {len(targets)} answers for {len(seen)} images")
            return targets
        except Exception as error:  # whatever it is, the next batch is answered
            return [ModelFailed(error)] * len(seen)


class Shared:
    """The model of a batcher as an ``Answering``, for other threads: its batches are those of everyone.

    given_up  set when nobody waits for the answers any more; asking on then raises Refusal
    """

    def __init__(self, answering: Answering, batcher: Batcher, limits: Limits) -> None:
        self._answering, self._batcher = answering, batcher
        self.batch, self.given_up = min(limits.max_batch, answering.batch, _SHARED), False

    @property
    def task(self) -> Task[Any]:
        return self._answering.task

    @property
    def preprocessing(self) -> Preprocessing:
        return self._answering.preprocessing

    @property
    def min_side(self) -> int | None:
        return self._answering.min_side

    def prepare(self, pixels: np.ndarray, size: Size) -> Any:
        return self._answering.prepare(pixels, size)

    def decide(self, seen: Sequence[Any]) -> list[Any]:
        """A batch at a time, so that requests get their turn between."""
        targets: list[Any] = []
        for start in range(0, len(seen), self.batch):
            if self.given_up:
                raise busy("nobody waits for this answer any more")
            futures = [self._batcher.submit(each) for each in seen[start : start + self.batch]]
            targets += [future.result() for future in futures]
        return targets
