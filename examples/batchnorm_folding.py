"""A trained batch norm, folded into the convolution before it, gives equal outputs.

    trained     y = gamma (w * x + c - mean) / sqrt(var + eps) + beta        mean, var: kept from training
    folded      y = w' * x + b'    w' = w gamma / sqrt(var + eps)    b' = beta + (c - mean) gamma / sqrt(var + eps)

In training mode the mean and the variance are those of the batch at hand instead, so what a network says of an image
depends on the image's company. That is why it is put into evaluation mode before it is used.

To be seen: a small CNN trained on the digits says the same folded, up to rounding; in training mode it says something
else, the more so the smaller the batch.

Source: S. Ioffe and C. Szegedy, Batch Normalization, 2015 (arXiv:1502.03167), algorithm 2.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from snellen.api.places import default_cache
from snellen.data.formats import read
from snellen.data.image import decode
from snellen.data.samples import sample
from snellen.draw.chart import SERIES
from snellen.draw.panels import key, panels
from snellen.nn.plain import CNN

BATCHES = (2, 4, 8, 16, 32, 64, 128, 256)


def digits() -> tuple[Tensor, Tensor]:
    """(images [n, 3, 8, 8], -1..1, classes [n]) in an order without meaning."""
    listing = read(sample("digits", default_cache()))
    order = np.random.default_rng(0).permutation(len(listing.records))
    records = [listing.records[i] for i in order]
    pixels = np.stack([decode(record.path) for record in records]).transpose(0, 3, 1, 2)
    return torch.tensor(pixels).float() / 127.5 - 1, torch.tensor([int(record.labels[0]) for record in records])


def train(net: nn.Module, images: Tensor, classes: Tensor, epochs: int) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(epochs):
        for start in range(0, len(images), 32):
            batch, truth = images[start : start + 32], classes[start : start + 32]
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(batch), truth).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


@torch.no_grad()
def fold(layers: nn.Sequential) -> nn.Sequential:
    """A copy of the layers in which each batch norm has gone into the convolution before it."""
    layers = copy.deepcopy(layers).eval()
    folded: set[nn.Module] = set()
    for conv, norm in pairwise(layers):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            assert norm.running_var is not None and norm.running_mean is not None
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            before = torch.zeros_like(scale) if conv.bias is None else conv.bias
            conv.bias = nn.Parameter(norm.bias + (before - norm.running_mean) * scale)
            conv.weight.mul_(scale[:, None, None, None])
            folded.add(norm)
    return nn.Sequential(*(layer for layer in layers if layer not in folded))


@torch.no_grad()
def in_training_mode(net: nn.Module, images: Tensor, batch: int) -> Tensor:
    """What the network says when each batch is normalised by its own mean and variance."""
    whole = images[: len(images) // batch * batch]
    parts = whole.reshape(-1, batch, *images.shape[1:])
    return torch.cat([copy.deepcopy(net).train()(part) for part in parts])


def run(out: Path, *, seed: int = 0, epochs: int = 3) -> dict[str, float]:
    """Draw ``out/batchnorm_folding.png`` and return the numbers."""
    torch.set_num_threads(1)  # pictures of 8 x 8 are not worth sharing out
    torch.manual_seed(seed)
    images, classes = digits()
    features = CNN((32, 64), "batch", "relu")
    net = nn.Sequential(*features.layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    train(net, images[:1280], classes[:1280], epochs)
    images = images[1280:]
    net.eval()
    exact = copy.deepcopy(net).double()
    with torch.no_grad():
        logits, logits_folded = net(images), fold(net)(images)
        rounding = (exact(images.double()) - fold(exact)(images.double())).abs().max()
    numbers = {"float32": float((logits - logits_folded).abs().max()), "float64": float(rounding)}
    for name, number in numbers.items():
        print(f"folded, in {name}: logits differ by {number:.1e} at most")
    title = "Folding a trained batch norm changes nothing; training mode changes the answers"
    with panels(out / "batchnorm_folding.png", title, columns=2, height=420) as (left, right):
        trained = in_training_mode(net, images, 4)
        left.plot(logits[: len(trained)].ravel(), trained.ravel(), ".", markersize=3, color=SERIES[1], alpha=0.4)
        left.plot(logits.ravel(), logits_folded.ravel(), ".", markersize=3, color=SERIES[0])
        for colour, label in ((SERIES[0], "batch norms folded"), (SERIES[1], "training mode, batches of 4")):
            left.plot([], [], "o", color=colour, label=label)
        left.set(xlabel="logits in evaluation mode", ylabel="logits otherwise")
        changed = []
        for batch in BATCHES:
            trained = in_training_mode(net, images, batch)
            changed.append(float((trained.argmax(1) != logits[: len(trained)].argmax(1)).double().mean()))
            numbers[f"answers changed, batches of {batch}"] = changed[-1]
            print(f"training mode, batches of {batch:3}: {100 * changed[-1]:4.1f} % of the answers change")
        right.plot(BATCHES, [100 * share for share in changed], "o-", color=SERIES[1], label="training mode")
        same = float((logits.argmax(1) != logits_folded.argmax(1)).double().mean())
        right.plot(BATCHES, [100 * same] * len(BATCHES), color=SERIES[0], label="batch norms folded")
        right.set(xlabel="images in a batch", ylabel="answers that change, %", xscale="log", xticks=BATCHES)
        for axes in (left, right):
            axes.grid()
            key(axes)
    return numbers


if __name__ == "__main__":
    run(Path("runs/lab"))
