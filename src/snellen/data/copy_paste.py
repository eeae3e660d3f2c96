"""Objects of one training image pasted into another, with their masks.

Ghiasi et al. 2021 (arXiv:2012.07177). Nothing is blended at the edges: they found that it makes no difference.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class Pastes(Protocol):
    """What a task whose objects have outlines knows of its targets."""

    def paste(self, own: Any, other: Any, rng: np.random.Generator) -> tuple[Any, NDArray[np.bool_]]:
        """Some objects of ``other``, drawn by ``rng``, in front of those of ``own``; and the pixels [h, w] they bring.

        What they hide too much of is dropped, by the rule of the target type.
        """
        ...


def copy_paste(
    own: NDArray[np.uint8],
    target: Any,
    other: NDArray[np.uint8],
    partner: Any,
    places: Pastes,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], Any]:
    """Two images uint8 [h, w, 3] of one size with their targets -> the first with objects of the second, and theirs."""
    both, pixels = places.paste(target, partner, rng)
    return np.where(pixels[..., None], other, own), both
