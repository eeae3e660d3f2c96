"""What the detectors of other libraries share: the contract of ``dense.DenseDetector``, weighted terms, and crowds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from snellen.core.errors import ConfigError, did_you_mean
from snellen.core.geometry import Size
from snellen.core.preprocessing import Preprocessing
from snellen.nn.detection.table import check_sides
from snellen.nn.detection.truth import Truth
from snellen.nn.feature_maps import MapBackbone
from snellen.nn.network import Normalize

MOST = 1000  # candidates of an image: what published detectors hand to non-maximum suppression

_HUSHED = -100.0  # a log-odds at which background costs nothing and has no slope


class AdaptedDetector(nn.Module):
    """images uint8 or float [n, 3, h, w] with values 0..255 -> candidates float32 [n, m, 4 + num_classes].

    A candidate is a box (x0, y0, x1, y1) in pixels of the input, then a score 0..1 for each class. h and w have to be
    multiples of ``multiple``: ConfigError otherwise. Its parts are ``normalize``, ``backbone`` and ``head``.

    A subclass tells what the head makes of the maps (``raw``), what that costs (``terms``), what it means
    (``candidates``), and the terms' usual weights.
    """

    LOSS_WEIGHTS: ClassVar[Mapping[str, float]] = {}
    needs_nms: ClassVar[bool] = True

    def __init__(
        self,
        preprocessing: Preprocessing,
        backbone: MapBackbone,
        head: nn.Module,
        *,
        multiple: int,
        loss_weights: Mapping[str, float],
    ) -> None:
        super().__init__()
        self.normalize = Normalize(preprocessing.mean, preprocessing.std)
        self.backbone = backbone
        self.head: Any = head
        self.multiple = multiple
        self.loss_weights = self.weights_of_terms(loss_weights)

    @classmethod
    def weights_of_terms(cls, asked: Mapping[str, float]) -> dict[str, float]:
        """``LOSS_WEIGHTS`` with those that are asked for. Raises ConfigError for an unknown term."""
        for name in asked:
            if name not in cls.LOSS_WEIGHTS:
                raise ConfigError(f"this detector has no loss '{name}'{did_you_mean(name, cls.LOSS_WEIGHTS)}")
        return {**cls.LOSS_WEIGHTS, **asked}

    def forward(self, images: Tensor) -> Tensor:
        return self.candidates(self.raw(images))

    def losses(self, images: Tensor, truths: Sequence[Truth]) -> dict[str, Tensor]:
        """The terms of the training loss, weighted, by the names of ``LOSS_WEIGHTS``; float32 scalars."""
        return self.weighted(self.terms(self.raw(images), truths))

    @torch.no_grad()
    def assess(self, images: Tensor, truths: Sequence[Truth]) -> tuple[dict[str, Tensor], Tensor]:
        """``losses`` and ``forward`` out of one pass, in the mode that the network is in; draws are always the same."""
        device = images.device
        with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device], device_type=_drawing(device)):
            torch.manual_seed(0)
            terms, candidates = self.both(self.raw(images), truths)
            return self.weighted(terms), candidates

    def both(self, raw: Any, truths: Sequence[Truth]) -> tuple[dict[str, Tensor], Tensor]:
        """``terms`` and ``candidates``, for those that have a quicker way to both."""
        return self.terms(raw, truths), self.candidates(raw)

    def maps(self, images: Tensor) -> Sequence[Tensor]:
        """What the backbone sees. Raises ConfigError for a size that does not fit."""
        check_sides((images.shape[-1], images.shape[-2]), self.multiple)
        maps: Sequence[Tensor] = self.backbone(self.normalize(images))
        return maps

    def weighted(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.loss_weights[name] * term for name, term in terms.items()}

    @abstractmethod
    def raw(self, images: Tensor) -> Any:
        """What the head says."""

    @abstractmethod
    def terms(self, raw: Any, truths: Sequence[Truth]) -> dict[str, Tensor]:
        """What it costs, before weights, in float32."""

    @abstractmethod
    def candidates(self, raw: Any) -> Tensor:
        """What it means."""


class OnBackbone(AdaptedDetector):
    """A detector that stands on any backbone: ``build`` makes the rest of it, its weights random."""

    def __init__(
        self,
        preprocessing: Preprocessing,
        backbone: MapBackbone,
        num_classes: int,
        *,
        loss_weights: Mapping[str, float] | None = None,
    ) -> None:
        weights = self.weights_of_terms(loss_weights or {})
        head, multiple = self.build(backbone, preprocessing.input_size, num_classes, weights)
        super().__init__(preprocessing, backbone, head, multiple=multiple, loss_weights=weights)
        self.num_classes = num_classes

    @classmethod
    @abstractmethod
    def build(
        cls, backbone: MapBackbone, input_size: Size, num_classes: int, weights: Mapping[str, float]
    ) -> tuple[nn.Module, int]:
        """What finds objects in the backbone's maps, and of how many pixels sides of images are multiples.

        input_size  (width, height) of the images; weights: factors on the terms of the loss
        """


def _drawing(device: torch.device) -> str:
    """The kind of device whose random state is kept besides that of the CPU."""
    return "cuda" if device.type == "cpu" else device.type


def check_powers_of_two(strides: Sequence[int]) -> None:
    """Raises ConfigError for levels that the library cannot tell from their sizes."""
    if any(stride & (stride - 1) for stride in strides):
        raise ConfigError(
            f"this architecture needs maps that are smaller than the image by powers of two, not by "
            f"{', '.join(map(str, strides))}: use architecture = 'dense' with this model, or model = 'resnet18' with "
            "this architecture"
        )


def coarser(strides: Sequence[int], input_size: tuple[int, int], most: int, least: int = 2) -> tuple[int, ...]:
    """``strides`` and the doubles of the last, as long as a map has ``least`` cells each way; ``most`` in all.

    Batch norms that learn from a single image need two.
    """
    found = list(strides)
    while len(found) < most and min(input_size) > least * found[-1]:
        found.append(2 * found[-1])
    return tuple(found)


def fp32(like: Tensor) -> torch.autocast:
    """Single precision, where ``like`` is: what follows is sums of many small terms, or coordinates."""
    return torch.autocast(like.device.type, enabled=False)


def learnt(truth: Truth) -> tuple[Tensor, Tensor]:
    """The boxes [k, 4] and labels [k] of what is no crowd."""
    return truth.boxes[~truth.crowd], truth.labels[~truth.crowd]


def of_crowd(boxes: Tensor, truth: Truth) -> Tensor:
    """boxes [m, 4] -> bool [m]: centred within a crowd and apart from every object, so that they are not asked."""
    crowds, objects = truth.boxes[truth.crowd], truth.boxes[~truth.crowd]
    centres = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    within = ((centres >= crowds[:, :2]) & (centres < crowds[:, 2:])).all(-1)
    low, high = torch.maximum(boxes[:, None, :2], objects[:, :2]), torch.minimum(boxes[:, None, 2:], objects[:, 2:])
    return within.any(1) & ~(low < high).all(-1).any(1)


def hushed(logits: Tensor, boxes: Tensor, truths: Sequence[Truth]) -> Tensor:
    """logits [n, m, C], those of boxes [m, 4] that are of a crowd as of sure background: no loss and no slope."""
    silent = torch.stack([of_crowd(boxes, truth) for truth in truths])
    return logits.masked_fill(silent[..., None], _HUSHED)


def best(boxes: Tensor, scores: Tensor, most: int = MOST) -> Tensor:
    """boxes [n, m, 4] and scores [n, m, C] -> candidates of the ``most`` with the highest scores, the best first."""
    places = scores.amax(-1).topk(min(most, scores.shape[1])).indices
    return torch.cat([boxes, scores], -1).gather(1, places[..., None].expand(-1, -1, 4 + scores.shape[2]))
