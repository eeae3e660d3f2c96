"""What may vary in training images, and how much: the settings, and the line of text that they are written in.

How they are applied is told elsewhere: ``placement`` (one matrix for what moves pixels), ``elastic`` (a smooth field
beside it), ``colours`` (one matrix for the colours), ``policies`` and ``effects``; ``variants`` puts them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import inf
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

from snellen.core.errors import ConfigError, did_you_mean

Policy = Literal["none", "autoaugment", "randaugment", "trivialaugment"]
Range = tuple[float, float]

_LIMITS: Mapping[str, Range] = MappingProxyType(
    {
        "hflip": (0.0, 1.0),
        "vflip": (0.0, 1.0),
        "rotate90": (0.0, 1.0),
        "rotate_degrees": (0.0, 180.0),
        "translate": (0.0, 1.0),
        "shear_degrees": (0.0, 60.0),
        "perspective": (0.0, 0.1),  # from 0.17 on the horizon can cross the picture
        "elastic": (0.0, 0.05),  # nothing may fold over, so that more would look the same
        "brightness": (0.0, 1.0),
        "contrast": (0.0, 1.0),
        "saturation": (0.0, 1.0),
        "hue": (0.0, 0.5),
        "colour_cast": (0.0, 1.0),
        "grayscale": (0.0, 1.0),
        "blur": (0.0, 20.0),
        "noise": (0.0, 0.5),
        "erase": (0.0, 1.0),
        "operations": (1, 14),
        "magnitude": (0.0, 30.0),
    }
)
_RANGES: Mapping[str, tuple[Range, str]] = MappingProxyType(
    {
        "area": ((0.0, 1.0), "a range within 0 to 1, like (0.35, 1)"),
        "aspect": ((0.0, inf), "a range above 0, like (0.75, 1.33)"),
        "scale": ((0.1, 10.0), "a range within 0.1 to 10, like (0.8, 1.25)"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What may vary, and how much. The defaults change nothing; ``parse`` knows the presets.

    hflip, vflip    probability of a flip (not for digits, text, or left/right classes)
    rotate90        probability of one, two or three quarter turns
    area            range of the fraction of the image's area that the random crop keeps (Szegedy et al. 2015)
    aspect          range of the factor on the crop's aspect ratio, drawn evenly in its logarithm
    scale           range of the factor by which things are enlarged or shrunk about the middle, drawn likewise
    rotate_degrees  turned by up to this much, either way
    translate       shifted by up to this fraction of the output's width and height, either way
    shear_degrees   leaning by up to this much, either way
    perspective     each corner moves by up to this fraction of the output's width and height, either way
    elastic         points wander smoothly, by this fraction of the side on average (Simard et al. 2003)
    brightness, contrast, saturation  factors from [1 - x, 1 + x]
    hue             turned by up to this fraction of the colour circle, either way (0 to 0.5)
    colour_cast     red, green and blue each by a factor from [1 - x, 1 + x]: the colour of the light
    grayscale       probability of losing all colour
    blur            Gaussian, of a standard deviation of up to this many pixels of the output
    noise           Gaussian, of a standard deviation of up to this fraction of the range from black to white
    erase           probability that a square of a quarter of the area is blanked (CutOut, DeVries & Taylor 2017)
    policy          a published mixture of operations, beside all of the above (data/policies.py)
    operations, magnitude  of RandAugment alone: how many, and how strong, from 0 to 30
    """

    hflip: float = 0.0
    vflip: float = 0.0
    rotate90: float = 0.0
    area: Range = (1.0, 1.0)
    aspect: Range = (1.0, 1.0)
    scale: Range = (1.0, 1.0)
    rotate_degrees: float = 0.0
    translate: float = 0.0
    shear_degrees: float = 0.0
    perspective: float = 0.0
    elastic: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    colour_cast: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    erase: float = 0.0
    policy: Policy = "none"
    operations: int = 2
    magnitude: float = 9.0

    def __post_init__(self) -> None:
        for name, (least, most) in _LIMITS.items():
            if not least <= getattr(self, name) <= most:
                value = getattr(self, name)
                raise ConfigError(f"augmentation {name} must be between {least:g} and {most:g}, got {value}")
        for name, ((least, most), wish) in _RANGES.items():
            low, high = getattr(self, name)
            object.__setattr__(self, name, (low, high))  # JSON knows lists only
            if not (least <= low <= high <= most and low > 0.0 and high < inf):
                raise ConfigError(f"augmentation {name} must be {wish}, got {(low, high)}")
        if self.policy not in get_args(Policy):
            known = did_you_mean(str(self.policy), get_args(Policy))
            raise ConfigError(f"augmentation policy must be a known one, got '{self.policy}'{known}")
        if self.operations != int(self.operations):
            raise ConfigError(f"augmentation operations must be a whole number, got {self.operations}")

    @classmethod
    def none(cls) -> Augmentation:
        return cls()

    @classmethod
    def for_photos(cls) -> Augmentation:
        return cls(hflip=0.5, area=(0.35, 1.0), aspect=(3 / 4, 4 / 3), brightness=0.2, contrast=0.2, saturation=0.2)

    @classmethod
    def for_scenes(cls) -> Augmentation:
        """For answers about places: crops keep more of the image, and things also come smaller than they are."""
        return cls(
            hflip=0.5,
            area=(0.4, 1.0),
            aspect=(4 / 5, 5 / 4),
            scale=(0.75, 1.1),
            brightness=0.2,
            contrast=0.2,
            saturation=0.2,
        )

    @classmethod
    def for_tiny_images(cls) -> Augmentation:
        """For images of a few dozen pixels: the CIFAR habit of a flip and a shift by up to 4 of 32 pixels."""
        return cls(hflip=0.5, translate=0.125)

    @classmethod
    def parse(cls, text: str, *, preset: str = "photos") -> Augmentation:
        """A preset, and what is to differ from it: ``photos, rotate_degrees=15, blur=0.2, area=0.5..1``.

        The presets are ``none``, ``photos``, ``tiny``, ``scenes``, and the policies ``autoaugment``, ``randaugment``
        and ``trivialaugment`` on top of the crops (or shifts) and flips of ``preset``, which is also what ``auto``, or
        a text without a preset, stands for. Raises ConfigError.
        """
        name, overrides = _divided(text)
        return replace(_preset(name, preset), **{name: _value(name, value) for name, value in overrides.items()})

    @property
    def recolours(self) -> bool:
        return any((self.brightness, self.contrast, self.saturation, self.hue, self.colour_cast, self.grayscale))


