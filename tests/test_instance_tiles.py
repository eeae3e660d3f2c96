"""Outlined objects that several overlapping parts of an image have seen: each is named once, with all of its pixels."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from instance_scenes import blank_mask, disc_mask, instance_set, square_mask
from snellen.core.geometry import Size
from snellen.core.masks import polygon_mask, text_to_runs
from snellen.data.tiles import Region, Tiling
from snellen.predict.prediction import Prediction
from snellen.predict.predictor import Predictor
from snellen.tasks.base import create_task
from snellen.tasks.detection.target import Boxes
from snellen.tasks.instances.object_mask import ObjectMask, in_common, united
from snellen.tasks.instances.target import InstanceSet
from snellen.tasks.loading import LoadedModel
from tiny_runs import a_plan

Mask = NDArray[np.bool_]

SIZE = (180, 100)
LEFT, RIGHT, WHOLE = (0, 0, 100, 100), (80, 0, 180, 100), (0, 0, 180, 100)


pytestmark = pytest.mark.usefixtures("one_thread")


def sees(region: Region, *objects: tuple[Mask, float], labels: Sequence[int] = ()) -> InstanceSet:
    """The prediction for a part of the image: what it shows of each mask of the whole image, with a score."""
    x0, y0, x1, y1 = region
    masks = [mask[y0:y1, x0:x1] for mask, _ in objects]
    scores = np.array([score for _, score in objects], np.float32)
    return instance_set(masks, labels or [0] * len(masks), (x1 - x0, y1 - y0), scores=scores)


def bar(x: int, y: int, length: int, thickness: int = 20, size: Size = SIZE) -> Mask:
    """Upright, of ``length`` pixels across."""
    mask = blank_mask(size)
    mask[y : y + thickness, x : x + length] = True
    return mask


def slanted(down: float, size: Size = SIZE) -> Mask:
    """A bar 12 pixels high that goes across the seam, down by 0.8 for each pixel; begun ``down`` pixels lower."""
    return polygon_mask([(55, down, 125, down + 56, 125, down + 68, 55, down + 12)], size)


def told(found: InstanceSet) -> list[Mask]:
    assert found.size == SIZE and len(found) == len(found.masks) == len(found.area)
    assert [mask.area for mask in found.masks] == found.area.tolist()
    return list(found.stacked())


def test_an_object_across_the_seam_is_found_once_with_the_pixels_of_both_sides() -> None:
    whole = bar(40, 10, 100)
    parts = [sees(LEFT, (whole, 0.7)), sees(RIGHT, (whole, 0.9))]
    found = InstanceSet.merged(parts, [LEFT, RIGHT], SIZE)
    (only,) = told(found)
    assert np.array_equal(only, whole)
    assert found.boxes.tolist() == [[40, 10, 140, 30]]
    assert found.scores is not None and found.scores.tolist() == [np.float32(0.9)]


def test_two_objects_that_touch_stay_two_though_their_boxes_are_nearly_one() -> None:
    upper, lower = slanted(8), slanted(20)
    assert not (upper & lower).any()
    parts = [sees(region, (upper, 0.9), (lower, 0.8)) for region in (LEFT, RIGHT)]
    masks = told(InstanceSet.merged(parts, [LEFT, RIGHT], SIZE))
    assert len(masks) == 2
    assert np.array_equal(masks[0], upper) and np.array_equal(masks[1], lower)
    seen_once = [sees(LEFT, (lower, 0.9)), sees(RIGHT, (upper, 0.8))]
    assert len(InstanceSet.merged(seen_once, [LEFT, RIGHT], SIZE)) == 2
    boxes = [Boxes.predicted(each.size, each.boxes, each.labels, np.ones_like(each.area)) for each in seen_once]
    assert len(Boxes.merged(boxes, [LEFT, RIGHT], SIZE)) == 1, "boxes would have told them apart as well"


def test_an_object_seen_whole_and_cut_counts_once() -> None:
    whole = bar(40, 10, 100)
    parts = [sees(LEFT, (whole, 0.8)), sees(RIGHT, (whole, 0.7)), sees(WHOLE, (whole, 0.6))]
    found = InstanceSet.merged(parts, [LEFT, RIGHT, WHOLE], SIZE)
    (only,) = told(found)
    assert np.array_equal(only, whole) and found.scores is not None and found.scores[0] == np.float32(0.8)
    one_side = [sees(LEFT, (whole, 0.8)), sees(RIGHT), sees(WHOLE, (whole, 0.6))]
    (only,) = told(InstanceSet.merged(one_side, [LEFT, RIGHT, WHOLE], SIZE))
    assert np.array_equal(only, whole), "the piece of the left tile is not what is kept"


def test_one_object_within_another_is_the_same_only_by_the_smaller_area() -> None:
    large, small = disc_mask(90, 50, 7, SIZE), disc_mask(90, 50, 4, SIZE)
    parts = [sees(LEFT, (large, 0.8)), sees(RIGHT, (small, 0.6))]
    assert len(InstanceSet.merged(parts, [LEFT, RIGHT], SIZE, by="iou")) == 2
    (only,) = told(InstanceSet.merged(parts, [LEFT, RIGHT], SIZE, by="smaller"))
    assert np.array_equal(only, large)


def test_classes_are_kept_apart_unless_suppression_is_agnostic() -> None:
    disc = disc_mask(90, 50, 8, SIZE)
    parts = [sees(LEFT, (disc, 0.6)), sees(RIGHT, (disc, 0.8), labels=[1])]
    assert len(InstanceSet.merged(parts, [LEFT, RIGHT], SIZE)) == 2
    assert InstanceSet.merged(parts, [LEFT, RIGHT], SIZE, agnostic=True).labels.tolist() == [1]


def test_parts_that_show_nothing_add_nothing() -> None:
    nothing = InstanceSet.empty((100, 100))
    assert told(InstanceSet.merged([nothing, nothing], [LEFT, RIGHT], SIZE)) == []
    disc = disc_mask(150, 40, 8, SIZE)
    (only,) = told(InstanceSet.merged([nothing, sees(RIGHT, (disc, 0.5))], [LEFT, RIGHT], SIZE))
    assert np.array_equal(only, disc)


cells = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 4), st.integers(2, 18), st.integers(0, 1), st.floats(0.05, 1)),
    max_size=10,
    unique_by=lambda each: each[:2],
)


@given(cells, st.sampled_from(["iou", "smaller"]))
def test_one_part_merged_with_itself_gives_itself_back(drawn: list[tuple[int, int, int, int, float]], by: str) -> None:
    drawn.sort(key=lambda each: -each[4])
    squares = [(square_mask(20 * x, 20 * y, side, SIZE), score) for x, y, side, _, score in drawn]
    part = sees(WHOLE, *squares, labels=[label for *_, label, _ in drawn])
    for times in (1, 2):
        found = InstanceSet.merged([part] * times, [WHOLE] * times, SIZE, by=by)
        assert found.masks == part.masks and found.scores is not None and part.scores is not None
        for name in ("boxes", "labels", "scores", "area"):
            assert np.array_equal(getattr(found, name), getattr(part, name)), name


def test_no_mask_of_the_whole_image_is_made() -> None:
    """200 objects on 10,000 x 10,000 pixels, which alone would take 100 MB as a mask."""
    size, tile = (10_000, 10_000), 640
    corners = [(9_000, 9_000), (9_360, 9_360)]
    rng = np.random.default_rng(0)
    masks = [ObjectMask.of(np.ones((20, 20), np.bool_), *map(int, rng.integers(0, tile - 20, 2))) for _ in range(100)]
    boxes = np.array([mask.region for mask in masks], np.float32)
    part = InstanceSet.predicted((tile, tile), masks, boxes, np.zeros(100, np.int64), np.ones(100, np.float32))
    regions = [(x, y, x + tile, y + tile) for x, y in corners]
    tracemalloc.start()
    found = InstanceSet.merged([part, part, InstanceSet.empty(size)], [*regions, (0, 0, *size)], size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 100 < len(found) <= 200 and peak < 10_000_000


# --- masks, looked at in a region


shapes = st.builds(
    lambda seed, share: np.random.default_rng(seed).random((30, 40)) < share, st.integers(0, 999), st.floats(0, 1)
)
sides = st.integers(0, 40)
regions = st.tuples(sides, sides, sides, sides).map(
    lambda four: (min(four[0], four[2]), min(four[1], four[3], 30), max(four[0], four[2]), min(30, max(four[1::2])))
)


@given(shapes, shapes, regions)
def test_what_two_masks_have_in_common_is_counted_without_the_image(one: Mask, other: Mask, region: Region) -> None:
    x0, y0, x1, y1 = region
    masks = [ObjectMask.of(one), ObjectMask.of(other)]
    counted = in_common(masks, np.array([0, 1]), np.array([1, 1]), region)
    own, theirs = one[y0:y1, x0:x1], other[y0:y1, x0:x1]
    expected = [own.sum(), theirs.sum()], [theirs.sum()] * 2, [(own & theirs).sum(), theirs.sum()]
    assert [each.tolist() for each in counted] == [list(map(int, each)) for each in expected]
    assert np.array_equal(masks[0].within(region), own)


@given(st.lists(shapes, min_size=1, max_size=3))
def test_united_masks_have_the_pixels_of_all(drawn: list[Mask]) -> None:
    whole = united([ObjectMask.of(mask) for mask in drawn])
    assert whole == ObjectMask.of(np.logical_or.reduce(drawn))


# --- from a file to answers, by a network that sees without having learnt

INPUT, TILE, LARGE_SIZE = 64, 80, (300, 200)

# Black on white. Tiles of 80 with an overlap of 0.3 begin at x = 0, 55, 110, 165, 220 and at y = 0, 60, 120.
DISCS = {
    "inside a tile": (22, 24, 8),
    "across the border of two tiles": (80, 24, 8),
    "at the corner of four tiles": (80, 80, 9),
    "beside it": (112, 80, 9),
    "at the corner of the image": (292, 192, 6),
    "larger than a tile": (215, 110, 60),
}
STRIPES = {"upper": (60, 130, 130, 165), "lower": (60, 146, 130, 181)}  # 8 pixels high: longer than the overlap


class BlackShapes(nn.Module):
    """images [n, 3, h, w] -> candidates and prototypes: each connected dark thing of 12 pixels or more."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        from scipy.ndimage import find_objects, label

        height, width = images.shape[2:]
        candidates, prototypes = (
            torch.zeros(len(images), 16, 5 + 16),
            torch.full((len(images), 16, height, width), -9.0),
        )
        for i, image in enumerate(images):
            areas, _ = label(image.float().mean(0).numpy() < 100)
            seen = [(k + 1, each) for k, each in enumerate(find_objects(areas)) if (areas == k + 1).sum() >= 12]
            for row, (number, (down, across)) in enumerate(seen):
                candidates[i, row, :5] = torch.tensor([across.start, down.start, across.stop, down.stop, 0.9])
                candidates[i, row, 5 + row] = 1.0
                prototypes[i, row][torch.from_numpy(areas == number)] = 9.0
        return candidates, prototypes


