"""What a contract or an answer prescribes is done as it says, leaves the rest to the bit as it was, and helps."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from doctor_cases import Kind, accuracy, planted, tiny_training
from snellen.core.config import Config
from snellen.core.finding import Finding
from snellen.doctor.answers.failing import failing_slice
from snellen.doctor.case import Answers, Case, Training
from snellen.doctor.changes import CHANGES, change_of
from snellen.doctor.contracts.data import inputs_not_finite
from snellen.doctor.contracts.evaluation import evaluation_not_deterministic
from snellen.doctor.contracts.parameters import unreached_parameters
from snellen.doctor.experiments.class_map import class_map_permuted
from snellen.doctor.learning import learn
from snellen.doctor.loaders import Enriched
from snellen.doctor.prescriptions import settings_for
from snellen.doctor.scores import answers_of, score_images
from tiny_runs import a_plan

torch.set_num_threads(1)


class _Altered(nn.Module):
    def __init__(self, part: nn.Module, alter: Any) -> None:
        super().__init__()
        self.part, self.alter = part, alter

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.alter(self.part(inputs))
        return outputs


def _first_altered(alter: Any) -> Any:
    """The first layer's outputs are altered in every mode."""

    def plant(training: Training) -> None:
        model: Any = training.model
        model[0] = _Altered(model[0], alter)

    return plant


def always_dropping(share: float, kind: Kind = "cnn", **more: Any) -> Training:
    return planted(
        tiny_training(kind, dropout=0.0, **more), _first_altered(lambda outputs: functional.dropout(outputs, share))
    )


def cut_off(**more: Any) -> Training:
    return planted(tiny_training("cnn", **more), _first_altered(lambda outputs: outputs.detach()))


def _weights(training: Training) -> list[Tensor]:
    return [each.clone() for each in training.model.state_dict().values()]


