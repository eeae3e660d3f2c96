"""Which stage of an exported model differs: asked only when one does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snellen.export.goldens import FP32, differences
from snellen.export.graph import Graph
from snellen.export.reference import Reference
from snellen.export.runtimes import Answers

Build = Callable[[nn.Module, str, Tensor], Callable[[NDArray[Any]], Answers]]
"""A module of one tensor, the name of that and an example -> the same in the runtime."""


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
    """A sentence that names the first stage whose results are not those of the network in this process."""
    placing = build(_Named(graph.placing), "image", torch.from_numpy(np.stack([images[0]] * 2)))
    fed = []
    for image in images:
        size = (image.shape[1], image.shape[0])
        pixels = reference.answering.prepare(image, size).pixels.astype(np.float32).transpose(2, 0, 1)[None]
        apart = np.abs(placing(image[None])["output 0"] - pixels).max()
        if apart > 1:
            return f"the resize differs: a pixel of an image of {size[0]} x {size[1]} by {apart:.0f} grey levels"
        fed.append(pixels)
    network = build(_Named(graph.network), "pixels", torch.from_numpy(np.concatenate([fed[0]] * 2)))
    for pixels in fed:
        with torch.inference_mode():
            said = _Named(reference.answering.network)(torch.from_numpy(pixels))
        expected = {name: values.numpy() for name, values in said.items()}
        found = differences(network(pixels), expected, FP32)
        if found:
            return f"the network differs: {found[0]}"
    return "the resize and the network are the same: the decoding of its outputs differs"
