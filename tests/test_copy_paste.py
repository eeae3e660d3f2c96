"""Objects pasted from one image into another: pixels and masks stay together, and what is hidden is no longer there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from snellen.core.annotation import MIN_VISIBLE, Annotation
from snellen.core.errors import ConfigError
from snellen.core.preprocessing import Preprocessing
from snellen.core.record import Record
from snellen.data.augment import Augmentation
from snellen.data.copy_paste import copy_paste
from snellen.data.image_sets import ImageSet, Variation
from snellen.data.scenes import training_scene
from snellen.data.store import ImageStore
from snellen.tasks.base import create_task
from snellen.tasks.instances.target import InstanceSet
from snellen.tasks.instances.task import Instances
from tiny_runs import a_plan

SIDE = 32
CLASSES = ("red", "blue")
COLOURS = {"red": (250, 0, 0), "blue": (0, 0, 250)}
GREY = 100
TASK = Instances(CLASSES)


def _square(label: str, x: int, y: int, side: int, *, crowd: bool = False) -> Annotation:
    box = (float(x), float(y), float(x + side), float(y + side))
    x0, y0, x1, y1 = box
    return Annotation(label=label, box=box, polygons=((x0, y0, x1, y0, x1, y1, x0, y1),), crowd=crowd)


def _painted(*objects: Annotation) -> NDArray[np.uint8]:
    """A grey image with each object in its colour."""
    image = np.full((SIDE, SIDE, 3), GREY, np.uint8)
    for each in objects:
        x0, y0, x1, y1 = map(int, each.box)
        image[y0:y1, x0:x1] = COLOURS[each.label]
    return image


def _target(*objects: Annotation) -> InstanceSet:
    return TASK.target(Record(id="a", path=Path("a"), objects=objects, size=(SIDE, SIDE)))


def _pasted(own: Annotation, other: Annotation, seed: int = 0) -> tuple[NDArray[np.uint8], InstanceSet]:
    rng = np.random.default_rng(seed)
    return copy_paste(_painted(own), _target(own), _painted(other), _target(other), TASK, rng)


def _agrees(image: NDArray[np.uint8], target: InstanceSet) -> bool:
    """Whether every pixel of a mask has the colour of its class, and every pixel of a colour is in such a mask."""
    said = {name: np.zeros((SIDE, SIDE), bool) for name in CLASSES}
    for label, mask in zip(target.labels, target.stacked(), strict=True):
        said[CLASSES[label]] |= mask
    return all(np.array_equal(said[name], (image == COLOURS[name]).all(axis=2)) for name in CLASSES)


def test_a_pasted_square_brings_its_pixels_and_its_mask() -> None:
    image, target = _pasted(_square("red", 2, 2, 8), _square("blue", 18, 16, 10))
    assert target.labels.tolist() == [0, 1] and _agrees(image, target)
    assert target.boxes.tolist() == [[2, 2, 10, 10], [18, 16, 28, 26]]
    assert ((image == GREY).all(axis=2)).sum() == SIDE**2 - 64 - 100


def test_what_lies_behind_loses_pixels_and_its_box_shrinks() -> None:
    image, target = _pasted(_square("red", 2, 2, 10), _square("blue", 8, 0, 20))
    assert target.labels.tolist() == [0, 1] and _agrees(image, target)
    assert target.boxes.tolist() == [[2, 2, 8, 12], [8, 0, 28, 20]]
    assert target.area.tolist() == [60, 400]


@pytest.mark.parametrize(("hidden", "stays"), ((6, True), (8, False)))
def test_what_is_hidden_too_far_is_dropped(hidden: int, stays: bool) -> None:
    """Of ten columns of the red square so many lie behind the blue one; three tenths have to be left."""
    _, target = _pasted(_square("red", 2, 2, 10), _square("blue", 12 - hidden, 0, 15))
    assert (0 in target.labels) == stays == (1 - hidden / 10 >= MIN_VISIBLE)


def test_crowds_are_not_pasted() -> None:
    own, crowd = _square("red", 2, 2, 8), _square("blue", 18, 16, 10, crowd=True)
    image, target = _pasted(own, crowd)
    assert target.labels.tolist() == [0] and np.array_equal(image, _painted(own))


def test_at_least_one_object_comes_and_at_times_all() -> None:
    others = [_square("blue", 1 + 10 * (i % 3), 20 * (i // 3), 8) for i in range(4)]
    counts = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        image, target = copy_paste(_painted(), _target(), _painted(*others), _target(*others), TASK, rng)
        assert _agrees(image, target)
        counts.add(len(target))
    assert counts == {1, 2, 3, 4}


def test_masks_that_do_not_move_with_their_pixels_would_be_seen() -> None:
    image, target = _pasted(_square("red", 2, 2, 8), _square("blue", 18, 16, 10))
    moved = replace(target, masks=(target.masks[0], target.masks[1].shifted(1, 0)))
    assert _agrees(image, target) and not _agrees(image, moved)


# --- among the training images


def _images(folder: Path, task: object = TASK, num: int = 6) -> ImageSet:
    records = []
    for i in range(num):
        objects = (_square(CLASSES[i % 2], 2 + 3 * i, 4, 10),)
        path = folder / f"{i}.png"
        Image.fromarray(_painted(*objects)).save(path)
        records.append(Record(id=path.name, path=path, objects=objects, size=(SIDE, SIDE)))
    preprocessing = Preprocessing(
        input_size=(SIDE, SIDE), fit="squash", crop_fraction=1.0, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    store = ImageStore(preprocessing=preprocessing, budget=10**8)
    targets = [task.target(record) for record in records]  # type: ignore[attr-defined]
    return ImageSet(records=records, targets=targets, store=store, places=task)  # type: ignore[arg-type]


def _variation(share: float, **changes: float) -> Variation:
    still = Augmentation.parse("none")
    return Variation(augmentation=replace(still, **changes), by_batch=False, seed=3, copy_paste=share)


def test_the_share_of_images_is_as_asked_and_pixels_agree_with_masks(tmp_path: Path) -> None:
    images = _images(tmp_path)
    scenes = [
        training_scene(images, _variation(0.5), epoch, i, images.records[i].id) for epoch in range(20) for i in range(6)
    ]
    assert all(_agrees(scene.pixels, scene.target) for scene in scenes)
    plain = [training_scene(images, _variation(0.0), 0, i, images.records[i].id) for i in range(6)]
    changed = [not np.array_equal(scene.pixels, plain[n % 6].pixels) for n, scene in enumerate(scenes)]
    assert 0.25 < np.mean(changed) < 0.6  # an object that is pasted over itself changes nothing


def test_pasted_objects_are_varied_by_themselves(tmp_path: Path) -> None:
    images = _images(tmp_path)
    scenes = [training_scene(images, _variation(1.0, hflip=0.5), e, 0, "0.png") for e in range(30)]
    assert all(_agrees(scene.pixels, scene.target) for scene in scenes)
    assert len({scene.target.boxes.tobytes() for scene in scenes}) > 5


def test_pasting_follows_from_seed_epoch_and_image(tmp_path: Path) -> None:
    images = _images(tmp_path)
    once, again = (training_scene(images, _variation(1.0), 5, 2, "2.png") for _ in range(2))
    assert np.array_equal(once.pixels, again.pixels) and once.target.masks == again.target.masks
    epochs = {training_scene(images, _variation(1.0), e, 2, "2.png").pixels.tobytes() for e in range(10)}
    assert len(epochs) > 1


def test_the_plan_says_how_many_images_get_objects() -> None:
    assert Variation.of(a_plan(copy_paste=0.3)).copy_paste == 0.3
    assert Variation.of(a_plan()).copy_paste == 0.0


def test_without_outlines_nothing_can_be_pasted(tmp_path: Path) -> None:
    boxes = _images(tmp_path, create_task("detection", CLASSES))
    training_scene(boxes, _variation(0.0), 0, 0, "0.png")
    with pytest.raises(ConfigError, match="copy_paste needs outlines"):
        training_scene(boxes, _variation(0.5), 0, 0, "0.png")
