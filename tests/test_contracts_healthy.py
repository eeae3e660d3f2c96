"""All contracts together: silent on healthy trainings of every kind, and they leave no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from doctor_cases import KINDS, learn, planted, tiny_training
from snellen.core.finding import Finding, run_checks
from snellen.doctor.case import Case, Training
from snellen.doctor.contracts.table import CONTRACTS
from test_contracts_data import FAULTS as DATA_FAULTS
from test_contracts_losses import FAULTS as LOSS_FAULTS
from test_doctor_safety import everything, same

RECIPES: list[dict[str, Any]] = [
    {},
    {"optimizer": "sgd", "shift": 1},
    {"norm": "group", "smoothing": 0.1},
    {"norm": "none", "drop_last": True},
    {"dropout": 0.5, "scheduler": "none"},
    {"scheduler": "cosine", "batch": 8, "num_val": 40, "wrong": 0.3},
    {"noise": 2.0, "batch": 100},
]


def alarms(training: Training, seed: int = 0) -> list[Finding]:
    return [f for f in run_checks(CONTRACTS, Case(training=training, seed=seed)) if f.severity != "info"]


# Every recipe of one kind of net, and of the other kinds the one that looks most ill: the rest is the ward's.
CASES = [("cnn", recipe) for recipe in RECIPES] + [(kind, RECIPES[5]) for kind in KINDS if kind != "cnn"]


@pytest.mark.parametrize(("kind", "recipe"), CASES, ids=str)
def test_healthy_trainings_raise_no_alarm_fresh_or_learnt(kind: Any, recipe: dict[str, Any]) -> None:
    training = tiny_training(kind, seed=len(str(recipe)), **{"num": 72, "epochs": 1, **recipe})
    assert alarms(training) == []
    assert alarms(learn(training)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_contracts_leave_no_trace(kind: Any) -> None:
    training = learn(tiny_training(kind, num=96, epochs=3, dropout=0.3), 1)

    def evaluate() -> float:
        with torch.no_grad():
            return -sum(float(training.loss_of(batch)) for batch in training.val)

    training.evaluate = evaluate  # never leaves training mode: batch norms move
    before = everything(training)
    order = training.train.generator.get_state()  # type: ignore[attr-defined]
    for contract in CONTRACTS:
        list(contract(Case(training=training)))
        assert same(before, everything(training)), contract.__name__
        assert torch.equal(order, training.train.generator.get_state()), contract.__name__  # type: ignore[attr-defined]


def test_a_case_without_a_training_or_with_little_of_one_is_silent() -> None:
    assert run_checks(CONTRACTS, Case()) == []
    training = tiny_training("cnn", num=96)
    bare = Training(model=training.model, loss=training.loss, train=training.train, val=training.val)
    assert alarms(bare) == []
    bare.question = "other"
    assert alarms(bare) == []


@pytest.mark.parametrize(("plant", "codes", "_"), DATA_FAULTS[:4], ids=lambda each: getattr(each, "__name__", ""))
def test_a_fault_of_the_data_sets_off_its_own_contract_only(plant: Any, codes: set[str], _: str) -> None:
    assert {finding.code for finding in alarms(planted(tiny_training("cnn"), plant))} == codes


@pytest.mark.parametrize(("kind", "loss", "code"), LOSS_FAULTS[:6])
def test_a_fault_of_the_loss_sets_off_its_own_contract_only(kind: Any, loss: Any, code: str) -> None:
    training = planted(tiny_training(kind, num=64), lambda each: setattr(each, "loss", loss))
    assert {finding.code for finding in alarms(training)} == {code}


CODES = (
    "batches-not-shuffled evaluation-in-training-mode evaluation-not-deterministic frozen-parts-move "
    "gradients-not-cleared images-never-seen images-on-both-sides initial-loss inputs-constant inputs-not-finite "
    "loss-head-mismatch loss-prefers-wrong-answers loss-wrong-at-the-truth metric-wrong optimizer-holds-strangers "
    "optimizer-misses-parameters pixels-differ same-image-other-target samples-mix schedule-length "
    "softmax-before-loss step-changes-nothing symmetric-weights targets-out-of-range unreached-parameters "
    "validation-varies weights-not-loaded"
).split()


@pytest.mark.parametrize("code", CODES)
def test_each_finding_has_a_page(code: str) -> None:
    page = (Path(__file__).parents[1] / "docs" / "findings" / f"{code}.md").read_text(encoding="utf-8")
    titles = [line for line in page.splitlines() if line.startswith("#")]
    assert titles == [f"# {code}", "## What was seen", "## How sure that is", "## What to do"]
    assert 10 <= len(page.splitlines()) <= 25


def test_the_list_of_codes_is_that_of_the_source() -> None:
    folder = Path(__file__).parents[1] / "src" / "snellen" / "doctor" / "contracts"
    source = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    assert sorted({part.split('"')[0] for part in source.split('code="')[1:]}) == sorted(CODES)
