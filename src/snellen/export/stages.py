"""Which stage of an exported model differs: asked only when one does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snellen.export.faults import nudged, right
from snellen.export.goldens import FP32, differences
from snellen.export.graph import Graph
from snellen.export.reference import Reference
from snellen.export.runtimes import Answers

Build = Callable[[nn.Module, str, Tensor], Callable[[NDArray[Any]], Answers]]
"""A module of one tensor, the name of that and an example -> the same in the runtime."""

_DRAWS = 8
_TORN = (
    "; a hundredth of a grey level makes the network itself say something else too, as one does that chooses among "
    "places and has learnt too little to tell them apart: train it longer"
)


class _Named(nn.Module):
    """A part whose output has a name."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, given: Tensor) -> dict[str, Tensor]:
        said = self.part(given)
        several = said if isinstance(said, tuple | list) else (said,)
        return {f"output {i}": each for i, each in enumerate(several)}


def which_differs(reference: Reference, graph: Graph, images: Sequence[NDArray[np.uint8]], build: Build) -> str:
    """A sentence that names the first stage whose results are not those of the networks in this process."""
    for number, network in enumerate(reference.networks):
        named = f" of member {number + 1}" if len(reference.networks) > 1 else ""
        fed, found = _placed_otherwise(reference, graph, images, build, number)
        if not found:
            found = _said_otherwise(network, graph.networks[number], fed, build)
        if found:
            stage = "resize" if len(fed) < len(images) else "network"
            return f"the {stage}{named} differs: {found}"
    return "the resize and the network are the same: the decoding of its outputs differs"


def _placed_otherwise(
    reference: Reference, graph: Graph, images: Sequence[NDArray[np.uint8]], build: Build, number: int
) -> tuple[list[NDArray[np.float32]], str]:
    """What a network is fed for each image, up to the first that the graph feeds otherwise; and how it does."""
    placing = build(_Named(graph.placings[number]), "image", torch.from_numpy(np.stack([images[0]] * 2)))
    fed: list[NDArray[np.float32]] = []
    for image in images:
        pixels = right(image, reference.preprocessings[number]).transpose(2, 0, 1)[None]
        apart = np.abs(placing(image[None])["output 0"] - pixels).max()
        if apart > 1:
            return fed, f"a pixel of an image of {image.shape[1]} x {image.shape[0]} by {apart:.0f} grey levels"
        fed.append(pixels)
    return fed, ""


def _said_otherwise(network: nn.Module, traced: nn.Module, fed: Sequence[NDArray[np.float32]], build: Build) -> str:
    built = build(_Named(traced), "pixels", torch.from_numpy(np.concatenate([fed[0]] * 2)))
    for pixels in fed:
        found = differences(built(pixels), _told(network, pixels), FP32)
        if found:
            return found[0] + (_TORN if _is_torn(network, pixels) else "")
    return ""


def _told(network: nn.Module, pixels: NDArray[np.float32]) -> Answers:
    with torch.inference_mode():
        return {name: values.numpy() for name, values in _Named(network)(torch.from_numpy(pixels)).items()}


def _is_torn(network: nn.Module, pixels: NDArray[np.float32]) -> bool:
    """Whether it says something else of nearly the same pixels."""
    said = _told(network, pixels)
    return any(differences(_told(network, nudged(pixels, draw)), said, FP32) for draw in range(_DRAWS))
