"""Batches for training and evaluation, made ahead by threads: Pillow and torch release the interpreter while they work.

A batch is a pure function of (seed, epoch, position): no worker keeps a random state, and a run that is resumed asks
for the batch it needs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from snellen.core.plan import Plan
from snellen.core.record import Record
from snellen.core.sample import Batch
from snellen.data.augment import Augmentation
from snellen.data.mixing import mix
from snellen.data.placement import Fit
from snellen.data.sampling import copy_numbers, epoch_order
from snellen.data.store import ImageStore
from snellen.data.variants import vary, vary_batch

if TYPE_CHECKING:
    import torch

EVALUATION_BATCH = 32
_AHEAD = 2  # batches per worker that wait to be used

WarpTarget = Callable[[Any, np.ndarray, tuple[int, int]], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """Records with their targets, and where their pixels are."""

    records: Sequence[Record]
    targets: Sequence[Any]
    store: ImageStore

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """How training images are varied, and which an epoch visits.

    by_batch  tiny images of one size, a whole batch at a time
    sampling  of data.sampling.SAMPLINGS
    mixup, cutmix  of data.mixing.mix; 0 is off
    """

    augmentation: Augmentation
    by_batch: bool
    seed: int
    sampling: str = "as is"
    mixup: float = 0.0
    cutmix: float = 0.0

    @classmethod
    def of(cls, plan: Plan) -> Variation:
        """What ``plan`` says."""
        return cls(
            augmentation=Augmentation(**plan.augmentation),
            by_batch=plan.vary_by_batch,
            seed=plan.seed,
            sampling=plan.sampling,
            mixup=plan.mixup,
            cutmix=plan.cutmix,
        )


def evaluation_batches(images: ImageSet, batch_size: int, workers: int) -> Iterator[Batch[Any]]:
    """Every image once, in order, as prepared for the network."""
    starts = range(0, len(images), batch_size)
    return _ahead([_Job(images, range(start, min(start + batch_size, len(images)))) for start in starts], workers)


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """The last, smaller batch counts unless it has a single image, which batch norm cannot train on."""
    full, rest = divmod(num_images, batch_size)
    return max(1, full + (rest > 1))


def training_batches(
    images: ImageSet, variation: Variation, *, epoch: int, batch_size: int, workers: int, first: int = 0
) -> Iterator[Batch[Any]]:
    """The batches of one epoch from number ``first`` on, in an order of its own.

    Every image comes at most once, unless ``variation.sampling`` repeats it.
    """
    order = epoch_order(images.records, variation.sampling, variation.seed, epoch)
    copies = copy_numbers(order)
    jobs = []
    for step in range(first, steps_per_epoch(len(order), batch_size)):
        there = slice(step * batch_size, (step + 1) * batch_size)
        jobs.append(_Job(images, order[there].tolist(), variation, epoch, step, copies[there].tolist()))
    return _ahead(jobs, workers)


@dataclass(frozen=True, slots=True)
class _Job:
    images: ImageSet
    chosen: Sequence[int]
    variation: Variation | None = None
    epoch: int = 0
    step: int = 0
    copies: Sequence[int] = ()

    def run(self) -> Batch[Any]:
        records = [self.images.records[i] for i in self.chosen]
        targets = [self.images.targets[i] for i in self.chosen]
        ids = [record.id for record in records]
        if self.variation is None:
            prepared = [self.images.store.prepared(record) for record in records]
            return Batch(images=stack(prepared), targets=targets, ids=ids)
        pixels = _varied(self.variation, self.epoch, records, self._keys(records), self.images.store)
        return mix(
            Batch(images=pixels, targets=targets, ids=ids),
            mixup=self.variation.mixup,
            cutmix=self.variation.cutmix,
            seed=self.variation.seed,
            epoch=self.epoch,
            step=self.step,
        )

    def _keys(self, records: Sequence[Record]) -> list[str]:
        """What each image's randomness follows from: an image that comes again is varied differently."""
        return [f"{record.id}\n{n}" if n else record.id for record, n in zip(records, self.copies, strict=True)]


def _varied(
    variation: Variation, epoch: int, records: Sequence[Record], keys: Sequence[str], store: ImageStore
) -> torch.Tensor:
    """A variant of each image, uint8 [n, 3, h, w]."""
    size = store.preprocessing.input_size
    fit: Fit = "squash" if store.preprocessing.fit == "squash" else "crop"
    settings, seed = variation.augmentation, variation.seed
    if variation.by_batch:
        images = stack([store.prepared(record) for record in records])
        return vary_batch(settings, seed, epoch, keys, images, size, fit=fit)
    keyed = zip(keys, records, strict=True)
    return stack([vary(settings, seed, epoch, key, store.source(record), size, fit=fit) for key, record in keyed])


def stack(images: Sequence[np.ndarray]) -> torch.Tensor:
    """uint8 [h, w, 3] each -> uint8 [n, 3, h, w], channels last in memory, which needs no copy."""
    import torch

    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def _ahead(jobs: Sequence[_Job], workers: int) -> Iterator[Batch[Any]]:
    """Run the jobs in threads, a few ahead of use, and give their results in order."""
    with ThreadPoolExecutor(workers, thread_name_prefix="snellen-loader") as pool:
        waiting: deque[Future[Batch[Any]]] = deque()
        remaining = iter(jobs)
        try:
            for job in remaining:
                waiting.append(pool.submit(job.run))
                if len(waiting) >= _AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
