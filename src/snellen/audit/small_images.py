"""A sample of the images that have marks, small: enough to see whether marks lie on edges."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from snellen.core.errors import ImageError
from snellen.core.record import Record
from snellen.core.seeds import keyed_seed
from snellen.data.image import Pixels, decode
from snellen.data.scan import ImageFacts

MOST_IMAGES = 200  # of 500 x 375 pixels 5 ms each; what is asked of them needs no more
MOST_TURNED = 100  # of these at least, if there are as many, have an EXIF orientation
LONG_SIDE = 256  # pixels

_THREADS = 2


def small_images(records: Mapping[str, Record], facts: Mapping[str, ImageFacts]) -> dict[str, Pixels]:
    """uint8 [h, w, 3] by record id, the long side at most 256 pixels: the images with the smallest hashed ids, or all.

    Only images in which objects or pixels are marked. Files that have gone since the scan are passed over.
    """
    marked = [record for record in records.values() if record.objects or record.mask is not None]
    marked.sort(key=lambda record: (keyed_seed("small", record.id), record.id))
    turned = [record for record in marked if facts[record.id].orientation != 1][:MOST_TURNED]
    chosen = list({record.id: record for record in (*turned, *marked[:MOST_IMAGES])}.values())[:MOST_IMAGES]
    with ThreadPoolExecutor(_THREADS) as pool:
        pixels = list(pool.map(_small, chosen))
    return {record.id: small for record, small in zip(chosen, pixels, strict=True) if small is not None}


def _small(record: Record) -> Pixels | None:
    try:
        picture = Image.fromarray(decode(record.path, min_side=LONG_SIDE // 2))
    except ImageError:
        return None
    scale = LONG_SIDE / max(picture.size)
    if scale < 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    return np.array(picture)
