"""The rule of the step: groups and rates, decay and penalties told apart, Lookahead, and state that is restored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snellen.core.plan import Plan
from snellen.nn.network import Network
from snellen.nn.small_resnet import SmallResNet
from snellen.nn.stages import parameter_stages
from snellen.train.optim import (
    OPTIMIZERS,
    Lookahead,
    build_optimizer,
    load_optimizer_tensors,
    optimizer_tensors,
    penalties,
    set_momentum,
    set_rates,
)
from tiny_runs import a_plan

torch.set_num_threads(1)
NAMES = sorted(OPTIMIZERS)


class Line(nn.Module):
    """Something to minimise: matrices and a vector, with a head and a body."""

    def __init__(self) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        self.backbone = nn.Linear(4, 3)
        self.head = nn.Linear(3, 2)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=rng))


def one_rate(**changes: Any) -> Plan:
    return a_plan(**{"lr": 0.01, "body_lr": 0.01, "weight_decay": 0.0, **changes})


def descend(plan: Plan, steps: int, after: Callable[[nn.Module], None] = lambda model: None) -> list[Tensor]:
    """The weights of a Line after ``steps`` of the plan's rule, with its penalties, on a fixed problem."""
    model = Line()
    optimizer = build_optimizer(model, plan)
    for step in range(steps):
        take_step(model, optimizer, plan, step)
        after(model)
    return [parameter.detach() for parameter in model.parameters()]


def take_step(model: Line, optimizer: torch.optim.Optimizer, plan: Plan, step: int) -> None:
    x = torch.from_numpy(np.random.default_rng(step).normal(size=(5, 4)).astype(np.float32))
    loss = model.head(model.backbone(x)).square().mean()
    optimizer.zero_grad()
    torch.stack([loss, *penalties(model, plan).values()]).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def close(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(one, other, strict=True))


# --- groups and rates


def test_every_parameter_is_in_one_group_with_its_own_rate_and_decay() -> None:
    network = Network(a_plan().preprocessing, SmallResNet(16), 3)
    plan = a_plan(lr=0.5, body_lr=0.25, weight_decay=0.125)
    groups = build_optimizer(network, plan).param_groups
    of = {id(parameter): group for group in groups for parameter in group["params"]}
    parameters = dict(network.named_parameters())
    assert sum(len(group["params"]) for group in groups) == len(of) == len(parameters)
    assert groups[0]["peak_lr"] == 0.5  # the rate that is told is the head's
    for name, parameter in parameters.items():
        group = of[id(parameter)]
        assert group["peak_lr"] == group["lr"] == (0.5 if name.startswith("head.") else 0.25), name
        assert group["weight_decay"] == (0.125 if parameter.dim() > 1 else 0.0), name


def test_each_stage_learns_slower_than_the_next() -> None:
    network = Network(a_plan().preprocessing, SmallResNet(32), 3)
    groups = build_optimizer(network, a_plan(lr=0.5, body_lr=0.25, layer_decay=0.5)).param_groups
    rates = {id(parameter): group["peak_lr"] for group in groups for parameter in group["params"]}
    stages = parameter_stages(network.backbone)
    last = max(stages.values())
    assert last >= 3 and len(rates) == len(list(network.parameters()))
    for name, parameter in network.backbone.named_parameters():
        assert rates[id(parameter)] == 0.25 * 0.5 ** (last - stages[name]), name
    assert rates[id(network.head.weight)] == 0.5


def test_rates_are_set_as_a_share_of_each_peak() -> None:
    optimizer = build_optimizer(Network(a_plan().preprocessing, SmallResNet(16), 3), a_plan(lr=0.5, body_lr=0.25))
    for factor in (0.5, 0.1):
        set_rates(optimizer, factor)
        assert {group["lr"] for group in optimizer.param_groups} == {0.5 * factor, 0.25 * factor}


@pytest.mark.parametrize("name", NAMES)
def test_momentum_is_set_where_there_is_one(name: str) -> None:
    optimizer = build_optimizer(Line(), one_rate(optimizer=name, momentum=0.8))
    usual = {"momentum": 0.8, "nesterov": 0.8, "adam": 0.9, "adamw": 0.9, "radam": 0.9, "nadam": 0.9}.get(name, 0.0)
    for share in (0.5, 1.0):
        set_momentum(optimizer, lambda momentum, share=share: share * momentum)  # type: ignore[misc]
        for group in optimizer.param_groups:
            assert group.get("betas", (group.get("momentum", 0.0),))[0] == pytest.approx(share * usual)


# --- against torch, as anyone would write it

PLAIN: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.01),
    "momentum": lambda parameters: torch.optim.SGD(parameters, 0.01, momentum=0.8),
    "nesterov": lambda parameters: torch.optim.SGD(parameters, 0.01, momentum=0.8, nesterov=True),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, 0.01),
    "adadelta": lambda parameters: torch.optim.Adadelta(parameters, 0.01),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, 0.01),
    "adam": lambda parameters: torch.optim.Adam(parameters, 0.01, betas=(0.9, 0.99)),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.01, betas=(0.9, 0.99), weight_decay=0),
    "radam": lambda parameters: torch.optim.RAdam(parameters, 0.01, betas=(0.9, 0.99)),
    "nadam": lambda parameters: torch.optim.NAdam(parameters, 0.01, betas=(0.9, 0.99)),
}


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_steps_as_the_one_of_that_name(name: str) -> None:
    plan = one_rate(optimizer=name, momentum=0.8)
    model = Line()
    optimizer = PLAIN[name](model.parameters())
    for step in range(7):
        take_step(model, optimizer, plan, step)
    assert close(descend(plan, 7), [parameter.detach() for parameter in model.parameters()])
    assert not close(descend(plan, 7), descend(plan, 0))


