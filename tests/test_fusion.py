"""What several models, or several views, say of an image becomes one answer, in the pixels of the image on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from ensemble_boxes import weighted_boxes_fusion
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from dense_cases import same
from instance_scenes import disc_mask, instance_set
from snellen.core.geometry import Size, hflip, squash
from snellen.core.sample import Frame
from snellen.tasks.base import TASKS, Task, create_task, shares_of
from snellen.tasks.detection.target import Boxes
from snellen.tasks.instances import fusion
from snellen.tasks.instances.fusion import voted
from snellen.tasks.instances.object_mask import ObjectMask
from snellen.tasks.instances.target import InstanceSet
from snellen.tasks.objects.fusion import Sightings, fuse

CLASSES = ("circle", "square", "triangle")


pytestmark = pytest.mark.usefixtures("one_thread")


# --- what every task promises


def _candidates(generator: torch.Generator, n: int = 3, m: int = 40) -> torch.Tensor:
    corner, sides = (60 * torch.rand(n, m, 2, generator=generator) for _ in range(2))
    scores = torch.rand(n, m, 3, generator=generator) ** 4
    return torch.cat([corner, corner + 2 + sides, scores], 2)


def _with_masks(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    coefficients = torch.randn(3, 40, 4, generator=generator)
    return torch.cat([_candidates(generator), coefficients], 2), torch.randn(3, 4, 32, 32, generator=generator)


def _numbers(generator: torch.Generator) -> torch.Tensor:
    return 3 * torch.randn(3, 3, generator=generator)


RAW: dict[str, Callable[[torch.Generator], Any]] = {
    "classification": _numbers,
    "multilabel": _numbers,
    "regression": _numbers,
    "detection": _candidates,
    "segmentation": lambda generator: torch.randn(3, 3, 12, 16, generator=generator),
    "instances": _with_masks,
}


def raw(task: str, count: int) -> list[Any]:
    """What so many models might say of the same three images."""
    return [RAW[task](torch.Generator().manual_seed(seed)) for seed in range(count)]


def agree(task: Task[Any], one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two answers decide the same, and their numbers are the same."""
    told = [task.arrays(each, each) for each in (one, other)]
    numbers = [[array for array in each.values() if array.dtype.kind == "f"] for each in told]
    alike = all(a.shape == b.shape and np.allclose(a, b, atol=1e-5) for a, b in zip(*numbers, strict=True))
    return alike and (not task.dense or all(same(a, b) for a, b in zip(one, other, strict=True)))


def test_every_task_is_asked() -> None:
    assert list(RAW) == list(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_one_alone_and_the_same_said_twice_are_what_one_says(name: str) -> None:
    task: Task[Any] = create_task(name, CLASSES)
    (alone,) = raw(name, 1)
    for outputs in ([alone], [alone] * 2, [alone] * 3):
        assert agree(task, task.decode_together(outputs), task.decode(alone))
    assert not agree(task, task.decode_together(raw(name, 2)), task.decode(alone))


@pytest.mark.parametrize("name", TASKS)
def test_weights_are_shares_and_what_counts_nothing_is_not_heard(name: str) -> None:
    task: Task[Any] = create_task(name, CLASSES)
    outputs = raw(name, 2)
    assert agree(task, task.decode_together(outputs, weights=(2.0, 0.0)), task.decode(outputs[0]))
    one, other = (task.decode_together(outputs, weights=weights) for weights in ((1.0, 3.0), (0.25, 0.75)))
    assert agree(task, one, other)
    assert not agree(task, one, task.decode_together(outputs, weights=(3.0, 1.0)))


@pytest.mark.parametrize("weights", [(1.0,), (0.0, 0.0), (1.0, -0.5), (1.0, float("nan")), (float("inf"), 1.0)])
def test_weights_that_are_none_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="2 weights of 0 or more are needed"):
        shares_of(weights, 2)


def test_classes_are_decided_by_the_rule_of_the_task() -> None:
    outputs = [torch.tensor([[0.6, 0.4]]).log(), torch.tensor([[0.7, 0.3]]).log()]
    plain, favoured = (
        create_task("classification", ("a", "b"), rule).decode_together(outputs)[0] for rule in ((), (1.0, 2.0))
    )
    assert (plain.index, favoured.index) == (0, 1)
    assert favoured.scores == pytest.approx([0.65, 0.35])


@pytest.mark.parametrize("name", TASKS)
def test_outputs_for_classes_in_another_order_are_put_in_order(name: str) -> None:
    """A model that has learnt the third class first, the first second and the second third."""
    task: Task[Any] = create_task(name, CLASSES)
    (outputs,) = raw(name, 1)
    whole = outputs[0] if isinstance(outputs, tuple) else outputs
    columns = [2, 0, 1] if whole.shape[1] == 3 else [0, 1, 2, 3, 6, 4, 5, *range(7, whole.shape[2])]
    other = whole[:, columns] if whole.shape[1] == 3 else whole[:, :, columns]
    told = (other, outputs[1]) if isinstance(outputs, tuple) else other
    assert not agree(task, task.decode(told), task.decode(outputs))
    assert agree(task, task.decode(task.in_order(told, (1, 2, 0))), task.decode(outputs))


