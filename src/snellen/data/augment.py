"""Random variants of training images: one matrix for the geometry, one matrix for the colours.

Every random choice is keyed by (seed, epoch, sample id) and by nothing else, so that a run resumes without replay and
any number of workers makes the same pixels. There are two ways to draw:

* one image at a time: ``rng = generator(seed, epoch, sample_id)``, then ``geometry`` and ``photometric``;
* many tiny images at a time: ``geometry_batch`` and ``photometric_batch``, which hash each (seed, epoch, sample id)
  straight into the numbers they need (about 2 microseconds an image, against 15 to make a generator).

The two ways draw different numbers from the same distributions.

Brightness, contrast, saturation, hue and grey are each linear in (R, G, B), so they too compose into one 3x4 matrix and
are applied, rounded and clipped once. That is 3 to 4 times as fast as one operation after another (torchvision's or
Pillow's own), and hue is free.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from snellen.core.errors import ConfigError
from snellen.core.geometry import Matrix, Size, compose, crop_resize, rotation, scaling, shear, translation
from snellen.data.warp import FILL, Colour, Pixels

if TYPE_CHECKING:
    import torch

Fit = Literal["squash", "crop"]
Floats = npt.NDArray[np.float64]

_GEOMETRY_DRAWS = 10
_COLOUR_DRAWS = 8
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in Pillow and torchvision
_RGB_TO_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)
# A CutOut square covers this fraction of the image: 16 x 16 of 32 x 32 pixels in the paper.
_ERASED_AREA = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What may vary, and how much. The defaults change nothing; ``for_photos`` and ``for_tiny_images`` are the presets.

    hflip, vflip    probability of a flip (not for digits, text, or left/right classes)
    area            range of the fraction of the image's area that the random crop keeps (Szegedy et al. 2015)
    aspect          range of the factor on the crop's aspect ratio, drawn evenly in its logarithm
    rotate_degrees  turned by up to this much, either way
    translate       shifted by up to this fraction of the output's width and height, either way
    shear_degrees   leaning by up to this much, either way
    brightness, contrast, saturation  factors from [1 - x, 1 + x]
    hue             turned by up to this fraction of the colour circle, either way (0 to 0.5)
    grayscale       probability of losing all colour
    erase           probability that a square of a quarter of the area is blanked (CutOut, DeVries & Taylor 2017)
    """

    hflip: float = 0.0
    vflip: float = 0.0
    area: tuple[float, float] = (1.0, 1.0)
    aspect: tuple[float, float] = (1.0, 1.0)
    rotate_degrees: float = 0.0
    translate: float = 0.0
    shear_degrees: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    erase: float = 0.0

    def __post_init__(self) -> None:
        limits = {
            "hflip": 1.0,
            "vflip": 1.0,
            "rotate_degrees": 180.0,
            "translate": 1.0,
            "shear_degrees": 60.0,
            "brightness": 1.0,
            "contrast": 1.0,
            "saturation": 1.0,
            "hue": 0.5,
            "grayscale": 1.0,
            "erase": 1.0,
        }
        for name, most in limits.items():
            if not 0.0 <= getattr(self, name) <= most:
                raise ConfigError(f"augmentation {name} must be between 0 and {most:g}, got {getattr(self, name)}")
        if not 0.0 < self.area[0] <= self.area[1] <= 1.0:
            raise ConfigError(f"augmentation area must be a range within 0 to 1, like (0.35, 1), got {self.area}")
        if not 0.0 < self.aspect[0] <= self.aspect[1]:
            raise ConfigError(f"augmentation aspect must be a range above 0, like (0.75, 1.33), got {self.aspect}")

    @classmethod
    def none(cls) -> Augmentation:
        return cls()

    @classmethod
    def for_photos(cls) -> Augmentation:
        return cls(hflip=0.5, area=(0.35, 1.0), aspect=(3 / 4, 4 / 3), brightness=0.2, contrast=0.2, saturation=0.2)

    @classmethod
    def for_tiny_images(cls) -> Augmentation:
        """For images of a few dozen pixels: the CIFAR habit of a flip and a shift by up to 4 of 32 pixels."""
        return cls(hflip=0.5, translate=0.125)

    @property
    def recolours(self) -> bool:
        return any((self.brightness, self.contrast, self.saturation, self.hue, self.grayscale))


def _key(seed: int, epoch: int, sample_id: str) -> bytes:
    # surrogatepass: a file name that is not UTF-8 is a sample like any other.
    return f"{seed}:{epoch}:{sample_id}".encode("utf-8", "surrogatepass")


