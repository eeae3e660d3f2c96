"""The colours of a variant: one 3x4 matrix an image, and the square that is blanked.

Brightness, contrast, saturation, hue, colour cast and grey are each linear in (R, G, B), so they compose into one
matrix and are applied, rounded and clipped once. That is 3 to 4 times as fast as one operation after another
(torchvision's or Pillow's own), and hue is free.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from snellen.core.geometry import Size
from snellen.data.augment import Augmentation
from snellen.data.draws import Floats, either_way, uniforms
from snellen.data.warp import FILL, Colour, Pixels

if TYPE_CHECKING:
    import torch

_DRAWS = 11
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601, as in Pillow and torchvision
_RGB_TO_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)
# A CutOut square covers this fraction of the image: 16 x 16 of 32 x 32 pixels in the paper.
_ERASED_AREA = 0.25


def draw_colours(seed: int, epoch: int, sample_ids: Sequence[str]) -> Floats:
    """What ``recolour`` and ``erase`` go by, [B, 11]; the same count whatever the settings."""
    return uniforms(seed, epoch, sample_ids, "colour", _DRAWS)


def recolour(settings: Augmentation, draw: Floats, image: Pixels) -> Pixels:
    """image uint8 [H, W, 3] in other colours; ``draw`` [11]. Returns ``image`` itself when there is nothing to do."""
    if not settings.recolours:
        return image
    picture = Image.fromarray(image)
    mean = np.array(picture.reduce(picture.size).getpixel((0, 0)), np.float64)  # 30 times as fast as numpy's mean
    matrix = _colour_matrices(settings, draw[None], mean[None])[0]
    return np.array(picture.convert("RGB", tuple(matrix.ravel().tolist())))


def recolour_batch(settings: Augmentation, draws: Floats, images: torch.Tensor) -> torch.Tensor:
    """``recolour`` for images uint8 [B, 3, H, W] at once; never changes them in place."""
    import torch

    if not settings.recolours:
        return images
    pixels = images.flatten(2).float()  # [B, 3, H * W]
    means = pixels.mean(dim=2).cpu().numpy().astype(np.float64)
    matrices = torch.from_numpy(_colour_matrices(settings, draws, means)).float().to(images.device)
    pixels = torch.baddbmm(matrices[:, :, 3:], matrices[:, :, :3], pixels)
    return pixels.round_().clamp_(0, 255).to(torch.uint8).view(images.shape)


def _colour_matrices(settings: Augmentation, draws: Floats, means: Floats) -> Floats:
    """draws [B, 11], mean colours [B, 3] -> matrices [B, 3, 4] on (R, G, B, 1), 0..255.

    In the order colour cast, brightness, contrast, saturation, hue, grey; each as Pillow's ImageEnhance and torchvision
    define it, but hue, which is a turn of the chroma plane of YIQ and keeps the luma (they turn HSV, which is not
    linear).
    """
    cast = 1.0 + either_way(draws[:, 8:11], settings.colour_cast)
    brightness = 1.0 + either_way(draws[:, 0], settings.brightness)
    contrast = 1.0 + either_way(draws[:, 1], settings.contrast)
    saturation = np.where(draws[:, 4] < settings.grayscale, 0.0, 1.0 + either_way(draws[:, 2], settings.saturation))
    angle = 2.0 * np.pi * either_way(draws[:, 3], settings.hue)
    chroma = np.zeros((len(draws), 3, 3))
    chroma[:, 0, 0] = 1.0
    chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * np.cos(angle)
    chroma[:, 2, 1] = saturation * np.sin(angle)
    chroma[:, 1, 2] = -chroma[:, 2, 1]
    linear = _YIQ_TO_RGB @ chroma @ _RGB_TO_YIQ * cast[:, None, :]
    # Contrast pulls towards the image's mean grey, which saturation and hue leave as it is.
    offset = (1.0 - contrast) * brightness * ((means * cast) @ _LUMA)
    return np.concatenate(
        [(brightness * contrast)[:, None, None] * linear, np.tile(offset[:, None, None], (1, 3, 1))], axis=2
    )


def erase(settings: Augmentation, draw: Floats, image: Pixels, *, fill: Colour = FILL) -> Pixels:
    """image uint8 [H, W, 3], perhaps with a square blanked to ``fill``; ``image`` itself when there is none."""
    if draw[5] >= settings.erase:
        return image
    left, top, right, bottom = _erased(draw[None], (image.shape[1], image.shape[0]))[0]
    image = image.copy()
    image[top:bottom, left:right] = fill
    return image


def erase_batch(settings: Augmentation, draws: Floats, images: torch.Tensor, *, fill: Colour = FILL) -> torch.Tensor:
    """``erase`` for images uint8 [B, 3, H, W] at once; never changes them in place."""
    import torch

    chosen = np.flatnonzero(draws[:, 5] < settings.erase)
    if not len(chosen):
        return images
    images = images.clone()
    height, width = images.shape[2:]
    colour = torch.tensor(fill, dtype=torch.uint8, device=images.device).view(3, 1, 1)
    for index, (left, top, right, bottom) in zip(chosen, _erased(draws[chosen], (width, height)), strict=True):
        images[index, :, top:bottom, left:right] = colour
    return images


def _erased(draws: Floats, size: Size) -> npt.NDArray[np.int64]:
    """draws [B, 11] -> squares [B, 4] (left, top, right, bottom) whose centre is anywhere, cut at the image's edge."""
    half = np.sqrt(_ERASED_AREA * prod(size)) / 2
    corners = draws[:, [6, 7]] * size
    box = np.concatenate([corners - half, corners + half], axis=1)
    return np.clip(np.round(box), 0, [*size, *size]).astype(np.int64)
