"""Why convolutions: features move with the picture, and how much one unit sees.

    equivariance      shift(x) * k = shift(x * k)                  exact away from the border, or with x wrapped around
    invariance        mean over places of shift(x) * k             the same wherever the thing is
    stride 2          keeps only even places: exact for even shifts, not for odd ones
    receptive field   r[0] = 1, r[l] = r[l-1] + (k[l] - 1) j[l-1], j[l] = j[l-1] s[l]   (kernel k, stride s)
    parameters        inputs x outputs x k^2, whatever the size of the image

To be seen: the difference between shifting before and after is nothing for a stride of 1, and not for odd shifts with a
stride of 2; and the patch of pixels with any influence on one unit (its gradient, by autograd) is as wide as the
formula says.

Source: Y. LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998; for strides R. Zhang, Making
Convolutional Networks Shift-Invariant Again, 2019 (arXiv:1904.11486).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from snellen.draw.chart import DASHES, SERIES
from snellen.draw.panels import key, panels, show

SIDE = 64
SHIFTS = range(9)
Layers = tuple[tuple[int, int], ...]  # (kernel, stride) of each

STACKS: dict[str, Layers] = {
    "3 layers": ((3, 1),) * 3,
    "6 layers": ((3, 1),) * 6,
    "6, two of stride 2": ((3, 1), (3, 2), (3, 1)) * 2,
}


def stack(layers: Layers, seed: int) -> nn.Sequential:
    """Convolutions with ReLU of 8 channels, wrapped around at the border: images [n, 1, h, w] -> [n, 8, h', w']."""
    torch.manual_seed(seed)
    modules: list[nn.Module] = []
    for i, (kernel, stride) in enumerate(layers):
        inputs = 8 if i else 1
        modules += [nn.Conv2d(inputs, 8, kernel, stride, padding=kernel // 2, padding_mode="circular"), nn.ReLU()]
    return nn.Sequential(*modules).double()


def receptive_field(layers: Layers) -> int:
    """The side in pixels of what one unit can see, by the formula."""
    side, jump = 1, 1
    for kernel, stride in layers:
        side += (kernel - 1) * jump
        jump *= stride
    return side


def influence(net: nn.Module) -> Tensor:
    """How much each pixel moves the unit in the middle [h, w]: the gradient's size, summed over random images."""
    images = torch.rand(16, 1, SIDE, SIDE, dtype=torch.float64, requires_grad=True)
    features = net(images)
    middle = features.shape[-1] // 2
    features[:, :, middle, middle].sum().backward()
    assert images.grad is not None
    return images.grad.abs().sum(dim=(0, 1))


@torch.no_grad()
def unlike(net: nn.Module, image: Tensor, shift: int, stride: int) -> float:
    """Shift, then convolve, against convolve, then shift: the mean difference as a share of the features' mean."""
    features = net(image)
    expected = features.roll(shift // stride, dims=-1)
    return float((net(image.roll(shift, dims=-1)) - expected).abs().mean() / features.mean())


def run(out: Path, *, seed: int = 0) -> dict[str, float]:
    """Draw ``out/equivariance.png`` and return the numbers."""
    torch.set_num_threads(1)
    numbers: dict[str, float] = {}
    title = "Features move with the picture; what a unit sees grows with depth, and faster with strides"
    with panels(out / "equivariance.png", title, columns=4, width=1100, height=340) as grid:
        image = torch.rand(1, 1, SIDE, SIDE, dtype=torch.float64)
        for i, stride in enumerate((1, 2)):
            differences = [100 * unlike(stack(((3, 1), (3, stride)), seed), image, shift, stride) for shift in SHIFTS]
            numbers |= {f"stride {stride}, shift {s}": d / 100 for s, d in zip(SHIFTS, differences, strict=True)}
            label = f"stride {stride}"
            grid[0].plot(SHIFTS, differences, "o", linestyle=DASHES[i], color=SERIES[i], label=label, clip_on=False)
            print(f"{label}: shifted before or after, the features differ by {max(differences):.2g} % at most")
        grid[0].set(xlabel="shift in pixels", ylabel="difference of features, % of their mean", ylim=(0, None))
        grid[0].grid(axis="y")
        key(grid[0], columns=2)
        for axes, (name, layers) in zip(grid[1:], STACKS.items(), strict=True):
            seen = influence(stack(layers, seed))
            side = int((seen.sum(dim=0) > 0).sum())
            numbers[f"receptive field, {name}"] = side
            print(f"{name}: one unit sees {side} pixels across, the formula says {receptive_field(layers)}")
            show(axes, seen.sqrt().numpy(), title=f"{name}: sees {side} x {side}", cmap="magma")
    return numbers


if __name__ == "__main__":
    run(Path("runs/lab"))
