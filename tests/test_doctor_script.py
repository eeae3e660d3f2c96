"""Somebody's own training: read from their file, or refused with a sentence that says what is missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from doctor_cases import tiny_training
from snellen.core.errors import ConfigError
from snellen.doctor.of_script import beside, case_of, training_of

SCRIPT = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

def build(seed=0):
    torch.manual_seed(seed)
    y = torch.arange(96) % 2
    x = torch.randn(96, 3) + 2 * y[:, None]
    data = TensorDataset(x, y)
    model = nn.Linear(3, 2)
    loader = DataLoader(data, 16, shuffle=True, generator=torch.Generator().manual_seed(seed))
    return {"model": model, "loss": nn.CrossEntropyLoss(), "train": loader, "val": DataLoader(data, 96),
            "optimizer": torch.optim.SGD(model.parameters(), 0.1), "epochs": 3}

def odd(): return 7
def lacking(): return {"model": nn.Linear(1, 1)}
def misspelt(): return {**build(), "optimiser": None}
def failing(): raise RuntimeError("no such disk")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "their_train.py"
    path.write_text(SCRIPT)
    return path


def test_a_mapping_becomes_a_training_that_can_be_built_anew(script: Path) -> None:
    training = training_of(f"{script}:build")
    assert training.epochs == 3 and training.build is not None
    again = training.build(0)
    assert again.model is not training.model
    assert (again.model.weight == training.model.weight).all()
    assert not (training.build(1).model.weight == training.model.weight).all()


def test_it_is_trained_and_what_happened_is_written_down(script: Path) -> None:
    case = case_of(training_of(f"{script}:build"))
    assert case.history is not None and len(case.history.steps) == 18 and len(case.history.epochs) == 3
    assert case.history.step_losses[-3:].mean() < case.history.step_losses[:3].mean()
    assert (case.history.gradient_norms > 0).all() and (case.history.rates == 0.1).all()
    assert len(case.answers["val"]) == 96 and case.answers["val"].correct.mean() > 0.8


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("nothing", "has no function 'nothing'"),
        ("buld", "did you mean 'build'"),
        ("odd", "returned a int"),
        ("lacking", "returned no loss and no train and no val"),
        ("misspelt", "unknown part 'optimiser'; did you mean 'optimizer'"),
        ("failing", "RuntimeError: no such disk"),
    ],
)
def test_what_is_wrong_with_it_is_said(script: Path, function: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        training_of(f"{script}:{function}")


def test_a_script_that_is_not_there_or_is_no_function_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no script at"):
        training_of(f"{tmp_path}/none.py:build")
    with pytest.raises(ConfigError, match="names no function"):
        training_of(f"{tmp_path}/none.py")
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_this_name")
    with pytest.raises(ConfigError, match="cannot be imported: ModuleNotFoundError"):
        training_of(f"{broken}:build")


SEEDS = """
from their_train import build as whole
seen = []

def named(width=64, seed=0, **more): seen.append(seed); return whole(seed)
def alone(number, /, width=64): seen.append(number); return whole(number)
def width(width=64): seen.append(width); return whole(0)
def only_named(*, seed): seen.append(seed); return whole(seed)
def nothing(*given, **more): seen.append(given); return whole(0)
"""


@pytest.mark.parametrize(
    ("function", "told"), [("named", 7), ("alone", 7), ("width", 64), ("only_named", 7), ("nothing", ())]
)
def test_the_seed_is_given_to_what_is_a_seed(script: Path, function: str, told: object) -> None:
    path = script.with_name("their_seeds.py")
    path.write_text(SEEDS)
    training = training_of(f"{path}:{function}")
    assert training.build is not None
    training.build(7)
    assert sys.modules["their_seeds"].seen[-1] == told


def test_what_lies_beside_a_script_is_imported_as_late_as_one_likes(script: Path) -> None:
    script.with_name("their_loss_of_later.py").write_text("from torch.nn.functional import cross_entropy as loss")
    late = "\ndef late():\n    def step(outputs, targets):\n        import their_loss_of_later as m\n"
    late += "        return m.loss(outputs, targets)\n    return {**build(), 'loss': step}\n"
    script.write_text(SCRIPT + late)
    before = list(sys.path)
    with beside(f"{script}:late"):
        case = case_of(training_of(f"{script}:late"))
    assert case.history is not None and len(case.history.epochs) == 3
    assert sys.path == before


BATCHES = """
from their_train import build

def once(): made = build(); return {**made, "val": iter(made["val"])}
def made(): made = build(); return {**made, "train": (each for each in made["train"])}
def number(): return {**build(), "plain": 3}
def mapping(): return {**build(), "train": [{"pixels": 1, "labels": 2}]}
def three(): return {**build(), "val": [(1, 2, 3)]}
class Broken:
    def __iter__(self): raise OSError("no such image")
def broken(): return {**build(), "train": Broken()}
"""


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("once", "as 'val', which gives its batches once"),
        ("made", "returned a generator as 'train', which gives its batches once"),
        ("number", "returned a int as 'plain'"),
        ("mapping", "a batch of 'train' is a dict with pixels, labels, and must be a pair"),
        ("three", "a batch of 'val' is a tuple of 3, and must be a pair"),
        ("broken", "'train' failed to give a batch: OSError: no such image"),
    ],
)
def test_loaders_that_cannot_be_examined_are_refused(script: Path, function: str, said: str) -> None:
    path = script.with_name("their_batches.py")
    path.write_text(BATCHES)
    with pytest.raises(ConfigError, match=said):
        training_of(f"{path}:{function}")


def test_looking_at_the_first_batch_does_not_change_the_order_of_the_images(script: Path) -> None:
    looked_at = training_of(f"{script}:build")
    assert looked_at.build is not None
    fresh = looked_at.build(0)
    orders = [torch.cat([targets for _, targets in each.train]) for each in (looked_at, fresh)]
    assert torch.equal(*orders)


def test_what_fails_in_their_training_is_told_in_a_sentence() -> None:
    training = tiny_training("mlp", num=32, epochs=1)

    def step(batch: object) -> None:
        raise KeyError("labels")

    training.step = step
    with pytest.raises(ConfigError, match="the training failed: KeyError: 'labels'"):
        case_of(training)


def _after(asked: int) -> Iterator[bool]:
    yield from [False] * asked
    while True:
        yield True


@pytest.mark.parametrize(("steps", "epochs"), [(16, 1), (36, 2), (3, None)])
def test_forks_of_a_training_that_was_cut_have_a_part_of_the_epochs_there_was_time_for(
    steps: int, epochs: int | None
) -> None:
    training = tiny_training("mlp", num=64, epochs=40, batch=16, scheduler="cosine")
    stop = _after(steps)
    case = case_of(training, should_stop=lambda: next(stop))
    assert case.history is not None and case.history.cut and case.training is not None
    if epochs is None:
        assert case.training.build is None and case.training.build_short is None
        return
    assert case.training.build_short is not None
    short = case.training.build_short(0)
    assert short.epochs == epochs and case.training.shortened == epochs / 40
    assert short.scheduler.T_max == epochs * 4 and short.scheduler.last_epoch == 0
