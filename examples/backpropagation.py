"""Backpropagation's four equations, written out in numpy, against autograd.

For a network a[l] = s(z[l]), z[l] = W[l] a[l-1] + b[l] with the cost C = |a[L] - y|^2 / 2, averaged over a batch:

    BP1  d[L] = (a[L] - y) * s'(z[L])             the error of the last layer
    BP2  d[l] = (W[l+1]^T d[l+1]) * s'(z[l])      the error of a layer from that of the next
    BP3  dC/db[l] = d[l]
    BP4  dC/dW[l] = d[l] a[l-1]^T

To be seen: every gradient lies on the diagonal; and BP2 multiplies by s', which for the sigmoid is at most 1/4, so the
error dwindles on its way back (the vanishing gradient). With ReLU, whose slope is 0 or 1, it does not.

Source: M. Nielsen, Neural Networks and Deep Learning, 2015, chapter 2 (the equations) and 5 (vanishing gradients).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snellen.draw.chart import DASHES, SERIES
from snellen.draw.panels import key, panels

Array = NDArray[np.float64]
Layers = list[tuple[Array, Array]]  # (W [outputs, inputs], b [outputs, 1]) of each
SIZES = (8, 24, 24, 24, 24, 24, 4)


def sigmoid(z: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-z)))


Function = Callable[[Array], Array]
ACTIVATIONS: dict[str, tuple[Function, Function, Callable[[Tensor], Tensor]]] = {
    "sigmoid": (sigmoid, lambda z: sigmoid(z) * (1 - sigmoid(z)), torch.sigmoid),
    "ReLU": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(float), torch.relu),
}


def make_layers(sizes: Sequence[int], rng: np.random.Generator) -> Layers:
    """Weights as He et al. (2015) draw them, and small biases."""
    return [(rng.normal(0, np.sqrt(2 / m), (n, m)), rng.normal(0, 0.1, (n, 1))) for m, n in pairwise(sizes)]


def backpropagate(layers: Layers, x: Array, y: Array, name: str) -> tuple[list[Array], Layers]:
    """x [inputs, n], y [outputs, n] -> (the errors d[l] [outputs of l, n], (dC/dW, dC/db)) of each layer."""
    activation, slope, _ = ACTIVATIONS[name]
    zs: list[Array] = []
    outputs = [x]
    for weight, bias in layers:
        zs.append(weight @ outputs[-1] + bias)
        outputs.append(activation(zs[-1]))
    errors = [(outputs[-1] - y) * slope(zs[-1])]  # BP1
    for (weight, _), z in zip(layers[:0:-1], zs[-2::-1], strict=True):
        errors.insert(0, (weight.T @ errors[0]) * slope(z))  # BP2
    n = x.shape[1]
    gradients = [
        (error @ before.T / n, error.mean(axis=1, keepdims=True))  # BP4, BP3
        for error, before in zip(errors, outputs[:-1], strict=True)
    ]
    return errors, gradients


def by_autograd(layers: Layers, x: Array, y: Array, name: str) -> Layers:
    """The same gradients from torch, which is told the forward pass only."""
    tensors = [tuple(torch.tensor(part, requires_grad=True) for part in layer) for layer in layers]
    a = torch.tensor(x)
    for weight, bias in tensors:
        a = ACTIVATIONS[name][2](weight @ a + bias)
    (((a - torch.tensor(y)) ** 2).sum(dim=0) / 2).mean().backward()  # type: ignore[no-untyped-call]
    return [(weight.grad.numpy(), bias.grad.numpy()) for weight, bias in tensors]  # type: ignore[union-attr]


def run(out: Path, *, seed: int = 0, sizes: Sequence[int] = SIZES, batch: int = 32) -> dict[str, float]:
    """Draw ``out/backpropagation.png`` and return the numbers."""
    rng = np.random.default_rng(seed)
    layers = make_layers(sizes, rng)
    x, y = rng.normal(size=(sizes[0], batch)), rng.uniform(size=(sizes[-1], batch))
    numbers: dict[str, float] = {}
    title = "Four equations give autograd's gradients; under the sigmoid the error dwindles layer by layer"
    with panels(out / "backpropagation.png", title, columns=2) as (left, right):
        for i, name in enumerate(ACTIVATIONS):
            errors, mine = backpropagate(layers, x, y, name)
            theirs = by_autograd(layers, x, y, name)
            ours, true = (np.concatenate([part.ravel() for layer in each for part in layer]) for each in (mine, theirs))
            worst = float(np.abs(ours - true).max())
            lengths = [float(np.linalg.norm(error, axis=0).mean()) for error in errors]
            numbers[f"largest difference from autograd, {name}"] = worst
            numbers[f"first layer's error as a share of the last's, {name}"] = lengths[0] / lengths[-1]
            label = f"{name}: {len(ours):,} gradients, differ by {worst:.0e} at most"
            left.plot(true, ours, "x+"[i], markersize=7 - 2 * i, color=SERIES[i], zorder=3 - i, label=label)
            right.plot(range(1, len(layers) + 1), lengths, "o", linestyle=DASHES[i], color=SERIES[i], label=name)
            print(f"{name}: {label.partition(': ')[2]}")
            print(f"  the error of layer 1 is {lengths[0] / lengths[-1]:.2g} times that of layer {len(layers)}")
        left.set(xlabel="gradient by autograd", ylabel="gradient by BP1 to BP4")
        right.set(xlabel="layer", ylabel="length of the error d[l]", yscale="log", xticks=range(1, len(layers) + 1))
        for axes in (left, right):
            axes.grid()
            key(axes)
    return numbers


if __name__ == "__main__":
    run(Path("runs/lab"))
