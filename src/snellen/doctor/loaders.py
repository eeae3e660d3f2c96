"""Batches of somebody else's loader: in another order, put together, or with other numbers in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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


def statistics(batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [c] of each channel (the second axis) over the first 2,000 images; never zero."""
    total = square = torch.zeros(0, dtype=torch.float64)
    count = images = 0
    for inputs, _ in batches:
        values = inputs.detach().double().cpu().transpose(0, 1).flatten(1)
        total = values.sum(1) if not count else total + values.sum(1)
        square = values.square().sum(1) if not count else square + values.square().sum(1)
        count += values.shape[1]
        images += len(inputs)
        if images >= _LOOKED_AT:
            break
    mean = total / max(1, count)
    variance = (square / max(1, count) - mean.square()).clamp(min=0)
    return mean.float(), variance.sqrt().clamp(min=1e-6).float()
