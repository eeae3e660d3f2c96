"""Weights for class maps are judged by some pixels of each image, as they would be by all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from snellen.core.geometry import squash
from snellen.core.record import Record
from snellen.core.sample import Frame
from snellen.ensemble import pixels
from snellen.ensemble.panel import headline
from snellen.ensemble.pixels import PixelPanel, draw_pixels
from snellen.ensemble.together import Heard
from snellen.tasks.base import create_task
from snellen.tasks.segmentation.target import ClassMap

CLASSES = ("sky", "road", "sign")
SIZE, INPUTS = (40, 30), ((16, 12), (32, 24))
IMAGES = 5


def heard() -> list[Heard]:
    """What two models of other input sizes say of five images, in batches of two."""
    generator = torch.Generator().manual_seed(0)
    frames = [Frame(size=SIZE, matrix=squash(SIZE, each), input_size=each) for each in INPUTS]
    batches = []
    for start in range(0, IMAGES, 2):
        count = min(2, IMAGES - start)
        outputs = [2 * torch.randn(count, 3, h, w, generator=generator) for w, h in INPUTS]
        batches.append(Heard(outputs, [[frame] * count for frame in frames]))
    return batches


def truth() -> list[ClassMap]:
    """The third class has one pixel in a hundred, and some pixels are void."""
    rng = np.random.default_rng(0)
    maps = [rng.choice([0, 1, 2, 255], SIZE[::-1], p=[0.6, 0.35, 0.01, 0.04]) for _ in range(IMAGES)]
    return [ClassMap.from_array(each.astype(np.uint8)) for each in maps]


def panel(rule: tuple[float, ...] = ()) -> PixelPanel:
    members: Any = SimpleNamespace(members=[None] * 2, task=create_task("segmentation", CLASSES, rule))
    records = [Record(id=str(i), path=None) for i in range(IMAGES)]  # type: ignore[arg-type]
    return PixelPanel.of(members, records, truth(), iter(heard()))


@pytest.mark.parametrize("rule", [(), (1.0, 0.7, 2.0)])
@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.1, 0.9), (1.0, 0.0)])
def test_all_pixels_give_the_metric_of_the_whole_maps(rule: tuple[float, ...], weights: tuple[float, ...]) -> None:
    task = create_task("segmentation", CLASSES, rule)
    images = np.array([True, False, True, True, False])
    said = [each for batch in heard() for each in task.decode_together(batch.outputs, batch.frames, weights)]
    expected = headline(task, said, truth(), images)
    assert panel().headline("mean_iou", weights, images, rule) == pytest.approx(expected, abs=1e-3)


def test_some_pixels_give_about_the_same_and_bound_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, everything = panel(), np.ones(IMAGES, bool)
    monkeypatch.setattr(pixels, "_NUMBERS", 300 * IMAGES * 2 * 3)
    some = panel()
    assert some.said.size <= 300 * IMAGES * 2 * 3 < whole.said.size
    for weights in ((0.5, 0.5), (0.2, 0.8)):
        ours, exact = (each.headline("mean_iou", weights, everything, ()) for each in (some, whole))
        assert ours == pytest.approx(exact, abs=0.02)


def test_rare_classes_are_drawn_as_often_as_others_and_void_never() -> None:
    found = draw_pixels(truth()[0].array, 15, seed=1)
    judged = truth()[0].array
    assert np.bincount(found.labels).tolist() == [5, 5, 5]
    assert judged[found.places[:, 1], found.places[:, 0]].tolist() == found.labels.tolist()
    for label in range(3):
        assert found.counts[found.labels == label].sum() == pytest.approx((judged == label).sum())
    assert len(draw_pixels(np.full((4, 5), 255, np.uint8), 30, seed=1).labels) == 0
