"""Small networks from a few words are what the words say."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snellen.core.errors import ConfigError
from snellen.nn.activations import ACTIVATIONS
from snellen.nn.backbone import create_backbone
from snellen.nn.catalog import (
    EMBEDDED_MODEL,
    SMALL_RESNET,
    PlainNet,
    backbone_facts,
    is_from_scratch,
    plain_net,
)
from snellen.nn.norms import SwappedNorm

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


# --- names


@pytest.mark.parametrize(
    ("name", "net"),
    [
        ("logistic", PlainNet("logistic", ())),
        ("mlp:256,128", PlainNet("mlp", (256, 128))),
        ("mlp: 8, 4", PlainNet("mlp", (8, 4))),
        ("cnn:32", PlainNet("cnn", (32,))),
        (SMALL_RESNET, None),
        (EMBEDDED_MODEL, None),
        ("resnet18", None),
    ],
)
def test_name_is_read(name: str, net: PlainNet | None) -> None:
    assert plain_net(name) == net
    assert is_from_scratch(name) == (net is not None or name == SMALL_RESNET)
    if net is not None:
        assert backbone_facts(name) is None
        assert plain_net(net.name) == net


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mlp", "a width is missing.*'mlp:256,128'"),
        ("mlp:", "a width is missing.*'mlp:256,128'"),
        ("cnn:32,,64", "a width is missing.*'cnn:32,64,128'"),
        ("mlp:many", "'many' is no width"),
        ("mlp:12.5", "'12.5' is no width"),
        ("mlp:-3", "'-3' is no width"),
        ("mlp:0", "'0' is no width"),
        ("mlp:²", "'²' is no width"),
        ("mlp:4097", "'4097' is no width: give 1 to 16 whole numbers from 1 to 4096"),
        ("cnn:" + ",".join(["8"] * 17), "17 layers are too many"),
        ("logistic:10", "no layers, so no widths"),
    ],
)
def test_wrong_widths_are_said(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        backbone_facts(name)
    assert "\n" not in str(caught.value)


# --- what is built


def _layers(network: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in network.modules() if not list(layer.children())]


def test_logistic_regression_is_the_pixels_themselves() -> None:
    network = create_backbone("logistic", input_size=6)
    images = torch.randn(2, 3, 6, 6)
    assert network.num_features == 108
    assert torch.equal(network(images), images.reshape(2, 108))


def test_mlp_computes_what_its_layers_say() -> None:
    network = create_backbone("mlp:5,4", input_size=6, norm="none", activation="tanh")
    images = torch.randn(2, 3, 6, 6)
    first, second = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
    hidden = torch.tanh(images.flatten(1) @ first.weight.T + first.bias)
    torch.testing.assert_close(network(images), torch.tanh(hidden @ second.weight.T + second.bias))


def test_cnn_computes_what_its_layers_say() -> None:
    network = create_backbone("cnn:5,4", input_size=9, norm="none")
    x = images = torch.randn(2, 3, 9, 9)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            x = F.max_pool2d(F.relu(F.conv2d(x, layer.weight, layer.bias, padding=1)), 2)
    torch.testing.assert_close(network(images), x.mean((2, 3)))
    assert network(torch.randn(2, 3, 17, 12)).shape == (2, 4)  # its parameters do not depend on the image's size


@pytest.mark.parametrize(
    ("name", "settings", "layers"),
    [
        ("mlp:8", {}, "Linear BatchNorm1d ReLU"),
        ("mlp:8,8", {"dropout": 0.5, "norm": "none"}, "Linear ReLU Dropout Linear ReLU"),
        ("mlp:8,8", {"dropout": 0.5, "activation": "selu", "norm": "none"}, "Linear SELU AlphaDropout Linear SELU"),
        ("mlp:8", {"activation": "none", "norm": "none"}, "Linear Identity"),
        ("cnn:8", {}, "Conv2d BatchNorm2d ReLU MaxPool2d"),
        ("cnn:8", {"norm": "none", "activation": "swish"}, "Conv2d SiLU MaxPool2d"),
    ],
)
def test_network_has_the_layers_that_were_asked_for(name: str, settings: dict[str, float | str], layers: str) -> None:
    assert _layers(create_backbone(name, input_size=8, **settings)) == layers.split()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["mlp:64,64", "cnn:64,64"])
@pytest.mark.parametrize(("norm", "groups"), [("layer", 1), ("group", 32)])
def test_other_norms_have_their_groups(name: str, norm: str, groups: int) -> None:
    norms = [
        layer for layer in create_backbone(name, input_size=8, norm=norm).modules() if isinstance(layer, SwappedNorm)
    ]
    assert [layer.num_groups for layer in norms] == [groups, groups]


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("logistic", {"activation": "tanh"}, "activation = 'tanh' has no layer to act on"),
        ("logistic", {"norm": "batch"}, "norm = 'batch' has no layer to act on"),
        ("mlp:8", {"norm": "instance"}, "norm = 'instance' averages over places"),
        ("cnn:8,8,8,8", {}, "'cnn:8,8,8,8' halves the image 4 times, and 8 pixels can be halved 3"),
    ],
)
def test_what_cannot_be_built_is_said(name: str, settings: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        create_backbone(name, input_size=8, **settings)  # type: ignore[arg-type]


def test_a_cnn_may_halve_the_image_down_to_one_pixel() -> None:
    assert create_backbone("cnn:8,8,8", input_size=8)(torch.randn(2, 3, 8, 8)).shape == (2, 8)


# --- initialisation


@pytest.mark.parametrize("activation", sorted(set(ACTIVATIONS) - {"sigmoid"}))
def test_signals_neither_vanish_nor_explode_through_ten_layers(activation: str) -> None:
    """The sigmoid is left out: its outputs are positive whatever the weights, which is why nets left it."""
    network = create_backbone(f"mlp:{','.join(['512'] * 10)}", input_size=8, norm="none", activation=activation)
    with torch.inference_mode():
        features = network(torch.randn(64, 3, 8, 8))
    assert 0.05 < float(features.square().mean().sqrt()) < 5


def test_selu_keeps_zero_mean_and_unit_variance() -> None:
    """Klambauer et al. 2017, theorem 1: what its initialisation is for."""
    network = create_backbone(f"mlp:{','.join(['1024'] * 10)}", input_size=8, norm="none", activation="selu")
    with torch.inference_mode():
        features = network(torch.randn(256, 3, 8, 8))
    assert float(features.mean()) == pytest.approx(0, abs=0.1)
    assert float(features.var()) == pytest.approx(1, abs=0.15)


# --- learning


@pytest.mark.parametrize(("name", "learns"), [("logistic", False), ("mlp:16", True), ("cnn:16,16", True)])
def test_a_hidden_layer_learns_what_no_line_parts(name: str, learns: bool) -> None:
    """Exclusive or of two halves of the image, bright or dark: logistic regression cannot, an MLP and a CNN can."""
    corners = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    images = corners.view(4, 1, 1, 2).repeat_interleave(4, 3).expand(4, 3, 8, 8)
    truth = torch.tensor([0, 1, 1, 0])
    backbone = create_backbone(name, input_size=8)
    network = nn.Sequential(backbone, nn.Linear(int(backbone.num_features), 2))  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), truth)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert (float(loss.detach()) < 0.1) == learns
