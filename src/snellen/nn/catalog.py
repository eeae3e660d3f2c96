"""Which backbones there are and what their weights expect. No torch: the data is read before the network is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from snellen.core.errors import ConfigError, did_you_mean
from snellen.nn.published import Published, is_published, read_published

SMALL_RESNET = "small-resnet"
EMBEDDED_MODEL = "tf_efficientnet_lite0"
SMALLEST_BATCH_FOR_BATCH_NORM = 16  # images; Wu & He 2018 (arXiv:1803.08494): 8 already cost ResNet-50 a point

_PLAIN_EXAMPLES = {"logistic": "logistic", "mlp": "mlp:256,128", "cnn": "cnn:32,64,128"}
_WIDEST, _MOST_WIDTHS = 4096, 16


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


@dataclass(frozen=True, slots=True)
class Architecture:
    """A published network under its plain name: whose code and weights, and the paper of just this version."""

    library: str  # 'timm' or 'torchvision'
    model: str
    paper: str
    year: int


@dataclass(frozen=True, slots=True)
class PlainNet:
    """``mlp:256,128`` is (``mlp``, (256, 128)); ``logistic`` has no widths."""

    kind: str
    widths: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.kind + (f":{','.join(map(str, self.widths))}" if self.widths else "")


_VGG = ("Simonyan & Zisserman, arXiv:1409.1556", 2014)
_RESNET = ("He et al., arXiv:1512.03385", 2015)

ARCHITECTURES: Mapping[str, Architecture] = {
    # One tower instead of two, so without the local response norms of Krizhevsky et al. 2012.
    "alexnet": Architecture("torchvision", "alexnet", "Krizhevsky, arXiv:1404.5997", 2014),
    "vgg16": Architecture("timm", "vgg16", *_VGG),
    "vgg19": Architecture("timm", "vgg19", *_VGG),
    "googlenet": Architecture("torchvision", "googlenet", "Szegedy et al., arXiv:1409.4842", 2014),
    "inception": Architecture("timm", "inception_v3", "Szegedy et al., arXiv:1512.00567", 2015),
    "resnet": Architecture("timm", "resnet50", *_RESNET),
    "resnet18": Architecture("timm", "resnet18", *_RESNET),
    "resnet152": Architecture("timm", "resnet152", *_RESNET),
    "densenet": Architecture("timm", "densenet121", "Huang et al., arXiv:1608.06993", 2016),
    "mobilenetv2": Architecture("timm", "mobilenetv2_100", "Sandler et al., arXiv:1801.04381", 2018),
    "efficientnet": Architecture("timm", "efficientnet_b0", "Tan & Le, arXiv:1905.11946", 2019),
    "resnest": Architecture("timm", "resnest50d", "Zhang et al., arXiv:2004.08955", 2020),
    "vit": Architecture("timm", "vit_small_patch16_224", "Dosovitskiy et al., arXiv:2010.11929", 2020),
    "deit": Architecture("timm", "deit_small_patch16_224", "Touvron et al., arXiv:2012.12877", 2020),
}

_EMBEDDED_FACTS = BackboneFacts(
    input_size=224, fixed_size=False, crop_fraction=0.875, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)
# Of torchvision's AlexNet and GoogLeNet; a test holds them to the library, whose import is slow.
_TORCHVISION_FACTS = BackboneFacts(
    input_size=224, fixed_size=False, crop_fraction=0.875, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)


def suggest_norm(batch_size: int) -> str:
    """'group' where batches are too small for the statistics of 'batch' (Wu & He 2018)."""
    return "batch" if batch_size >= SMALLEST_BATCH_FOR_BATCH_NORM else "group"


def is_from_scratch(name: str) -> bool:
    """True for the networks that have no pretrained weights and take images at their own size, 64 pixels at most."""
    return name == SMALL_RESNET or name.partition(":")[0] in _PLAIN_EXAMPLES


def plain_net(name: str) -> PlainNet | None:
    """None for a name of another kind of network. Raises ConfigError for widths that are missing or wrong."""
    kind, colon, given = name.partition(":")
    if kind not in _PLAIN_EXAMPLES:
        return None
    if kind == "logistic":
        if colon:
            raise ConfigError(f"model = '{name}': logistic regression has no layers, so no widths: write 'logistic'")
        return PlainNet(kind, ())
    words = [word.strip() for word in given.split(",")]
    wrong = [word for word in words if not (word.isascii() and word.isdigit() and 1 <= int(word) <= _WIDEST)]
    if wrong or len(words) > _MOST_WIDTHS:
        told = f"{len(words)} layers are too many"
        if wrong:
            told = f"'{wrong[0]}' is no width" if wrong[0] else "a width is missing"
        raise ConfigError(
            f"model = '{name}': {told}: give 1 to {_MOST_WIDTHS} whole numbers from 1 to {_WIDEST}, as in "
            f"'{_PLAIN_EXAMPLES[kind]}'"
        )
    return PlainNet(kind, tuple(int(word) for word in words))


def backbone_facts(name: str) -> BackboneFacts | None:
    """None for a network without pretrained weights.

    Raises ConfigError for an unknown name, with the nearest one; WeightsError as ``read_published``.
    """
    if is_published(name):
        return _of_published(read_published(name))
    if name == SMALL_RESNET or plain_net(name) is not None:
        return None
    if name == EMBEDDED_MODEL:
        return _EMBEDDED_FACTS
    if architecture(name).library == "torchvision":
        return _TORCHVISION_FACTS
    config = timm_config(name)
    return BackboneFacts(
        input_size=config.input_size[-1],
        fixed_size=bool(config.fixed_input_size),
        crop_fraction=config.crop_pct,
        mean=tuple(config.mean),
        std=tuple(config.std),
    )


def _of_published(known: Published) -> BackboneFacts:
    return BackboneFacts(
        input_size=max(known.input_size), fixed_size=True, crop_fraction=1.0, mean=known.mean, std=known.std
    )


def architecture(name: str) -> Architecture:
    """The entry of a plain name; any other is taken for timm's own."""
    return ARCHITECTURES.get(name) or Architecture("timm", name, "", 0)


def timm_config(name: str) -> Any:
    """timm's PretrainedCfg of a model, by its plain name or timm's own. Raises ConfigError for an unknown name."""
    import timm

    model = architecture(name).model
    models = timm.list_models()
    base, dot, tag = model.partition(".")
    if base not in models:
        known = [*models, *ARCHITECTURES, SMALL_RESNET, *_PLAIN_EXAMPLES.values()]
        raise ConfigError(f"model = '{name}' is not known{did_you_mean(name, known)}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}.*")]
    if dot and tag not in tags:
        raise ConfigError(f"model = '{name}': timm has no weights of that name{did_you_mean(tag, tags)}")
    return timm.models.get_pretrained_cfg(model)