# --- boxes


@st.composite
def sighted(draw: st.DrawFn) -> tuple[list[Boxes], list[float]]:
    """What models have found of a few objects, each seen a little differently, and what each counts."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    views, objects = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    low, sides, labels = rng.uniform(0, 60, (objects, 2)), rng.uniform(8, 40, (objects, 2)), rng.integers(0, 2, objects)
    found = []
    for _ in range(views):
        seen = rng.permutation(objects)[: rng.integers(1, objects + 1)]
        corner = np.maximum(low[seen] + rng.normal(0, 2, (len(seen), 2)), 0)
        boxes = np.concatenate([corner, corner + sides[seen] * rng.uniform(0.8, 1.2, (len(seen), 2))], axis=1)
        scores = np.sort(rng.uniform(0.05, 1, len(seen)))[::-1]
        found.append(
            Boxes.predicted((120, 120), boxes.astype(np.float32), labels[seen], scores.astype(np.float32).copy())
        )
    weights = rng.uniform(0.2, 1, views) if draw(st.booleans()) else np.ones(views)
    return found, weights.tolist()


@given(sighted(), st.sampled_from([0.4, 0.55, 0.7]), st.booleans())
def test_boxes_are_fused_as_the_authors_do(made: tuple[list[Boxes], list[float]], iou: float, agnostic: bool) -> None:
    found, weights = made
    labels = [np.zeros_like(each.labels) if agnostic else each.labels for each in found]
    boxes, scores, classes = weighted_boxes_fusion(
        [each.boxes / 120 for each in found], [each.scores for each in found], labels, weights=weights, iou_thr=iou
    )
    fused = fuse(Sightings.of(found, shares_of(weights, len(found))), iou=iou, agnostic=agnostic)
    assert len(fused.boxes) == len(boxes)
    theirs = sorted(zip(np.minimum(scores, 1).tolist(), (120 * boxes).tolist(), classes, strict=True), reverse=True)
    kept = np.zeros_like(fused.labels) if agnostic else fused.labels
    ours = sorted(zip(fused.scores.tolist(), fused.boxes.tolist(), kept, strict=True), reverse=True)
    for (score, box, label), (own_score, own_box, own_label) in zip(theirs, ours, strict=True):
        assert own_score == pytest.approx(score, abs=1e-5) and own_label == label
        assert own_box == pytest.approx(box, abs=1e-3)
    assert (np.diff(fused.scores) <= 0).all()
    assert sorted(np.concatenate(fused.rows).tolist()) == list(range(sum(map(len, found))))


def one_box(x: float, score: float, label: int = 0, size: Size = (100, 100)) -> Boxes:
    box = np.array([[x, 10, x + 20, 30]], np.float32)
    return Boxes.predicted(size, box, np.array([label]), np.array([score], np.float32))


def test_an_object_is_as_sure_as_the_share_of_the_views_that_found_it() -> None:
    task: Any = create_task("detection", CLASSES)
    nothing = Boxes.empty((100, 100))
    (fused,) = task.fused([[one_box(10, 0.9)], [one_box(14, 0.3)], [nothing], [nothing]])
    assert fused.boxes[0] == pytest.approx([11, 10, 31, 30])
    assert fused.scores == pytest.approx([0.6 * 2 / 4]) and fused.size == (100, 100)
    (none,) = task.fused([[nothing], [nothing]])
    assert len(none) == 0 and none.size == (100, 100)


def test_a_weak_box_that_suppression_left_beside_an_object_does_not_drag_it_down() -> None:
    """Each view names it twice: surely, and hardly with a box that overlaps the sure one by just less than nms_iou."""
    task: Any = create_task("detection", CLASSES)
    boxes = np.array([[10, 10, 30, 30], [15.05, 10, 35.05, 30]], np.float32)
    twice = Boxes.predicted((100, 100), boxes, np.zeros(2, np.int64), np.array([0.9, 0.05], np.float32))
    (fused,) = task.fused([[twice], [twice]])
    assert fused.scores == pytest.approx([0.9, 0.05]) and fused.boxes == pytest.approx(boxes)
    assert fuse(Sightings.of([twice, twice], (0.5, 0.5)), iou=0.55).scores[0] < 0.7


def test_classes_are_fused_apart_unless_suppression_takes_them_together() -> None:
    task: Any = create_task("detection", CLASSES)
    views = [[one_box(10, 0.8, label=0)], [one_box(10, 0.4, label=2)]]
    (apart,) = task.fused(views)
    assert apart.labels.tolist() == [0, 2] and apart.scores == pytest.approx([0.4, 0.2])
    task._nms = ("agnostic", 0.6)
    (together,) = task.fused(views)
    assert together.labels.tolist() == [0] and together.scores == pytest.approx([0.6])


def test_models_of_other_input_sizes_meet_in_the_pixels_of_the_image() -> None:
    """One sees the image at half its size, the other mirrored and twice as large."""
    task: Any = create_task("detection", ("thing",))
    size, box = (80, 60), torch.tensor([20.0, 10, 40, 30])
    small = Frame(size=size, matrix=squash(size, (40, 30)), input_size=(40, 30))
    large = Frame(size=size, matrix=hflip(160) @ squash(size, (160, 120)), input_size=(160, 120))
    mirrored = torch.tensor([160 - 80.0, 20, 160 - 40, 60])
    outputs = [torch.cat([each, torch.tensor([0.8])])[None, None] for each in (box / 2, mirrored)]
    (fused,) = task.decode_together(outputs, [[small], [large]])
    assert fused.boxes.tolist() == [box.tolist()] and fused.scores == pytest.approx([0.8]) and fused.size == size


# --- masks


@st.composite
def sightings_of_one(draw: st.DrawFn) -> tuple[list[np.ndarray], np.ndarray]:
    """Masks bool [H, W] of one object in an image of 40 x 30, and what each counts."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    masks = [
        disc_mask(*rng.uniform((12, 10), (26, 20)), rng.uniform(3, 12), (40, 30)) & (rng.random((30, 40)) < 0.9)
        for _ in range(draw(st.integers(1, 5)))
    ]
    return masks, rng.choice([0.2, 0.4, 0.5, 0.9], len(masks))


