"""R-CNN and Fast R-CNN as the papers have them: regions meet the objects, boxes get better, what is found is right."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from snellen import lab
from snellen.lab import demonstrations
from snellen.metrics.overlap import box_iou
from test_lab import shown

torch.set_num_threads(1)


def script(name: str) -> ModuleType:
    return lab.load(demonstrations()[name])


# --- regions


def test_scenes_are_drawn_where_their_boxes_say() -> None:
    """Bright pixels fill each box to its sides, and nothing is bright beside them."""
    module, rng = script("regions"), np.random.default_rng(0)
    for _ in range(10):
        scene = module.make_scene(rng)
        bright = (scene.image >= 90).any(axis=2)
        around = np.zeros_like(bright)
        for x0, y0, x1, y1 in scene.boxes.astype(int):
            around[y0:y1, x0:x1] = True
            inside = bright[y0:y1, x0:x1]
            assert inside.any(axis=1).all() and inside.any(axis=0).all()
        assert not bright[~around].any()
        apart = box_iou(scene.boxes, scene.boxes) - np.eye(len(scene.boxes))
        assert len(scene.boxes) and not (apart > 1e-9).any()


def test_a_flat_square_is_one_region_and_the_last_is_the_whole_image() -> None:
    module = script("regions")
    image = np.zeros((module.SIDE, module.SIDE, 3), np.uint8)
    image[16:48, 24:72] = 200
    found = module.propose(image)
    assert found[0].tolist() == [0, 0, module.SIDE, module.SIDE]
    assert [24, 16, 72, 48] in found.tolist()
    assert len(np.unique(found, axis=0)) == len(found)


def test_regions_meet_nearly_every_object(tmp_path: Path) -> None:
    numbers = shown("regions", tmp_path, count=8)
    assert numbers["objects met at IoU 0.5"] > 0.95
    assert numbers["objects met at IoU 0.7"] > 0.8
    assert numbers["regions of an image"] < 300


# --- R-CNN


def test_boxes_are_moved_back_to_where_deltas_were_taken() -> None:
    module, rng = script("rcnn"), np.random.default_rng(0)
    low = rng.uniform(0, 50, (2, 20, 2))
    boxes, wanted = np.concatenate([low, low + rng.uniform(5, 40, (2, 20, 2))], 2)
    np.testing.assert_allclose(module.moved(boxes, module.deltas(boxes, wanted)), wanted)
    half = module.deltas(np.array([[0.0, 0, 10, 20]]), np.array([[5.0, 0, 15, 10]]))
    np.testing.assert_allclose(half, [[0.5, -0.25, 0, np.log(0.5)]])


def test_a_region_is_shown_to_the_network_with_its_surroundings() -> None:
    """A network that returns the mean colour: of a region of one colour it is that colour, but for its frame."""
    module = script("rcnn")
    image = np.zeros((96, 96, 3), np.uint8)
    image[20:60, 30:70] = 255

    class Mean(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))

    inside, whole = module.features(Mean(), image, np.array([[40.0, 30, 60, 50], [30, 20, 70, 60]]))
    white = (1 - np.array(module.MEAN)) / module.STD
    black = -np.array(module.MEAN) / module.STD
    np.testing.assert_allclose(inside, white, atol=1e-4)
    share = (1 / (1 + 2 * module.AROUND)) ** 2
    np.testing.assert_allclose(whole, share * white + (1 - share) * black, atol=0.1)


def test_rcnn_finds_shapes_and_corrects_their_boxes(tmp_path: Path) -> None:
    numbers = shown("rcnn", tmp_path, train=8, test=4)
    assert numbers["AP50, corrected"] > 0.6
    assert numbers["AP75, corrected"] > numbers["AP75, regions"]


def test_average_precision_is_1_for_the_truth_and_0_for_other_classes() -> None:
    module = script("rcnn")
    rng = np.random.default_rng(0)
    scenes = [module.regions.make_scene(rng) for _ in range(6)]
    true = [(scene.boxes, np.ones(len(scene.boxes)), scene.labels) for scene in scenes]
    assert module.average_precision(true, scenes, 0.5) == pytest.approx(1.0)
    wrong = [(boxes, scores, (labels + 1) % 3) for boxes, scores, labels in true]
    assert module.average_precision(wrong, scenes, 0.5) == 0.0


# --- Fast R-CNN


def test_fast_rcnn_reads_regions_where_they_are() -> None:
    """Two regions of an image say the same as each alone, and another than in an image without the object."""
    module = script("fast_rcnn")
    torch.manual_seed(0)
    net = module.FastRCNN(3).eval()
    scene = module.regions.make_scene(np.random.default_rng(1))
    boxes = np.concatenate([scene.boxes[:1], [[0.0, 0, 20, 20]]])
    with torch.no_grad():
        together, alone = net(scene.image, boxes)[0], net(scene.image, boxes[:1])[0]
        blank = net(np.zeros_like(scene.image), boxes[:1])[0]
    torch.testing.assert_close(together[:1], alone)
    assert float((alone - blank).abs().max()) > 1e-3


def test_fast_rcnn_learns_shapes(tmp_path: Path) -> None:
    numbers = shown("fast_rcnn", tmp_path, train=12, test=4, steps=60)
    assert numbers["AP50"] > 0.6
