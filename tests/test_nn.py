"""Networks and what keeps them: frozen parts, the moving average, arithmetic."""

from __future__ import annotations

import copy
import random
import time

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snellen.core.preprocessing import Preprocessing
from snellen.nn.ema import MovingAverage
from snellen.nn.freeze import set_trainable, train_mode
from snellen.nn.network import Network, Normalize
from snellen.nn.precision import arithmetic, fastest, train_depthwise_in_fp32
from snellen.nn.small_resnet import SmallResNet

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def _preprocessing(side: int) -> Preprocessing:
    statistics = (0.4, 0.5, 0.6)
    return Preprocessing(
        input_size=(side, side), fit="squash", crop_fraction=1.0, mean=statistics, std=(0.2, 0.3, 0.25)
    )


# --- the network


@pytest.mark.parametrize(("side", "features"), [(8, 64), (16, 128), (28, 256), (32, 256), (64, 512)])
def test_small_resnet_shrinks_any_side_to_four_pixels(side: int, features: int) -> None:
    network = SmallResNet(side).eval()
    assert network.num_features == features
    images = torch.randn(2, 3, side, side)
    assert max(network.blocks(network.stem(images)).shape[2:]) <= 4
    assert network(images).shape == (2, features)


@given(st.integers(0, 2**31 - 1))
def test_normalize_undo_gives_the_pixels_back(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mean, std = torch.rand(3, generator=generator), 0.05 + torch.rand(3, generator=generator)
    normalize = Normalize(tuple(mean.tolist()), tuple(std.tolist()))
    pixels = torch.randint(0, 256, (2, 3, 4, 4), generator=generator, dtype=torch.uint8)
    torch.testing.assert_close(normalize(pixels), (pixels / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))
    assert torch.equal(normalize.undo(normalize(pixels)).round().to(torch.uint8), pixels)


def test_network_takes_pixels_as_bytes_or_floats() -> None:
    network = Network(_preprocessing(16), SmallResNet(16), 3).eval()
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(network(pixels), network(pixels.float()))
        assert network.features(pixels).shape == (2, network.num_features)
        assert network(pixels).shape == (2, 3)


# --- frozen means frozen


def test_a_frozen_backbone_does_not_move_by_a_bit_while_the_head_trains() -> None:
    network = Network(_preprocessing(16), SmallResNet(16), 3)
    set_trainable(network.backbone, False)
    body = {name: tensor.clone() for name, tensor in network.backbone.state_dict().items()}
    head = network.head.weight.detach().clone()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    for _ in range(3):
        train_mode(network)
        optimizer.zero_grad()
        F.cross_entropy(network(torch.randint(0, 256, (8, 3, 16, 16))), torch.randint(0, 3, (8,))).backward()
        optimizer.step()
    assert all(torch.equal(tensor, body[name]) for name, tensor in network.backbone.state_dict().items())
    assert not torch.equal(network.head.weight, head)


def test_train_mode_leaves_only_what_is_wholly_frozen_in_evaluation_mode() -> None:
    network = Network(_preprocessing(16), SmallResNet(16), 3, dropout=0.5)
    set_trainable(network.backbone.stem, False)  # type: ignore[arg-type]
    train_mode(network)
    assert network.training and network.backbone.training and network.dropout.training and network.head.training
    assert not any(module.training for module in network.backbone.stem.modules())  # type: ignore[union-attr]
    assert all(module.training for module in network.backbone.blocks.modules())  # type: ignore[union-attr]
    set_trainable(network, True)
    train_mode(network)
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize("seed", range(8))
def test_a_module_trains_unless_it_or_one_around_it_has_parameters_and_none_of_them_learns(seed: int) -> None:
    network = Network(_preprocessing(16), SmallResNet(16), 3, dropout=0.5)
    rng = random.Random(seed)
    for module in rng.sample(list(network.modules()), 12):
        set_trainable(module, rng.random() < 0.3)
    frozen = set[nn.Module]()
    for module in network.modules():
        if {parameter.requires_grad for parameter in module.parameters()} == {False}:
            frozen.update(module.modules())
    train_mode(network)
    assert {module for module in network.modules() if not module.training} == frozen


# --- the moving average


@pytest.mark.parametrize("decay", [0.5, 0.99, 0.0])
def test_moving_average_is_that_of_a_naive_loop(decay: float) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = MovingAverage(model, decay)
    expected = {name: tensor.double().clone() for name, tensor in model.state_dict().items()}
    for update in range(1, 30):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(4, 3))
        average.update(model)
        share = min(decay, (1 + update) / (10 + update))
        for name, tensor in model.state_dict().items():
            is_counter = not tensor.is_floating_point()
            expected[name] = tensor.double() if is_counter else share * expected[name] + (1 - share) * tensor.double()
    for name, tensor in average.average.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert int(average.average["1.num_batches_tracked"]) == 29


