"""Which backbones there are and what their weights expect. No torch: the data is read before the network is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from snellen.core.errors import ConfigError, did_you_mean

SMALL_RESNET = "small-resnet"
EMBEDDED_MODEL = "tf_efficientnet_lite0"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where weights come from and under which licence, as the user is told."""

    source: str
    license: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneFacts:
    """What a backbone's weights were trained with; sizes are sides in pixels."""

    input_size: int
    fixed_size: bool
    crop_fraction: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_EMBEDDED_FACTS = BackboneFacts(
    input_size=224, fixed_size=False, crop_fraction=0.875, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)


def backbone_facts(name: str) -> BackboneFacts | None:
    """None for a network without pretrained weights. Raises ConfigError for an unknown name, with the nearest one."""
    if name == SMALL_RESNET:
        return None
    if name == EMBEDDED_MODEL:
        return _EMBEDDED_FACTS
    config = timm_config(name)
    return BackboneFacts(
        input_size=config.input_size[-1],
        fixed_size=bool(config.fixed_input_size),
        crop_fraction=config.crop_pct,
        mean=tuple(config.mean),
        std=tuple(config.std),
    )


def timm_config(name: str) -> Any:
    """timm's PretrainedCfg of a model. Raises ConfigError for an unknown name."""
    import timm

    known = [*timm.list_models(), SMALL_RESNET]
    if name.split(".")[0] not in known:
        raise ConfigError(f"model = '{name}' is not known{did_you_mean(name, known)}")
    return timm.models.get_pretrained_cfg(name)
