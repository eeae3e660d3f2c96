"""Learning rates side by side: too small, good, too large.

    w <- w - rate dC/dw

The network, its start and its batches are the same; only the length of the step differs. A step along the slope is
right as long as the slope holds: on a cost that bends like c w^2 / 2 it multiplies w by 1 - rate c, so rates far below
1 / c creep, and rates above 2 / c move away from the minimum. A network has many such c at once; the best rate is just
below the one at which the steepest direction blows up.

To be seen: on the left, losses that creep, fall, and explode; on the right, the accuracy on new images over the rate:
it rises with the rate for two powers of ten, and then breaks off.

Source: Y. LeCun, L. Bottou, G. Orr and K.-R. Müller, Efficient BackProp, 1998, section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from snellen.api.places import default_cache
from snellen.data.formats import read
from snellen.data.image import decode
from snellen.data.samples import sample
from snellen.draw.chart import DASHES, SERIES
from snellen.draw.panels import key, panels
from snellen.nn.plain import MLP

RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
SHOWN = {0.001: "too small", 0.1: "good", 3.0: "too large"}
NUM_TRAIN = 1280


def digits() -> tuple[Tensor, Tensor]:
    """(images [n, 3, 8, 8], -1..1, classes [n]) in an order without meaning."""
    listing = read(sample("digits", default_cache()))
    order = np.random.default_rng(0).permutation(len(listing.records))
    records = [listing.records[i] for i in order]
    pixels = np.stack([decode(record.path) for record in records]).transpose(0, 3, 1, 2)
    return torch.tensor(pixels).float() / 127.5 - 1, torch.tensor([int(record.labels[0]) for record in records])


def train(rate: float, images: Tensor, classes: Tensor, epochs: int, seed: int) -> tuple[list[float], nn.Module]:
    """Plain stochastic gradient descent -> (the loss of each step, the network)."""
    torch.manual_seed(seed)
    features = MLP(8, (64, 64), "none", "relu", 0.0)
    net = nn.Sequential(features, nn.Linear(features.num_features, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    losses = []
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed + epoch))
        for chosen in order.split(32):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(images[chosen]), classes[chosen])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses, net


def run(out: Path, *, seed: int = 0, epochs: int = 8, rates: Sequence[float] = RATES) -> dict[str, float]:
    """Draw ``out/rates.png`` and return the accuracy on new images by rate."""
    torch.set_num_threads(1)  # the net is too small to be shared out
    images, classes = digits()
    numbers = {}
    title = "The best learning rate is just below the one at which training blows up"
    with panels(out / "rates.png", title, columns=2) as (left, right):
        for rate in rates:
            losses, net = train(rate, images[:NUM_TRAIN], classes[:NUM_TRAIN], epochs, seed)
            with torch.no_grad():
                right_ones = net(images[NUM_TRAIN:]).argmax(dim=1) == classes[NUM_TRAIN:]
            numbers[f"{rate:g}"] = float(right_ones.double().mean())
            print(f"rate {rate:6g}: loss {losses[0]:.2f} -> {losses[-1]:.3g}, {100 * numbers[f'{rate:g}']:.1f} % right")
            if rate in SHOWN:
                i = list(SHOWN).index(rate)
                smooth = np.convolve(losses, np.full(10, 0.1), mode="valid")
                label = f"{rate:g}: {SHOWN[rate]}"
                left.plot(smooth, color=SERIES[i], linestyle=DASHES[i], label=label)
        left.set(xlabel="step", ylabel="loss, mean of 10 steps", yscale="log")
        right.plot(rates, [100 * accuracy for accuracy in numbers.values()], "o-", color=SERIES[0])
        right.axhline(10, color=SERIES[5], linewidth=1, linestyle=DASHES[2])
        right.annotate("guessing", (rates[0], 10), (0, 4), textcoords="offset points")
        right.set(xlabel="learning rate", ylabel="new images answered right, %", xscale="log", ylim=(0, 102))
        for axes in (left, right):
            axes.grid(axis="y")
        key(left, columns=3)
    return numbers


if __name__ == "__main__":
    run(Path("runs/lab"))
