"""Several models of one question, asked together: each sees an image at its own size, and one prediction comes of it.

Structurally an ``Answering`` of predict, so that whatever takes one takes an ensemble; evaluate asks ``answers``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from snellen.core.console import Advance
from snellen.core.device import available_cores
from snellen.core.geometry import Size
from snellen.core.preprocessing import Preprocessing
from snellen.core.record import Record
from snellen.core.sample import Batch, Frame
from snellen.data.image import read_image
from snellen.data.loader import EVALUATION_BATCH, stack
from snellen.data.store import frame_of, prepare
from snellen.ensemble.ways import rule_of
from snellen.tasks.base import Task, create_task, is_dense
from snellen.tasks.loading import LoadedModel
from snellen.tasks.objects.task import ObjectTask


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """An image as one kind of model gets it, uint8 [h, w, 3], and how it came to be so."""

    pixels: np.ndarray
    frame: Frame


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """Raw outputs of each model for the same images, and how each saw them (empty where nothing lies in places)."""

    outputs: Sequence[Any]
    frames: Sequence[Sequence[Frame]]


class Ensemble:
    """``members`` that answer as one.

    way        of ``ways.WAYS``, without 'soup', which is a single network
    weights    what each member counts, for 'weighted'; empty: all alike
    reference  scores of validation images by each member, [members, images, labels], for ranks among images

    It decides as the members do on average, where most of them have a rule of their own (``Task.decision``). Classes
    are in the order of the first member's, whatever their order in the others. Raises RunError when they answer
    different questions.
    """

    def __init__(
        self,
        members: Sequence[LoadedModel],
        way: str = "mean",
        weights: Sequence[float] = (),
        reference: np.ndarray | None = None,
    ) -> None:
        from snellen.ensemble.alignment import aligned
        from snellen.nn.folding import for_inference

        self.members = aligned(members)
        # Raw outputs of all members are in memory at once; those about places are large.
        self.batch = max(1, EVALUATION_BATCH // len(members)) if is_dense(members[0].plan.task) else EVALUATION_BATCH
        self._join(way, weights, reference)
        self._networks = [for_inference(member.network) for member in self.members]
        # Members that see images alike share the work of making them so.
        self._views = list(dict.fromkeys(_view(member) for member in members))
        self._view_of = [self._views.index(_view(member)) for member in members]

    def joined(self, way: str, weights: Sequence[float] = (), reference: np.ndarray | None = None) -> Ensemble:
        """The same members, joined in another way."""
        made = copy(self)
        made._join(way, weights, reference)
        return made

    def _join(self, way: str, weights: Sequence[float], reference: np.ndarray | None) -> None:
        self.way, self.weights = way, tuple(weights)
        first, shares = self.members[0], weights or [1.0] * len(self.members)
        counting = [each for each, weight in zip(self.members, shares, strict=True) if weight > 0]
        self.task: Task[Any] = create_task(first.plan.task, first.plan.classes, _decision(counting)).configured(
            first.plan
        )
        self._reference, self._rule = reference, rule_of(self.task.name, way)

    @property
    def preprocessing(self) -> Preprocessing:
        """Of the members' the one that shows least of an image: a centre crop where there is one."""
        return next((view for view in self._views if view.fit == "center crop"), self._views[0])

    @property
    def min_side(self) -> int:
        return max(view.decode_min_side for view in self._views)

    def prepare(self, pixels: np.ndarray, size: Size) -> tuple[Seen, ...]:
        """uint8 [H, W, 3], of an image that is (width, height) on disk -> as each kind of member sees it."""
        return tuple(Seen(prepare(pixels, view, size), frame_of(size, view)) for view in self._views)

    def decide(self, seen: Sequence[tuple[Seen, ...]]) -> Sequence[Any]:
        """What ``prepare`` gave for some images -> a target of the task for each."""
        return self.settle(self.hear(seen)) if seen else []

    def hear(self, seen: Sequence[tuple[Seen, ...]]) -> Heard:
        """Ask every member about some images."""
        frames = [[views[view].frame for views in seen] if self.task.dense else [] for view in self._view_of]
        return Heard([self._outputs(k, seen) for k in range(len(self.members))], frames)

    def settle(self, heard: Heard) -> Sequence[Any]:
        """What the members say, as one prediction an image."""
        if self.joins_predictions:
            return self.settle_alone([self.alone(heard, k) for k in range(len(self.members))])
        return self.task.decode_together(heard.outputs, heard.frames if self.task.dense else (), self.weights)

    @property
    def joins_predictions(self) -> bool:
        """Whether what each member says by itself is all that is needed, and raw outputs are not: for votes, for ranks,
        and for objects, which each member finds by its own rules (one thins boxes out, another need not)."""
        return self._rule is not None or isinstance(self.task, ObjectTask)

    def settle_alone(self, said: Sequence[Sequence[Any]]) -> Sequence[Any]:
        """Of each member what it says by itself (``alone``) -> one prediction an image; where ``joins_predictions``."""
        if self._rule is not None:
            return self._rule(said, self._reference)
        assert isinstance(self.task, ObjectTask)
        return self.task.fused(said, self.weights)

    def alone(self, heard: Heard, number: int) -> Sequence[Any]:
        """What one member says by itself."""
        return self.members[number].task.decode(heard.outputs[number], heard.frames[number])

    def answers(self, records: Sequence[Record], advance: Advance | None = None) -> list[Any]:
        """One prediction an image, in order. Raises ImageError for one that cannot be decoded."""
        answered: list[Any] = []
        for heard in self.hearings(records):
            answered += self.settle(heard)
            if advance is not None:
                advance(len(answered), len(records))
        return answered

    def hearings(self, records: Sequence[Record]) -> Iterator[Heard]:
        """What each member says, a batch after the other, while the next images are read."""
        remaining = iter(records)
        waiting: deque[Future[tuple[Seen, ...]]] = deque()
        with ThreadPoolExecutor(max(2, available_cores())) as pool:
            try:
                while True:
                    for record in islice(remaining, 2 * self.batch - len(waiting)):
                        waiting.append(pool.submit(self._read, record))
                    if not waiting:
                        return
                    yield self.hear([waiting.popleft().result() for _ in range(min(self.batch, len(waiting)))])
            finally:
                for future in waiting:
                    future.cancel()

    def _read(self, record: Record) -> tuple[Seen, ...]:
        header, pixels = read_image(record.path, min_side=self.min_side)
        return self.prepare(pixels, (header.width, header.height))

    def _outputs(self, number: int, seen: Sequence[tuple[Seen, ...]]) -> Any:
        import torch

        from snellen.nn.placement import to_device
        from snellen.nn.precision import arithmetic

        plan = self.members[number].plan
        images = stack([views[self._view_of[number]].pixels for views in seen])
        batch: Batch[Any] = to_device(Batch(images=images, targets=(), ids=()), plan)
        with torch.inference_mode(), arithmetic(torch.device(plan.device), plan.precision):
            return self._networks[number](batch.images)


def ensemble(models: Sequence[LoadedModel]) -> Ensemble:
    """The mean of the models' predictions (Hansen and Salamon, IEEE PAMI 12 (1990) 993). Raises RunError as
    ``Ensemble``."""
    return Ensemble(models)


def _decision(models: Sequence[LoadedModel]) -> tuple[float, ...]:
    rules = [model.task.decision for model in models if model.task.decision]
    if 2 * len(rules) <= len(models):
        return ()
    return tuple(sum(numbers) / len(rules) for numbers in zip(*rules, strict=True))


def _view(model: LoadedModel) -> Preprocessing:
    """How an image is resized for it; how it is standardised is a part of its network."""
    return replace(model.plan.preprocessing, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
