"""One training example as the network will get it, and a stack of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

TargetT = TypeVar("TargetT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(Generic[TargetT]):
    """id of the record, its pixels as uint8 [H, W, 3] RGB, and what it shows."""

    id: str
    image: np.ndarray
    target: TargetT


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Generic[TargetT]):
    """images float32 or uint8 [n, 3, H, W] with values 0..255 (the network normalises); one target and id per image."""

    images: Tensor
    targets: Sequence[TargetT]
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)