def _same(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def _found(check: Any, case: Case) -> Finding:
    (finding,) = check(case)
    assert isinstance(finding, Finding)
    return finding


# --- dropouts that nobody switches off


def test_dropouts_that_never_are_off_are_switched_off_in_evaluation_alone() -> None:
    sick, treated = always_dropping(0.5, epochs=2), CHANGES["dropouts off"].apply(always_dropping(0.5, epochs=2))
    learn(sick)
    learn(treated)
    assert _same(_weights(sick), _weights(treated))  # training is the same to the bit
    inputs, _ = next(iter(treated.val))
    for training, differs in ((sick, True), (treated, False)):
        training.model.eval()
        assert torch.equal(training.model(inputs), training.model(inputs)) is not differs
    treated.model.train()
    assert not torch.equal(treated.model(inputs), treated.model(inputs))
    again = copy.deepcopy(treated.model).eval()
    assert torch.equal(again(inputs), treated.model.eval()(inputs))


@pytest.mark.parametrize("seed", range(2))
def test_what_is_prescribed_for_dropout_in_evaluation_helps(seed: int) -> None:
    sick = always_dropping(0.7, epochs=6, seed=seed)
    learn(sick)
    before = _weights(sick)
    finding = _found(evaluation_not_deterministic, Case(training=sick))
    assert _same(before, _weights(sick)) and sick.model.training is not None
    assert finding.treatment["change"] in ("dropouts off", "no dropout")
    change = change_of(finding.treatment)
    assert change is not None and sick.build is not None and change.fits(sick)
    treated = change.apply(sick.build(0))
    learn(treated)
    assert accuracy(treated) >= accuracy(sick) + 0.05
    assert not list(evaluation_not_deterministic(Case(training=treated)))


def test_a_network_that_knows_its_images_keeps_its_dropout_in_training() -> None:
    sick = always_dropping(0.2, epochs=12)
    learn(sick)
    assert _found(evaluation_not_deterministic, Case(training=sick)).treatment == {"change": "dropouts off"}


def test_other_chance_in_evaluation_has_no_treatment() -> None:
    sick = planted(tiny_training("cnn"), _first_altered(lambda outputs: outputs * (torch.rand(()) + 0.5)))
    assert _found(evaluation_not_deterministic, Case(training=sick)).treatment == {}
    healthy = tiny_training("cnn", dropout=0.5)
    assert not CHANGES["dropouts off"].fits(healthy) and CHANGES["no dropout"].fits(healthy)


# --- a graph that is cut


@pytest.mark.parametrize("seed", range(2))
def test_a_body_that_was_cut_off_learns_once_nothing_is_detached(seed: int) -> None:
    sick = cut_off(epochs=2, seed=seed)
    before = _weights(sick)
    finding = _found(unreached_parameters, Case(training=sick))
    assert finding.treatment == {"change": "whole graph"} and _same(before, _weights(sick))
    assert type(sick.model) is nn.Sequential
    assert sick.build is not None and CHANGES["whole graph"].fits(sick)
    treated = CHANGES["whole graph"].apply(sick.build(seed))
    assert not list(unreached_parameters(Case(training=treated)))
    first = treated.model.get_parameter("0.part.0.weight").clone()
    learn(treated)
    assert not torch.equal(first, treated.model.get_parameter("0.part.0.weight"))


def test_no_grad_in_the_forward_pass_is_a_cut_as_well() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            with torch.no_grad():
                seen = self.body(inputs)
            outputs: Tensor = self.head(seen)
            return outputs

    model = Cut()
    batches = [(torch.randn(8, 4), torch.arange(8) % 2)]
    loss = nn.CrossEntropyLoss()
    training = Training(
        model=model, loss=loss, train=batches, val=batches, optimizer=torch.optim.SGD(model.parameters())
    )
    assert _found(unreached_parameters, Case(training=training)).treatment == {"change": "whole graph"}
    assert torch.is_grad_enabled()


def test_weights_that_are_cut_off_elsewhere_have_no_treatment() -> None:
    def plant(training: Training) -> None:
        model: Any = training.model
        model[0] = _Altered(model[0], lambda outputs: torch.from_numpy(outputs.detach().numpy().copy()))
        model[0].alter = lambda outputs: torch.tensor(outputs.tolist())

    sick = planted(tiny_training("cnn", num=32), plant)
    assert _found(unreached_parameters, Case(training=sick)).treatment == {}
    assert not CHANGES["whole graph"].fits(tiny_training("cnn", num=32))


# --- images with NaN


def test_images_that_are_no_numbers_are_left_out_of_training_and_filled_in_validation() -> None:
    images, labels = torch.randn(12, 3, 4, 4), torch.arange(12) % 2
    images[[1, 7], 0, 0, 0] = torch.nan
    batches = [(images[:6], labels[:6]), (images[6:], labels[6:])]
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    training = Training(
        model=model,
        loss=nn.CrossEntropyLoss(),
        train=batches,
        val=batches,
        optimizer=torch.optim.SGD(model.parameters(), 0.01),
    )
    treatment = next(iter(inputs_not_finite(Case(training=training)))).treatment
    change = change_of(treatment)
    assert change is not None and change.name == "finite inputs" and change.fits(training)
    treated = change.apply(training)
    assert [len(labels) for _, labels in treated.train] == [5, 5]
    assert [len(labels) for _, labels in treated.val] == [6, 6]
    assert score_images(treated, treated.val).values.shape == (12,)
    assert not list(inputs_not_finite(Case(training=treated)))


# --- classes numbered otherwise


def test_images_of_a_side_get_the_names_that_are_meant() -> None:
    training = tiny_training("cnn", num=240, epochs=6)
    learn(training)
    said = answers_of(training, training.val)
    assert said is not None
    ids = [f"val/{i}.png" for i in range(len(said))]
    rolled = (said.truth + 1) % 4
    case = Case(answers={"val": replace(said, truth=rolled, ids=ids)}, classes=training.classes)
    overlay = _found(class_map_permuted, case).treatment["overlay"]
    assert {each["image"]: each["value"] for each in overlay} == {
        image: training.classes[label] for image, label in zip(ids, said.truth, strict=True)
    }
    unnamed = Case(answers={"val": replace(said, truth=rolled)}, classes=training.classes)
    assert _found(class_map_permuted, unnamed).treatment == {}


# --- a slice of which training has a few images


def _with_cameras(seed: int, share: float) -> Case:
    """Some images come from a camera whose pictures are negatives: many of validation, and ``share`` of training."""
    rng = np.random.default_rng(seed)
    training = tiny_training("cnn", num=400, num_val=400, epochs=4, noise=0.4, dropout=0.0, seed=seed)

    def negatives(side: Any, part: float) -> list[str]:
        images, _ = side.dataset.tensors
        rows = rng.random(len(images)) < part
        images[rows] = -images[rows]
        return ["B" if row else "A" for row in rows]

    cameras = {"train": negatives(training.plain, share), "val": negatives(training.val, 0.3)}
    learn(training)
    told: dict[str, Answers] = {}
    for side, batches in (("train", training.plain), ("val", training.val)):
        assert batches is not None
        answers = answers_of(training, batches)
        assert answers is not None
        told[side] = replace(answers, facts={"camera": cameras[side]})
    return Case(training=training, answers=told, classes=training.classes, seed=seed)


def test_more_of_a_slice_is_shown_where_training_has_some_of_it() -> None:
    case = _with_cameras(0, 0.05)
    assert case.training is not None and case.training.build is not None
    finding = _found(failing_slice, case)
    assert finding.evidence["rule"] == "camera = B"
    rows = finding.treatment["rows"]
    assert [case.answers["train"].facts["camera"][row] for row in rows] == ["B"] * len(rows)
    assert 1.5 <= finding.treatment["times"] <= 4
    change = change_of(finding.treatment)
    assert change is not None
    before, after = case.training.build(1), change.apply(case.training.build(1))
    learn(before)
    learn(after)
    at = np.array(case.answers["val"].facts["camera"]) == "B"
    sick, treated = (score_images(each, each.val).values[at].mean() for each in (before, after))
    assert treated >= sick + 0.05


def test_a_slice_that_training_has_none_of_has_no_treatment() -> None:
    assert _found(failing_slice, _with_cameras(1, 0.0)).treatment == {}


def test_enriched_batches_have_every_image_and_the_chosen_ones_as_often_as_asked() -> None:
    batches = [(torch.arange(start, start + 4.0).view(4, 1), torch.arange(start, start + 4)) for start in (0, 4, 8)]
    more = Enriched(batches, batches, [1, 6], 3.0, seed=0)
    first, second = ([targets for _, targets in more] for _ in range(2))
    assert len(first) == 3 and torch.cat(first).bincount().tolist() == [1, 3, 1, 1, 1, 1, 3, 1, 1, 1, 1, 1]
    assert torch.cat(second).sort().values.tolist() == torch.cat(first).sort().values.tolist()
    assert all(torch.equal(inputs.flatten().long(), targets) for inputs, targets in more)


# --- in the words of Snellen's own settings


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_settings_can_say_is_said_in_settings_that_are_allowed(name: str) -> None:
    plan = a_plan()
    told = settings_for(Finding(code="x", severity="warning", message="", advice="", treatment={"change": name}), plan)
    if told is not None:
        assert Config.of(data="any", **told).model_dump(include=set(told)) == told