def written_out(text: str) -> frozenset[str]:
    """The settings that ``text`` gives by name: what was asked for itself, and not as part of a preset."""
    return frozenset(_divided(text)[1])


def is_auto(text: str) -> bool:
    """True where ``text`` leaves the preset to Snellen."""
    return _divided(text)[0] == "auto"


_MADE = {
    "none": Augmentation.none,
    "photos": Augmentation.for_photos,
    "tiny": Augmentation.for_tiny_images,
    "scenes": Augmentation.for_scenes,
}
_PRESETS = ("auto", *_MADE, *get_args(Policy)[1:])


def _preset(name: str, usual: str) -> Augmentation:
    settings = _MADE.get(name, _MADE[usual])()
    if name in get_args(Policy):  # a policy brings its own colours
        settings = replace(settings, brightness=0.0, contrast=0.0, saturation=0.0, policy=cast(Policy, name))
    return settings


def _divided(text: str) -> tuple[str, dict[str, str]]:
    """(preset, overrides) of a line of settings."""
    parts = [part.strip() for part in text.split(",")]
    preset = "auto" if "=" in parts[0] else parts.pop(0)
    if preset not in _PRESETS:
        raise ConfigError(f"augment = '{preset}' is not known{did_you_mean(preset, _PRESETS)}")
    names = [field.name for field in fields(Augmentation)]
    overrides: dict[str, str] = {}
    for part in parts:
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ConfigError(f"augment: '{part}' is no setting: after the preset write name=value, like hflip=0.5")
        if name not in names:
            raise ConfigError(f"augment: '{name}' is not known{did_you_mean(name, names)}")
        if name in overrides:
            raise ConfigError(f"augment: '{name}' is given twice: {overrides[name]} and {value}; leave one out")
        overrides[name] = value
    return preset, overrides


def _value(name: str, text: str) -> Any:
    if name == "policy":
        return text
    try:
        numbers = [float(number) for number in text.split("..")]
    except ValueError:
        numbers = []
    if name in _RANGES:
        if len(numbers) != 2:
            (least, most), _ = _RANGES[name]
            within = f"within {least:g} to {most:g}" if most < inf else "above 0"
            raise ConfigError(f"augment: {name} = '{text}' is no range: write two numbers {within} as {name}=0.5..1")
        return tuple(numbers)
    if len(numbers) != 1:
        least, most = _LIMITS[name]
        raise ConfigError(f"augment: {name} = '{text}' is no number: give one between {least:g} and {most:g}")
    return int(numbers[0]) if name == "operations" and numbers[0].is_integer() else numbers[0]
