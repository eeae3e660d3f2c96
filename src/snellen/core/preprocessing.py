"""The one preprocessing of a model: it travels with the weights through train, evaluate, predict, export and serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Fit = Literal["squash", "center crop", "letterbox"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How a decoded image becomes the network's input.

    input_size     (width, height) in pixels
    fit            'squash': a plain antialiased resize to input_size, nothing of the image is lost;
                   'center crop': the short side is resized to input_size / crop_fraction, then the centre is cut out;
                   'letterbox': the whole image within input_size, its proportions kept, the rest filled
    crop_fraction  share of the short side that the crop keeps, 0 < f <= 1
    mean, std      per channel (RGB) of pixel values in 0..1; the network itself applies (x / 255 - mean) / std
    """

    input_size: tuple[int, int]
    fit: Fit
    crop_fraction: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def decode_min_side(self) -> int:
        """The short side, in pixels, below which decoding at reduced scale would cost detail of the input."""
        return round(max(self.input_size) / self.crop_fraction)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Preprocessing:
        width, height = fields["input_size"]
        return cls(
            input_size=(width, height),
            fit=fields["fit"],
            crop_fraction=fields["crop_fraction"],
            mean=tuple(fields["mean"]),
            std=tuple(fields["std"]),
        )
