"""Regions that might be things: patches that look alike grow together.

    patches   the image in squares of 4 pixels, each with its mean colour
    merging   of all neighbours the two that are most alike become one, small ones first, until one is left
    cost      (a - b)^2 n m / (n + m): what merging n and m patches of mean colours a and b adds to the variance
    regions   the box round each merger: large and small ones, as things are of all sizes

To be seen: all regions of a scene; those that fit its objects best; and how many objects are met, at an IoU of one half
and of 0.7, by the first regions when the last mergers come first. What is in a region has to be told by others:
examples/rcnn.py.

Source: J. Uijlings et al., Selective Search for Object Recognition, 2013 (doi:10.1007/s11263-013-0620-5), with colours
alone; J. Ward, Hierarchical Grouping to Optimize an Objective Function, 1963, for the cost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from snellen.draw.boxes import draw_boxes
from snellen.draw.chart import SERIES
from snellen.draw.panels import key, panels, show
from snellen.metrics.overlap import box_iou

SHAPES = ("circle", "square", "triangle")
SIDE, PATCH = 96, 4  # pixels of a scene, and of the patches that regions grow from
Region = tuple[np.ndarray, int, np.ndarray]  # mean colour, number of patches, box in patches


class Scene(NamedTuple):
    """image uint8 [SIDE, SIDE, 3]; boxes float64 [k, 4]; labels int64 [k], places in SHAPES."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


def make_scene(rng: np.random.Generator) -> Scene:
    """Up to four shapes of any colour on noise; none hides another."""
    picture = Image.fromarray(rng.integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8))
    pen, boxes, labels = ImageDraw.Draw(picture), np.zeros((0, 4)), np.zeros(0, np.int64)
    for label in rng.integers(0, len(SHAPES), 4):
        width, height = rng.integers(18, 42, 2)
        x, y = int(rng.integers(0, SIDE - width)), int(rng.integers(0, SIDE - height))
        box = np.array([[x, y, x + width, y + height]], np.float64)
        if box_iou(box, boxes).any():
            continue
        place, colour = (x, y, x + width - 1, y + height - 1), tuple(rng.integers(100, 256, 3).tolist())
        corners = [(x + width // 2, y), (x + width - 1, y + height - 1), (x, y + height - 1)]
        draw: Any = (pen.ellipse, pen.rectangle, pen.polygon)[label]
        draw(corners if label == 2 else place, fill=colour)
        boxes, labels = np.concatenate([boxes, box]), np.append(labels, label)
    return Scene(np.asarray(picture), boxes, labels)


def propose(image: np.ndarray) -> np.ndarray:
    """Boxes [r, 4] of the regions of an image uint8 [SIDE, SIDE, 3], the last merger first."""
    side = SIDE // PATCH
    colours = image.reshape(side, PATCH, side, PATCH, 3).mean((1, 3)).reshape(-1, 3)
    place = np.stack(np.divmod(np.arange(side * side), side)[::-1], 1)
    regions: dict[int, Region] = {i: (colours[i], 1, np.append(place[i], place[i] + 1)) for i in range(side * side)}
    near: dict[int, set[int]] = {i: set() for i in regions}
    for i in regions:
        near[i] |= {j for j in (i + 1, i - 1) if j // side == i // side} | ({i + side, i - side} & regions.keys())
    costs = {(i, j): _cost(regions[i], regions[j]) for i in near for j in near[i] if i < j}
    boxes = []
    while costs:
        i, j = min(costs, key=costs.__getitem__)
        (one, n, a), (two, m, b) = regions[i], regions[j]
        box = np.append(np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:]))
        both = (one * n + two * m) / (n + m), n + m, box
        boxes.append(box)
        around = (near.pop(i) | near.pop(j)) - {i, j}
        for old in (i, j):
            for k in around:
                costs.pop((min(old, k), max(old, k)), None)
                near[k].discard(old)
        costs.pop((i, j))
        del regions[j]
        regions[i], near[i] = both, around
        for k in around:
            near[k].add(i)
            costs[min(i, k), max(i, k)] = _cost(both, regions[k])
    found = np.array(boxes[::-1], np.float64) * PATCH
    found = found[np.sort(np.unique(found, axis=0, return_index=True)[1])]
    large: np.ndarray = found[(found[:, 2:] - found[:, :2]).min(1) >= 3 * PATCH]
    return large


def _cost(one: Region, two: Region) -> float:
    return float(((one[0] - two[0]) ** 2).sum() * one[1] * two[1] / (one[1] + two[1]))


def run(out: Path, *, seed: int = 0, count: int = 40) -> dict[str, float]:
    """Draw ``out/regions.png`` and return how many of the objects of ``count`` scenes are met."""
    rng = np.random.default_rng(seed)
    scenes = [make_scene(rng) for _ in range(count)]
    regions = [propose(scene.image) for scene in scenes]
    met = [box_iou(found, scene.boxes) for found, scene in zip(regions, scenes, strict=True)]
    shown = max(range(count), key=lambda i: len(scenes[i].labels))
    numbers = {"regions of an image": float(np.mean([len(each) for each in regions]))}
    with panels(out / "regions.png", "The last few mergers hold nearly every object", columns=3, height=320) as grid:
        best = regions[shown][met[shown].argmax(axis=0)]
        for axes, boxes, title in ((grid[0], regions[shown], "all regions"), (grid[1], best, "those that fit best")):
            picture = draw_boxes(scenes[shown].image, boxes, [""] * len(boxes), range(len(boxes)))
            show(axes, np.asarray(picture), title=f"{title}: {len(boxes)}")
        first = np.arange(1, 41)
        for number, iou in enumerate((0.5, 0.7)):
            hit = [np.mean(np.concatenate([each[:k].max(axis=0) >= iou for each in met])) for k in first]
            numbers[f"objects met at IoU {iou}"] = float(hit[-1])
            grid[2].plot(first, hit, color=SERIES[number], label=f"IoU {iou}")
        grid[2].set(xlabel="regions, the last merger first", ylabel="share of the objects that are met", ylim=(0, 1.02))
        key(grid[2], columns=2)
    for name, value in numbers.items():
        print(f"{name:24} {value:.3g}")
    return numbers


if __name__ == "__main__":
    run(Path("runs/lab"))
