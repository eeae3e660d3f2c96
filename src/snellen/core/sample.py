"""A stack of training examples as the network will get them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from snellen.core.geometry import Matrix, Size

if TYPE_CHECKING:
    from torch import Tensor

TargetT = TypeVar("TargetT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed(Generic[TargetT]):
    """What else each image of a batch shows: the target of the image mixed into it, and how much is its own (0..1)."""

    partners: Sequence[TargetT]
    share: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """How an image came to be the network's input, so that what is found in it can be told in the image's own pixels.

    size        (width, height) of the upright image, as it is on disk
    matrix      float64 [3, 3]: pixels of that image -> pixels of the input
    input_size  (width, height) of the input
    """

    size: Size
    matrix: Matrix
    input_size: Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Generic[TargetT]):
    """images float32 or uint8 [n, 3, H, W] with values 0..255 (the network normalises); one target and id per image.

    mixed   set where the images are blends of two (data/mixing.py); ``targets`` are then those of the first
    frames  one an image where answers are about places (``Task.dense``); targets are then in pixels of the input
    num_objects, num_cut_away   how many objects the images hold that were varied for training, and of how many of these
            so little is left in view that they are no longer among the targets
    """

    images: Tensor
    targets: Sequence[TargetT]
    ids: Sequence[str]
    mixed: Mixed[TargetT] | None = None
    frames: Sequence[Frame] = ()
    num_objects: int = 0
    num_cut_away: int = 0

    def __len__(self) -> int:
        return len(self.ids)
