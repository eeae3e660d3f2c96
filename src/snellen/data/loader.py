"""Batches for training and evaluation, made ahead by threads: Pillow and torch release the interpreter while they work.

A batch is a pure function of (seed, epoch, position): no worker keeps a random state, and a run that is resumed asks
for the batch it needs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from snellen.core.record import Record
from snellen.core.sample import Batch, Frame
from snellen.data.image_sets import ImageSet, Variation
from snellen.data.mixing import mix
from snellen.data.placement import FITS
from snellen.data.sampling import copy_numbers, epoch_order
from snellen.data.scenes import training_scene
from snellen.data.store import ImageStore
from snellen.data.variants import vary, vary_batch

if TYPE_CHECKING:
    import torch

EVALUATION_BATCH = 32
_AHEAD = 2  # batches per worker that wait to be used


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
        ids = [record.id for record in records]
        if self.variation is None:
            prepared = [self.images.store.prepared(record) for record in records]
            targets, frames = self._evaluated(records)
            return Batch(images=stack(prepared), targets=targets, ids=ids, frames=frames)
        if self.images.places is not None:
            batch = self._scenes(self.variation, ids, self._keys(records))
        else:
            pixels = _varied(self.variation, self.epoch, records, self._keys(records), self.images.store)
            batch = Batch(images=pixels, targets=[self.images.targets[i] for i in self.chosen], ids=ids)
        return mix(
            batch,
            mixup=self.variation.mixup,
            cutmix=self.variation.cutmix,
            seed=self.variation.seed,
            epoch=self.epoch,
            step=self.step,
            places=self.images.places,
        )

    def _scenes(self, variation: Variation, ids: Sequence[str], keys: Sequence[str]) -> Batch[Any]:
        scenes = [
            training_scene(self.images, variation, self.epoch, i, key) for i, key in zip(self.chosen, keys, strict=True)
        ]
        return Batch(
            images=stack([each.pixels for each in scenes]),
            targets=[each.target for each in scenes],
            ids=ids,
            num_objects=sum(each.num_objects for each in scenes),
            num_cut_away=sum(each.num_cut_away for each in scenes),
        )

    def _evaluated(self, records: Sequence[Record]) -> tuple[list[Any], list[Frame]]:
        """The targets, in pixels of the input where they lie anywhere, and how each image became the input."""
        targets = [self.images.targets[i] for i in self.chosen]
        places = self.images.places
        if places is None:
            return targets, []
        frames = [self.images.store.frame(record) for record in records]
        moved = [places.warp(t, f.matrix, f.input_size) for t, f in zip(targets, frames, strict=True)]
        return moved, frames

    def _keys(self, records: Sequence[Record]) -> list[str]:
        """What each image's randomness follows from: an image that comes again is varied differently."""
        return [f"{record.id}\n{n}" if n else record.id for record, n in zip(records, self.copies, strict=True)]


def _varied(
    variation: Variation, epoch: int, records: Sequence[Record], keys: Sequence[str], store: ImageStore
) -> torch.Tensor:
    """A variant of each image, uint8 [n, 3, h, w]."""
    size = store.preprocessing.input_size
    fit = FITS[store.preprocessing.fit]
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
