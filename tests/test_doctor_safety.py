"""Within ``untouched`` anything may be done to a training: afterwards it is what it was, to the bit."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from doctor_cases import learn, tiny_training
from snellen.doctor.case import Batch, Training
from snellen.doctor.safety import untouched


class Augmented(Dataset[Any]):
    """Images that are changed by draws of five kinds of generator."""

    def __init__(self, whole: Any) -> None:
        self.whole = whole
        self.draws = [np.random.default_rng(0), random.Random(0), np.random.RandomState(0)]
        self.transform = partial(self.add, generator=torch.Generator().manual_seed(0))

    def add(self, image: Any, generator: torch.Generator) -> Any:
        return image + torch.rand((), generator=generator)

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: int) -> Any:
        image, target = self.whole[index]
        shift = sum(float(draw.random()) for draw in (*self.draws[:2], *[self.draws[2]]))
        return self.transform(image) + shift, target


def everything(training: Training) -> list[Any]:
    """All there is to a training and to the world's random states, as tensors and numbers."""
    assert training.optimizer is not None
    state = [each.clone() for each in training.model.state_dict().values()]
    state += [each.grad.clone() for each in training.model.parameters() if each.grad is not None]
    state += [v.clone() for m in training.optimizer.state.values() for v in m.values() if isinstance(v, torch.Tensor)]
    settings = [{k: v for k, v in g.items() if k != "params"} for g in training.optimizer.param_groups]
    modes = [(module.training, [p.requires_grad for p in module.parameters()]) for module in training.model.modules()]
    scheduler = {} if training.scheduler is None else copy.deepcopy(training.scheduler.state_dict())
    numpy = np.random.get_state()
    return [*state, torch.get_rng_state(), settings, modes, scheduler, random.getstate(), numpy[1].tolist(), numpy[2]]


def same(some: list[Any], others: list[Any]) -> bool:
    return len(some) == len(others) and all(
        torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
        for one, other in zip(some, others, strict=True)
    )


def havoc(training: Training) -> None:
    """What no experiment would do all at once."""
    assert training.optimizer is not None
    for batch in training.train:
        training.take_step(batch)
        training.scheduler.step()
    training.model.eval()
    for module in training.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.ones(3)
    for parameter in training.model.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    training.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
    training.optimizer.state.clear()
    random.random(), np.random.rand(), torch.rand(1)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("learnt", [0, 1])
def test_a_training_comes_back_to_the_bit(optimizer: Any, learnt: int) -> None:
    training = tiny_training("cnn", num=64, optimizer=optimizer)
    if learnt:
        learn(training, learnt)
    before = everything(training)
    gradients = [each.grad for each in training.model.parameters()]
    with untouched(training):
        havoc(training)
        assert not same(before, everything(training))
    assert same(before, everything(training))
    assert all(each.grad is old for each, old in zip(training.model.parameters(), gradients, strict=True))


def test_a_training_comes_back_when_an_experiment_fails() -> None:
    training = learn(tiny_training("cnn", num=64), 1)
    before = everything(training)
    with pytest.raises(KeyError), untouched(training):
        havoc(training)
        raise KeyError
    assert same(before, everything(training))


def test_the_next_epoch_is_the_one_that_would_have_come_whatever_generators_it_draws_from() -> None:
    training = tiny_training("cnn", num=64)
    generator = torch.Generator().manual_seed(5)
    data = Augmented(training.train.dataset)  # type: ignore[attr-defined]
    training.train = DataLoader(data, 16, shuffle=True, generator=generator)
    with untouched(training):
        first = [each.clone() for each, _ in training.train]
        second = [each.clone() for each, _ in training.train]
    again = [each.clone() for each, _ in training.train]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[0], second[0])