def generator(seed: int, epoch: int, sample_id: str) -> np.random.Generator:
    """The random numbers of one sample in one epoch: the same on every machine and in any worker (15 microseconds)."""
    digest = hashlib.blake2b(_key(seed, epoch, sample_id), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(int.from_bytes(digest, "little")))


def _keyed_uniforms(seed: int, epoch: int, sample_ids: Sequence[str], purpose: str, count: int) -> Floats:
    """[B, count] numbers in [0, 1), 32 bits each, straight from a hash of each key."""
    prefix = purpose.encode() + b":"
    keys = (prefix + _key(seed, epoch, sample_id) for sample_id in sample_ids)
    bits = b"".join(hashlib.shake_128(key).digest(4 * count) for key in keys)
    return np.frombuffer(bits, "<u4").reshape(-1, count) * 2.0**-32


def geometry(
    settings: Augmentation, rng: np.random.Generator, in_size: Size, out_size: Size, *, fit: Fit = "crop"
) -> Matrix:
    """Everything that moves pixels, as one matrix [3, 3] from an image of ``in_size`` to one of ``out_size``.

    fit is how evaluation brings an image to ``out_size``, so that training sees things in the same proportions:
    "crop" cuts with the output's aspect ratio, "squash" with the image's own. With nothing to vary the matrix is that
    of ``core.geometry.center_crop`` (to the rounding of whole pixels) or ``squash``.
    The same count of numbers is drawn whatever the settings, so that switching one on leaves the others as they were.
    """
    (matrix,) = _matrices(settings, rng.random((1, _GEOMETRY_DRAWS)), in_size, out_size, fit)
    return np.asarray(matrix, np.float64)


def geometry_batch(
    settings: Augmentation,
    seed: int,
    epoch: int,
    sample_ids: Sequence[str],
    in_size: Size,
    out_size: Size,
    *,
    fit: Fit = "crop",
) -> Matrix:
    """``geometry`` for samples of one size at once -> matrices [B, 3, 3]; each depends on its own key only."""
    draws = _keyed_uniforms(seed, epoch, sample_ids, "geometry", _GEOMETRY_DRAWS)
    return _matrices(settings, draws, in_size, out_size, fit)


def _matrices(settings: Augmentation, draws: Floats, in_size: Size, out_size: Size, fit: Fit) -> Matrix:
    """draws [B, 10] in [0, 1) -> [B, 3, 3]."""
    hflip, vflip, area, aspect, x, y, turn, lean, shift_x, shift_y = draws.T
    width, height = out_size
    centre = (width / 2, height / 2)
    steps = [
        crop_resize(_crops(settings, area, aspect, x, y, in_size, out_size if fit == "crop" else in_size), out_size)
    ]
    if settings.hflip or settings.vflip:
        steps.append(scaling(np.where(hflip < settings.hflip, -1, 1), np.where(vflip < settings.vflip, -1, 1), centre))
    if settings.shear_degrees:
        steps.append(shear(_either_way(lean, settings.shear_degrees), about=centre))
    if settings.rotate_degrees:
        steps.append(rotation(_either_way(turn, settings.rotate_degrees), about=centre))
    if settings.translate:
        most = settings.translate
        steps.append(translation(_either_way(shift_x, most * width), _either_way(shift_y, most * height)))
    return compose(*steps)


def _either_way(draw: Floats, most: float) -> Floats:
    return (2.0 * draw - 1.0) * most


def _crops(
    settings: Augmentation, area: Floats, aspect: Floats, x: Floats, y: Floats, in_size: Size, shape: Size
) -> Floats:
    """Boxes [B, 4] inside the image with about the aspect ratio of ``shape``.

    torchvision draws area and aspect until the box fits, and gives up after 10 times. Drawing the aspect first and
    then the area among those that fit needs no second try.
    """
    low, high = np.log(settings.aspect)
    ratio = shape[0] / shape[1] * np.exp(low + aspect * (high - low))
    widest = np.minimum(in_size[0], in_size[1] * ratio)  # the largest box of this ratio
    largest = widest * widest / ratio / prod(in_size)
    most = np.minimum(settings.area[1], largest)
    least = np.minimum(settings.area[0], most)
    kept = np.sqrt((least + area * (most - least)) / largest)
    crop_width, crop_height = widest * kept, widest / ratio * kept
    if settings.area[0] == 1.0:  # nothing is to be cropped but what does not fit: keep the middle
        x = y = np.full_like(area, 0.5)
    left, top = x * (in_size[0] - crop_width), y * (in_size[1] - crop_height)
    return np.stack([left, top, left + crop_width, top + crop_height], axis=1)


