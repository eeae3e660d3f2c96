"""What instance segmentation tells of its answers, COCO's numbers first, and that it learns to give good ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from instance_scenes import (
    CLASSES,
    TASK,
    TRUTH,
    disc_mask,
    frame_of,
    instance_set,
    record_of,
    scores_of,
    square_mask,
    whole_mask,
)
from snellen.core.annotation import Annotation, Rle
from snellen.core.geometry import scaling, translation
from snellen.core.masks import decode, encode, text_to_runs
from snellen.core.record import Record
from snellen.core.sample import Batch, Mixed
from snellen.tasks.instances.target import InstanceSet
from snellen.tasks.instances.task import Instances
from tiny_runs import a_plan

torch.set_num_threads(1)

# --- numbers


def _blurred(target: InstanceSet, rng: np.random.Generator) -> InstanceSet:
    """Masks that are moved a little, some lost, some by another name."""
    kept = target.chosen(rng.random(len(target)) < 0.9)
    shift = translation(*rng.integers(-3, 4, 2))
    moved = kept.moved(shift, target.size)
    labels = np.where(rng.random(len(moved)) < 0.15, 1 - moved.labels, moved.labels)
    return replace(moved, labels=labels, scores=np.sort(rng.random(len(moved)).astype(np.float32))[::-1].copy())


def _many(num: int = 12, seed: int = 0) -> tuple[list[InstanceSet], list[InstanceSet]]:
    rng, size = np.random.default_rng(seed), (120, 100)
    truth = []
    for _ in range(num):
        count = int(rng.integers(0, 5))
        drawn = [disc_mask(*rng.integers(20, 80, 2), rng.integers(5, 30), size) for _ in range(count)]
        crowd = rng.random(count) < 0.15
        truth.append(instance_set(drawn, rng.integers(0, 2, count).tolist(), size, crowd=crowd))
    return [_blurred(each, rng) for each in truth], truth


def test_the_numbers_are_those_of_pycocotools() -> None:
    predicted, truth = _many()
    ours = scores_of(predicted, truth)
    masks, boxes = (_by_pycocotools(predicted, truth, kind) for kind in ("segm", "bbox"))
    names = ("map", "map50", "map75", "map_small", "map_medium", "map_large")
    names += ("mar1", "mar10", "mar100", "mar_small", "mar_medium", "mar_large")
    for name, value in zip(names, masks, strict=True):
        if value >= 0:
            assert ours[f"mask_{name}"] == pytest.approx(value, abs=1e-9), name
        else:
            assert f"mask_{name}" not in ours
    for name, value in list(zip(names, boxes, strict=True))[:3]:
        assert ours[name] == pytest.approx(value, abs=1e-9)
    assert 0.1 < ours["mask_map"] < 0.9 and ours["map"] != ours["mask_map"]


def _by_pycocotools(predicted: Sequence[InstanceSet], truth: Sequence[InstanceSet], kind: str) -> list[float]:
    import contextlib
    import io

    from pycocotools import mask as coco_mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def row(target: InstanceSet, i: int, image: int) -> dict[str, Any]:
        x0, y0, x1, y1 = map(float, target.boxes[i])
        shape = coco_mask.encode(np.asfortranarray(whole_mask(target, i).astype(np.uint8)))
        return {
            "image_id": image + 1,
            "category_id": int(target.labels[i]) + 1,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "segmentation": shape,
        }

    annotations = [
        {**row(each, i, n), "area": float(each.area[i]), "iscrowd": int(each.crowd[i])}
        for n, each in enumerate(truth)
        for i in range(len(each))
    ]
    found = [
        {**row(each, i, n), "score": float(each.scores[i])}
        for n, each in enumerate(predicted)
        if each.scores is not None
        for i in range(len(each))
    ]
    if kind == "segm":
        found = [{k: v for k, v in each.items() if k != "bbox"} for each in found]
    else:
        found = [{k: v for k, v in each.items() if k != "segmentation"} for each in found]
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO()
        dataset.dataset = {
            "images": [{"id": n + 1, "width": t.size[0], "height": t.size[1]} for n, t in enumerate(truth)],
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)],
            "annotations": [{"id": n + 1, **each} for n, each in enumerate(annotations)],
        }
        dataset.createIndex()
        judge = COCOeval(dataset, dataset.loadRes(found), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [float(each) for each in judge.stats]


def test_intervals_hold_their_numbers_and_resamples_are_the_same_for_every_model() -> None:
    predicted, truth = _many()
    metrics = TASK.metrics()
    metrics.update(predicted[:5], truth[:5])
    metrics.update(predicted[5:], truth[5:])
    told = metrics.compute(seed=1)
    for name in ("mask_map", "mask_map50", "map", "matched_iou", "ap50/circle"):
        low, high = told[name].low, told[name].high
        assert low is not None and high is not None
        assert low <= told[name].value <= high and low < high, name
    assert told["mask_map"].n == 12 and told["mask_map_small"].low is None
    assert metrics.compute(seed=1) == told
    drawn = metrics.resampled(seed=1)
    assert set(drawn) >= {"mask_map", "map", "ap50/square"} and len(set(map(len, drawn.values()))) == 1
    grouped = metrics.compute(seed=1, groups=["a", "b", "c"] * 4)
    assert grouped["mask_map"].value == told["mask_map"].value
    assert grouped["mask_map"].method == "bootstrap over groups"
    with pytest.raises(ValueError, match="as many predictions as truths"):
        metrics.update(predicted, truth[:3])
    with pytest.raises(ValueError, match="each of the 12 images"):
        metrics.compute(groups=["a"])


def test_the_right_box_with_the_wrong_mask_is_wrong() -> None:
    ring = disc_mask(20, 15, 12) & ~disc_mask(20, 15, 10)
    found = instance_set([ring], [0], scores=np.array([0.9], np.float32))
    numbers = scores_of([found], [instance_set([disc_mask(20, 15, 12)], [0])])
    assert numbers["map50"] == pytest.approx(1) and numbers["mask_map50"] == 0.0


# --- what is told


def test_thresholds_are_those_that_serve_best_on_validation() -> None:
    """Right from 0.6 on, wrong below, for circles; too few squares to tell."""
    right = [
        instance_set([disc_mask(12, 12, 8)], [0], scores=np.array([0.6 + 0.01 * i], np.float32)) for i in range(12)
    ]
    wrong = [instance_set([disc_mask(30, 20, 8)], [0], scores=np.array([0.5], np.float32)) for _ in range(12)]
    truth = [instance_set([disc_mask(12, 12, 8)], [0])] * 12 + [instance_set([], [])] * 12
    thresholds, sentence = TASK.fit_decision([*right, *wrong], truth)
    assert 0.5 < thresholds[0] <= 0.6 and thresholds[1] == 0.3
    assert f"circle {thresholds[0]:.2f}, square 0.30" in sentence


def test_mistakes_are_the_images_with_most_faults() -> None:
    truth = [TRUTH, TRUTH, TRUTH]
    perfect = replace(TRUTH, scores=np.array([0.9, 0.8], np.float32))
    half, none = perfect.chosen(np.array([True, False])), perfect.chosen(np.array([False, False]))
    told = TASK.mistakes([half, perfect, none], truth, 5)
    assert [(each["index"], each["off"]) for each in told] == [(2, 2), (0, 1)]
    assert told[0]["truth"] == "1 circle, 1 square" and told[0]["predicted"] == "nothing"


def test_arrays_give_back_what_they_were_made_of() -> None:
    predicted, truth = _many(5, seed=3)
    read = TASK.read_arrays(TASK.arrays(predicted, truth))
    for before, after in zip((*predicted, *truth), (*read[0], *read[1]), strict=True):
        assert before.size == after.size and before.masks == after.masks
        for name in ("boxes", "labels", "crowd", "difficult", "area"):
            assert np.array_equal(getattr(before, name), getattr(after, name)), name
        assert (before.scores is None) == (after.scores is None)
    assert scores_of(*read) == scores_of(predicted, truth)
    with pytest.raises(KeyError):
        TASK.read_arrays({"size": np.zeros((1, 2), np.int64)})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pycocotools and numpy 2
def test_a_description_can_be_read_by_pycocotools() -> None:
    from pycocotools import mask as coco_mask

    said = replace(TRUTH, scores=np.array([0.9, 0.1], np.float32))
    told = json.loads(json.dumps(TASK.describe(said)))
    assert told["size"] == [40, 30] and told["text"] == "1 circle"
    (only,) = told["objects"]
    assert only["label"] == "circle" and only["confidence"] == pytest.approx(0.9) and len(only["box"]) == 4
    assert np.array_equal(coco_mask.decode(only["segmentation"]).astype(bool), whole_mask(said))
    runs = Rle(size=tuple(only["segmentation"]["size"]), counts=text_to_runs(only["segmentation"]["counts"]))
    assert decode(runs).sum() == only["area"]


def test_drawing_colours_the_mask_and_leaves_the_rest() -> None:
    image = np.full((300, 400, 3), 100, np.uint8)
    target = TASK.warp(TRUTH, scaling(10, 10), (400, 300))
    drawn = np.asarray(TASK.draw(image, target).resize((400, 300), 0)).astype(int)
    changed = (drawn != 100).any(axis=2)
    inside = target.pixels()
    assert changed[inside].mean() > 0.99
    assert changed[~inside][:, None].mean() < 0.1  # names
    assert TASK.draw_mistake(image, target, target).width > 2 * 480


def test_charts_are_drawn_of_masks() -> None:
    predicted, truth = _many(6)
    told = Instances(CLASSES, (0.9, 0.8)).charts(Instances(CLASSES, (0.9, 0.8)).arrays(predicted, truth))
    assert len(told) > 2 and all(chart.title for chart in told)
    assert any("with the threshold chosen on validation" in chart.caption for chart in told)


# --- learning


def _scene(rng: np.random.Generator, side: int) -> tuple[np.ndarray, Record]:
    """A circle and a square that do not touch, or one of them, on noise."""
    image = rng.integers(0, 90, (side, side, 3)).astype(np.uint8)
    objects, half = [], side // 2
    for place in rng.permutation(4)[: rng.integers(1, 3)]:
        radius = int(rng.integers(6, half // 2 - 1))
        x, y = (half * int(q) + int(rng.integers(radius, half - radius + 1)) for q in (place % 2, place // 2))
        label = int(rng.integers(0, 2))
        inside = (
            square_mask(x - radius, y - radius, 2 * radius, (side, side))
            if label
            else disc_mask(x, y, radius, (side,) * 2)
        )
        colour = rng.integers(120, 200, 3)
        colour[label] = 255
        image[inside] = colour
        box = (float(x - radius), float(y - radius), float(x + radius), float(y + radius))
        objects.append(Annotation(label=CLASSES[label], box=box, mask=encode(inside)))
    return image, record_of(*objects, size=(side, side))


def _batch(task: Instances, num: int, seed: int, side: int = 48) -> Batch[InstanceSet]:
    rng = np.random.default_rng(seed)
    scenes = [_scene(rng, side) for _ in range(num)]
    images = torch.from_numpy(np.stack([image for image, _ in scenes])).permute(0, 3, 1, 2)
    targets = [task.target(record) for _, record in scenes]
    frames = [frame_of((side, side))] * num
    return Batch(images=images, targets=targets, ids=[str(i) for i in range(num)], frames=frames)


def test_it_learns_to_outline_shapes() -> None:
    """On circles and squares of 12 to 22 pixels."""
    side = 48
    preprocessing = replace(a_plan().preprocessing, input_size=(side, side))
    plan = a_plan(model="small-resnet", architecture="dense", loss="quality-focal", preprocessing=preprocessing)
    task = Instances(CLASSES).configured(plan)
    train, unseen = _batch(task, 48, 0), _batch(task, 16, 1)
    torch.manual_seed(0)
    model = task.build_model(plan).train()
    optimizer = torch.optim.AdamW(model.parameters(), 4e-3)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=45)
    for step in range(45):
        rows = [(6 * step + i) % 48 for i in range(6)]
        part = replace(train, images=train.images[rows], targets=[train.targets[i] for i in rows], ids=train.ids[:6])
        losses = torch.stack(list(task.losses(model, part, plan).values())).sum()
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()
        rates.step()
    terms, found = task.assess(model.eval(), unseen, plan)
    numbers = scores_of(found, unseen.targets)
    assert set(terms) >= {"class", "box", "mask"}
    assert numbers["mask_map50"] > 0.9 and numbers["mask_map75"] > 0.6
    assert scores_of(task.majority(train.targets, 16), unseen.targets)["mask_map"] == 0.0


def test_a_blend_of_two_images_shows_the_objects_of_both() -> None:
    plan = a_plan(model="small-resnet", architecture="dense", loss="quality-focal")
    task = Instances(CLASSES)
    batch = _batch(task, 2, 0)
    seen: list[int] = []

    class Listening:
        def losses(self, images: Tensor, truths: Sequence[Any]) -> dict[str, Tensor]:
            seen.extend(len(truth) for truth in truths)
            assert all(truth.masks.shape == (len(truth), 48, 48) for truth in truths)
            return {}

    mixed = replace(batch, mixed=Mixed(partners=batch.targets[::-1], share=0.5))
    task.losses(Listening(), mixed, plan)  # type: ignore[arg-type]
    assert seen == [sum(map(len, batch.targets))] * 2
