"""Activations are the papers' formulas, and are swapped into finished networks wherever they are modules."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snellen.core.config import Config
from snellen.nn.activations import ACTIVATIONS, replace_activations
from snellen.nn.backbone import create_backbone
from snellen.nn.catalog import EMBEDDED_MODEL, SMALL_RESNET
from snellen.nn.pretrained import load_embedded

torch.set_num_threads(1)

_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017, equation 14


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


FORMULAS: dict[str, Callable[[float], float]] = {
    "sigmoid": _sigmoid,
    "tanh": math.tanh,
    "relu": lambda x: max(x, 0),
    "leaky-relu": lambda x: x if x > 0 else 0.01 * x,
    "prelu": lambda x: x if x > 0 else 0.25 * x,
    "elu": lambda x: x if x > 0 else math.expm1(x),
    "selu": lambda x: _SELU_SCALE * (x if x > 0 else _SELU_ALPHA * math.expm1(x)),
    "silu": lambda x: x * _sigmoid(x),
    "swish": lambda x: x * _sigmoid(x),
    "hardswish": lambda x: x * min(max(x + 3, 0), 6) / 6,
    "none": lambda x: x,
}


def test_every_activation_of_the_settings_is_here_and_none_is_untested() -> None:
    choices = set(Config.model_fields["activation"].annotation.__args__)  # type: ignore[union-attr]
    assert choices - {"auto"} == set(ACTIVATIONS) == set(FORMULAS)


@pytest.mark.parametrize("name", sorted(FORMULAS))
@given(x=st.floats(-20, 20))
def test_activation_is_the_papers_formula(name: str, x: float) -> None:
    with torch.inference_mode():
        y = float(ACTIVATIONS[name]().double()(torch.tensor([x]).double()))
    assert y == pytest.approx(FORMULAS[name](x), abs=1e-6)


def _activations(network: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in network.modules() if "LU" in type(layer).__name__]


@pytest.mark.parametrize("model", [SMALL_RESNET, EMBEDDED_MODEL])
def test_every_activation_of_our_own_networks_is_swapped(model: str) -> None:
    plain = create_backbone(model, input_size=32)
    swapped = create_backbone(model, input_size=32, activation="elu")
    assert set(_activations(plain)) <= {"ReLU", "ReLU6"}
    assert _activations(swapped) == ["ELU"] * len(_activations(plain))
    swapped.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert not torch.allclose(plain(images), swapped(images))


def test_without_activations_a_network_is_linear() -> None:
    torch.manual_seed(0)
    network = create_backbone(SMALL_RESNET, input_size=16, activation="none").eval().double()
    one, other = torch.randn(2, 1, 3, 16, 16, dtype=torch.float64)
    with torch.inference_mode():
        middle = network((one + other) / 2)
        torch.testing.assert_close(middle, (network(one) + network(other)) / 2)


def test_gates_keep_their_sigmoids() -> None:
    gated = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SiLU(), nn.Sequential(nn.ReLU(), nn.Sigmoid()), nn.Softmax(1))
    assert replace_activations(gated, "tanh") == 2
    assert [type(layer).__name__ for layer in gated.modules() if not list(layer.children())] == [
        "Conv2d",
        "Tanh",
        "Tanh",
        "Sigmoid",
        "Softmax",
    ]


def test_an_activation_that_stands_in_two_places_stays_one() -> None:
    shared = nn.ReLU()
    network = nn.ModuleDict({"a": nn.Sequential(nn.Linear(2, 2), shared), "b": nn.Sequential(shared)})
    assert replace_activations(network, "prelu") == 1
    assert len(list(network.parameters())) == 3  # weight, bias, one slope


def test_pretrained_weights_load_beside_slopes_that_are_learnt() -> None:
    network = create_backbone(EMBEDDED_MODEL, input_size=32, activation="prelu")
    load_embedded(network)
    slopes = [layer.weight for layer in network.modules() if isinstance(layer, nn.PReLU)]
    assert len(slopes) == len(_activations(create_backbone(EMBEDDED_MODEL, input_size=32)))
    assert all(float(slope.detach()) == 0.25 for slope in slopes)
    network(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert all(slope.grad is not None and float(slope.grad.abs()) > 0 for slope in slopes)
