"""Predictions as a COCO data set, with scores."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from snellen.core.files import replace_atomically
from snellen.predict.prediction import Answer
from snellen.predict.writers.base import Writer
from snellen.tasks.base import Task


class Coco(Writer):
    """``coco.json``: the images that could be read, the objects in them as annotations with a ``score``, the classes.

    Boxes are [x, y, width, height] in pixels of the upright image; masks are compressed runs. File names are the
    images' paths below the folder that all share. It can be read as a data set and, its annotations alone, as results.
    Images and annotations are collected in two files until the end.
    """

    tasks = ("detection", "instances")
    makes = "coco.json"
    leftover = (".coco-images.part", ".coco-annotations.part")

    def __init__(self, folder: Path, task: Task[Any], kept: Mapping[str, int]) -> None:
        super().__init__(folder, task, kept)
        self._num_images, self._num_objects = kept.get("images", 0), kept.get("objects", 0)
        self._images, self._annotations = (self.lines(part, kept.get(part, 0)) for part in self.leftover)

    def add(self, answer: Answer) -> None:
        result = answer.prediction.result
        if result is None:
            return
        self._num_images += 1
        width, height = result["size"]
        image = {"id": self._num_images, "file_name": answer.image.key, "width": width, "height": height}
        self._images.write(_entry(image, first=self._num_images == 1))
        for each in result["objects"]:
            self._num_objects += 1
            self._annotations.write(_entry(self._annotation(each), first=self._num_objects == 1))

    def _annotation(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Of one of the objects that a task describes."""
        x0, y0, x1, y1 = told["box"]
        sides = round(x1 - x0, 2), round(y1 - y0, 2)
        entry = {
            "id": self._num_objects,
            "image_id": self._num_images,
            "category_id": self.task.classes.index(told["label"]) + 1,
            "bbox": [x0, y0, *sides],
            "area": told.get("area", round(sides[0] * sides[1], 2)),
            "iscrowd": 0,
            "score": told["confidence"],
        }
        return entry | ({"segmentation": told["segmentation"]} if "segmentation" in told else {})

    def keep(self) -> dict[str, int]:
        sizes = {
            part: lines.keep() for part, lines in zip(self.leftover, (self._images, self._annotations), strict=True)
        }
        return {"images": self._num_images, "objects": self._num_objects, **sizes}

    def finish(self) -> None:
        self.keep()
        replace_atomically(self.folder / self.makes, self._put_together)

    def _put_together(self, path: Path) -> None:
        categories = [
            {"id": number, "name": name, "supercategory": ""} for number, name in enumerate(self.task.classes, start=1)
        ]
        with open(path, "wb") as whole:
            whole.write(b'{"info": {"description": "predictions"}, "licenses": [],\n"images": [')
            _append(self.folder / self.leftover[0], whole)
            whole.write(b'\n],\n"annotations": [')
            _append(self.folder / self.leftover[1], whole)
            end = json.dumps(categories, ensure_ascii=False).encode("utf-8", "backslashreplace")
            whole.write(b'\n],\n"categories": ' + end + b"}\n")


def _entry(content: Mapping[str, Any], *, first: bool) -> str:
    return ("\n" if first else ",\n") + json.dumps(content, ensure_ascii=False, allow_nan=False)


def _append(part: Path, whole: IO[bytes]) -> None:
    with open(part, "rb") as content:
        shutil.copyfileobj(content, whole)
