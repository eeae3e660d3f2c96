"""Backbones by name: our own, torchvision's two classics, and every model of timm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

from torch import Tensor, nn

from snellen.core.errors import ConfigError, WeightsError
from snellen.nn import pretrained as weights
from snellen.nn.catalog import (
    EMBEDDED_MODEL,
    SMALL_RESNET,
    Provenance,
    architecture,
    is_from_scratch,
    plain_net,
    timm_config,
)
from snellen.nn.hub import without_waiting

UNTRAINED = Provenance("none: trained from scratch", "none")


def create_backbone(
    name: str, *, input_size: int, norm: str = "auto", activation: str = "auto", dropout: float = 0.0
) -> nn.Module:
    """A backbone with random weights: images [n, 3, input_size, input_size] -> pooled features [n, num_features].

    norm, activation   by their names in nn.norms and nn.activations; 'auto': as published
    dropout            between the layers of an MLP; what stands before the head is the head's

    Raises ConfigError for an unknown name, and for a norm or an activation that has nothing to act on.
    """
    plain = plain_net(name)
    if plain is not None:
        from snellen.nn.plain import create_plain_net

        return create_plain_net(plain, side=input_size, norm=norm, activation=activation, dropout=dropout)
    backbone = _as_published(name, input_size)
    swap_layers(backbone, name, norm, activation)
    return backbone


def swap_layers(backbone: nn.Module, name: str, norm: str, activation: str) -> None:
    """Swap norms and activations as asked. Raises ConfigError where there is nothing to swap."""
    if norm != "auto":
        from snellen.nn.norms import replace_norms

        if not replace_norms(backbone, norm):
            raise ConfigError(f"norm = '{norm}' has nothing to act on: '{name}' has no batch norms; leave it out")
    if activation != "auto":
        from snellen.nn.activations import replace_activations

        if not replace_activations(backbone, activation):
            raise ConfigError(
                f"activation = '{activation}' has nothing to act on: '{name}' calls its activations as functions; "
                "leave it out, or use another model"
            )


def _as_published(name: str, input_size: int) -> nn.Module:
    if name == SMALL_RESNET:
        from snellen.nn.small_resnet import SmallResNet

        return SmallResNet(input_size)
    if name == EMBEDDED_MODEL:
        from snellen.nn.efficientnet_lite import EfficientNetLite0

        return EfficientNetLite0()
    known = architecture(name)
    return _LIBRARIES[known.library](known.model, input_size)


def _create_timm(model: str, input_size: int, *, pretrained: bool = False) -> nn.Module:
    import timm

    resized: dict[str, Any] = {"img_size": input_size} if timm_config(model).fixed_input_size else {}
    backbone: nn.Module = timm.create_model(model, pretrained=pretrained, num_classes=0, **resized)
    # VGG and MobileNetV3 have layers between the pooled features and the classifier; timm calls what leaves these so.
    backbone.num_features = getattr(backbone, "head_hidden_size", backbone.num_features)
    backbone.input_size = input_size  # type: ignore[assignment]
    return backbone


# The layer that is cut off, which leaves AlexNet its 4096 features, and torchvision's settings. The weights of
# GoogLeNet want what transform_input makes of images standardised as ImageNet's.
_CUTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "alexnet": ("classifier.6", {}),
    "googlenet": ("fc", {"aux_logits": False, "transform_input": True, "init_weights": True}),
}


def _create_torchvision(model: str, input_size: int) -> nn.Module:
    from torchvision.models import get_model

    cut, settings = _CUTS[model]
    backbone: nn.Module = get_model(model, weights=None, **settings)
    backbone.num_features = backbone.get_submodule(cut).in_features
    backbone.set_submodule(cut, nn.Identity())
    return backbone


_LIBRARIES: Mapping[str, Callable[[str, int], nn.Module]] = {"timm": _create_timm, "torchvision": _create_torchvision}


def load_pretrained(backbone: nn.Module, name: str, *, file: str | None, pretrained: bool) -> Provenance:
    """Fill ``backbone`` with weights and say where they come from. Raises WeightsError."""
    if file is not None:
        return weights.load_local(backbone, Path(file))
    if not pretrained or is_from_scratch(name):
        return UNTRAINED
    if name == EMBEDDED_MODEL:
        return weights.load_embedded(backbone)
    return _DOWNLOADS[architecture(name).library](backbone, name)


def _download_timm(backbone: nn.Module, name: str) -> Provenance:
    state, provenance = download_timm(name, int(backbone.input_size))  # type: ignore[arg-type]
    weights.fit_weights(backbone, state, provenance.source)
    return provenance


def download_timm(name: str, input_size: int) -> tuple[Mapping[str, Tensor], Provenance]:
    """timm's own weights of the pooled network, from their hub, kept in the hub's cache. Raises WeightsError."""
    import timm

    model, config = architecture(name).model, timm_config(name)
    if not (config.hf_hub_id or config.url or config.file):
        known = timm.list_pretrained(f"{model.split('.')[0]}*")[:3]
        raise WeightsError(
            f"timm has no pretrained weights for '{name}'"
            + (f"; it has {', '.join(known)}" if known else "")
            + ": use --weights FILE or --no-pretrained"
        )
    try:
        with without_waiting():
            # A network as published takes them: timm fits position embeddings to its size, and knows nothing of
            # layers that were swapped in.
            published = _create_timm(model, input_size, pretrained=True)
    except Exception as error:  # the hub's client raises many kinds
        raise _not_downloaded(name, error) from None
    source = f"timm's {config.hf_hub_id or config.url}"
    return published.state_dict(), Provenance(source, str(config.license or "not stated by timm"))


def _download_torchvision(backbone: nn.Module, name: str) -> Provenance:
    """torchvision's own weights from its server, checked against the hash in their name, kept in torch.hub's cache."""
    from torchvision.models import get_model_weights

    published = get_model_weights(architecture(name).model).DEFAULT
    try:
        state = published.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # of the network, of the disk, of torch's reader
        raise _not_downloaded(name, error) from None
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("aux")}  # GoogLeNet's side heads
    source = f"torchvision's {published} ({published.url})"
    weights.fit_weights(backbone, kept, source)
    return Provenance(source, "not stated for the weights; torchvision is BSD-3-Clause")


_DOWNLOADS: Mapping[str, Callable[[nn.Module, str], Provenance]] = {
    "timm": _download_timm,
    "torchvision": _download_torchvision,
}


def _not_downloaded(name: str, error: Exception) -> WeightsError:
    cause = shorten(str(error), 150, placeholder=" ...")
    return WeightsError(
        f"cannot download the weights of '{name}' ({cause}): use --weights FILE, --no-pretrained, or --model "
        f"{EMBEDDED_MODEL}, whose weights are built in"
    )
