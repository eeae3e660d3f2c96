"""Which networks for pixels there are, and which backbones each of them fits. No torch: settings are checked early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from snellen.core.errors import ConfigError, did_you_mean
from snellen.nn.catalog import EMBEDDED_MODEL, architecture, is_from_scratch

Needs = Literal["maps", "a pyramid", "dilation", "blocks", "a VGG"]

VGGS = ("vgg16_bn", "vgg11_bn", "vgg13_bn", "vgg19_bn")


@dataclass(frozen=True, slots=True)
class PixelArchitecture:
    """A published way from an image to a class for each pixel.

    paper, year  of the network
    needs        of the backbone: any 'maps'; 'a pyramid' of them, each half as fine as the one before, down to 1/32;
                 one whose last maps can be kept fine by 'dilation'; 'blocks' that can be looked into; 'a VGG'
    library      'snellen', or 'smp': segmentation-models-pytorch, of the extra 'seg'
    model        its name there; empty for our own
    """

    paper: str
    year: int
    needs: Needs
    library: str = "snellen"
    model: str = ""


ARCHITECTURES: Mapping[str, PixelArchitecture] = {
    "unet": PixelArchitecture("Ronneberger et al., arXiv:1505.04597", 2015, "maps"),
    "fcn": PixelArchitecture("Long et al., arXiv:1411.4038", 2015, "maps"),
    "segnet": PixelArchitecture("Badrinarayanan et al., arXiv:1511.00561", 2015, "a VGG"),
    # Without the indices of its poolings, which few runtimes can use.
    "segnet-repeat": PixelArchitecture("after Badrinarayanan et al., arXiv:1511.00561", 2015, "a VGG"),
    "unet++": PixelArchitecture("Zhou et al., arXiv:1807.10165", 2018, "a pyramid", "smp", "unetplusplus"),
    "manet": PixelArchitecture("Fan et al., doi:10.1109/ACCESS.2020.3025372", 2020, "a pyramid", "smp", "manet"),
    "linknet": PixelArchitecture("Chaurasia & Culurciello, arXiv:1707.03718", 2017, "a pyramid", "smp", "linknet"),
    "fpn": PixelArchitecture("Kirillov et al., arXiv:1901.02446", 2019, "a pyramid", "smp", "fpn"),
    "pspnet": PixelArchitecture("Zhao et al., arXiv:1612.01105", 2016, "a pyramid", "smp", "pspnet"),
    "deeplabv3": PixelArchitecture("Chen et al., arXiv:1706.05587", 2017, "dilation", "smp", "deeplabv3"),
    "deeplabv3+": PixelArchitecture("Chen et al., arXiv:1802.02611", 2018, "dilation", "smp", "deeplabv3plus"),
    "pan": PixelArchitecture("Li et al., arXiv:1805.10180", 2018, "dilation", "smp", "pan"),
    "upernet": PixelArchitecture("Xiao et al., arXiv:1807.10221", 2018, "a pyramid", "smp", "upernet"),
    "segformer": PixelArchitecture("Xie et al., arXiv:2105.15203", 2021, "a pyramid", "smp", "segformer"),
    "dpt": PixelArchitecture("Ranftl et al., arXiv:2103.13413", 2021, "blocks", "smp", "dpt"),
}

# By the module of timm that a model is from, tried one by one (timm 1.0.31).
_DILATABLE = frozenset(
    "byoanet byobnet convnext cspnet cspnext efficientnet hardcorenas inception_next mobilenetv3 mobilevit nfnet "
    "regnet res2net resnest resnet resnetv2 rexnet sknet xception_aligned".split()
)
_NO_PYRAMID = frozenset(
    "beit cait convit convmixer crossvit csatv2 deepseek_vit deit efficientvim efficientvit_msra eva gemma4_vit levit "
    "mlp_mixer naflexvit nest pit qwen3_vit sequencer shvit tnt visformer vision_transformer vision_transformer_hybrid "
    "vision_transformer_relpos vision_transformer_sam vitamin volo xcit".split()
)


def check_fit(name: str, model_name: str) -> None:
    """Raises ConfigError where an architecture is unknown, or cannot stand on a backbone, with what can.

    A backbone that is in no table is taken to fit: building says whether it does.
    """
    if name not in ARCHITECTURES:
        raise ConfigError(f"architecture = '{name}' is not known{did_you_mean(name, ARCHITECTURES)}")
    wanted = ARCHITECTURES[name]
    if wanted.needs == "a VGG":
        if model_name not in VGGS:
            raise misfit(name, model_name, "its encoder is a VGG with batch norm")
    elif wanted.library == "smp":
        _check_timm(name, model_name, wanted.needs)


def _check_timm(name: str, model_name: str, needs: Needs) -> None:
    if is_from_scratch(model_name) or architecture(model_name).library != "timm":
        raise misfit(name, model_name, "it stands on networks of timm")
    module = _module(model_name)
    if needs in ("a pyramid", "dilation") and module in _NO_PYRAMID:
        raise misfit(name, model_name, "it needs maps each half as fine as the one before")
    if needs == "dilation" and module not in _DILATABLE:
        raise misfit(name, model_name, "it needs a network whose convolutions can be dilated")


def misfit(name: str, model_name: str, reason: str) -> ConfigError:
    """The error that names an architecture for this backbone, and a backbone for this architecture."""
    known = is_from_scratch(model_name) or architecture(model_name).library != "timm"
    other = "dpt" if not known and name != "dpt" and _module(model_name) in _NO_PYRAMID else "unet"
    model = VGGS[0] if ARCHITECTURES[name].needs == "a VGG" else EMBEDDED_MODEL
    return ConfigError(
        f"architecture = '{name}' does not fit model = '{model_name}' ({reason}): use architecture = '{other}' with "
        f"this model, or model = '{model}' with this architecture"
    )


def _module(model_name: str) -> str:
    """The module of timm that a model is from; empty for a name that timm does not know."""
    if model_name == EMBEDDED_MODEL:  # timm's import takes longer than all else here
        return "efficientnet"
    import timm

    base = architecture(model_name).model.partition(".")[0]
    return timm.model_entrypoint(base).__module__.rpartition(".")[2] if timm.is_model(base) else ""