class Noisy(nn.Module):
    """A net with a generator and a counter of its own."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.draws, self.calls = net, torch.Generator().manual_seed(0), 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        answer: torch.Tensor = self.net(images + torch.rand((), generator=self.draws))
        return answer


def test_a_generator_and_a_counter_of_the_model_come_back() -> None:
    training = tiny_training("cnn", num=64)
    training.model = Noisy(training.model)
    inputs = torch.zeros(2, 3, 12, 12)
    training.model.eval()
    with untouched(training):
        once = training.model(inputs)
        training.model(inputs)
    assert training.model.calls == 0 and torch.equal(once, training.model(inputs))


def test_what_the_users_step_holds_on_to_comes_back() -> None:
    """Averaged weights, a second optimizer, counters, and weights of the loss."""
    training = tiny_training("cnn", num=64, scheduler="none")
    average, count, total = copy.deepcopy(training.model), 0, {"steps": 0}
    centres = nn.Parameter(torch.ones(4))
    second = torch.optim.Adam([centres], 0.1)
    draws = random.Random(3)

    def step(batch: Batch) -> None:
        nonlocal count
        count += 1
        total["steps"] += 1
        draws.random()
        second.zero_grad()
        (training.loss_of(batch) + centres.square().sum()).backward()
        second.step()
        with torch.no_grad():
            for slow in average.parameters():
                slow.add_(1.0)

    training.step = step
    before = [each.clone() for each in average.parameters()]
    state = draws.getstate()
    with untouched(training):
        for batch in training.train:
            training.take_step(batch)
        assert count == 2 and not torch.equal(centres, torch.ones(4))
    assert count == 0 and total == {"steps": 0} and draws.getstate() == state
    assert torch.equal(centres, torch.ones(4)) and not second.state and centres.grad is None
    assert all(torch.equal(one, other) for one, other in zip(before, average.parameters(), strict=True))


def test_many_files_are_not_searched_for_generators() -> None:
    """A data set may hold a million names; only a few of any list are looked at."""
    training = tiny_training("mlp", num=64)
    training.train.dataset.names = [[f"{i}.jpg", i] for i in range(200_000)]  # type: ignore[attr-defined]
    held = [None] * 63 + [random.Random(0)]
    training.val.dataset.draws = held  # type: ignore[attr-defined]
    state = held[-1].getstate()  # type: ignore[union-attr]
    with untouched(training):
        held[-1].random()  # type: ignore[union-attr]
    assert held[-1].getstate() == state  # type: ignore[union-attr]


def _with_step(step: Any) -> Training:
    training = tiny_training("cnn", num=64, scheduler="none")
    training.step = step
    return training


def test_averaged_weights_in_a_dictionary_or_a_list_come_back_whether_they_are_filled_or_replaced() -> None:
    net = tiny_training("cnn").model
    filled = {name: each.detach().clone() for name, each in net.state_dict().items()}
    filled |= {f"more {i}": torch.zeros(2) for i in range(100)}  # deep nets have more weights than are looked into
    replaced = dict(filled)
    listed = [each.clone() for each in filled.values()]
    centre = torch.full((3,), torch.nan)
    before = [{name: each.clone() for name, each in some.items()} for some in (filled, dict(enumerate(listed)))]

    def step(batch: Batch) -> None:
        nonlocal centre
        for name, each in filled.items():
            replaced[name] = each + 1
            each.data.add_(1)
        for each in listed:
            each.add_(1)
        centre.fill_(0.5)
        centre = torch.ones(3)

    training = _with_step(step)
    with untouched(training):
        training.take_step(next(iter(training.train)))
    assert all(torch.equal(each, before[0][name]) for name, each in filled.items())
    assert all(replaced[name] is each for name, each in filled.items())
    assert all(torch.equal(each, before[1][i]) for i, each in enumerate(listed))
    assert bool(centre.isnan().all())


@dataclass(slots=True)
class Counts:
    steps: int = 0
    draws: random.Random = field(default_factory=lambda: random.Random(0))
    mean: torch.Tensor = field(default_factory=lambda: torch.zeros(2))


def test_attributes_that_lie_in_slots_come_back() -> None:
    counts = Counts()
    state, mean = counts.draws.getstate(), counts.mean

    def step(batch: Batch) -> None:
        counts.steps += 1
        counts.draws.random()
        counts.mean.add_(1)
        counts.mean = torch.ones(2)

    training = _with_step(step)
    with untouched(training):
        training.take_step(next(iter(training.train)))
        assert counts.steps == 1
    assert counts.steps == 0 and counts.draws.getstate() == state
    assert counts.mean is mean and torch.equal(mean, torch.zeros(2))


def test_lists_get_their_contents_back() -> None:
    waiting = [1, 2, 3]

    def step(batch: Batch) -> None:
        waiting.append(waiting.pop(0) + 10)
        waiting.append(5)

    training = _with_step(step)
    with untouched(training):
        training.take_step(next(iter(training.train)))
        assert waiting == [2, 3, 11, 5]
    assert waiting == [1, 2, 3]


def test_data_sets_are_not_copied_and_tensors_that_may_not_be_written_are_left_alone() -> None:
    training = _with_step(lambda batch: None)
    images = torch.zeros(2**26)  # larger than averaged weights of so small a net can be
    training.train.dataset.more = images  # type: ignore[attr-defined]
    training.val.dataset.spread = torch.ones(1).expand(4)  # type: ignore[attr-defined]
    with torch.inference_mode():
        training.val.dataset.seen = torch.ones(4)  # type: ignore[attr-defined]
    version = images._version
    with untouched(training):
        images[0] = 1
    assert images[0] == 1 and images._version == version + 1