@given(sightings_of_one(), st.sampled_from([1, 60, 2**22]))
def test_a_pixel_is_of_an_object_where_half_of_the_weight_says_so(
    made: tuple[list[np.ndarray], np.ndarray], strip: int
) -> None:
    masks, weights = made
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fusion, "_STRIP", strip)
        found = voted([ObjectMask.of(mask) for mask in masks], weights)
    share = (np.stack(masks) * weights[:, None, None]).sum(0) / weights.sum()
    sure = np.abs(share - 0.5) > 1e-9  # sums in another order may fall on either side of a tie
    whole = found.within((0, 0, 40, 30))
    assert np.array_equal(whole[sure], share[sure] > 0.5)


def test_instances_are_fused_by_box_and_vote() -> None:
    """Two of three views see the whole disc, the surest only half of it; a disc elsewhere is seen once."""
    task: Any = create_task("instances", ("disc",))
    disc, other, size = disc_mask(20, 15, 8, (60, 30)), disc_mask(50, 15, 6, (60, 30)), (60, 30)
    half = disc & (np.arange(30) < 15)[:, None]

    def seen(masks: list[np.ndarray], scores: list[float]) -> list[InstanceSet]:
        found = instance_set(masks, [0] * len(masks), size, scores=np.array(scores, np.float32))
        boxes = np.array([[12, 7, 28, 23], [44, 9, 56, 21]][: len(masks)], np.float32)
        return [InstanceSet.predicted(size, found.masks, boxes, found.labels, found.scores)]  # type: ignore[arg-type]

    (fused,) = task.fused([seen([half], [0.9]), seen([disc, other], [0.6, 0.3]), seen([disc], [0.5])])
    assert np.array_equal(fused.stacked(), np.stack([disc, other]))
    assert fused.scores == pytest.approx([2.0 / 3, 0.1]) and fused.area.tolist() == [disc.sum(), other.sum()]
    (ruled,) = task.fused([seen([half], [0.9]), seen([disc], [0.6])], (3, 1))
    assert np.array_equal(ruled.stacked()[0], half)


# --- class maps


def _sampled(logits: torch.Tensor, size: Size) -> np.ndarray:
    """Probabilities [C, H, W] at the pixels of an image that was squashed into the input."""
    large = F.interpolate(logits[None].double(), size[::-1], mode="bilinear", align_corners=False)
    return large[0].softmax(0).numpy()


@pytest.mark.parametrize("most", [2**24, 500])
@pytest.mark.parametrize("rule", [(), (1.0, 3.0, 0.5)])
def test_maps_are_the_weighted_mean_of_probabilities_at_the_pixels_on_disk(
    rule: tuple[float, ...], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snellen.nn.segmentation import answers

    monkeypatch.setattr(answers, "_MOST_VALUES", most)
    size, inputs, weights = (50, 37), [(16, 12), (32, 24), (50, 37)], (1.0, 2.0, 5.0)
    generator = torch.Generator().manual_seed(3)
    outputs = [2 * torch.randn(1, 3, height, width, generator=generator) for width, height in inputs]
    frames = [[Frame(size=size, matrix=squash(size, each), input_size=each)] for each in inputs]
    (found,) = create_task("segmentation", CLASSES, rule).decode_together(outputs, frames, weights)
    mean = sum(w * _sampled(each[0], size) for w, each in zip(weights, outputs, strict=True)) / sum(weights)
    favoured = mean * np.array(rule or (1, 1, 1))[:, None, None]
    clear = np.diff(np.sort(favoured, axis=0)[1:], axis=0)[0] > 1e-5
    assert clear.mean() > 0.99 and np.array_equal(found.array[clear], favoured.argmax(0)[clear])
    for label in range(3):
        assert found.scores[label] == pytest.approx(mean[label][found.array == label].mean(), abs=1e-5)