def test_moving_average_forgets_the_random_start_quickly() -> None:
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(1000.0)
    average = MovingAverage(model, 0.999)
    with torch.no_grad():
        model.weight.fill_(1.0)
    for _ in range(60):
        average.update(model)
    assert float(average.average["weight"]) < 1.01  # at a constant 0.999 it would be near 940


def test_moving_average_resumes_to_the_same_bits() -> None:
    def drift(model: nn.Module, average: MovingAverage, seed: int) -> None:
        torch.manual_seed(seed)
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 2))  # type: ignore[operator, union-attr, arg-type]
        average.update(model)

    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    average, resumed = MovingAverage(model, 0.9), MovingAverage(other, 0.9)
    for seed in range(5):
        drift(model, average, seed)
    other.load_state_dict(model.state_dict())
    resumed.load(average.average, 5)
    for seed in range(5, 9):
        drift(model, average, seed)
        drift(other, resumed, seed)
    assert all(torch.equal(tensor, resumed.average[name]) for name, tensor in average.average.items())


# --- arithmetic


def _depthwise() -> nn.Module:
    layers = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 4, 1))
    return layers


def test_depthwise_in_fp32_changes_nothing_in_fp32() -> None:
    plain = _depthwise()
    treated = copy.deepcopy(plain)
    train_depthwise_in_fp32(treated)
    assert list(treated.state_dict()) == list(plain.state_dict())
    images = torch.randn(2, 3, 8, 8)
    for network in (plain, treated):
        network(images).square().sum().backward()
    assert torch.equal(plain(images), treated(images))
    for mine, reference in zip(treated.parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None and reference.grad is not None
        assert torch.equal(mine.grad, reference.grad)


def test_depthwise_in_fp32_computes_its_gradient_in_fp32_under_autocast() -> None:
    network = _depthwise()
    train_depthwise_in_fp32(network)
    seen: list[torch.dtype] = []
    network[1].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))  # type: ignore[index]
    with arithmetic(torch.device("cpu"), "bf16"):
        network(torch.randn(1, 3, 8, 8))
        with torch.inference_mode():
            network(torch.randn(1, 3, 8, 8))
    assert seen == [torch.float32, torch.bfloat16]


def test_depthwise_in_fp32_survives_a_deep_copy() -> None:
    network = _depthwise()
    train_depthwise_in_fp32(network)
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    images = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert float(twin(images).abs().max()) == 0.0  # it computes with its own weights
        assert float(network(images).abs().max()) > 0.0


def test_the_faster_arithmetic_of_a_cpu_is_not_judged_by_what_other_programs_do() -> None:
    def busy() -> None:
        until = time.process_time() + 0.02
        while time.process_time() < until:
            pass

    seconds = fastest({"works": busy, "waits for its turn": lambda: time.sleep(0.1)}, torch.device("cpu"))
    assert seconds["waits for its turn"] < 0.02 <= seconds["works"]
