"""Somebody's own training: read from their file, or refused with a sentence that says what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from snellen.core.errors import ConfigError
from snellen.doctor.of_script import case_of, training_of

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
