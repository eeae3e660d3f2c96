"""R-CNN: each region is cut out and shown to a network that was made for whole images.

    regions      boxes that might hold something (examples/regions.py)
    features f   each is cut out with some surroundings, warped to a square, and shown to a network that stays as it is
    classes      softmax(W f + b), where the paper has support vector machines; background is a class of its own
    boxes        tx = (x* - x) / w and tw = log(w* / w), and so for y and h, from f by ridge regression
    suppression  of boxes of one class that overlap, the surest is kept

To be seen: what is found before and after boxes are corrected, and average precisions at IoUs of one half and of 0.75.
The network sees each of a hundred regions anew: examples/fast_rcnn.py shares that work.

Source: R. Girshick et al., Rich feature hierarchies for accurate object detection, 2014 (arXiv:1311.2524).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from torchvision.ops import roi_align

from snellen.draw.boxes import draw_boxes
from snellen.draw.panels import panels, show
from snellen.lab import demonstrations, load
from snellen.metrics.matching import Detections, ImageResult, Objects
from snellen.metrics.overlap import box_iou
from snellen.metrics.voc_ap import voc_ap
from snellen.nn.backbone import create_backbone, load_pretrained
from snellen.nn.catalog import EMBEDDED_MODEL
from snellen.nn.detection.nms import greedy_nms
from snellen.nn.network import Normalize

CROP, AROUND = 48, 0.15  # pixels that a region is warped to, and how much of its sides is seen on each side of it
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
regions: Any = load(demonstrations()["regions"])
Found = tuple[np.ndarray, np.ndarray, np.ndarray]  # boxes [d, 4], scores [d] and labels [d] of an image


@torch.no_grad()
def features(net: torch.nn.Module, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """float [r, width]: what the network says of each region, warped by bilinear interpolation."""
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2) * np.array([-AROUND, -AROUND, AROUND, AROUND])
    places = torch.from_numpy(boxes + sides).float()
    pixels = torch.tensor(image).permute(2, 0, 1)[None].float()
    return np.asarray(net(Normalize(MEAN, STD)(roi_align(pixels, [places], CROP, 1.0, 1, aligned=True))))


def deltas(boxes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """[r, 4] and [r, 4] -> (tx, ty, tw, th) [r, 4]."""
    sides, others = boxes[:, 2:] - boxes[:, :2], wanted[:, 2:] - wanted[:, :2]
    middles = (wanted[:, :2] + wanted[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2
    return np.concatenate([middles / sides, np.log(others / sides)], 1)


def moved(boxes: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The inverse of ``deltas``."""
    sides = boxes[:, 2:] - boxes[:, :2]
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2 + change[:, :2] * sides, np.exp(change[:, 2:]) * sides / 2
    return np.concatenate([middle - half, middle + half], 1)


def learn(scenes: Sequence[Any], seen: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[Any, Any]:
    """What tells the classes of regions, and what moves boxes; regions that half fit an object teach no class."""
    inputs, labels, near, changes = [], [], [], []
    for scene, (boxes, said) in zip(scenes, seen, strict=True):
        overlap = box_iou(boxes, scene.boxes)
        best, owner = overlap.max(axis=1), overlap.argmax(axis=1)
        clear = (best >= 0.5) | (best < 0.3)
        inputs.append(said[clear])
        labels.append(np.where(best >= 0.5, scene.labels[owner], len(regions.SHAPES))[clear])
        near.append(said[best >= 0.6])
        changes.append(deltas(boxes[best >= 0.6], scene.boxes[owner[best >= 0.6]]))
    classes = LogisticRegression(C=0.01, max_iter=200).fit(np.concatenate(inputs), np.concatenate(labels))
    return classes, Ridge(alpha=1000).fit(np.concatenate(near), np.concatenate(changes))


def kept(boxes: np.ndarray, chances: np.ndarray, iou: float = 0.3) -> Found:
    """Of regions [r, 4] with the chances [r, C] of each class, those that are not suppressed."""
    scores, labels = chances.max(axis=1), chances.argmax(axis=1)
    order = np.argsort(-scores, kind="stable")[:300]
    order = order[greedy_nms(boxes[order].astype(np.float32), labels[order], iou=iou, most=100)]
    return boxes[order], scores[order], labels[order]


def average_precision(found: Sequence[Found], scenes: Sequence[Any], iou: float) -> float:
    results = [ImageResult(Detections(*each), Objects(*scene[1:])) for each, scene in zip(found, scenes, strict=True)]
    return float(np.nanmean(voc_ap(results, len(regions.SHAPES), iou=iou)))


def picture(image: np.ndarray, found: Found) -> np.ndarray:
    boxes, scores, labels = (each[found[1] > 0.5] for each in found)
    names = [f"{regions.SHAPES[label]} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
    return np.asarray(draw_boxes(image, boxes, names, labels.tolist()))


def run(out: Path, *, seed: int = 0, train: int = 30, test: int = 20) -> dict[str, float]:
    """Draw ``out/rcnn.png`` and return the average precisions on new scenes."""
    torch.set_num_threads(1)  # images are too small to be shared
    rng = np.random.default_rng(seed)
    scenes = [regions.make_scene(rng) for _ in range(train + test)]
    new = scenes[train:]
    net = create_backbone(EMBEDDED_MODEL, input_size=CROP).eval()
    load_pretrained(net, EMBEDDED_MODEL, file=None, pretrained=True)
    places = [regions.propose(scene.image) for scene in scenes]
    seen = [(boxes, features(net, scene.image, boxes)) for boxes, scene in zip(places, scenes, strict=True)]
    classes, mover = learn(scenes[:train], seen[:train])
    numbers: dict[str, float] = {}
    chances = [classes.predict_proba(said)[:, :-1] for _, said in seen[train:]]
    better = [moved(boxes, mover.predict(said)) for boxes, said in seen[train:]]
    shown = max(range(test), key=lambda i: len(new[i].labels))
    with panels(out / "rcnn.png", "Regions are named, then their boxes corrected", columns=2, height=420) as grid:
        for axes, name, boxes in zip(grid, ("regions", "corrected"), (places[train:], better), strict=True):
            found = [kept(*each) for each in zip(boxes, chances, strict=True)]
            numbers |= {f"AP{iou * 100:.0f}, {name}": average_precision(found, new, iou) for iou in (0.5, 0.75)}
            show(axes, picture(new[shown].image, found[shown]), title=name)
    print("; ".join(f"{name} {value:.3f}" for name, value in numbers.items()))
    return numbers


if __name__ == "__main__":
    run(Path("runs/lab"))
