"""What a poor camera adds: blur and noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter

from snellen.core.seeds import keyed_generator
from snellen.data.augment import Augmentation
from snellen.data.draws import Floats, uniforms
from snellen.data.warp import Pixels

_LEAST_BLUR = 0.1  # pixels: less changes no byte


def draw_effects(seed: int, epoch: int, sample_ids: Sequence[str]) -> Floats:
    """How much of the blur and of the noise each sample gets, [B, 2] in [0, 1)."""
    return uniforms(seed, epoch, sample_ids, "effects", 2)


def blur(settings: Augmentation, draw: Floats, image: Pixels) -> Pixels:
    """image uint8 [H, W, 3], out of focus; ``image`` itself when there is nothing to do."""
    sigma = settings.blur * float(draw[0])
    if sigma < _LEAST_BLUR:
        return image
    return np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def add_noise(settings: Augmentation, draw: Floats, image: Pixels, seed: int, epoch: int, sample_id: str) -> Pixels:
    """image uint8 [H, W, 3] with a number of its own added to every value; ``image`` itself without noise."""
    sigma = 255.0 * settings.noise * float(draw[1])
    if sigma == 0.0:
        return image
    noise = keyed_generator("noise", seed, epoch, sample_id).standard_normal(image.shape, np.float32)
    noise *= np.float32(sigma)
    noise += image
    return np.clip(np.rint(noise, out=noise), 0, 255, out=noise).astype(np.uint8)
