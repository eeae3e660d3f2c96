"""Logistic regression, MLP, CNN: what each step is worth on the same images.

    logistic regression   softmax(W x + b) of the pixels: one template a class
    MLP                   the same on features that are learned, but each weight belongs to one place in the image
    CNN                   features that are learned once for all places (weights shared over the image)

To be seen: test accuracies with their 95 % intervals, each from a run of its own with its report, as `snellen train
--model mlp:256,128` makes one. No image is varied in training, so that nothing differs but the model. Where intervals
overlap much, these images do not show a difference; `snellen compare` asks the runs, image by image.

Without a path: CIFAR-10 if it is in the cache already (run `snellen train sample:cifar10` once for that, on a network),
else the digits that come along, which are so small and so much alike that the ladder is short.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009 (the images); Y. LeCun et al., 1998.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import snellen
from snellen.api.places import default_cache
from snellen.core.console import Console
from snellen.core.estimate import Estimate
from snellen.draw.chart import FONT_SIZE, SERIES
from snellen.draw.panels import panels

LADDER = {
    "logistic regression": "logistic",
    "MLP of 256 and 128": "mlp:256,128",
    "CNN of 32, 64 and 128": "cnn:32,64,128",
}


def default_data() -> str:
    here = default_cache() / "samples" / "cifar10.sizes"
    return "sample:cifar10" if here.is_file() else "sample:digits"


def climb(data: str, out: Path, seed: int, settings: Mapping[str, Any]) -> dict[str, Estimate]:
    """The test accuracy of each model; without test images that of the validation images."""
    out.mkdir(parents=True, exist_ok=True)
    runs = Path(tempfile.mkdtemp(prefix="ladder-", dir=out))
    accuracies = {}
    for name, model in LADDER.items():
        quiet = Console(quiet=True)
        folder = runs / model.partition(":")[0]
        run = snellen.train(data, model=model, seed=seed, out=folder, console=quiet, **settings)
        splits = run.metrics
        accuracies[name] = splits.get("test", splits["val"])["accuracy"]
        print(f"{name:22} {accuracies[name].told('accuracy')}   {run.report}")
    return accuracies


def run(out: Path, *, seed: int = 0, data: str | None = None, **settings: Any) -> dict[str, float]:
    """Draw ``out/ladder.png`` and return the accuracies.

    data      a folder of class folders, a table, or a sample
    settings  of every run, as ``snellen.train`` takes them
    """
    settings = {"epochs": 20, "augment": "none", **settings}
    data = data or default_data()
    accuracies = climb(data, out, seed, settings)
    values = [100 * estimate.value for estimate in accuracies.values()]
    bounds = [(100 * (e.low or e.value), 100 * (e.high or e.value)) for e in accuracies.values()]
    reach = [[value - low for value, (low, _) in zip(values, bounds, strict=True)]]
    reach += [[high - value for value, (_, high) in zip(values, bounds, strict=True)]]
    num_images = next(iter(accuracies.values())).n
    best = max(accuracies, key=lambda name: accuracies[name].value)
    title = f"{best.split(' of ')[0]} is first: {max(values):.1f} % of {num_images:,} test images of {Path(data).stem}"
    with panels(out / "ladder.png", title, width=760, height=300) as (axes,):
        axes.barh(list(accuracies), values, 0.6, xerr=reach, color=SERIES[0], ecolor=SERIES[1], capsize=4)
        for i, (value, (_, high)) in enumerate(zip(values, bounds, strict=True)):
            axes.annotate(f"{value:.1f} %", (high, i), (6, 0), textcoords="offset points", va="center")
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0, labelsize=FONT_SIZE)
        axes.set(xlabel="test accuracy with its 95 % interval, %", xlim=(0, 110), xticks=range(0, 101, 20))
        axes.grid(axis="x")
    return {name: estimate.value for name, estimate in accuracies.items()}


if __name__ == "__main__":
    run(Path("runs/lab"), data=sys.argv[1] if len(sys.argv) > 1 else None)
