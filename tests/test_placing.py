"""A graph's placement of an image is Pillow's, to the bit, in every runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from snellen.core.preprocessing import Preprocessing
from snellen.data.store import prepare
from snellen.data.warp import FILL
from snellen.export.onnx_graph import traced
from snellen.export.runtimes import open_onnx, open_openvino
from snellen.nn.placing import Axis, Placing, _weights

FITS = ("squash", "letterbox", "center crop")
INPUT_SIZE = (24, 17)
sides = st.integers(1, 150)


def _how(fit: str) -> Preprocessing:
    share = 0.875 if fit == "center crop" else 1.0
    return Preprocessing(input_size=INPUT_SIZE, fit=fit, crop_fraction=share, mean=(0.5,) * 3, std=(0.5,) * 3)  # type: ignore[arg-type]


class _Every(nn.Module):
    """All fits in one graph, of which tracing one costs seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.placings = nn.ModuleDict({fit: Placing(_how(fit), FILL) for fit in FITS})

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {fit: placing(image) for fit, placing in self.placings.items()}


@pytest.fixture(scope="module")
def runtimes() -> dict[str, Callable[[NDArray[np.uint8]], Mapping[str, NDArray[Any]]]]:
    module = _Every()
    free = {axis: torch.export.Dim(name) for axis, name in enumerate(("images", "height", "width"))}
    graph = traced(module, "image", torch.zeros(2, 20, 30, 3, dtype=torch.uint8), free).SerializeToString()
    return {
        "torch": lambda image: {fit: placed.numpy() for fit, placed in module(torch.from_numpy(image)).items()},
        "onnx": open_onnx(graph, "fp32", 1),
        "openvino": open_openvino(graph, "fp32", 1),
    }


@settings(max_examples=25)
@given(width=sides, height=sides, seed=st.integers(0, 9))
@example(width=1, height=1, seed=0)
@example(width=INPUT_SIZE[0], height=INPUT_SIZE[1], seed=0)
@example(width=640, height=480, seed=0)  # 53 pixels of the image for one of the input
@example(width=101, height=34, seed=1)
def test_every_runtime_gives_the_pixels_that_training_saw(
    runtimes: dict[str, Callable[[NDArray[np.uint8]], Mapping[str, NDArray[Any]]]], width: int, height: int, seed: int
) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    fits = FITS if max(width, height) <= 3 * min(width, height) else FITS[:2]  # else Pillow rounds twice where it crops
    right = {fit: [prepare(image, _how(fit), (width, height)).transpose(2, 0, 1) for image in images] for fit in fits}
    for name, run in runtimes.items():
        placed = run(images)
        for fit in fits:
            np.testing.assert_array_equal(placed[fit], right[fit], err_msg=f"{fit}, {name}")


@settings(max_examples=40)
@given(length=st.integers(1, 4000), resized=st.integers(1, 1500), row=st.integers(0, 1499))
@example(length=8000, resized=250, row=100)
def test_weights_are_the_exact_shares_rounded_to_22_bits(length: int, resized: int, row: int) -> None:
    resized = max(resized, -(-length // 32))
    row = min(row, resized - 1)
    high, low = (part[0].tolist() for part in _weights(Axis(length, resized, -row), 1, torch.device("cpu")))
    reach = 2 * max(length, resized)
    shares = [max(0, reach - abs((2 * pixel + 1) * resized - (2 * row + 1) * length)) for pixel in range(length)]
    total = sum(shares)
    exact = [((share << 23) + total) // (2 * total) for share in shares]
    assert [a * 2048 + b for a, b in zip(high, low, strict=True)] == exact
    assert max(map(abs, low)) <= 1024
