"""A filter is a convolution, and a convolution can be learned.

    (x * k)[i, j] = sum over u, v of x[i + u, j + v] k[u, v]

Sobel's two kernels answer to edges, a Gaussian blurs, a Laplacian sharpens. Each is applied to a photograph; then a
kernel that starts at zero sees the photograph and the result, and minimises the squared difference.

To be seen: the learned kernel is the true one to several digits. That is all that the first layer of a convolutional
network is, except that nobody has to know the kernels beforehand.

Source: I. Sobel and G. Feldman, 1968; the numbers printed first are the example of V. Dumoulin and F. Visin, A Guide
to Convolution Arithmetic for Deep Learning, 2016. The photograph is china.jpg by danielbuechele (CC BY 2.0), which
scikit-learn carries.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from snellen.data.image import decode
from snellen.draw.chart import FONT_SIZE
from snellen.draw.panels import panels, show

FILTERS = {
    "Sobel, across": ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)),
    "Sobel, down": ((-1, -2, -1), (0, 0, 0), (1, 2, 1)),
    "Gaussian blur": ((1 / 16, 2 / 16, 1 / 16), (2 / 16, 4 / 16, 2 / 16), (1 / 16, 2 / 16, 1 / 16)),
    "sharpen": ((0, -1, 0), (-1, 5, -1), (0, -1, 0)),
}


def convolve(image: Tensor, kernel: Tensor) -> Tensor:
    """image [h, w], kernel [k, k] -> [h - k + 1, w - k + 1]."""
    return conv2d(image[None, None], kernel[None, None])[0, 0]


def worked_example() -> Tensor:
    """5 x 5 numbers and a 3 x 3 kernel -> 3 x 3 numbers."""
    image = [[3, 3, 2, 1, 0], [0, 0, 1, 3, 1], [3, 1, 2, 2, 3], [2, 0, 0, 2, 2], [2, 0, 0, 0, 1]]
    return convolve(torch.tensor(image), torch.tensor([[0, 1, 2], [2, 2, 0], [0, 1, 2]]))


def photograph() -> Tensor:
    """Grey values [h, w], 0..1."""
    spec = find_spec("sklearn")
    assert spec is not None and spec.submodule_search_locations, "scikit-learn is one of Snellen's dependencies"
    pixels = decode(Path(spec.submodule_search_locations[0]) / "datasets/images/china.jpg")
    return torch.tensor(pixels[60:380, 130:450]).double().mean(dim=2) / 255


def learn(image: Tensor, filtered: Tensor, steps: int) -> Tensor:
    """The kernel [3, 3] that turns ``image`` into ``filtered``, by gradients alone.

    By L-BFGS: neighbouring pixels are nearly equal, and in such a narrow valley plain gradient descent crawls.
    """
    kernel = torch.zeros(3, 3, dtype=image.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([kernel], max_iter=steps, line_search_fn="strong_wolfe", tolerance_change=1e-15)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = (convolve(image, kernel) - filtered).square().mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return kernel.detach()


def run(out: Path, *, seed: int = 0, steps: int = 200) -> dict[str, float]:
    """Draw ``out/filters.png`` and return the largest difference of each learned kernel. Nothing here is random."""
    del seed
    torch.set_num_threads(1)  # nine weights are not worth sharing out
    print("the worked example:", worked_example().tolist())
    image = photograph()
    numbers = {}
    title = "A kernel learned from pictures before and after a filter is the filter"
    with panels(out / "filters.png", title, rows=3, columns=len(FILTERS), height=760, width=940) as grid:
        for i, (name, values) in enumerate(FILTERS.items()):
            truth = torch.tensor(values, dtype=image.dtype)
            filtered = convolve(image, truth)
            learned = learn(image, filtered, steps)
            numbers[name] = float((learned - truth).abs().max())
            print(f"{name:14} the learned kernel differs by {numbers[name]:.1e} at most")
            signed = bool((truth < 0).any()) and name != "sharpen"
            reach = {"vmin": -1.5, "vmax": 1.5} if signed else {"vmin": 0, "vmax": 1}
            show(grid[i], filtered.numpy(), title=name, **reach)
            for row, kernel, what in ((1, truth, "the kernel"), (2, learned, "learned")):
                axes = grid[row * len(FILTERS) + i]
                limit = float(truth.abs().max())
                show(axes, kernel.numpy(), title=what, cmap="PuOr", vmin=-2 * limit, vmax=2 * limit)
                for place, value in enumerate(kernel.ravel().tolist()):
                    number = f"{round(value, 3) + 0.0:.3f}"  # + 0.0: no "-0.000"
                    axes.text(place % 3, place // 3, number, ha="center", va="center", fontsize=FONT_SIZE - 1)
    return numbers


if __name__ == "__main__":
    run(Path("runs/lab"))
