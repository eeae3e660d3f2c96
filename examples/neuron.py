"""One neuron by hand against autograd, and why squared error learns slowly.

A sigmoid neuron with the input x = 1 is to answer 0. It starts almost sure of 1 (w = b = 2), so it is badly wrong.

    z = w x + b      a = 1 / (1 + exp(-z))
    squared error    C = (a - y)^2 / 2                        dC/dz = (a - y) a (1 - a)
    cross-entropy    C = -y ln a - (1 - y) ln (1 - a)         dC/dz = a - y
    chain rule       dC/dw = x dC/dz     dC/db = dC/dz        step: w - rate dC/dw, b - rate dC/db

To be seen: the factor a (1 - a) is nearly nothing where the neuron is sure, so squared error learns last where it is
wrong most; cross-entropy cancels the factor.

Source: M. Nielsen, Neural Networks and Deep Learning, 2015, chapter 3, whose example this is (there the neuron ends
at 0.20 after 300 steps of rate 0.15).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from snellen.draw.chart import DASHES, SERIES
from snellen.draw.panels import key, panels

RATE, STEPS = 0.15, 300
X, TARGET = 1.0, 0.0


def forward(w: float, b: float) -> float:
    """The neuron's output, 0..1."""
    return float(1 / (1 + np.exp(-(w * X + b))))


def gradient(w: float, b: float, cost: str) -> tuple[float, float]:
    """(dC/dw, dC/db) by the chain rule."""
    a = forward(w, b)
    slope = (a - TARGET) * a * (1 - a) if cost == "squared error" else a - TARGET
    return X * slope, slope


def by_autograd(w: float, b: float, cost: str) -> tuple[float, float]:
    """The same from torch, which is told the cost only."""
    weight, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (w, b))
    a = torch.sigmoid(weight * X + bias)
    target = torch.tensor(TARGET, dtype=torch.float64)
    loss = (a - target) ** 2 / 2
    if cost != "squared error":
        loss = torch.nn.functional.binary_cross_entropy(a, target)
    loss.backward()  # type: ignore[no-untyped-call]
    return float(weight.grad), float(bias.grad)  # type: ignore[arg-type]


def learn(w: float, b: float, cost: str, steps: int) -> tuple[list[float], float]:
    """(output before each step and after the last, largest difference from autograd's gradient)."""
    outputs, worst = [forward(w, b)], 0.0
    for _ in range(steps):
        dw, db = gradient(w, b, cost)
        worst = max(worst, *np.abs(np.subtract((dw, db), by_autograd(w, b, cost))).tolist())
        w, b = w - RATE * dw, b - RATE * db
        outputs.append(forward(w, b))
    return outputs, worst


def run(out: Path, *, seed: int = 0, steps: int = STEPS) -> dict[str, float]:
    """Draw ``out/neuron.png`` and return the numbers. Nothing here is random."""
    del seed
    z = np.linspace(-6, 6, 241)
    a = 1 / (1 + np.exp(-z))
    numbers = {}
    title = "Squared error learns last where it is wrong most; cross-entropy does not"
    with panels(out / "neuron.png", title, columns=2) as (left, right):
        left.plot(z, a * a * (1 - a), color=SERIES[0], label="squared error: a² (1 − a)")
        left.plot(z, a, color=SERIES[1], linestyle=DASHES[1], label="cross-entropy: a")
        left.axvline(4, color=SERIES[5], linewidth=1, linestyle=DASHES[2])
        left.annotate("starts here", (4, 0.5), (-5, 0), textcoords="offset points", ha="right")
        left.set(xlabel="z = w x + b", ylabel="slope dC/dz for the target 0")
        for i, cost in enumerate(("squared error", "cross-entropy")):
            outputs, worst = learn(2.0, 2.0, cost, steps)
            numbers[f"output, {cost}"] = outputs[-1]
            numbers[f"largest difference from autograd, {cost}"] = worst
            right.plot(outputs, color=SERIES[i], linestyle=DASHES[i], label=f"{cost}: ends at {outputs[-1]:.2f}")
            print(f"{cost}: output {outputs[0]:.3f} -> {outputs[-1]:.3f} in {steps} steps of rate {RATE}")
            print(f"  gradient by hand and by autograd differ by {worst:.1e} at most")
        right.set(xlabel="step", ylabel="output a (target 0)", ylim=(0, 1.02))
        for axes in (left, right):
            axes.grid(axis="y")
            key(axes)
    return numbers


if __name__ == "__main__":
    run(Path("runs/lab"))
