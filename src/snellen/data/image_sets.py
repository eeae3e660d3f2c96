"""The images of a split with their targets, and how training images are varied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from snellen.core.geometry import Matrix, Size
from snellen.core.plan import Plan
from snellen.core.record import Record
from snellen.data.augment import Augmentation
from snellen.data.elastic import ElasticField
from snellen.data.store import ImageStore

_MOSAIC_EPOCHS = 0.8  # of all; Ge et al. 2021 (YOLOX, arXiv:2107.08430) leave out the last 15 of 300


class Places(Protocol):
    """What a task that answers about places knows of its targets (``Task``)."""

    def warp(self, target: Any, matrix: Matrix, size: Size, field: ElasticField | None = None) -> Any: ...

    def nothing(self, like: Any) -> Any: ...

    def overlay(self, own: Any, other: Any, region: tuple[int, int, int, int]) -> Any: ...

    def num_objects(self, target: Any) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """Records with their targets, and where their pixels are.

    places  of targets that lie in the pixels of the images on disk: batches have them in the pixels of the input
    """

    records: Sequence[Record]
    targets: Sequence[Any]
    store: ImageStore
    places: Places | None = None

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """How training images are varied, and which an epoch visits.

    by_batch  tiny images of one size, a whole batch at a time
    sampling  of data.sampling.SAMPLINGS
    mixup, cutmix  of data.mixing.mix; 0 is off
    mosaic    share of the images that are put together from four, where targets lie in places: in the epochs before
              number ``mosaic_until``, so that the last ones are as the images are
    copy_paste  share of the images that get objects of another one, where these have outlines
    """

    augmentation: Augmentation
    by_batch: bool
    seed: int
    sampling: str = "as is"
    mixup: float = 0.0
    cutmix: float = 0.0
    mosaic: float = 0.0
    mosaic_until: int = 0
    copy_paste: float = 0.0

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
            mosaic=plan.mosaic,
            mosaic_until=round(_MOSAIC_EPOCHS * (plan.head_epochs + plan.epochs)),
            copy_paste=plan.copy_paste,
        )
