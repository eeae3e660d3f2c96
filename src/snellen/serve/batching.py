"""What asks a model waits in a queue of bounded length, and is answered in batches by the few threads that own it.

What an image is answered does not depend on who shares its batch. ONNX Runtime gives the same bits for every size of a
batch; torch in eager mode differs in the eighth digit between sizes (other kernels, another order of sums), and the
decision with it only where two classes are that near.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Any, Protocol

import numpy as np

from snellen.core.geometry import Size
from snellen.core.preprocessing import Preprocessing
from snellen.core.process import give_up
from snellen.predict.answering import Answering
from snellen.serve.limits import Limits
from snellen.serve.refusal import Refusal, busy
from snellen.tasks.base import Task

_SHARED = 4  # images of an explanation that are asked together: requests wait for no more than these
_OF_THE_FREE = 7  # a client may go on taking places while it holds fewer than so many for each that is free


Submit = Callable[[Any], Future[Any]]


class Observer(Protocol):
    """Is told of every batch, in a thread of the model; seconds each image waited, and seconds the model took."""

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
    """Gathers images until there are ``max_batch``, or no other is on its way, or the first has waited ``max_delay``.

    threads  that ask the model, each with a batch of its own
    """

    def __init__(self, answering: Answering, limits: Limits, observer: Observer, threads: int = 1) -> None:
        self._answering, self._limits, self._observer = answering, limits, observer
        self._most = min(limits.max_batch, answering.batch)  # what the model can take at once counts as well
        self._waiting: deque[_Waiting] = deque()
        self._changed = Condition()
        self._held: Counter[str] = Counter()  # places by client
        self._taken_in, self._on_the_way = 0, 0  # images
        self._busy, self._closed = 0, False  # threads
        name = f"model {answering.task.name}"
        self._threads = tuple(Thread(target=self._run, name=name, daemon=True) for _ in range(threads))
        for thread in self._threads:
            give_up(thread)
            thread.start()

    @property
    def taken_in(self) -> int:
        """Images that have a place in the queue: being decoded, waiting, or being answered."""
        return self._taken_in

    @contextmanager
    def places(self, num: int, client: str = "") -> Iterator[Submit]:
        """Places in the queue for ``num`` images of a client, and what submits each once it is prepared. Only in the
        event loop's thread, so nothing is locked.

        Raises Refusal: 413 for more than ever fit, 503 when there is no room now, for anyone or for this client.
        """
        self._check_room(num, client)
        missing = num

        def submit(seen: Any) -> Future[Any]:
            nonlocal missing
            missing -= 1
            self._on_the_way -= 1
            return self.submit(seen)

        self._taken_in += num
        self._on_the_way += num
        self._held[client] += num
        try:
            yield submit
        finally:
            self._taken_in -= num
            self._on_the_way -= missing
            self._held[client] -= num
            if not self._held[client]:
                del self._held[client]

    def check_room(self, client: str = "") -> None:
        """Raises Refusal 503 when there is no room for an image of this client, which need not be read then."""
        self._check_room(1, client)

    def _check_room(self, num: int, client: str) -> None:
        """A client that holds many places gets no more while few are free: by single images one alone may hold seven
        eighths, two seven fifteenths each, and whoever comes new finds room (dynamic thresholds: Choudhury and Hahne
        1998). Who holds none may take all that are free in one request."""
        free = self._limits.queue - self._taken_in
        if num > self._limits.queue:
            raise Refusal(413, f"{num} images in one request are more than the {self._limits.queue} that are taken")
        if self._closed:
            raise busy("the server is stopping")
        if num > free:
            raise busy("too many images are waiting already")
        if self._held[client] >= _OF_THE_FREE * (free - num + 1):
            raise busy("too many images of this address are waiting already, and others are to find room")

    def submit(self, seen: Any) -> Future[Any]:
        """What ``Answering.prepare`` gave -> a target of the task, later. One that is cancelled is not answered.

        Raises Refusal when the model stopped; the future raises ModelFailed.
        """
        future: Future[Any] = Future()
        with self._changed:
            if self._closed:
                raise busy("the server is stopping")
            self._waiting.append(_Waiting(seen, future, time.monotonic()))
            if len(self._waiting) == 1 or self._to_wait() == 0:  # else no thread has a reason to look
                self._changed.notify()
        return future

    def close(self, patience: float | None = None) -> None:
        """Answers what it was given, then ends; that is waited for, ``patience`` seconds at most."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        ends = None if patience is None else time.monotonic() + patience
        for thread in self._threads:
            thread.join(None if ends is None else max(0.0, ends - time.monotonic()))

    def _run(self) -> None:
        while batch := self._next():
            wanted = [each for each in batch if each.future.set_running_or_notify_cancel()]
            if wanted:
                self._answer(wanted)
            with self._changed:
                self._busy -= 1

    def _next(self) -> list[_Waiting]:
        """The next batch; empty when there will be no more."""
        with self._changed:
            while (left := self._to_wait()) != 0:
                self._changed.wait(left)
            if not self._waiting:
                return []
            share = math.ceil(len(self._waiting) / (len(self._threads) - self._busy))  # idle threads get theirs
            batch = [self._waiting.popleft() for _ in range(min(share, self._most))]
            self._busy += 1
            self._changed.notify()
            return batch

    def _to_wait(self) -> float | None:
        """Seconds until a batch closes, 0 when it does now or there will be none; None: it has not begun."""
        if self._closed:
            return 0.0
        if not self._waiting:
            return None
        if len(self._waiting) >= self._most or self._on_the_way <= 0:
            return 0.0
        return max(0.0, self._waiting[0].since + self._limits.max_delay / 1000 - time.monotonic())

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
