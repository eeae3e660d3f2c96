"""How an image becomes the input, as a part of a graph: Pillow's antialiased resize in integers, to the bit.

Runtimes have a resize each. Of three tried on uint8, ONNX Runtime 1.32 is up to 19 grey levels off near the borders and
OpenVINO 2026.4 leaves the antialiasing out (see docs/measurements.md). Here the weights are computed from the sizes, in
the fixed point that Pillow has (22 bits), and applied as two matrix products. All numbers are whole, or whole and over
a power of two, and float32 holds them without rounding as long as the image is at most 32 times as long as its place in
the input. Nothing needs 64 bits, which OpenVINO has not: every runtime that computes in single precision gives the
pixels that training saw. A few rows of the image are looked at together: as floats it would take twelve bytes a pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from snellen.core.geometry import Size, center_crop_steps
from snellen.core.preprocessing import Preprocessing
from snellen.nn.repeating import repeated, steps_for

_ROWS = 16  # of the image at a time: enough for a matrix product to be quick
_DIGIT = 1 << 11  # a weight has 22 bits, PRECISION_BITS of Pillow's Resample.c, in two digits
_HALF = 1 << 12  # float32 holds whole numbers of 24 bits


class Axis(NamedTuple):
    """One direction of the placement: the image's ``length`` is resized to ``resized`` pixels, which begin at pixel
    ``offset`` of the input. Numbers, or symbols while a graph is traced."""

    length: int
    resized: int
    offset: int

    def to_input(self, places: Tensor) -> Tensor:
        """float64 coordinates in the image -> in the input."""
        return places * (self.resized / self.length) + self.offset

    def to_image(self, places: Tensor) -> Tensor:
        """Coordinates in the input -> float64 coordinates in the image."""
        return (places.double() - self.offset) * (self.length / self.resized)


class Placed(NamedTuple):
    """How an image lies in the input, across and down; ``input_size`` is (width, height)."""

    across: Axis
    down: Axis
    input_size: Size

    def boxes(self, boxes: Tensor) -> Tensor:
        """float32 [m, 4] in pixels of the input -> in those of the image, cut to it."""
        x = self.across.to_image(boxes[:, 0::2]).clamp(min=0)
        y = self.down.to_image(boxes[:, 1::2]).clamp(min=0)
        x = torch.minimum(x, torch.full_like(x, 1) * self.across.length)
        y = torch.minimum(y, torch.full_like(y, 1) * self.down.length)
        return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1).float()

    def lines(self) -> tuple[Tensor, Tensor]:
        """Where the centres of the image's columns and rows lie, in ``grid_sample``'s coordinates: float32 [W], [H]."""
        x, y = (
            (axis.to_input(torch.arange(axis.length, dtype=torch.float64) + 0.5) * (2.0 / length) - 1.0).float()
            for axis, length in zip((self.across, self.down), self.input_size, strict=True)
        )
        return x, y


def placed(width: int, height: int, preprocessing: Preprocessing) -> Placed:
    return Placed(*axes(width, height, preprocessing), preprocessing.input_size)


def axes(width: int, height: int, preprocessing: Preprocessing) -> tuple[Axis, Axis]:
    """Across and down, by the whole-pixel arithmetic of ``core.geometry``, which symbols can follow."""
    out_width, out_height = preprocessing.input_size
    match preprocessing.fit:
        case "squash":
            return Axis(width, out_width, 0), Axis(height, out_height, 0)
        case "letterbox":
            across = _between(1, (2 * width * out_height + height) // (2 * height), out_width)
            down = _between(1, (2 * height * out_width + width) // (2 * width), out_height)
            return Axis(width, across, (out_width - across) // 2), Axis(height, down, (out_height - down) // 2)
        case "center crop":
            (across, down), (left, top) = center_crop_steps(
                (width, height), preprocessing.input_size, preprocessing.crop_fraction
            )
            return Axis(width, across, -left), Axis(height, down, -top)


def _between(least: int, length: int, most: int) -> int:
    """``max(least, min(length, most))``, without the minimum: onnxscript 0.7 makes one ``Clip`` of the two, and where
    there are two of the same length, one of them loses its limits."""
    beyond = torch.sym_max(length - most, 0)
    return torch.sym_max(length - beyond, least)  # type: ignore[return-value]


class Placing(nn.Module):
    """image uint8 [n, H, W, 3] -> the network's input, float32 [n, 3, h, w], whole values 0..255.

    fill  the colour around an image that does not fill the input
    """

    fill: Tensor

    def __init__(self, preprocessing: Preprocessing, fill: tuple[int, int, int]) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.register_buffer("fill", torch.tensor(fill, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        across, down = axes(image.shape[2], image.shape[1], self.preprocessing)
        width, height = self.preprocessing.input_size
        x = _rows_resampled(image, _weights(across, width, image.device))
        x = _resampled(x.transpose(2, 3), _weights(down, height, image.device)).transpose(2, 3)
        if self.preprocessing.fit != "letterbox":
            return x
        inside = _inside(down, height, x)[:, None] & _inside(across, width, x)
        return torch.where(inside, x, self.fill)


def _inside(axis: Axis, length: int, like: Tensor) -> Tensor:
    """bool [length]: which pixels of the input show something of the image."""
    place = torch.arange(length, device=like.device) - axis.offset
    return (place >= 0) & (place < axis.resized)


def _rows_resampled(image: Tensor, parts: tuple[Tensor, Tensor]) -> Tensor:
    """uint8 [n, H, W, 3] -> [n, 3, H, w], some rows at a time; after the last one, it is taken again."""
    height = image.shape[1]
    last, rows = torch.full((), height - 1, device=image.device), torch.arange(_ROWS, device=image.device)
    starts = torch.arange(steps_for(height, _ROWS), device=image.device) * _ROWS

    def strip(carried: tuple[Tensor, ...], start: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        taken = image.index_select(1, torch.minimum(start + rows, last))
        return (), _resampled(taken.permute(0, 3, 1, 2).float(), parts)

    _, strips = repeated(strip, (), starts)
    return strips.permute(1, 2, 0, 3, 4).flatten(2, 3)[:, :, :height]


def _resampled(values: Tensor, parts: tuple[Tensor, Tensor]) -> Tensor:
    """values [..., length], whole numbers 0..255, by ``_weights`` [w, length] -> [..., w]."""
    high, low = (torch.matmul(values, part.transpose(0, 1)) for part in parts)
    half = _DIGIT // 2
    return torch.floor((high + torch.floor(low / _DIGIT) + half) / _DIGIT)


def _weights(axis: Axis, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The triangle filter as wide as the coarser of both grids, in units of 2**-22: high * 2**11 + low.

    Two float32 [length, axis.length] of whole numbers, |low| <= 2**10. This is long division in base 2**11: what is
    left after a digit is exact, so it does not matter how a runtime rounds a quotient, only the last is put right.
    """
    pixels = torch.arange(axis.length, device=device)
    places = torch.arange(length, device=device) - axis.offset
    apart = (2 * pixels + 1) * axis.resized - (2 * places[:, None] + 1) * axis.length
    reach = 2 * torch.sym_max(axis.length, axis.resized)
    share = torch.rsub(apart.abs(), reach).clamp(min=0).float()
    total = share.sum(1, keepdim=True).clamp(min=1)  # beyond the image there is none
    high = torch.floor(share * _DIGIT / total + 0.5)
    left = _remainder(share, high, total)
    low = torch.floor(left * _DIGIT / total + 0.5)
    twice = 2 * _remainder(left, low, total)
    return high, low + (twice >= total).float() - (twice < -total).float()


def _remainder(value: Tensor, digit: Tensor, total: Tensor) -> Tensor:
    """value * 2**11 - digit * total in float32, exact although the products are not: total is taken in two halves."""
    coarse = torch.floor(total / _HALF)
    return (value * _DIGIT - digit * coarse * _HALF) - digit * (total - coarse * _HALF)
