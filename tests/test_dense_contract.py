"""What every task promises that answers about places. One that is listed in TASKS is tested here; it adds one Case."""

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
from safetensors.numpy import load, save
from torch import nn

from dense_cases import CASES, Case, same
from scenes import save_scenes
from snellen.core import geometry
from snellen.core.checkpoint import Checkpoint
from snellen.core.config import Config
from snellen.core.errors import ConfigError, DataError
from snellen.core.preprocessing import Fit
from snellen.core.record import Record
from snellen.core.run import RunFolder
from snellen.core.sample import Batch, Frame
from snellen.data.augment import Augmentation
from snellen.data.image_sets import ImageSet, Variation
from snellen.data.loader import evaluation_batches, training_batches
from snellen.draw.chart import Chart
from snellen.evaluate import assess, score
from snellen.nn.precision import arithmetic
from snellen.tasks.base import TASKS, Task, is_dense
from snellen.tasks.loading import load_model
from snellen.train import pictures, places
from snellen.train.run_training import run_training
from snellen.train.session import Session
from tiny_runs import start

torch.set_num_threads(1)

ALL_MOVES = "scenes, rotate_degrees=20, shear_degrees=8, rotate90=1, perspective=0.03, elastic=0.01"
DENSE = [name for name in TASKS if is_dense(name)]


def test_every_task_that_answers_about_places_has_its_case() -> None:
    assert list(CASES) == DENSE


@dataclass(frozen=True)
class Learnt:
    """A task, what is known of its truth, and a run that learnt the scenes."""

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
        return next(evaluation_batches(self.session.sides["train"], size, 1))

    def perfect(self, images: ImageSet) -> list[Any]:
        """What a network without mistakes says of them, in the pixels of the images on disk."""
        found: list[Any] = []
        for batch in evaluation_batches(images, 4, 1):
            outputs = self.case.perfect(batch.targets, len(self.task.classes), batch.frames)
            found += self.task.decode(outputs, batch.frames)
        return found

    def guesses(self, images: ImageSet) -> list[Any]:
        """What is right of other images: many are wrong."""
        answers = self.perfect(images)
        return [replace(each, size=answers[i].size) for i, each in enumerate([*answers[1:], answers[0]])]


@pytest.fixture(scope="module", params=DENSE)
def learnt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, narrow_networks: None) -> Learnt:
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    data = save_scenes(name, folder / "data", num=120, side=64)
    session = start(data, folder, task=name, **CASES[name].settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "_SHEET_IMAGES", 4)
        run_training(session, resume=False)
    session.model.load_state_dict(dict(Checkpoint.load(session.run.best_checkpoint).weights))
    return Learnt(session.task, CASES[name], session, session.model.eval())


# --- learning


def test_scenes_are_learnt(learnt: Learnt) -> None:
    """What no test of a part finds: a stride left out, half a pixel lost, targets of other images."""
    results, headline = learnt.run.read_json("results.json"), learnt.task.headline
    got = {split: numbers[headline]["value"] for split, numbers in results["splits"].items()}
    assert results["baselines"]["majority"]["test"][headline]["value"] <= learnt.case.chance
    assert got["val"] >= learnt.case.learnt and got["test"] >= learnt.case.learnt
    losses = [event["val/loss"] for event in learnt.run.events() if event["event"] == "epoch"]
    assert min(losses) < 0.7 * losses[0]


def test_a_saved_model_answers_as_the_trained_one(learnt: Learnt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snellen.tasks.loading.available_cores", lambda: 1)
    loaded = load_model(Checkpoint.load(learnt.run.best_checkpoint), device="cpu")
    batch = learnt.batch()
    with torch.inference_mode():
        one, other = (task.decode(model(batch.images), batch.frames) for task, model in _both(learnt, loaded))
    assert all(same(a, b, 1e-3) for a, b in zip(one, other, strict=True))


def _both(learnt: Learnt, loaded: Any) -> list[tuple[Task[Any], nn.Module]]:
    return [(learnt.task, learnt.model), (loaded.task, loaded.network)]


def test_every_trainable_parameter_gets_a_gradient(learnt: Learnt) -> None:
    learnt.model.train()
    losses = learnt.task.losses(learnt.model, learnt.batch(), learnt.session.plan)
    torch.stack(list(losses.values())).sum().backward()
    reached = {}
    for name, parameter in learnt.model.named_parameters():
        assert parameter.grad is not None, name
        reached[name] = float(parameter.grad.abs().max()) > 0
    # What belongs to a level of a pyramid is idle where a batch has no object of its size.
    assert np.mean(list(reached.values())) > 0.9, [name for name, got in reached.items() if not got]
    learnt.model.zero_grad()
    learnt.model.load_state_dict(dict(Checkpoint.load(learnt.run.best_checkpoint).weights))
    learnt.model.eval()


def test_losses_are_named_finite_scalars(learnt: Learnt) -> None:
    losses = learnt.task.losses(learnt.model, learnt.batch(), learnt.session.plan)
    assert losses and all(loss.shape == () and bool(torch.isfinite(loss)) for loss in losses.values())


def test_assess_is_losses_and_decode_in_one_pass(learnt: Learnt) -> None:
    batch, plan = learnt.batch(), learnt.session.plan
    with torch.inference_mode():
        losses, predictions = learnt.task.assess(learnt.model, batch, plan)
        decoded = learnt.task.decode(learnt.model(batch.images), batch.frames)
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())
    assert all(same(one, other) for one, other in zip(predictions, decoded, strict=True))


