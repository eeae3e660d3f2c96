"""Real handwriting as data of every task: scanned digits of 13 people, which come with scikit-learn, laid out on pages.

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, 1998, https://doi.org/10.24432/C50P49 (CC BY 4.0).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

KINDS = (0, 1, 4)
_INK = 6  # of 16 levels: what is darker was written, for the masks
_CELL = 24
_LARGER = 2


@dataclass(frozen=True)
class Written:
    """One digit on a page, and the pixels of its ink, bool [page, page]."""

    kind: int
    ink: np.ndarray

    @property
    def box(self) -> list[int]:
        """x, y, width, height."""
        ys, xs = (np.flatnonzero(self.ink.any(axis=axis)) for axis in (1, 0))
        return [int(xs[0]), int(ys[0]), int(xs[-1] - xs[0] + 1), int(ys[-1] - ys[0] + 1)]


def save_pages(task: str, root: Path, num: int) -> list[str]:
    """Write ``num`` labelled images below ``root`` -> what to tell ``snellen train`` about where they are."""
    scans, kinds = _digits()
    rng = np.random.default_rng(7)
    if task == "classification":
        for i in range(num):
            folder = root / str(kinds[i])
            folder.mkdir(parents=True, exist_ok=True)
            _larger(_grey(scans[i])).save(folder / f"{i:03}.png")
        return [str(root)]
    images = root / "images"
    images.mkdir(parents=True)
    pages = [_page(rng, scans, kinds) for _ in range(num)]
    for i, (pixels, _) in enumerate(pages):
        Image.fromarray(pixels).save(images / f"{i:03}.png")
    written = [objects for _, objects in pages]
    if task == "segmentation":
        _save_masks(root, written)
        return [str(root)]
    (root / "pages.json").write_text(json.dumps(_coco(written)))
    return [str(root / "pages.json"), "--images", str(images), "--task", task]


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [n, 8, 8] of 0 to 16, int [n]) of the kinds asked for, in turn."""
    from sklearn.datasets import load_digits

    found = load_digits()
    where = [np.flatnonzero(found.target == kind) for kind in KINDS]
    order = np.stack([indices[:150] for indices in where], 1).ravel()
    return found.images[order].astype(np.uint8), found.target[order]


def _grey(scan: np.ndarray) -> np.ndarray:
    """Black on white."""
    return np.asarray(np.clip(255 - 15 * scan.astype(int), 0, 255), np.uint8)


def _larger(grey: np.ndarray) -> Image.Image:
    image = Image.fromarray(grey)
    return image.resize((image.width * _LARGER, image.height * _LARGER), Image.Resampling.BICUBIC)


def _page(rng: np.random.Generator, scans: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, list[Written]]:
    """One to four digits, each in a quarter of its own: (uint8 [48, 48, 3], what was written)."""
    side = 2 * _CELL
    page = np.full((side, side), 255, np.uint8)
    written = []
    for place in rng.permutation(4)[: rng.integers(1, 5)]:
        which = int(rng.integers(len(scans)))
        digit = np.asarray(_larger(_grey(scans[which])))
        free = _CELL - digit.shape[0]
        y, x = place // 2 * _CELL + rng.integers(0, free), place % 2 * _CELL + rng.integers(0, free)
        on_page = page[y : y + digit.shape[0], x : x + digit.shape[1]]
        on_page[:] = np.minimum(on_page, digit)
        ink = np.zeros((side, side), bool)
        ink[y : y + digit.shape[0], x : x + digit.shape[1]] = digit < 255 - 15 * _INK
        written.append(Written(int(kinds[which]), ink))
    return np.repeat(page[..., None], 3, axis=2), written


def _save_masks(root: Path, written: list[list[Written]]) -> None:
    (root / "masks").mkdir()
    for i, objects in enumerate(written):
        mask = np.zeros_like(objects[0].ink, dtype=np.uint8)
        for each in objects:
            mask[each.ink] = 1 + KINDS.index(each.kind)
        Image.fromarray(mask).save(root / "masks" / f"{i:03}.png")
    (root / "classes.txt").write_text("\n".join(["paper", *map(str, KINDS)]) + "\n")


def _coco(written: list[list[Written]]) -> dict[str, Any]:
    annotations = [
        {
            "image_id": i,
            "category_id": each.kind,
            "bbox": each.box,
            "area": int(each.ink.sum()),
            "segmentation": {"size": list(each.ink.shape), "counts": _runs(each.ink)},
            "iscrowd": 0,
        }
        for i, objects in enumerate(written)
        for each in objects
    ]
    side = 2 * _CELL
    return {
        "images": [{"id": i, "file_name": f"{i:03}.png", "width": side, "height": side} for i in range(len(written))],
        "annotations": [{"id": 1 + i, **each} for i, each in enumerate(annotations)],
        "categories": [{"id": kind, "name": str(kind)} for kind in KINDS],
    }


def _runs(ink: np.ndarray) -> list[int]:
    """COCO's uncompressed run lengths: down the columns, beginning with what is not ink."""
    values = ink.ravel(order="F")
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    return [int(run) for run in np.diff([0, *([0] if values[0] else []), *changes, ink.size])]
