"""Batches of somebody else's loader: in another order, put together, or with other numbers in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from snellen.core.seeds import keyed_seed
from snellen.doctor.case import Batch

_LOOKED_AT = 2_000  # images: enough for the mean and the deviation of a channel


@dataclass(frozen=True, slots=True)
class Affine:
    """scale, offset [c], one for each channel."""

    scale: Tensor
    offset: Tensor

    def __call__(self, inputs: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (inputs.dim() - 2))
        return inputs * self.scale.view(shape).to(inputs) + self.offset.view(shape).to(inputs)


@dataclass(frozen=True, slots=True)
class Mapped:
    """The batches of ``source``, their inputs sent through ``move``."""

    source: Iterable[Batch]
    move: Callable[[Any], Any]

    def __iter__(self) -> Iterator[Batch]:
        return ((self.move(inputs), targets) for inputs, targets in self.source)


@dataclass(frozen=True, slots=True)
class Merged:
    """``count`` batches of ``source`` as one; the last may have fewer."""

    source: Iterable[Batch]
    count: int

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.source)
        while together := list(islice(batches, self.count)):
            yield torch.cat([inputs for inputs, _ in together]), torch.cat([targets for _, targets in together])


@dataclass(frozen=True, slots=True)
class Parted:
    """Each batch of ``source`` as ``count`` of about the same size; of two images at least, for batch norms."""

    source: Iterable[Batch]
    count: int

    def __iter__(self) -> Iterator[Batch]:
        for inputs, targets in self.source:
            parts = max(1, min(self.count, len(targets) // 2))
            yield from zip(torch.tensor_split(inputs, parts), torch.tensor_split(targets, parts), strict=True)


class Shuffled:
    """The images of ``source`` in another order each time, in batches of its size. Holds an epoch in memory."""

    def __init__(self, source: Iterable[Batch], *, seed: int) -> None:
        self._source, self._seed, self._epoch = source, seed, 0

    def __iter__(self) -> Iterator[Batch]:
        batches = list(self._source)
        size = len(batches[0][1])
        inputs = torch.cat([each for each, _ in batches])
        targets = torch.cat([each for _, each in batches])
        generator = torch.Generator().manual_seed(keyed_seed("order", self._seed, self._epoch))
        self._epoch += 1
        order = torch.randperm(len(targets), generator=generator)
        for chosen in torch.split(order, size):
            if len(chosen) > 1:  # batch norms cannot learn from one
                yield inputs[chosen], targets[chosen]


class Balanced:
    """The images of ``source`` drawn anew in each epoch, every class as often, in batches of the same sizes.

    Rare images come several times (Japkowicz and Stephen 2002). Targets are classes, [n]. Holds an epoch in memory.
    """

    def __init__(self, source: Iterable[Batch], *, seed: int) -> None:
        self._source, self._seed, self._epoch = source, seed, 0

    def __iter__(self) -> Iterator[Batch]:
        batches = list(self._source)
        inputs = torch.cat([each for each, _ in batches])
        targets = torch.cat([each for _, each in batches])
        generator = torch.Generator().manual_seed(keyed_seed("balance", self._seed, self._epoch))
        self._epoch += 1
        weights = 1 / torch.bincount(targets.cpu()).double()[targets.cpu()]
        drawn = torch.multinomial(weights, len(targets), replacement=True, generator=generator)
        for chosen in torch.split(drawn, [len(each) for _, each in batches]):
            yield inputs[chosen], targets[chosen]

    def __len__(self) -> int:
        return num_batches(self._source)


@dataclass(frozen=True, slots=True)
class Finite:
    """The batches of ``source`` without the images that hold NaN or infinity."""

    source: Iterable[Batch]

    def __iter__(self) -> Iterator[Batch]:
        for inputs, targets in self.source:
            good = torch.isfinite(inputs.flatten(1)).all(1)
            if bool(good.all()):
                yield inputs, targets
            elif int(good.sum()) > 1:  # batch norms cannot learn from one
                yield inputs[good], targets[good]


class Enriched:
    """The batches of ``source``, with further images of ``plain`` spread over them: those at ``rows`` of its order, so
    that each is there ``times`` times as often, in another order in each epoch. Holds these images in memory."""

    def __init__(
        self, source: Iterable[Batch], plain: Iterable[Batch], rows: Sequence[int], times: float, *, seed: int
    ) -> None:
        self._source, self._plain, self._rows, self._times = source, plain, rows, times
        self._seed, self._epoch = seed, 0
        self._more: tuple[Tensor, Tensor] | None = None

    def __iter__(self) -> Iterator[Batch]:
        if self._more is None:
            self._more = _at(self._plain, self._rows)
        inputs, targets = self._more
        generator = torch.Generator().manual_seed(keyed_seed("more", self._seed, self._epoch))
        self._epoch += 1
        num = round((self._times - 1) * len(targets))
        laps = -(-num // max(1, len(targets)))
        order = torch.cat([torch.randperm(len(targets), generator=generator) for _ in range(laps)])[:num]
        for chosen, (own, truth) in zip(order.tensor_split(num_batches(self._source)), self._source, strict=False):
            yield torch.cat([own, inputs[chosen].to(own)]), torch.cat([truth, targets[chosen].to(truth)])


def num_batches(source: Iterable[Batch]) -> int:
    """Of an epoch; a loader that does not say so is run through."""
    try:
        return len(source)  # type: ignore[arg-type]
    except TypeError:  # no length, or, as of a loader of an IterableDataset, one that cannot be told
        return sum(1 for _ in source)


def _at(source: Iterable[Batch], rows: Sequence[int]) -> tuple[Tensor, Tensor]:
    wanted = torch.tensor(sorted(rows))
    start, parts = 0, []
    for inputs, targets in source:
        here = wanted[(wanted >= start) & (wanted < start + len(targets))] - start
        parts.append((inputs[here], targets[here]))
        start += len(targets)
    inputs, targets = zip(*parts, strict=True)
    return torch.cat(inputs), torch.cat(targets)


def statistics(batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [c] of each channel (the second axis) over the first 2,000 images; never zero."""
    total = square = torch.zeros(0, dtype=torch.float64)
    count = images = 0
    for inputs, _ in batches:
        values = inputs.detach().cpu().double().transpose(0, 1).flatten(1)
        total = values.sum(1) if not count else total + values.sum(1)
        square = values.square().sum(1) if not count else square + values.square().sum(1)
        count += values.shape[1]
        images += len(inputs)
        if images >= _LOOKED_AT:
            break
    mean = total / max(1, count)
    variance = (square / max(1, count) - mean.square()).clamp(min=0)
    return mean.float(), variance.sqrt().clamp(min=1e-6).float()