def truth() -> dict[str, Mask]:
    found = {name: disc_mask(*disc, LARGE_SIZE) for name, disc in DISCS.items()}
    for name, (x0, y0, x1, y1) in STRIPES.items():
        found[f"{name} stripe"] = polygon_mask([(x0, y0, x1, y1, x1, y1 + 8, x0, y0 + 8)], LARGE_SIZE)
    return found


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.full((LARGE_SIZE[1], LARGE_SIZE[0], 3), 255, np.uint8)
    for mask in truth().values():
        pixels[mask] = 0
    Image.fromarray(pixels).save(tmp_path / "shapes.png")
    return tmp_path / "shapes.png"


def model() -> LoadedModel:
    plan = a_plan()
    preprocessing = replace(plan.preprocessing, input_size=(INPUT, INPUT), fit="letterbox", crop_fraction=1.0)
    plan = replace(plan, preprocessing=preprocessing, nms="none")
    return LoadedModel(BlackShapes(), create_task("instances", ["shape"]).configured(plan), plan)


def masks_of(prediction: Prediction) -> list[Mask]:
    assert prediction.result is not None and prediction.result["size"] == list(LARGE_SIZE)
    objects: list[dict[str, Any]] = prediction.result["objects"]
    runs = [np.array(text_to_runs(each["segmentation"]["counts"])) for each in objects]
    flat = [np.repeat(np.arange(len(each)) % 2 == 1, each) for each in runs]
    return [each.reshape(LARGE_SIZE[::-1], order="F") for each in flat]


