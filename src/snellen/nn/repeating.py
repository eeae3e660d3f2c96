"""A step that is done again and again, so that a large image need not be in memory as floats all at once.

In a graph it is a loop, and one step's tensors are gone before the next.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Carried = tuple[Tensor, ...]
Step = Callable[[Carried, Tensor], tuple[Carried, Tensor]]
"""What is carried on and an element of what is gone through -> what is carried on, and what is told of the element."""


def steps_for(length: int, most: int) -> int:
    """Steps of ``most`` that cover ``length``, and one more: a graph in which there may be a single one is made for
    that, or for more, but not for both."""
    return (length + most - 1) // most + 1


def repeated(step: Step, carried: Carried, over: Tensor) -> tuple[Carried, Tensor]:
    """``step`` for each of ``over`` [k] in turn -> what was carried on at last, and all that was told, [k, ...].

    Other tensors that the step needs, it may take from around it.
    """
    if torch.compiler.is_exporting():
        from torch._higher_order_ops.scan import scan  # not public yet; elsewhere it would compile the step first

        def counted(given: Carried, element: Tensor) -> tuple[Carried, Tensor]:
            after, said = step(given[1:], element)
            return (given[0] + 1, *after), said

        number = torch.zeros((), dtype=torch.int64)  # since a scan must carry something
        (_, *last), said = scan(counted, (number, *carried), over)
        return tuple(last), said
    told = []
    for element in over:
        carried, said = step(carried, element)
        told.append(said)
    return carried, torch.stack(told)