def test_batch_size_changes_no_metric(learnt: Learnt, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for size in (1, 5, 64):
        monkeypatch.setitem(assess.__globals__, "EVALUATION_BATCH", size)
        seen = assess(learnt.model, learnt.task, learnt.test_side, learnt.session.plan)
        found[size] = {k: v.value for k, v in score(learnt.task, seen.predicted, seen.truth, intervals=False).items()}
    assert found[1] == pytest.approx(found[64], abs=1e-4) and found[5] == pytest.approx(found[64], abs=1e-4)


def test_the_network_exports_as_it_is(learnt: Learnt) -> None:
    images = learnt.batch(4).images.contiguous()
    dynamic = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(learnt.model, (images[:2],), dynamic_shapes=dynamic).module()
    with torch.inference_mode():
        one, other = exported(images), learnt.model(images)
    for a, b in zip(_tensors(one), _tensors(other), strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def _tensors(outputs: Any) -> Sequence[torch.Tensor]:
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


# --- places


def test_a_record_of_another_kind_is_refused_by_name(learnt: Learnt) -> None:
    with pytest.raises(DataError, match=r"photo\.jpg"):
        learnt.task.target(Record(id="photo.jpg", path=Path("x"), labels=("circle",), size=(8, 8)))


def test_targets_lie_on_their_objects_in_evaluation(learnt: Learnt) -> None:
    for batch in evaluation_batches(learnt.test_side, 8, 1):
        assert np.mean(_agreement(learnt, batch)) > 0.95


def _agreement(learnt: Learnt, batch: Batch[Any]) -> list[float]:
    pixels = batch.images.permute(0, 2, 3, 1).numpy()
    return [learnt.case.agreement(*pair) for pair in zip(pixels, batch.targets, strict=True)]


@pytest.mark.parametrize("fit", ["squash", "letterbox", "center crop"])
@pytest.mark.parametrize("mosaic", [0.0, 1.0])
@pytest.mark.parametrize("augment", ["none", "scenes", ALL_MOVES])
def test_targets_move_with_their_pixels(learnt: Learnt, augment: str, mosaic: float, fit: Fit) -> None:
    images = learnt.session.sides["train"]
    preprocessing = replace(images.store.preprocessing, input_size=(96, 64), fit=fit)
    images = replace(images, store=replace(images.store, preprocessing=preprocessing, _kept={}))
    settings = replace(Augmentation.parse(augment), brightness=0.0, contrast=0.0, saturation=0.0)
    variation = Variation(augmentation=settings, by_batch=False, seed=3, mosaic=mosaic, mosaic_until=9)
    batches = training_batches(images, variation, epoch=0, batch_size=8, workers=1)
    batch = next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert batch.images.shape == (8, 3, 64, 96)
    assert np.mean(_agreement(learnt, batch)) > 0.9


def test_a_pasted_box_brings_its_objects_along(learnt: Learnt) -> None:
    variation = replace(Variation.of(learnt.session.plan), augmentation=Augmentation.none(), cutmix=1.0, mosaic=0.0)
    images = learnt.session.sides["train"]
    batches = training_batches(images, variation, epoch=0, batch_size=16, workers=1)
    batch = next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert batch.mixed is None
    plain = evaluation_batches(images, 16, 1)
    assert not any(np.array_equal(batch.images[0], each) for each in next(plain).images)
    assert np.mean(_agreement(learnt, batch)) > 0.9


def test_a_flip_done_twice_is_nothing(learnt: Learnt) -> None:
    flip = geometry.hflip(64)
    moved = 0
    for target in learnt.test_side.targets:
        once = learnt.task.warp(target, flip, (64, 64))
        moved += not same(once, target)
        assert same(learnt.task.warp(once, flip, (64, 64)), target)
    assert moved > 3


def test_objects_that_crops_take_away_are_counted(learnt: Learnt) -> None:
    images, places_ = learnt.session.sides["train"], learnt.task
    still, near = Augmentation(), Augmentation(scale=(2.5, 2.5))
    marked = sum(map(places_.num_objects, images.targets))
    for settings, mosaic in ((still, 0.0), (near, 0.0), (still, 1.0)):
        variation = Variation(augmentation=settings, by_batch=False, seed=0, mosaic=mosaic, mosaic_until=1)
        batches = list(training_batches(images, variation, epoch=0, batch_size=8, workers=1))
        shown, cut = sum(each.num_objects for each in batches), sum(each.num_cut_away for each in batches)
        kept = sum(places_.num_objects(target) for batch in batches for target in batch.targets)
        assert kept == shown - cut
        assert (cut > 0) == (settings is near or mosaic > 0) or not marked
        if not mosaic:
            assert shown == marked


def test_covering_all_of_an_image_leaves_the_other(learnt: Learnt) -> None:
    one, other = learnt.test_side.targets[:2]
    assert same(learnt.task.overlay(one, other, (0, 0, 64, 64)), other)
    assert same(learnt.task.overlay(one, other, (0, 0, 0, 0)), one)


def test_losses_and_answers_in_bf16_are_about_those_in_fp32(learnt: Learnt) -> None:
    batch, plan = learnt.batch(), learnt.session.plan
    assessed = []
    for precision in ("fp32", "bf16"):
        with torch.inference_mode(), arithmetic(torch.device("cpu"), precision):
            assessed.append(learnt.task.assess(learnt.model, batch, plan))
        with arithmetic(torch.device("cpu"), precision):
            torch.stack(list(learnt.task.losses(learnt.model, batch, plan).values())).sum().backward()
        learnt.model.zero_grad()
    (exact, one), (rough, other) = assessed
    assert {name: float(loss) for name, loss in rough.items()} == pytest.approx(
        {name: float(loss) for name, loss in exact.items()}, rel=0.2, abs=0.05
    )
    assert np.mean([a.size == b.size for a, b in zip(one, other, strict=True)]) == 1
    scores = [
        score(learnt.task, answers, learnt.session.sides["train"].targets[: len(batch)]) for answers in (one, other)
    ]
    headline = learnt.task.headline
    assert scores[1][headline].value == pytest.approx(scores[0][headline].value, abs=0.1)


# --- results


@pytest.mark.parametrize("fit", ["squash", "letterbox"])
def test_perfect_outputs_decode_to_the_truth_in_pixels_of_the_disk(learnt: Learnt, fit: Fit) -> None:
    images = learnt.test_side
    preprocessing = replace(images.store.preprocessing, input_size=(192, 128), fit=fit)
    images = replace(images, store=replace(images.store, preprocessing=preprocessing, _kept={}))
    numbers = score(learnt.task, learnt.perfect(images), images.targets, intervals=False)
    assert numbers[learnt.task.headline].value > 0.97
    outputs = learnt.perfect(images)
    assert [each.size for each in outputs] == [each.size for each in images.targets]


def test_truth_scored_against_itself_is_perfect(learnt: Learnt) -> None:
    truth = learnt.test_side.targets
    numbers = score(learnt.task, truth, truth, seed=1)
    headline = numbers[learnt.task.headline]
    assert headline.value == pytest.approx(1.0) and headline.low is not None and headline.high is not None
    assert all(0 <= estimate.value <= 1 + 1e-9 for estimate in numbers.values())


def test_metrics_do_not_depend_on_how_predictions_arrive(learnt: Learnt) -> None:
    truth, predicted = learnt.test_side.targets, learnt.guesses(learnt.test_side)
    at_once = score(learnt.task, predicted, truth, intervals=False)
    assert at_once[learnt.task.headline].value < 0.9
    parts = learnt.task.metrics()
    for begin in range(0, len(truth), 4):
        parts.update(predicted[begin : begin + 4], truth[begin : begin + 4])
    assert parts.compute(intervals=False) == at_once


def test_intervals_hold_the_value_and_groups_are_drawn_whole(learnt: Learnt) -> None:
    truth, predicted = learnt.test_side.targets, learnt.guesses(learnt.test_side)
    for groups in (None, [str(i // 3) for i in range(len(truth))]):
        headline = score(learnt.task, predicted, truth, groups=groups, seed=0)[learnt.task.headline]
        assert headline.low is not None and headline.high is not None
        assert headline.low <= headline.value <= headline.high and headline.low < headline.high
        assert ("groups" in headline.method) == (groups is not None)
    resampled = learnt.task.metrics()
    resampled.update(predicted, truth)
    assert len(resampled.resampled(seed=0)[learnt.task.headline]) >= 100


def test_training_sees_the_numbers_that_the_report_will_tell(learnt: Learnt) -> None:
    truth, predicted = learnt.test_side.targets, learnt.guesses(learnt.test_side)
    told = score(learnt.task, predicted, truth)
    seen = score(learnt.task, predicted, truth, intervals=False)
    assert learnt.task.headline in seen and seen.keys() <= told.keys()
    assert {name: each.value for name, each in seen.items()} == pytest.approx({name: told[name].value for name in seen})


def test_majority_needs_no_image(learnt: Learnt) -> None:
    said = learnt.task.majority(learnt.session.sides["train"].targets, len(learnt.test_side))
    assert len(said) == len(learnt.test_side) and len(learnt.task.majority([], 0)) == 0
    numbers = score(learnt.task, said, learnt.test_side.targets, intervals=False)
    assert numbers[learnt.task.headline].value <= learnt.case.chance


def test_the_written_arrays_give_predictions_and_truth_again(learnt: Learnt) -> None:
    truth, predicted = learnt.test_side.targets, learnt.guesses(learnt.test_side)
    arrays = load(save(learnt.task.arrays(predicted, truth)))
    again = learnt.task.read_arrays(arrays)
    assert all(same(a, b, 0) for a, b in zip(again[0], predicted, strict=True))
    assert all(same(a, b, 0) for a, b in zip(again[1], truth, strict=True))
    assert score(learnt.task, *again, intervals=False) == score(learnt.task, predicted, truth, intervals=False)
    drawn = learnt.task.charts(arrays)
    assert drawn and all(isinstance(chart, Chart) for chart in drawn)


def test_a_description_is_json(learnt: Learnt) -> None:
    for prediction in learnt.perfect(learnt.test_side)[:6]:
        described = learnt.task.describe(prediction)
        assert json.loads(json.dumps(described, allow_nan=False)) == described
        assert described["text"] == learnt.task.caption(prediction)


def test_mistakes_are_real_errors_with_the_worst_first(learnt: Learnt) -> None:
    truth, predicted = learnt.test_side.targets, learnt.guesses(learnt.test_side)
    mistakes = learnt.task.mistakes(predicted, truth, len(truth))
    wrong = {i for i in range(len(truth)) if not same(predicted[i], truth[i])}
    assert {mistake["index"] for mistake in mistakes} == wrong and len(wrong) > 3
    assert learnt.task.mistakes(predicted, truth, 2) == mistakes[:2]
    assert learnt.task.mistakes(learnt.perfect(learnt.test_side), truth, 9) == []
    json.dumps(mistakes, allow_nan=False)


def test_drawing_gives_a_picture_and_leaves_the_image_as_it_was(learnt: Learnt) -> None:
    side = learnt.test_side
    image = side.store.prepared(side.records[0])
    before = image.copy()
    pictures_ = [learnt.task.draw(image, target) for target in side.targets[:4]]
    assert all(isinstance(picture, Image.Image) and min(picture.size) >= 64 for picture in pictures_)
    assert np.array_equal(image, before)
    assert len({picture.tobytes() for picture in pictures_}) > 1  # what it says can be seen
    beside = learnt.task.draw_mistake(image, side.targets[0], side.targets[1])
    assert beside is not None and beside.width >= 2 * pictures_[0].width


def test_a_frame_leads_from_the_disk_to_the_input(learnt: Learnt) -> None:
    side = learnt.test_side
    frames: Sequence[Frame] = next(evaluation_batches(side, 4, 1)).frames
    for record, frame in zip(side.records, frames, strict=False):
        assert frame.size == record.size and frame.input_size == side.store.preprocessing.input_size
        assert geometry.map_points(frame.matrix, (0, 0)) == pytest.approx((0, 0))


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"label_smoothing": 0.1}, "label_smoothing is of classes of whole images"),
        ({"epochs": 0}, "epochs = 0 leaves the task '.*' with a head that has learnt nothing"),
        ({"transfer": "svm"}, "transfer = 'svm' leaves the task"),
        ({"calibrate": "temperature"}, "calibrate = 'temperature' does not fit"),
    ],
)
def test_what_only_whole_images_have_is_refused_and_not_ignored(
    name: str, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        places.check(Config.of(data="x", **settings), name)
