"""Published mixtures of operations: AutoAugment, RandAugment and TrivialAugment.

AutoAugment (Cubuk et al. 2019) draws one of the 25 pairs that were found for ImageNet, each half with a probability
and a strength of its own. RandAugment (Cubuk et al. 2020) draws a few operations, all of one strength. TrivialAugment
(Mueller & Hutter 2021) draws one, of any strength.

Turning, shifting and leaning become matrices and join the one warp; the operations on colours are Pillow's and follow
it, in the order they were drawn. So a pair (colour, turn) is done as (turn, colour), which differs where the corners
that a turn leaves are filled before the colours change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from snellen.core.geometry import Matrix, Size, compose, identity, rotation, shear, translation
from snellen.data.augment import Augmentation
from snellen.data.draws import Floats, uniforms
from snellen.data.warp import Pixels

Step = tuple[str, float]  # an operation and its magnitude, signed; in the units of the table it is from

_DEGREES_PER_RADIAN = 180.0 / np.pi


def _lean_x(level: float, size: Size) -> Matrix:
    return shear(-_DEGREES_PER_RADIAN * np.arctan(level), 0.0)


def _lean_y(level: float, size: Size) -> Matrix:
    return shear(0.0, -_DEGREES_PER_RADIAN * np.arctan(level))


# Leaning is about the corner, as published. Shifts are fractions of the side, but for TrivialAugment's 32 pixels.
MOVES: Mapping[str, Callable[[float, Size], Matrix]] = MappingProxyType(
    {
        "ShearX": _lean_x,
        "ShearY": _lean_y,
        "TranslateX": lambda level, size: translation(level * size[0], 0.0),
        "TranslateY": lambda level, size: translation(0.0, level * size[1]),
        "ShiftX": lambda level, size: translation(level, 0.0),
        "ShiftY": lambda level, size: translation(0.0, level),
        "Rotate": lambda level, size: rotation(level, (size[0] / 2, size[1] / 2)),
    }
)
COLOURS: Mapping[str, Callable[[Image.Image, float], Image.Image]] = MappingProxyType(
    {
        "Brightness": lambda image, level: ImageEnhance.Brightness(image).enhance(1.0 + level),
        "Color": lambda image, level: ImageEnhance.Color(image).enhance(1.0 + level),
        "Contrast": lambda image, level: ImageEnhance.Contrast(image).enhance(1.0 + level),
        "Sharpness": lambda image, level: ImageEnhance.Sharpness(image).enhance(1.0 + level),
        "Posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
        "Solarize": lambda image, share: ImageOps.solarize(image, ceil(share * 255.0)),
        "AutoContrast": lambda image, level: ImageOps.autocontrast(image),
        "Equalize": lambda image, level: ImageOps.equalize(image),
        "Invert": lambda image, level: ImageOps.invert(image),
    }
)
_SIGNED = frozenset({*MOVES, "Brightness", "Color", "Contrast", "Sharpness"})

# Magnitude at the strengths 0 and 1. Posterize keeps this many bits, rounded; what has no strength is not listed.
_STRENGTHS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "ShearX": (0.0, 0.3),
        "ShearY": (0.0, 0.3),
        "TranslateX": (0.0, 150 / 331),
        "TranslateY": (0.0, 150 / 331),
        "Rotate": (0.0, 30.0),
        "Brightness": (0.0, 0.9),
        "Color": (0.0, 0.9),
        "Contrast": (0.0, 0.9),
        "Sharpness": (0.0, 0.9),
        "Posterize": (8.0, 4.0),
        "Solarize": (1.0, 0.0),
    }
)
_WIDE_STRENGTHS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "ShearX": (0.0, 0.99),
        "ShearY": (0.0, 0.99),
        "ShiftX": (0.0, 32.0),
        "ShiftY": (0.0, 32.0),
        "Rotate": (0.0, 135.0),
        "Brightness": (0.0, 0.99),
        "Color": (0.0, 0.99),
        "Contrast": (0.0, 0.99),
        "Sharpness": (0.0, 0.99),
        "Posterize": (8.0, 2.0),
        "Solarize": (1.0, 0.0),
    }
)
RANDAUGMENT = ("Identity", *_STRENGTHS, "AutoContrast", "Equalize")
TRIVIALAUGMENT = ("Identity", *_WIDE_STRENGTHS, "AutoContrast", "Equalize")
_STRONGEST = 30  # of RandAugment and TrivialAugment

Half = tuple[str, float, int]  # operation, probability, strength of 0 to 9
AUTOAUGMENT: tuple[tuple[Half, Half], ...] = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 0), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 0)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 0)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 0), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 0)),
    (("Equalize", 0.0, 0), ("Equalize", 0.8, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 0)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 0)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 0)),
    (("Equalize", 0.4, 0), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 0)),
    (("Invert", 0.6, 0), ("Equalize", 1.0, 0)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 0), ("Equalize", 0.6, 0)),
)


def policy_steps(settings: Augmentation, seed: int, epoch: int, sample_ids: Sequence[str]) -> list[list[Step]]:
    """What is done to each sample, in order; nothing without a policy."""
    if settings.policy == "none":
        return [[] for _ in sample_ids]
    draws = uniforms(seed, epoch, sample_ids, "policy", max(6, 2 * settings.operations))
    return [_DRAWN[settings.policy](settings, draw) for draw in draws]


def _autoaugment(settings: Augmentation, draw: Floats) -> list[Step]:
    pair = AUTOAUGMENT[int(draw[0] * len(AUTOAUGMENT))]
    halves = zip(pair, draw[1:3], draw[3:5], strict=True)
    return [
        _step(name, strength / 9, _STRENGTHS, sign)
        for (name, probability, strength), whether, sign in halves
        if whether < probability
    ]


def _randaugment(settings: Augmentation, draw: Floats) -> list[Step]:
    which, signs = draw[: settings.operations], draw[settings.operations : 2 * settings.operations]
    names = [RANDAUGMENT[int(number * len(RANDAUGMENT))] for number in which]
    strength = settings.magnitude / _STRONGEST
    return [_step(name, strength, _STRENGTHS, sign) for name, sign in zip(names, signs, strict=True)]


def _trivialaugment(settings: Augmentation, draw: Floats) -> list[Step]:
    name = TRIVIALAUGMENT[int(draw[0] * len(TRIVIALAUGMENT))]
    strength = int(draw[1] * (_STRONGEST + 1)) / _STRONGEST
    return [_step(name, strength, _WIDE_STRENGTHS, draw[2])]


_DRAWN: Mapping[str, Callable[[Augmentation, Floats], list[Step]]] = MappingProxyType(
    {"autoaugment": _autoaugment, "randaugment": _randaugment, "trivialaugment": _trivialaugment}
)


def _step(name: str, strength: float, table: Mapping[str, tuple[float, float]], sign: float) -> Step:
    """strength 0 to 1; sign below a half turns the magnitude of what has two directions round."""
    weakest, strongest = table.get(name, (0.0, 0.0))
    magnitude = weakest + strength * (strongest - weakest)
    if name == "Posterize":
        magnitude = round(magnitude)
    return name, -magnitude if name in _SIGNED and sign < 0.5 else magnitude


def policy_matrices(steps: Sequence[Sequence[Step]], size: Size) -> Matrix:
    """What the steps of each sample move, as matrices [B, 3, 3] on images of ``size``."""
    moves = [[MOVES[name](level, size) for name, level in each if name in MOVES] for each in steps]
    return np.stack([compose(identity(), *each) for each in moves])


def policy_colours(steps: Sequence[Step], image: Pixels) -> Pixels:
    """image uint8 [H, W, 3] after the steps of one sample that change colours; itself when there are none."""
    if not any(name in COLOURS for name, _ in steps):
        return image
    picture = Image.fromarray(image)
    for name, level in steps:
        if name in COLOURS:
            picture = COLOURS[name](picture, level)
    return np.array(picture)
