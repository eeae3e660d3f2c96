"""Two spirals: without an activation the border is straight, with one it winds.

Two layers without an activation in between are one: W2 (W1 x + b1) + b2 = (W2 W1) x + (W2 b1 + b2). So the same net,
the same start and the same steps are tried with nothing, sigmoid, tanh and ReLU between its layers.

To be seen: a straight border that does little better than guessing; with each activation a curved one that separates
the spirals, soft with sigmoid and tanh, made of straight pieces with ReLU.

Source: the two spirals are A. Wieland's, in K. Lang and M. Witbrock, Learning to Tell Two Spirals Apart, 1988; that
one hidden layer with an activation can draw any border is G. Cybenko, 1989.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from snellen.draw.chart import SERIES
from snellen.draw.panels import panels

ACTIVATIONS = {"no activation": nn.Identity, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "ReLU": nn.ReLU}
WIDTH = 32


def spirals(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """``count`` noisy points of each spiral of one and a half turns -> (points [2 count, 2], class [2 count])."""
    turn = np.sqrt(rng.uniform(0.02, 1, count)) * 3 * np.pi
    arm = np.stack((np.cos(turn), np.sin(turn)), axis=1) * turn[:, None] / (3 * np.pi)
    points = np.concatenate((arm, -arm)) + rng.normal(0, 0.02, (2 * count, 2))
    return torch.tensor(points, dtype=torch.float32), torch.arange(2).repeat_interleave(count)


def make_net(activation: type[nn.Module], seed: int) -> nn.Sequential:
    """Points [n, 2] -> logits [n, 2]; the same weights for each activation."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, WIDTH), activation(), nn.Linear(WIDTH, WIDTH), activation(), nn.Linear(WIDTH, 2))


def fit(net: nn.Module, points: Tensor, classes: Tensor, steps: int) -> None:
    """Batch gradient descent with Adam."""
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(points), classes).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@torch.no_grad()
def accuracy(net: nn.Module, points: Tensor, classes: Tensor) -> float:
    return float((net(points).argmax(dim=1) == classes).double().mean())


@torch.no_grad()
def regions(net: nn.Module, side: int = 240, reach: float = 1.15) -> Tensor:
    """The second class's probability on a square grid [side, side], its first row at the bottom."""
    ticks = torch.linspace(-reach, reach, side)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    logits: Tensor = net(torch.stack((x.ravel(), y.ravel()), dim=1))
    return logits.softmax(dim=1)[:, 1].reshape(side, side)


def run(out: Path, *, seed: int = 0, count: int = 200, steps: int = 600) -> dict[str, float]:
    """Draw ``out/spirals.png`` and return the accuracy on new points of each net."""
    from matplotlib.colors import LinearSegmentedColormap

    torch.set_num_threads(1)  # the net is too small to be shared: handing it over costs more than computing it
    rng = np.random.default_rng(seed)
    points, classes = spirals(count, rng)
    new_points, new_classes = spirals(1000, rng)
    blend = LinearSegmentedColormap.from_list("two", [SERIES[0], "#ffffff", SERIES[1]])
    numbers = {}
    title = "Without an activation the border is a straight line, however many layers there are"
    with panels(out / "spirals.png", title, columns=4, width=1000, height=300) as grid:
        for axes, (name, activation) in zip(grid, ACTIVATIONS.items(), strict=True):
            net = make_net(activation, seed)
            fit(net, points, classes, steps)
            numbers[name] = accuracy(net, new_points, new_classes)
            print(f"{name:14} {100 * numbers[name]:5.1f} % of {len(new_points):,} new points")
            reach = 1.15
            axes.imshow(
                regions(net, reach=reach).numpy(),
                extent=(-reach, reach) * 2,
                origin="lower",
                cmap=blend,
                vmin=-0.25,
                vmax=1.25,
            )
            for label, marker in ((0, "o"), (1, "s")):
                x, y = points[classes == label].numpy().T
                axes.plot(x, y, marker, markersize=3, color=SERIES[label], markeredgecolor="white", markeredgewidth=0.4)
            axes.set_title(f"{name}: {100 * numbers[name]:.1f} %")
            axes.set_axis_off()
    return numbers


if __name__ == "__main__":
    run(Path("runs/lab"))
