"""Small pictures of a few images of each class, for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from snellen.core.errors import ImageError
from snellen.core.files import write_bytes
from snellen.core.run import RunFolder
from snellen.data.image import decode
from snellen.data.survey import Survey
from snellen.draw.pictures import thumbnail

_SIDE = 160  # pixels
_MOST_CLASSES = 40


def save_examples(run: RunFolder, known: Survey, examples: Mapping[str, Sequence[str]]) -> None:
    """pictures/example-<class index>-<number>.webp for the first classes; ``examples`` names image ids by class."""
    for index, name in enumerate(islice(known.manifest.classes, _MOST_CLASSES)):
        for number, image_id in enumerate(examples.get(name, ())):
            try:
                pixels = decode(known.records[image_id].path, min_side=_SIDE)
            except ImageError:  # the file went away since it was scanned
                continue
            write_bytes(run.pictures / f"example-{index}-{number}.webp", thumbnail(pixels, _SIDE))
