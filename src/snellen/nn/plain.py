"""Small networks from a few words, for teaching and comparing: logistic regression, MLP, plain CNN."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from snellen.core.errors import ConfigError
from snellen.nn.activations import ACTIVATIONS
from snellen.nn.catalog import PlainNet
from snellen.nn.norms import NORMS


class Logistic(nn.Module):
    """images float [n, 3, side, side] -> the same numbers as features [n, 3 * side * side]; the head does the rest."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.num_features = 3 * side * side

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


class MLP(nn.Module):
    """images float [n, 3, side, side] -> features [n, last width], by a linear layer, norm and activation a width.

    Dropout stands between the layers; after the last one it is the head's.
    """

    def __init__(self, side: int, widths: tuple[int, ...], norm: str, activation: str, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3 * side * side
        for i, width in enumerate(widths):
            if i > 0 and dropout > 0:
                # Ordinary dropout would undo what SELU normalises (Klambauer et al. 2017).
                layers.append(nn.AlphaDropout(dropout) if activation == "selu" else nn.Dropout(dropout))
            layers.append(nn.Linear(inputs, width, bias=norm == "none"))
            layers += _norm_and_activation(nn.BatchNorm1d(width), norm, activation)
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.num_features = inputs
        _initialise(self, activation)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images.flatten(1))
        return features


class CNN(nn.Module):
    """images float [n, 3, h, w] -> features [n, last width], the mean over places.

    For each width a 3 x 3 convolution, norm, activation, and the largest of each 2 x 2 places.
    """

    def __init__(self, widths: tuple[int, ...], norm: str, activation: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width in widths:
            layers.append(nn.Conv2d(inputs, width, 3, padding=1, bias=norm == "none"))
            layers += _norm_and_activation(nn.BatchNorm2d(width), norm, activation)
            layers.append(nn.MaxPool2d(2))
            inputs = width
        self.layers = nn.Sequential(*layers)
        self.num_features = inputs
        _initialise(self, activation)

    def forward(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self.layers(images), 1).flatten(1)


def create_plain_net(net: PlainNet, *, side: int, norm: str, activation: str, dropout: float) -> nn.Module:
    """``side`` of the input in pixels. 'auto' is batch norm and ReLU. Raises ConfigError for what cannot be built."""
    given = {"norm": norm, "activation": activation}
    if net.kind == "logistic":
        asked = [name for name, value in given.items() if value not in ("auto", "none")]
        if asked:
            raise ConfigError(f"{asked[0]} = '{given[asked[0]]}' has no layer to act on in 'logistic': leave it out")
        return Logistic(side)
    norm, activation = ("batch" if norm == "auto" else norm), ("relu" if activation == "auto" else activation)
    if net.kind == "mlp":
        if norm == "instance":
            raise ConfigError("norm = 'instance' averages over places, and an MLP has none: use batch, layer or group")
        return MLP(side, net.widths, norm, activation, dropout)
    most = side.bit_length() - 1
    if len(net.widths) > most:
        raise ConfigError(
            f"model = '{net.name}' halves the image {len(net.widths)} times, and {side} pixels can be halved {most} "
            "times: give fewer widths or a larger input_size"
        )
    return CNN(net.widths, norm, activation)


def _norm_and_activation(batch_norm: nn.BatchNorm1d | nn.BatchNorm2d, norm: str, activation: str) -> list[nn.Module]:
    return [*([] if norm == "none" else [NORMS[norm](batch_norm)]), ACTIVATIONS[activation]()]


def _he(weight: Tensor) -> None:
    nn.init.kaiming_normal_(weight, nonlinearity="relu")


def _lecun(weight: Tensor) -> None:
    nn.init.kaiming_normal_(weight, nonlinearity="linear")


# The variance of each activation's input stays the same from layer to layer: He et al. 2015 (arXiv:1502.01852) for the
# family of ReLU, Glorot & Bengio 2010 ("Xavier") for those that are straight around zero, LeCun et al. 1998 ("Efficient
# BackProp") for SELU, whose own paper asks for it.
_INITIALISERS: Mapping[str, Callable[[Tensor], object]] = {
    "sigmoid": nn.init.xavier_normal_,
    "tanh": nn.init.xavier_normal_,
    "none": nn.init.xavier_normal_,
    "selu": _lecun,
}


def _initialise(net: nn.Module, activation: str) -> None:
    """Weights by the activation, biases zero."""
    for layer in net.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            _INITIALISERS.get(activation, _he)(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