# --- decay, L1 and L2 are three things


@pytest.mark.parametrize("name", NAMES)
def test_decay_shrinks_matrices_by_the_rate_whatever_the_gradient(name: str) -> None:
    """Under a gradient of zeros only decoupled decay moves a weight."""
    plan = one_rate(optimizer=name, weight_decay=0.5)
    model = Line()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = build_optimizer(model, plan)
    set_rates(optimizer, 0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, value in model.state_dict().items():
        shrunk = before[key] * (1 - 0.005 * 0.5) if value.dim() > 1 else before[key]
        assert torch.allclose(value, shrunk, rtol=1e-6, atol=0), key


@pytest.mark.parametrize("name", NAMES)
def test_what_is_frozen_does_not_decay(name: str) -> None:
    model = Line()
    before = model.backbone.weight.detach().clone()
    model.backbone.requires_grad_(False)
    plan = one_rate(optimizer=name, weight_decay=0.5, l1=0.1)
    optimizer = build_optimizer(model, plan)
    take_step(model, optimizer, plan, 0)
    assert torch.equal(model.backbone.weight, before)
    assert not torch.equal(model.head.weight, Line().head.weight)


def test_for_plain_sgd_decay_is_half_as_strong_an_l2_penalty_and_for_adam_it_is_none() -> None:
    decayed, penalised = {"weight_decay": 0.4}, {"l2": 0.2}
    for name, same in (("sgd", True), ("adam", False), ("rmsprop", False), ("momentum", False)):
        one, other = (descend(one_rate(optimizer=name, **how), 5) for how in (decayed, penalised))
        assert close(one, other) == same, name
        assert not close(one, descend(one_rate(optimizer=name), 5)), name


def test_adam_with_decay_is_adamw() -> None:
    assert close(*(descend(one_rate(optimizer=name, weight_decay=0.5), 6) for name in ("adam", "adamw")))


def test_penalties_are_sums_over_the_matrices_that_learn() -> None:
    model = Line()
    w, v = model.head.weight.detach().double().numpy(), model.backbone.weight.detach().double().numpy()
    found = {name: term.detach() for name, term in penalties(model, one_rate(l1=0.25, l2=0.5)).items()}
    assert float(found["l1_penalty"]) == pytest.approx(0.25 * (np.abs(w).sum() + np.abs(v).sum()))
    assert float(found["l2_penalty"]) == pytest.approx(0.5 * ((w**2).sum() + (v**2).sum()))
    assert penalties(model, one_rate()) == {}
    model.backbone.requires_grad_(False)
    found = {name: term.detach() for name, term in penalties(model, one_rate(l2=0.5)).items()}
    assert list(found) == ["l2_penalty"] and float(found["l2_penalty"]) == pytest.approx(0.5 * (w**2).sum())
    model.requires_grad_(False)
    assert penalties(model, one_rate(l2=0.5)) == {}


def test_an_l1_penalty_pulls_by_the_sign() -> None:
    model = Line()
    penalties(model, one_rate(l1=0.25))["l1_penalty"].backward()  # type: ignore[no-untyped-call]
    assert model.head.weight.grad is not None and model.head.bias.grad is None
    assert torch.equal(model.head.weight.grad, 0.25 * model.head.weight.detach().sign())


# --- Lookahead


@pytest.mark.parametrize("name", ["sgd", "adamw", "adadelta"])
def test_lookahead_steps_as_timms_once_that_begins_with_the_first_weights(name: str) -> None:
    from timm.optim import Lookahead as Oracle

    plan = one_rate(optimizer=name)
    model = Line()
    oracle = Oracle(build_optimizer(model, plan), alpha=0.5, k=5)
    for group in oracle.param_groups:
        for parameter in group["params"]:
            oracle.state[parameter]["start"] = parameter.detach().clone()
    for step in range(12):
        take_step(model, oracle, plan, step)
        if step == 3:  # the optimizer has its own state by now, and slow weights are looked for after the next step
            for parameter, slots in oracle.state.items():
                oracle._base_optimizer.state[parameter]["lookahead_slow_buff"] = slots["start"]
    expected = [parameter.detach() for parameter in model.parameters()]

    slow, steps = Lookahead(Line()), iter(range(1, 13))
    found = descend(plan, 12, lambda model: slow.pull(model) if next(steps) % 5 == 0 else None)
    assert close(found, expected)
    assert not close(found, descend(plan, 12))


def test_lookahead_leaves_what_does_not_learn_as_it_was_to_the_bit() -> None:
    model = Line()
    slow = Lookahead(model)
    with torch.no_grad():
        model.head.weight += 1
    for _ in range(3):
        slow.pull(model)
    assert torch.equal(model.backbone.weight, Line().backbone.weight)
    assert torch.allclose(model.head.weight, Line().head.weight + 0.5)


# --- state


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_that_is_loaded_goes_on_to_the_same_bits(name: str) -> None:
    plan = one_rate(optimizer=name, weight_decay=0.1, l1=0.001)
    model = Line()
    optimizer = build_optimizer(model, plan)
    for step in range(3):
        take_step(model, optimizer, plan, step)
    other = Line()
    other.load_state_dict(model.state_dict())
    again = build_optimizer(other, plan)
    kept = {key: tensor.clone() for key, tensor in optimizer_tensors(optimizer).items()}
    load_optimizer_tensors(again, kept.items())
    for step in range(3, 9):
        take_step(model, optimizer, plan, step)
        take_step(other, again, plan, step)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    assert {key: tensor.tolist() for key, tensor in optimizer_tensors(again).items()} == {
        key: tensor.tolist() for key, tensor in optimizer_tensors(optimizer).items()
    }
