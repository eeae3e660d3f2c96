"""Training images of tasks that answer about places, with their targets: a variant of one image, or four put together,
perhaps with objects of another one.

Mosaic: Bochkovskiy et al. 2020 (YOLOv4, arXiv:2004.10934). Where targets lie is followed through every step; objects
that a border cuts are kept or dropped by the rule of their target type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from snellen.core.errors import ConfigError
from snellen.core.geometry import Matrix, Size, compose, scaling, squash, translation
from snellen.core.seeds import keyed_generator
from snellen.data.copy_paste import Pastes, copy_paste
from snellen.data.elastic import ElasticField
from snellen.data.placement import FITS
from snellen.data.variants import place, repaint
from snellen.data.warp import warp_image

if TYPE_CHECKING:
    from snellen.data.image_sets import ImageSet, Places, Variation

_MIDDLE = (0.3, 0.7)  # of the width and of the height: where the four images of a mosaic may meet
Region = tuple[int, int, int, int]  # x0, y0, x1, y1


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """pixels uint8 [h, w, 3] of the input's size, and what is to be found in them.

    num_objects, num_cut_away   as in ``core.sample.Batch``
    """

    pixels: np.ndarray
    target: Any
    num_objects: int = 0
    num_cut_away: int = 0


def training_scene(images: ImageSet, variation: Variation, epoch: int, index: int, key: str) -> Scene:
    """Image number ``index`` as an epoch shows it; ``key`` is what its randomness follows from."""
    rng = keyed_generator("mosaic", variation.seed, epoch, key)
    if rng.random() < (variation.mosaic if epoch < variation.mosaic_until else 0.0):
        scene = _mosaic(images, variation, epoch, index, key, rng)
    else:
        scene = _single(_part(images, variation, epoch, index, key))
    return _with_more(scene, images, variation, epoch, key) if variation.copy_paste else scene


def _single(part: _Part) -> Scene:
    size = part.images.store.preprocessing.input_size
    return _counted(Scene(part.pixels((0, 0, *size)), part.target(size)), part.images, [part.index])


def _counted(scene: Scene, images: ImageSet, shown: Sequence[int]) -> Scene:
    """The scene made of the images ``shown``, with the number of their objects, and of those that are not in view."""
    places = _places(images)
    given = sum(places.num_objects(images.targets[index]) for index in shown)
    return replace(scene, num_objects=given, num_cut_away=given - places.num_objects(scene.target))


def _with_more(scene: Scene, images: ImageSet, variation: Variation, epoch: int, key: str) -> Scene:
    """The scene, or to the share that is asked for the scene with objects of another image of the set."""
    places = _places(images)
    if not isinstance(places, Pastes):
        raise ConfigError("copy_paste needs outlines of objects: it is for task = 'instances'; leave it out")
    rng = keyed_generator("copy-paste", variation.seed, epoch, key)
    if rng.random() >= variation.copy_paste:
        return scene
    other = _single(_part(images, variation, epoch, int(rng.integers(len(images))), f"{key}\npasted"))
    pixels, target = copy_paste(scene.pixels, scene.target, other.pixels, other.target, places, rng)
    return replace(scene, pixels=pixels, target=target)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """An image and how it is brought to the input: from its source by ``matrix`` and then ``field``."""

    images: ImageSet
    variation: Variation
    epoch: int
    index: int
    key: str
    source: np.ndarray
    matrix: Matrix
    field: ElasticField | None

    def pixels(self, region: Region) -> np.ndarray:
        """What of it is seen in a region of the input."""
        x0, y0, x1, y1 = region
        matrix, size = compose(self.matrix, translation(-x0, -y0)), (x1 - x0, y1 - y0)
        warped = warp_image(self.source, matrix, size, field=self.field)
        return repaint(self.variation.augmentation, self.variation.seed, self.epoch, self.key, warped)

    def target(self, size: Size) -> Any:
        record = self.images.records[self.index]
        in_size = (self.source.shape[1], self.source.shape[0])
        whole = compose(squash(record.size or in_size, in_size), self.matrix)
        return _places(self.images).warp(self.images.targets[self.index], whole, size, self.field)


def _part(images: ImageSet, variation: Variation, epoch: int, index: int, key: str) -> _Part:
    source, preprocessing = images.store.source(images.records[index]), images.store.preprocessing
    in_size, size, fit = (source.shape[1], source.shape[0]), preprocessing.input_size, FITS[preprocessing.fit]
    placed = place(variation.augmentation, variation.seed, epoch, key, in_size, size, fit=fit)
    return _Part(images, variation, epoch, index, key, source, placed.matrix, placed.field)


def _mosaic(
    images: ImageSet, variation: Variation, epoch: int, index: int, key: str, rng: np.random.Generator
) -> Scene:
    """Four images that meet at a point, the others drawn from the same set."""
    width, height = images.store.preprocessing.input_size
    low, high = _MIDDLE
    x, y = (round(side * rng.uniform(low, high)) for side in (width, height))
    regions: list[Region] = [(0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)]
    chosen = [index, *rng.integers(len(images), size=3).tolist()]
    pixels = np.empty((height, width, 3), np.uint8)
    target: Any = None
    places = _places(images)
    for number, (region, which) in enumerate(zip(regions, chosen, strict=True)):
        part = _shrunk(_part(images, variation, epoch, which, f"{key}\n{number}"), region, (width, height), rng)
        x0, y0, x1, y1 = region
        pixels[y0:y1, x0:x1] = part.pixels(region)
        own = part.target((width, height))
        target = places.overlay(places.nothing(own) if target is None else target, own, region)
    return _counted(Scene(pixels, target), images, chosen)


def _shrunk(part: _Part, region: Region, size: Size, rng: np.random.Generator) -> _Part:
    """The part made smaller, and moved so that it still fills the region. An elastic field would not follow: none."""
    x0, y0, x1, y1 = region
    least = max((x1 - x0) / size[0], (y1 - y0) / size[1])
    scale = rng.uniform(least, 1.0)
    left = rng.uniform(x1 - scale * size[0], x0)
    top = rng.uniform(y1 - scale * size[1], y0)
    matrix = compose(part.matrix, scaling(scale, scale), translation(left, top))
    return _Part(part.images, part.variation, part.epoch, part.index, part.key, part.source, matrix, None)


def _places(images: ImageSet) -> Places:
    assert images.places is not None
    return images.places
