"""Which detectors there are, and what each of them needs. No torch: settings are checked early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from snellen.core.errors import ConfigError, did_you_mean

Library = Literal["snellen", "torchvision", "effdet", "transformers"]

_OURS = "dense"
_EXTRAS: Mapping[str, str] = {"effdet": "effdet", "transformers": "hf"}


@dataclass(frozen=True, slots=True)
class BoxArchitecture:
    """A published way from an image to boxes.

    paper, year  of the detector
    library      whose layers and losses it is made of
    needs_nms    whether it names an object more than once; otherwise nms is 'none'
    own_backbone whether it stands on no backbone but its own: it only comes as a whole (nn/published.py)
    """

    paper: str
    year: int
    library: Library
    needs_nms: bool = True
    own_backbone: bool = False

    @property
    def extra(self) -> str:
        """The extra of Snellen that brings the library; empty where it is always there."""
        return _EXTRAS.get(self.library, "")


ARCHITECTURES: Mapping[str, BoxArchitecture] = {
    "dense": BoxArchitecture("after Tian et al., arXiv:1904.01355, and Feng et al., arXiv:2108.07755", 2021, "snellen"),
    "faster-rcnn": BoxArchitecture("Ren et al., arXiv:1506.01497", 2015, "torchvision"),
    "ssd": BoxArchitecture("Liu et al., arXiv:1512.02325", 2016, "torchvision"),
    "retinanet": BoxArchitecture("Lin et al., arXiv:1708.02002", 2017, "torchvision"),
    "fcos": BoxArchitecture("Tian et al., arXiv:1904.01355", 2019, "torchvision"),
    "efficientdet": BoxArchitecture("Tan et al., arXiv:1911.09070", 2020, "effdet"),
    "rt-detr": BoxArchitecture("Zhao et al., arXiv:2304.08069", 2023, "transformers", needs_nms=False),
    "d-fine": BoxArchitecture("Peng et al., arXiv:2410.13842", 2024, "transformers", needs_nms=False),
    "rf-detr": BoxArchitecture(
        "Robinson et al., arXiv:2511.09554", 2025, "transformers", needs_nms=False, own_backbone=True
    ),
}


def check_sides(size: tuple[int, int], multiple: int) -> None:
    """Raises ConfigError for an input (width, height) whose sides are not multiples of so many pixels."""
    width, height = size
    if width % multiple or height % multiple:
        fits = " x ".join(str(max(1, round(side / multiple)) * multiple) for side in size)
        raise ConfigError(
            f"this detector takes images whose width and height are multiples of {multiple}, not {width} x {height} "
            f"pixels: use {fits}"
        )


def check(name: str, *, published: bool = False) -> BoxArchitecture:
    """The entry of that name. ``published``: it comes as a whole, ``model`` says from where.

    Raises ConfigError for an unknown name, where its library is not installed, and where its backbone is missing.
    """
    if name not in ARCHITECTURES:
        raise ConfigError(f"architecture = '{name}' is not known{did_you_mean(name, ARCHITECTURES)}")
    known = ARCHITECTURES[name]
    if known.extra and find_spec(known.library) is None:
        raise ConfigError(
            f"architecture = '{name}' needs {known.library}: pip install 'snellen[{known.extra}]', or use '{_OURS}', "
            "which comes with Snellen"
        )
    if known.own_backbone and not published:
        raise ConfigError(
            f"architecture = '{name}' has a backbone of its own: give model = 'hf:...', a folder or a name of "
            "huggingface.co, and leave the architecture out"
        )
    return known
