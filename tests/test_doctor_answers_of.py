"""What a model says of labelled images: only where each has one class, and exact on every device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from doctor_cases import tiny_training
from snellen.doctor.contracts.evaluation import _difference
from snellen.doctor.contracts.steps import _gradient
from snellen.doctor.experiments.channels import Channels
from snellen.doctor.scores import answers_of, score_images


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        (lambda outputs: {"logits": outputs}, lambda classes: classes),
        (lambda outputs: list(outputs), lambda classes: classes),
        (lambda outputs: outputs[:, :, None, None], lambda classes: classes),
        (lambda outputs: outputs, lambda classes: torch.nn.functional.one_hot(classes).float()),
        (lambda outputs: outputs, lambda classes: [{"label": int(each)} for each in classes]),
        (lambda outputs: outputs[:, :1], lambda classes: classes),  # one logit before 0 and 1
    ],
    ids=["mapping", "list", "map", "mixed", "mappings", "one logit"],
)
def test_there_are_answers_only_where_each_image_has_one_class(answer: Any, target: Any) -> None:
    training = tiny_training("mlp", num=32, epochs=1)
    net = training.model
    assert answers_of(training, training.val) is not None
    training.model = Wrapped(net, answer)
    assert answers_of(training, [(inputs, target(targets)) for inputs, targets in training.val]) is None


class Wrapped(torch.nn.Module):
    def __init__(self, net: torch.nn.Module, answer: Any) -> None:
        super().__init__()
        self.net, self.answer = net, answer

    def forward(self, inputs: torch.Tensor) -> Any:
        return self.answer(self.net(inputs))


class OnMps(torch.Tensor):
    """Of a device without double precision, as Apple's is: numbers must come to the CPU before they are made exact."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.double, torch.Tensor.numpy):
            raise TypeError("cannot convert an MPS Tensor to float64")
        found = super().__torch_function__(func, types, args, kwargs or {})
        return found.as_subclass(torch.Tensor) if func is torch.Tensor.cpu else found


def test_no_tensor_of_a_device_is_asked_for_double_precision() -> None:
    there = torch.randn(4, 3, 5, 5).as_subclass(OnMps)
    assert np.allclose(Channels.of(there).means, there.cpu().mean((2, 3)).numpy(), atol=1e-6)
    assert _difference(there, there) == 0.0
    parameter = torch.nn.Parameter(torch.zeros(3))
    parameter.grad = torch.ones(3).as_subclass(OnMps)
    assert _gradient([parameter]).tolist() == [1.0, 1.0, 1.0]
    training = tiny_training("mlp", num=32, epochs=1)
    training.model = Wrapped(training.model, lambda outputs: outputs.as_subclass(OnMps))
    assert len(score_images(training, training.val).values) == 16
    assert answers_of(training, training.val) is not None
