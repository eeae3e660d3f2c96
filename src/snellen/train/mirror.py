"""May training images be mirrored? Measured on the images: a mirrored digit or letter is another sign, or none."""

from __future__ import annotations

import numpy as np

_MOST = 1500  # images compared: the answer needs no more
_MARGIN = 0.10  # the share of right neighbours that mirroring may cost


def flip_is_safe(images: np.ndarray, classes: np.ndarray) -> tuple[bool, str]:
    """images uint8 [n, h, w, 3], classes int [n] -> (whether mirroring keeps the class, the numbers in words).

    Each image's nearest other image by pixels names its class; so does that of its mirror image. Where mirror images
    are as ordinary as the images themselves both are right equally often.
    """
    images, classes = images[:_MOST], classes[:_MOST]
    flat = _normalised(images)
    mirrored = _normalised(images[:, :, ::-1])
    plain = _share_right(flat, flat, classes)
    turned = _share_right(mirrored, flat, classes)
    told = (
        f"the nearest image is of the same class for {plain:.0%} of the images, for {turned:.0%} of their mirror images"
    )
    return bool(turned >= plain - _MARGIN), told


def _normalised(images: np.ndarray) -> np.ndarray:
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6))


def _share_right(queries: np.ndarray, images: np.ndarray, classes: np.ndarray) -> float:
    likeness = queries @ images.T
    np.fill_diagonal(likeness, -np.inf)
    return float((classes[likeness.argmax(1)] == classes).mean())