def photometric(settings: Augmentation, rng: np.random.Generator, image: Pixels, *, fill: Colour = FILL) -> Pixels:
    """image uint8 [H, W, 3] -> the same shape with other colours, perhaps with a square blanked to ``fill``.

    Takes the warped image, which is small. Returns ``image`` itself when there is nothing to do.
    """
    draws = rng.random((1, _COLOUR_DRAWS))
    if settings.recolours:
        picture = Image.fromarray(image)
        mean = np.array(picture.reduce(picture.size).getpixel((0, 0)), np.float64)  # 30 times as fast as numpy's mean
        matrix = _colour_matrices(settings, draws, mean[None])[0]
        image = np.array(picture.convert("RGB", tuple(matrix.ravel().tolist())))
    if draws[0, 5] < settings.erase:
        left, top, right, bottom = _erased(draws, (image.shape[1], image.shape[0]))[0]
        image = image.copy()
        image[top:bottom, left:right] = fill
    return image


def photometric_batch(
    settings: Augmentation,
    seed: int,
    epoch: int,
    sample_ids: Sequence[str],
    images: torch.Tensor,
    *,
    fill: Colour = FILL,
) -> torch.Tensor:
    """``photometric`` for images uint8 [B, 3, H, W] at once; never changes them in place."""
    import torch

    draws = _keyed_uniforms(seed, epoch, sample_ids, "colour", _COLOUR_DRAWS)
    height, width = images.shape[2:]
    if settings.recolours:
        pixels = images.flatten(2).float()  # [B, 3, H * W]
        means = pixels.mean(dim=2).cpu().numpy().astype(np.float64)
        matrices = torch.from_numpy(_colour_matrices(settings, draws, means)).float().to(images.device)
        pixels = torch.baddbmm(matrices[:, :, 3:], matrices[:, :, :3], pixels)
        images = pixels.round_().clamp_(0, 255).to(torch.uint8).view(-1, 3, height, width)
    chosen = np.flatnonzero(draws[:, 5] < settings.erase)
    if len(chosen):
        images = images.clone()
        colour = torch.tensor(fill, dtype=torch.uint8, device=images.device).view(3, 1, 1)
        for index, (left, top, right, bottom) in zip(chosen, _erased(draws[chosen], (width, height)), strict=True):
            images[index, :, top:bottom, left:right] = colour
    return images


def _colour_matrices(settings: Augmentation, draws: Floats, means: Floats) -> Floats:
    """draws [B, 8], mean colours [B, 3] -> matrices [B, 3, 4] on (R, G, B, 1), 0..255.

    In the order brightness, contrast, saturation, hue, grey; each as Pillow's ImageEnhance and torchvision define it,
    but hue, which is a turn of the chroma plane of YIQ and keeps the luma (they turn HSV, which is not linear).
    """
    brightness = 1.0 + _either_way(draws[:, 0], settings.brightness)
    contrast = 1.0 + _either_way(draws[:, 1], settings.contrast)
    saturation = np.where(draws[:, 4] < settings.grayscale, 0.0, 1.0 + _either_way(draws[:, 2], settings.saturation))
    angle = 2.0 * np.pi * _either_way(draws[:, 3], settings.hue)
    chroma = np.zeros((len(draws), 3, 3))
    chroma[:, 0, 0] = 1.0
    chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * np.cos(angle)
    chroma[:, 2, 1] = saturation * np.sin(angle)
    chroma[:, 1, 2] = -chroma[:, 2, 1]
    linear = _YIQ_TO_RGB @ chroma @ _RGB_TO_YIQ
    # Contrast pulls towards the image's mean grey, which saturation and hue leave as it is.
    offset = (1.0 - contrast) * brightness * (means @ _LUMA)
    return np.concatenate(
        [(brightness * contrast)[:, None, None] * linear, np.tile(offset[:, None, None], (1, 3, 1))], axis=2
    )


def _erased(draws: Floats, size: Size) -> npt.NDArray[np.int64]:
    """draws [B, 8] -> squares [B, 4] (left, top, right, bottom) whose centre is anywhere, cut at the image's edge."""
    half = np.sqrt(_ERASED_AREA * prod(size)) / 2
    corners = draws[:, [6, 7]] * size
    box = np.concatenate([corners - half, corners + half], axis=1)
    return np.clip(np.round(box), 0, [*size, *size]).astype(np.int64)
