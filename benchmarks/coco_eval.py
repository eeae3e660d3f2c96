"""COCO's evaluation by our reference, hotcoco and pycocotools: seconds, and how far the numbers are apart.

    python benchmarks/coco_eval.py --images 500 --detections 20 --classes 20

Needs no images: boxes are drawn, and found by a middling model. pycocotools is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from snellen.metrics.coco import evaluate
from snellen.metrics.coco_ap import CocoResult, match_images, num_resamples, resampled
from snellen.metrics.interval import resamples
from snellen.metrics.matching import Detections, ImageResult, Objects

SIDE = 640


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--detections", type=int, default=20, help="in each image")
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3, help="the median of so many is told")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    images = [drawn_image(rng, given.detections, given.classes) for _ in range(given.images)]

    entrants: dict[str, Callable[[], CocoResult]] = {
        "reference": lambda: evaluate(images, given.classes),
        "hotcoco": lambda: evaluate(images, given.classes, backend="hotcoco"),
    }
    if find_spec("pycocotools") is not None:
        entrants["pycocotools"] = lambda: evaluate_by_pycocotools(images, given.classes)
    else:
        print("pycocotools is not installed and left out: uv pip install pycocotools")
    expected = entrants["reference"]()
    print(f"{given.images} images, {given.detections} detections each, {given.classes} classes")
    print(f"{'':24} {'seconds':>8} {'mAP':>8} {'largest difference':>19}")
    for name, run in entrants.items():
        seconds, result = timed(run, given.repeats)
        apart = max(
            np.nanmax(abs(result.precision - expected.precision)), np.nanmax(abs(result.recall - expected.recall))
        )
        print(f"{name:24} {seconds:8.2f} {result.numbers()['map']:8.4f} {apart:19.1e}")
    matches = match_images(images, given.classes)
    number = num_resamples(matches, 1000)

    def resample() -> None:
        for weights in resamples(len(images), num_resamples=number):
            resampled(matches, weights)

    seconds, _ = timed(resample, given.repeats)
    print(f"{f'{number} resamples':24} {seconds:8.2f}")


def timed(run: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    seconds = []
    for _ in range(repeats):
        start = perf_counter()
        result = run()
        seconds.append(perf_counter() - start)
    return median(seconds), result


def drawn_image(rng: np.random.Generator, num_found: int, num_classes: int) -> ImageResult:
    """Up to as many objects as detections; those that are found fit more or less, and the rest are false alarms."""
    count = int(rng.integers(0, num_found + 1))
    true = drawn_boxes(rng, count)
    labels = rng.integers(0, num_classes, count)
    sides = np.tile(true[:, 2:] - true[:, :2], 2)
    near = true + np.clip(rng.normal(0, 0.06, sides.shape), -0.3, 0.3) * sides
    right = rng.random(count) < 0.9
    said = np.where(right, labels, rng.integers(0, num_classes, count))
    scores = np.concatenate([rng.beta(4, 2, count), rng.beta(2, 4, num_found - count)])
    return ImageResult(
        Detections(
            np.concatenate([near, drawn_boxes(rng, num_found - count)]),
            scores,
            np.concatenate([said, rng.integers(0, num_classes, num_found - count)]),
        ),
        Objects(true, labels, crowd=rng.random(count) < 0.02),
    )


def drawn_boxes(rng: np.random.Generator, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    corner = rng.uniform(0, SIDE * 0.7, (count, 2))
    return np.concatenate(
        [corner, corner + rng.choice([20, 70, 200], (count, 1)) * rng.uniform(0.6, 1.4, (count, 2))], 1
    )


def evaluate_by_pycocotools(images: Sequence[ImageResult], num_classes: int) -> CocoResult:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from snellen.metrics.hotcoco_ap import found_rows, truth_file

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = truth_file(images, num_classes, masked=False)
        truth.createIndex()
        judge = COCOeval(truth, truth.loadRes(found_rows(images, masked=False)), "bbox")
        judge.evaluate()
        judge.accumulate()
    precision, recall = (
        np.where(table < 0, np.nan, table) for table in (judge.eval["precision"], judge.eval["recall"])
    )
    return CocoResult(precision[..., -1], recall)


if __name__ == "__main__":
    main()
