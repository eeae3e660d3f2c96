"""Masks of the objects of a whole batch: each of its own image, in memory for the objects that there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from snellen.export.onnx_graph import exported, traced
from snellen.export.runtimes import open_onnx, open_openvino
from snellen.nn.detection.suppression_graph import mask_logits

torch.set_num_threads(1)

KINDS, SHAPE = 5, (9, 11)


def told(counts: Sequence[int], shape: tuple[int, int] = SHAPE) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients, prototypes, and in which image each of so many objects is."""
    draws = torch.Generator().manual_seed(0)
    coefficients = torch.randn(sum(counts), KINDS, generator=draws)
    prototypes = torch.randn(len(counts), KINDS, *shape, generator=draws)
    return coefficients, prototypes, torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def one_by_one(coefficients: Tensor, prototypes: Tensor, image: Tensor) -> Tensor:
    return torch.einsum("mk,mkhw->mhw", coefficients, prototypes[image])


@pytest.mark.parametrize("counts", ((3,), (0,), (1, 1), (4, 0, 2), (0, 0), (0, 7, 1), (2, 5, 0)))
def test_each_object_takes_the_prototypes_of_its_own_image(counts: tuple[int, ...]) -> None:
    given = told(counts)
    torch.testing.assert_close(mask_logits(*given), one_by_one(*given))


class Largest(TorchDispatchMode):
    """The elements of the largest tensor that an operation gives."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.elements = max(self.elements, out.numel() if isinstance(out, Tensor) else 0)
        return out


def test_memory_grows_as_the_batch_and_not_as_its_square() -> None:
    for images in (1, 4, 16):
        given = told([20] * images, (32, 32))
        with Largest() as largest:
            said = mask_logits(*given)
        assert largest.elements == said.numel() == 20 * images * 32 * 32


class Masks(nn.Module):
    """said [n, q, h, w]: objects where the first of a row of coefficients is above 0."""

    def forward(self, said: Tensor) -> dict[str, Tensor]:
        coefficients = said[:, :, 0, :KINDS]
        image, place = (coefficients[..., 0] > 0).nonzero(as_tuple=True)
        return {"logits": mask_logits(coefficients[image, place], said[:, :KINDS], image)}


def test_a_graph_says_the_same_of_any_number_of_images_and_of_nothing_found() -> None:
    said = torch.randn(4, 7, *SHAPE, generator=torch.Generator().manual_seed(0))
    said[2, :, 0, 0] = -1
    free = {0: torch.export.Dim("images")}
    proto, program = traced(Masks(), "said", said, free).SerializeToString(), exported(Masks(), said, free).module()
    runs = [opened(proto, "fp32", 1, "said") for opened in (open_onnx, open_openvino)]
    for some in (said, said[:1], said[2:3], said[1:3]):
        expected = Masks()(some)["logits"]
        torch.testing.assert_close(program(some)["logits"], expected)
        for run in runs:
            torch.testing.assert_close(torch.from_numpy(run(some.numpy())["logits"]), expected)
    assert len(Masks()(said)["logits"]) > 5 and not len(Masks()(said[2:3])["logits"])
