"""What a detector learns from, one image at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """The objects of one image, in pixels of the network's input.

    boxes   float32 [k, 4] (x0, y0, x1, y1), x0 < x1 and y0 < y1
    labels  int64 [k], class indices from 0; there is none for the background
    crowd   bool [k]: regions that are neither learnt nor counted as background
    masks   bool [k, h, w], where outlines are learnt as well
    """

    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    masks: Tensor | None = None

    def __post_init__(self) -> None:
        if self.boxes.shape[1:] != (4,) or not len(self.boxes) == len(self.labels) == len(self.crowd):
            shapes = ", ".join(str(tuple(each.shape)) for each in (self.boxes, self.labels, self.crowd))
            raise ValueError(f"k objects have boxes [k, 4], labels [k] and crowd [k], got {shapes}")

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def of_boxes(cls, boxes: Tensor, labels: Tensor) -> Truth:
        """No crowds, no masks."""
        return cls(boxes.float(), labels, torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device))

    @classmethod
    def empty(cls) -> Truth:
        """An image without objects."""
        return cls.of_boxes(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))

    def to(self, device: torch.device) -> Truth:
        masks = None if self.masks is None else self.masks.to(device)
        return Truth(self.boxes.to(device), self.labels.to(device), self.crowd.to(device), masks)
