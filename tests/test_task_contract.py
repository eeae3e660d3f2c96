"""What every task promises. A task that is listed in TASKS is tested here; it adds one Case that states its truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load, load_file, save
from torch import nn

from shapes import picture, save_for
from snellen.core import geometry
from snellen.core.checkpoint import Checkpoint
from snellen.core.errors import ConfigError, DataError
from snellen.core.record import Record
from snellen.core.run import RunFolder
from snellen.core.sample import Batch
from snellen.data.image_sets import ImageSet
from snellen.draw.chart import Chart
from snellen.evaluate import assess, score
from snellen.tasks.base import TASKS, Task, create_task, is_dense
from snellen.tasks.classification.target import Label, LabelSet
from snellen.tasks.loading import load_model
from snellen.train import pictures
from snellen.train.run_training import run_training
from snellen.train.session import Session
from task_cases import CASES, Case, close, perfect, same
from tiny_runs import start

torch.set_num_threads(1)

SIDE = 12


WHOLE_IMAGE = [name for name in TASKS if not is_dense(name)]  # the others have a suite of their own


def test_every_task_has_its_case() -> None:
    assert list(CASES) == WHOLE_IMAGE


@dataclass(frozen=True)
class Learnt:
    """A task, what is known of its truth, and a run that learnt the shapes."""

    task: Task[Any]
    case: Case
    session: Session
    model: nn.Module

    @property
    def test_side(self) -> ImageSet:
        return self.session.sides["test"]

    @property
    def run(self) -> RunFolder:
        return self.session.run

    def batch(self, size: int = 6) -> Batch[Any]:
        side = self.session.sides["train"]
        pixels = np.stack([side.store.prepared(record) for record in side.records[:size]])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        return Batch(images=images, targets=side.targets[:size], ids=[record.id for record in side.records[:size]])


@pytest.fixture(scope="module", params=WHOLE_IMAGE)
def learnt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    data = save_for(name, folder / "data", num=150, side=SIDE)
    settings = {"model": "small-resnet", "epochs": 8, "batch_size": 16, "lr": 0.01, "body_lr": 0.01, "patience": 99}
    session = start(data, folder, task=name, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "_SHEET_IMAGES", 4)
        run_training(session, resume=False)
    loaded = Checkpoint.load(session.run.best_checkpoint)
    session.model.load_state_dict(dict(loaded.weights))
    return Learnt(session.task, CASES[name], session, session.model.eval())


def guesses(learnt: Learnt, truth: Sequence[Any], seed: int = 0) -> Sequence[Any]:
    """Predictions by a network that knows nothing: many are wrong, none equally sure."""
    shape = learnt.case.perfect(truth, len(learnt.task.classes)).shape
    return learnt.task.decode(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


# --- learning


def test_shapes_are_learnt(learnt: Learnt) -> None:
    """What no test of a part finds: targets that belong to other images, an order that is lost, a wrong decision."""
    results, headline = learnt.run.read_json("results.json"), learnt.task.headline
    got = {split: numbers[headline]["value"] for split, numbers in results["splits"].items()}
    trivial = results["baselines"]["majority"]["test"][headline]["value"]
    assert trivial <= learnt.case.chance
    assert got["val"] >= learnt.case.learnt and got["test"] >= learnt.case.learnt
    losses = [event["val/loss"] for event in learnt.run.events() if event["event"] == "epoch"]
    assert min(losses) < 0.7 * losses[0]


def test_saved_model_answers_as_the_trained_one(learnt: Learnt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snellen.tasks.loading.available_cores", lambda: 1)
    loaded = load_model(Checkpoint.load(learnt.run.best_checkpoint), device="cpu")
    assert type(loaded.task) is type(learnt.task) and loaded.task.classes == learnt.task.classes
    images = learnt.batch().images
    with torch.inference_mode():
        assert torch.equal(loaded.network(images), learnt.model(images))


def test_every_trainable_parameter_gets_a_gradient(learnt: Learnt) -> None:
    learnt.model.train()
    losses = learnt.task.losses(learnt.model, learnt.batch(), learnt.session.plan)
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in learnt.model.named_parameters():
        assert parameter.grad is not None and float(parameter.grad.abs().max()) > 0, name
    learnt.model.zero_grad()
    learnt.model.load_state_dict(dict(Checkpoint.load(learnt.run.best_checkpoint).weights))
    learnt.model.eval()


@pytest.mark.parametrize("training", [True, False])
def test_losses_are_named_finite_scalars(training: bool, learnt: Learnt) -> None:
    with torch.set_grad_enabled(training):
        losses = learnt.task.losses(learnt.model, learnt.batch(), learnt.session.plan)
    assert losses
    for name, loss in losses.items():
        assert isinstance(name, str) and loss.shape == () and bool(torch.isfinite(loss)), name
        assert loss.requires_grad == training


def test_losses_of_perfect_outputs_are_near_zero_and_of_wrong_ones_are_not(learnt: Learnt) -> None:
    batch = learnt.batch()
    outputs = learnt.case.perfect(batch.targets, len(learnt.task.classes))
    right, wrong = (
        sum(float(loss) for loss in learnt.task.criterion(each, batch, learnt.session.plan).values())
        for each in (outputs, -outputs)
    )
    assert 0 <= right < 1e-3 and wrong > 1.0


def test_assess_is_losses_and_decode_in_one_pass(learnt: Learnt) -> None:
    batch, plan = learnt.batch(), learnt.session.plan
    with torch.inference_mode():
        losses, predictions = learnt.task.assess(learnt.model, batch, plan)
        expected = learnt.task.losses(learnt.model, batch, plan)
        decoded = learnt.task.decode(learnt.model(batch.images))
    assert {name: float(loss) for name, loss in losses.items()} == {n: float(loss) for n, loss in expected.items()}
    assert len(predictions) == len(decoded) == len(batch)
    assert all(same(one, other) for one, other in zip(predictions, decoded, strict=True))


def test_batch_size_changes_no_metric(learnt: Learnt, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for size in (1, 5, 64):
        monkeypatch.setitem(assess.__globals__, "EVALUATION_BATCH", size)
        assessment = assess(learnt.model, learnt.task, learnt.test_side, learnt.session.plan)
        found[size] = score(learnt.task, assessment.predicted, assessment.truth, intervals=False), assessment.losses
    assert close(found[1][0], found[64][0]) and close(found[5][0], found[64][0])
    assert found[1][1] == pytest.approx(found[64][1], abs=1e-5) and found[5][1] == pytest.approx(found[64][1], abs=1e-5)


def test_assessing_leaves_the_network_in_the_mode_it_was_in(learnt: Learnt) -> None:
    learnt.model.train()
    learnt.model.get_submodule("head").eval()
    modes = [module.training for module in learnt.model.modules()]
    before = {name: tensor.clone() for name, tensor in learnt.model.state_dict().items()}
    assess(learnt.model, learnt.task, learnt.test_side, learnt.session.plan)
    assert [module.training for module in learnt.model.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in learnt.model.state_dict().items())
    learnt.model.eval()


def test_a_fitted_head_fits_the_network_and_its_features(learnt: Learnt) -> None:
    side = learnt.session.sides["train"]
    pixels = np.stack([side.store.prepared(record) for record in side.records])
    with torch.no_grad():
        features = learnt.model.features(torch.from_numpy(pixels).permute(0, 3, 1, 2))  # type: ignore[operator]
    head = learnt.task.fit_probe(features, side.targets, [record.id for record in side.records], learnt.session.plan)
    assert head is not None
    own = learnt.model.state_dict()
    assert head.keys() <= own.keys() and all(tensor.shape == own[name].shape for name, tensor in head.items())
    predicted = learnt.task.decode(features @ head["head.weight"].T + head["head.bias"])
    numbers = score(learnt.task, predicted, side.targets, intervals=False)
    assert numbers[learnt.task.headline].value >= learnt.case.learnt


# --- targets


def test_a_record_states_its_truth_and_nothing_else(learnt: Learnt) -> None:
    records = [Record(id=str(i), path=Path("x"), **truth) for i, truth in enumerate(learnt.case.truths)]
    targets = [learnt.task.target(record) for record in records]
    assert all(same(target, learnt.task.target(record)) for target, record in zip(targets, records, strict=True))
    assert not any(same(targets[i], targets[j]) for i in range(3) for j in range(i))
    assert all(getattr(target, "scores", None) is None for target in targets)
    captions = [learnt.task.caption(target) for target in targets]
    assert all(learnt.case.says(caption, truth) for caption, truth in zip(captions, learnt.case.truths, strict=True))
    assert not any(learnt.case.says(captions[0], truth) for truth in learnt.case.truths[1:])


def test_a_record_of_another_kind_is_refused_by_name(learnt: Learnt) -> None:
    truth, words = learnt.case.refused
    with pytest.raises(DataError, match=words):
        learnt.task.target(Record(id="photo.jpg", path=Path("x"), **truth))


def test_a_flip_moves_the_target_as_the_task_says(learnt: Learnt) -> None:
    size = (SIDE, SIDE)
    flip = geometry.hflip(SIDE)
    for target in learnt.test_side.targets[:6]:
        once = learnt.task.warp(target, flip, size)
        assert same(once, learnt.case.flipped(target, SIDE))
        assert same(learnt.task.warp(once, flip, size), target)


# --- results


def test_perfect_outputs_decode_to_the_truth(learnt: Learnt) -> None:
    truth = learnt.test_side.targets
    decoded = learnt.task.decode(learnt.case.perfect(truth, len(learnt.task.classes)))
    assert len(decoded) == len(truth)
    assert all(same(one, other) for one, other in zip(decoded, truth, strict=True))
    assert all((getattr(prediction, "scores", None) is not None) == learnt.case.scored for prediction in decoded)
    numbers = score(learnt.task, decoded, truth, intervals=False)
    assert all(estimate.value == pytest.approx(perfect(name), abs=1e-3) for name, estimate in numbers.items())


def test_truth_scored_against_itself_is_perfect(learnt: Learnt) -> None:
    truth = learnt.test_side.targets
    numbers = score(learnt.task, truth, truth, seed=1)
    assert numbers[learnt.task.headline].value == 1.0
    for name, estimate in numbers.items():
        assert estimate.value == pytest.approx(perfect(name), abs=1e-6), name
        assert estimate.low is not None and estimate.high is not None and estimate.n > 0
        assert estimate.low <= estimate.value <= estimate.high


def test_metrics_do_not_depend_on_how_predictions_arrive(learnt: Learnt) -> None:
    truth = learnt.test_side.targets
    predicted = guesses(learnt, truth)
    at_once = score(learnt.task, predicted, truth, intervals=False)
    parts = learnt.task.metrics()
    order = np.random.default_rng(0).permutation(len(truth))
    for start_ in range(0, len(truth), 4):
        chosen = order[start_ : start_ + 4]
        parts.update([predicted[i] for i in chosen], [truth[i] for i in chosen])
    assert close(parts.compute(intervals=False), at_once)


def test_majority_says_the_same_of_every_image_and_needs_no_image(learnt: Learnt) -> None:
    train, truth = learnt.session.sides["train"].targets, learnt.test_side.targets
    said = learnt.task.majority(train, len(truth))
    assert len(said) == len(truth) and all(same(one, said[0]) for one in said)
    assert all(one.scores is said[0].scores for one in said if learnt.case.scored)
    assert len(learnt.task.majority(train, 0)) == 0
    numbers = score(learnt.task, said, truth, intervals=False)
    assert numbers[learnt.task.headline].value <= learnt.case.chance
    faults = [estimate.value for name, estimate in numbers.items() if perfect(name) == 0]
    assert faults and all(map(np.isfinite, faults))


def test_the_written_arrays_give_the_metrics_again(learnt: Learnt) -> None:
    """predictions/test.safetensors of the run, through a file that holds arrays alone."""
    written = load_file(learnt.run.predictions / "test.safetensors")
    outputs, truth = learnt.case.read_back(written)
    assert all(same(one, other) for one, other in zip(truth, learnt.test_side.targets, strict=True))
    again = score(learnt.task, learnt.task.decode(outputs), truth, intervals=False)
    told = learnt.run.read_json("results.json")["splits"]["test"]
    assert {name: estimate.value for name, estimate in again.items()} == pytest.approx(
        {name: fields_["value"] for name, fields_ in told.items()}, abs=1e-4
    )
    assert learnt.run.read_json("predictions/test.json") == [record.id for record in learnt.test_side.records]


def test_arrays_come_back_bit_by_bit(learnt: Learnt) -> None:
    truth = learnt.test_side.targets
    arrays = learnt.task.arrays(guesses(learnt, truth), truth)
    again = load(save(arrays))
    assert arrays.keys() == again.keys() and all(len(array) == len(truth) for array in arrays.values())
    assert all(np.array_equal(array, again[name]) for name, array in arrays.items())


def test_arrays_are_what_the_charts_are_drawn_from(learnt: Learnt) -> None:
    truth = learnt.test_side.targets
    drawn = learnt.task.charts(learnt.task.arrays(guesses(learnt, truth), truth))
    assert drawn and all(isinstance(chart, Chart) for chart in drawn)


def test_a_description_is_json_and_names_what_was_decided(learnt: Learnt) -> None:
    for prediction in guesses(learnt, learnt.test_side.targets[:6]):
        described = learnt.task.describe(prediction)
        assert json.loads(json.dumps(described, allow_nan=False)) == described
        learnt.case.described(described, learnt.task.classes, learnt.task.caption(prediction))


def test_mistakes_are_real_errors_with_the_worst_first(learnt: Learnt) -> None:
    truth = learnt.session.sides["train"].targets
    predicted = guesses(learnt, truth)
    mistakes = learnt.task.mistakes(predicted, truth, len(truth))
    wrong = {i for i in range(len(truth)) if not same(predicted[i], truth[i])}
    assert {mistake["index"] for mistake in mistakes} == wrong and len(mistakes) == len(wrong) > 3
    bad = [learnt.case.badness(mistake) for mistake in mistakes]
    assert bad == sorted(bad, reverse=True) and 0 <= bad[-1] < bad[0]
    for mistake in mistakes:
        assert mistake["truth"] == learnt.task.caption(truth[mistake["index"]]) != mistake["predicted"]
        said = predicted[mistake["index"]]
        if learnt.case.scored:
            assert mistake["predicted"] == learnt.task.caption(replace(said, scores=None))
        assert mistake["predicted"] in learnt.task.caption(said)
    json.dumps(mistakes, allow_nan=False)
    assert learnt.task.mistakes(predicted, truth, 2) == mistakes[:2]
    assert (
        learnt.task.mistakes(learnt.task.decode(learnt.case.perfect(truth, len(learnt.task.classes))), truth, 9) == []
    )
    assert learnt.task.mistakes([], [], 9) == []


def test_drawing_gives_a_picture_and_leaves_the_image_as_it_was(learnt: Learnt) -> None:
    image = picture(np.random.default_rng(0), ["circle"], 64)
    before = image.copy()
    one, other = (learnt.task.draw(image, target) for target in _two_that_differ(learnt))
    assert isinstance(one, Image.Image) and min(one.size) >= 64
    assert np.array_equal(image, before)
    assert one.tobytes() != other.tobytes()  # what it says can be seen


def _two_that_differ(learnt: Learnt) -> list[Any]:
    records = [Record(id=str(i), path=Path("x"), **truth) for i, truth in enumerate(learnt.case.truths)]
    return [learnt.task.target(record) for record in records[:2]]


def test_a_decision_changes_what_is_decided_and_no_probability(learnt: Learnt) -> None:
    truth, classes = learnt.test_side.targets, learnt.task.classes
    outputs = torch.randn(learnt.case.perfect(truth, len(classes)).shape, generator=torch.Generator().manual_seed(0))
    usual = learnt.task.arrays(learnt.task.decode(outputs), truth)
    if "scores" not in usual:
        pytest.skip("this task gives no probabilities")
    biased = create_task(learnt.task.name, classes, (1e-3, *[0.9] * (len(classes) - 1)))
    moved = biased.arrays(biased.decode(outputs), truth)
    assert np.array_equal(moved["scores"], usual["scores"])
    assert not np.array_equal(moved["predicted"], usual["predicted"])
    even = create_task(learnt.task.name, classes, [0.5] * len(classes))
    assert np.array_equal(even.arrays(even.decode(outputs), truth)["predicted"], usual["predicted"])


def test_a_decision_of_another_number_of_classes_is_refused(learnt: Learnt) -> None:
    with pytest.raises(ValueError, match="a number for each of 3 classes, got 2"):
        create_task(learnt.task.name, ("a", "b", "c"), (1.0, 1.0))


def test_a_saved_decision_is_the_loaded_models(learnt: Learnt, tmp_path: Path) -> None:
    best, factors = Checkpoint.load(learnt.run.best_checkpoint), (0.5, *[1.0] * (len(learnt.task.classes) - 1))
    replace(best, decision=factors).save(tmp_path / "moved.safetensors")
    assert load_model(Checkpoint.load(tmp_path / "moved.safetensors"), device="cpu").task.decision == factors
    assert learnt.session.task.decision == () == best.decision


# --- the network by itself


def test_the_network_exports_as_it_is(learnt: Learnt) -> None:
    images = learnt.batch(5).images
    batch = torch.export.Dim("batch")
    exported = torch.export.export(learnt.model, (images[:2],), dynamic_shapes=({0: batch},)).module()
    with torch.inference_mode():
        assert torch.equal(exported(images), learnt.model(images))


# --- the table


def test_a_task_goes_by_its_name_in_the_table(learnt: Learnt) -> None:
    assert TASKS[learnt.task.name].endswith(f":{type(learnt.task).__name__}")
    assert learnt.session.plan.task == learnt.task.name
    assert all(callable(check) for check in learnt.task.checks())


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="task = 'clasification' is not known; did you mean 'classification'"):
        create_task("clasification", ("a", "b"))


def test_majority_of_classes_is_the_most_frequent_with_laplace_frequencies() -> None:
    task = create_task("classification", ("a", "b", "c"))
    (said,) = task.majority([Label(1), Label(1), Label(0)], 1)
    assert said.index == 1 and said.scores == pytest.approx([2 / 6, 3 / 6, 1 / 6])


def test_majority_of_labels_gives_those_that_half_of_the_images_have() -> None:
    task = create_task("multilabel", ("a", "b"))
    (said,) = task.majority([LabelSet(np.array(row, bool)) for row in ([1, 0], [1, 1], [1, 0])], 1)
    assert said.present.tolist() == [True, False] and said.scores == pytest.approx([4 / 5, 2 / 5])
