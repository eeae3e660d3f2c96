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

from snellen.core.record import Record
from snellen.core.sample import Batch
from snellen.core.seeds import keyed_permutation
from snellen.data import augment
from snellen.data.store import ImageStore
from snellen.data.warp import warp_batch, warp_image

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
    """How training images are varied. ``by_batch``: tiny images of one size, a whole batch at a time."""

    augmentation: augment.Augmentation
    by_batch: bool
    seed: int


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
    """The batches of one epoch from number ``first`` on: every image at most once, in an order of its own."""
    order = keyed_permutation(len(images), variation.seed, epoch)
    jobs = []
    for step in range(first, steps_per_epoch(len(images), batch_size)):
        chosen = order[step * batch_size : (step + 1) * batch_size]
        jobs.append(_Job(images, [int(i) for i in chosen], variation, epoch))
    return _ahead(jobs, workers)


@dataclass(frozen=True, slots=True)
class _Job:
    images: ImageSet
    chosen: Sequence[int]
    variation: Variation | None = None
    epoch: int = 0

    def run(self) -> Batch[Any]:
        records = [self.images.records[i] for i in self.chosen]
        targets = [self.images.targets[i] for i in self.chosen]
        store = self.images.store
        if self.variation is None:
            pixels = stack([store.prepared(record) for record in records])
        elif self.variation.by_batch:
            pixels = _vary_batch(self.variation, self.epoch, records, store)
        else:
            pixels = stack([_vary(self.variation, self.epoch, record, store) for record in records])
        return Batch(images=pixels, targets=targets, ids=[record.id for record in records])


def _vary(variation: Variation, epoch: int, record: Record, store: ImageStore) -> np.ndarray:
    """One warp and one colour matrix."""
    source = store.source(record)
    rng = augment.generator(variation.seed, epoch, record.id)
    size = store.preprocessing.input_size
    matrix = augment.geometry(variation.augmentation, rng, (source.shape[1], source.shape[0]), size, fit=_fit(store))
    return augment.photometric(variation.augmentation, rng, warp_image(source, matrix, size))


def _fit(store: ImageStore) -> augment.Fit:
    return "squash" if store.preprocessing.fit == "squash" else "crop"


def _vary_batch(variation: Variation, epoch: int, records: Sequence[Record], store: ImageStore) -> torch.Tensor:
    size = store.preprocessing.input_size
    ids = [record.id for record in records]
    key = (variation.seed, epoch, ids)
    matrices = augment.geometry_batch(variation.augmentation, *key, size, size, fit=_fit(store))
    images = warp_batch(stack([store.prepared(record) for record in records]), matrices, size)
    return augment.photometric_batch(variation.augmentation, *key, images)


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
