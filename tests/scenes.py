"""Scenes of a few shapes on noise, every object and every pixel known: data for the tasks that answer about places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from shapes import SHAPES

_COLOURS = ((230, 60, 60), (60, 230, 60), (70, 90, 240))
BACKGROUND = "background"


def scene(rng: np.random.Generator, side: int) -> tuple[np.ndarray, list[dict[str, Any]], np.ndarray]:
    """(image uint8 [side, side, 3], its objects, its mask of classes: 0 background, 1 + shape), with 0 to 3 objects."""
    image = Image.fromarray(rng.integers(0, 80, (side, side, 3), dtype=np.uint8))
    mask = Image.new("L", (side, side), 0)
    objects = []
    cell = side // 2
    places = rng.permutation(4)[: rng.integers(0, 4)]
    for place in places:
        kind = int(rng.integers(len(SHAPES)))
        size = int(rng.integers(cell // 2, cell - 2))
        x = int(place % 2 * cell + rng.integers(0, cell - size))
        y = int(place // 2 * cell + rng.integers(0, cell - size))
        polygon = _outline(kind, x, y, size)
        colour = tuple(int(c) for c in np.clip(np.array(_COLOURS[kind]) + rng.integers(-25, 26, 3), 0, 255))
        for pen, fill in ((ImageDraw.Draw(image), colour), (ImageDraw.Draw(mask), 1 + kind)):
            pen.polygon([(px - 0.5, py - 0.5) for px, py in polygon], fill=fill)
        xs, ys = zip(*polygon, strict=True)
        box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
        flat = [float(c) for point in polygon for c in point]
        objects.append({"kind": kind, "bbox": [float(c) for c in box], "polygon": flat})
    return np.asarray(image), objects, np.asarray(mask)


def _outline(kind: int, x: int, y: int, size: int) -> list[tuple[float, float]]:
    match SHAPES[kind]:
        case "square":
            return [(x, y), (x + size, y), (x + size, y + size), (x, y + size)]
        case "triangle":
            return [(x + size / 2, y), (x + size, y + size), (x, y + size)]
    turn = np.arange(0, 2 * np.pi, np.pi / 8)
    radius = size / 2
    return [(x + radius + radius * float(np.cos(a)), y + radius + radius * float(np.sin(a))) for a in turn]


def save_coco(root: Path, *, num: int = 60, side: int = 64, seed: int = 0) -> Path:
    """COCO: root/boxes.json beside root/images/000.png ..."""
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for i in range(num):
        pixels, objects, _ = scene(rng, side)
        name = f"images/{i:03}.png"
        Image.fromarray(pixels).save(root / name)
        images.append({"id": i + 1, "file_name": name, "width": side, "height": side})
        for each in objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i + 1,
                    "category_id": each["kind"] + 1,
                    "bbox": each["bbox"],
                    "area": each["bbox"][2] * each["bbox"][3],
                    "segmentation": [each["polygon"]],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(SHAPES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "boxes.json").write_text(json.dumps(content))
    return root / "boxes.json"


def save_masks(root: Path, *, num: int = 60, side: int = 64, seed: int = 0) -> Path:
    """Mask folders: root/images/000.png and root/masks/000.png, index images, with classes.txt beside them."""
    rng = np.random.default_rng(seed)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(num):
        pixels, _, mask = scene(rng, side)
        Image.fromarray(pixels).save(root / "images" / f"{i:03}.png")
        Image.fromarray(mask).save(root / "masks" / f"{i:03}.png")
    (root / "classes.txt").write_text("\n".join([BACKGROUND, *SHAPES]) + "\n")
    return root


def save_scenes(task: str, root: Path, *, num: int = 60, side: int = 64, seed: int = 0) -> Path:
    """A data set that poses ``task``."""
    save = save_masks if task == "segmentation" else save_coco
    return save(root, num=num, side=side, seed=seed)