def times_found(mask: Mask, found: Sequence[Mask]) -> int:
    """How many overlap it by seven tenths of their union."""
    return sum(bool((mask & each).sum() > 0.7 * (mask | each).sum()) for each in found)


@pytest.mark.parametrize("merge", [None, "smaller"])
def test_tiles_outline_each_object_once_and_without_them_the_small_ones_are_poor(
    photo: Path, merge: str | None
) -> None:
    tiling = Tiling(tile=(TILE, TILE), overlap=0.3, merge=merge)
    assert tiling.regions(LARGE_SIZE, whole=True)[-1] == (0, 0, *LARGE_SIZE)
    (tiled,) = Predictor(model(), tiling).predict([photo])
    found = masks_of(tiled)
    assert {name: times_found(mask, found) for name, mask in truth().items()} == dict.fromkeys(truth(), 1)
    assert len(found) == len(truth()) and tiled.label == f"{len(truth())} shape"
    (plain,) = Predictor(model()).predict([photo])
    at_once = masks_of(plain)
    assert times_found(truth()["larger than a tile"], at_once) == 1
    assert sum(times_found(mask, at_once) for mask in truth().values()) < len(truth())


def test_a_tile_as_large_as_the_image_is_the_same_as_no_tiling(photo: Path) -> None:
    tiled, plain = (list(Predictor(model(), tiling).predict([photo])) for tiling in (Tiling(tile=LARGE_SIZE), None))
    assert [each.to_json() for each in tiled] == [each.to_json() for each in plain]
