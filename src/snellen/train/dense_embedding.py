"""What a frozen network sees at each place of the images in which objects or pixels are marked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.device import available_cores, choose_device
from snellen.core.errors import ImageError
from snellen.core.record import Record
from snellen.core.seeds import keyed_permutation
from snellen.data.image import Pixels, decode
from snellen.data.survey import Survey
from snellen.nn.catalog import EMBEDDED_MODEL, backbone_facts
from snellen.nn.feature_maps import create_map_backbone, load_pretrained_maps
from snellen.nn.folding import for_inference
from snellen.nn.network import Normalize

MOST_IMAGES = 400  # half a minute on two cores, and 200 MB of what it sees
LONG_SIDE = 320  # pixels: images are made so large, or so small
STRIDE = 8  # pixels of it from one place to the next
_REDUCTIONS = (4, 8, 16)  # of the maps that are laid on each other
_BATCH = 8

Maps = dict[str, npt.NDArray[np.float16]]


def embed_places(survey: Survey, config: Config, console: Console) -> Maps:
    """float16 [rows, columns, d] by record id, of at most ``MOST_IMAGES`` images with marks, drawn by lot.

    A map covers its whole image, squashed to sides that ``STRIDE`` divides. Empty where nothing is marked. Files that
    have gone since the survey are passed over. Raises WeightsError.
    """
    marked = [each for each in survey.records.values() if each.objects is not None or each.mask is not None]
    order = keyed_permutation(len(marked), "places", config.seed)[:MOST_IMAGES]
    records = [marked[i] for i in sorted(order.tolist())]
    if not records:
        return {}
    device = torch.device(choose_device(config.device))
    backbone = create_map_backbone(EMBEDDED_MODEL, input_size=(LONG_SIDE, LONG_SIDE))
    load_pretrained_maps(backbone, EMBEDDED_MODEL, file=None, pretrained=True)
    known = backbone_facts(EMBEDDED_MODEL)
    assert known is not None
    network = nn.Sequential(Normalize(known.mean, known.std), for_inference(backbone)).to(device).eval()
    found: Maps = {}
    with torch.inference_mode(), console.progress("What is seen at each place", len(records)) as advance:
        for ids, images in _batches(records):
            maps = _laid(network(images.to(device)), [i for i, r in enumerate(backbone.reductions) if r in _REDUCTIONS])
            found.update(zip(ids, maps.cpu().numpy(), strict=True))
            advance(len(found), len(records))
    return found


def _laid(maps: Sequence[Tensor], chosen: Sequence[int]) -> Tensor:
    """Maps [n, c, h, w] of several sizes -> float16 [n, rows, columns, all channels], at the size of the middle one."""
    size = maps[chosen[len(chosen) // 2]].shape[2:]
    placed = [
        nn.functional.interpolate(maps[i], size, mode="bilinear", align_corners=False)
        if maps[i].shape[2] < size[0]
        else nn.functional.adaptive_avg_pool2d(maps[i], (size[0], size[1]))
        for i in chosen
    ]
    return torch.cat(placed, 1).permute(0, 2, 3, 1).half()


def _batches(records: Sequence[Record]) -> Iterator[tuple[list[str], Tensor]]:
    """Images of one shape at a time, uint8 [n, 3, h, w]."""
    shapes: dict[tuple[int, int], list[Record]] = {}
    for record in records:
        shapes.setdefault(_shape(record.size or (1, 1)), []).append(record)
    for (width, height), alike in shapes.items():
        for start in range(0, len(alike), _BATCH):
            batch = alike[start : start + _BATCH]
            with ThreadPoolExecutor(available_cores()) as pool:
                pixels = list(pool.map(lambda record, size=(width, height): _pixels(record, size), batch))
            seen = {record.id: image for record, image in zip(batch, pixels, strict=True) if image is not None}
            if seen:
                yield list(seen), torch.from_numpy(np.stack(list(seen.values()))).permute(0, 3, 1, 2)


def _shape(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height), each a multiple of twice the stride."""
    scale, step = LONG_SIDE / max(size), 2 * STRIDE
    return tuple(max(step, step * round(side * scale / step)) for side in size)  # type: ignore[return-value]


def _pixels(record: Record, size: tuple[int, int]) -> Pixels | None:
    try:
        image = Image.fromarray(decode(record.path, min_side=min(size)))
    except ImageError:
        return None
    return np.array(image.resize(size, Image.Resampling.BILINEAR))
