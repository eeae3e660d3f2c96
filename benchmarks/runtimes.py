"""What a run's model costs and keeps in each format and precision: metric, milliseconds, images a second, bytes.

    python benchmarks/runtimes.py runs/NAME --keep artifacts/NAME

Artifacts are exported once into the folder that is kept, and their metric is the one that they were verified by. All
are timed in one process and in turns, so that a machine that is busy for a while is busy for all of them. 'network' is
the run itself in this process, with Pillow's resize.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

import snellen
from snellen.api.places import cache_of
from snellen.core.console import Console
from snellen.core.errors import SnellenError
from snellen.core.run import RunFolder
from snellen.data.image import decode
from snellen.ensemble import load_run
from snellen.evaluate import own_sides
from snellen.export.artifact import ArtifactAnswering, open_artifact
from snellen.predict.answering import NetworkAnswering

WAYS = (
    ("torch", "fp32"),
    ("onnx", "fp32"),
    ("onnx", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)
TOGETHER = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--keep", type=Path, required=True, help="where the artifacts are, or will be")
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()

    artifacts, refused = exported(asked.run, asked.keep)
    folder = RunFolder.open(asked.run)
    console = Console()
    pixels = decode(own_sides(folder, cache_of(folder.config), console, ("val",))["val"][0].path)
    network = NetworkAnswering(load_run(folder, device="cpu"))
    ways = {"network": lambda n: network.decide([network.prepare(pixels, pixels.shape[1::-1]) for _ in range(n)])}
    ways |= {name: asking(artifact, pixels) for name, artifact in artifacts.items()}
    one, many = (
        {name: median(times) for name, times in in_turns(ways, n, asked.rounds).items()} for n in (1, TOGETHER)
    )

    print(f"{asked.run}: an image of {pixels.shape[1]} x {pixels.shape[0]}, {os.cpu_count()} cores, ", end="")
    print(f"load {os.getloadavg()[0]:.1f}\n")
    print("| | metric | ms, one image | images/s, 8 at once | MB |")
    print("|---|---|---|---|---|")
    for name in ways:
        metric, size = facts(artifacts.get(name), asked.keep / name)
        print(f"| {name} | {metric} | {1e3 * one[name]:.1f} | {TOGETHER / many[name]:.1f} | {size} |")
    for name, why in refused.items():
        print(f"| {name} | refused: {why} | | | |")


def exported(run: Path, keep: Path) -> tuple[dict[str, ArtifactAnswering], dict[str, str]]:
    """By format and precision; and why there is none."""
    found: dict[str, ArtifactAnswering] = {}
    refused: dict[str, str] = {}
    for to, precision in WAYS:
        name = f"{to}-{precision}"
        try:
            if not (keep / name).exists():
                snellen.export(run, to, precision=precision, out=keep / name)
            found[name] = open_artifact(keep / name)
        except SnellenError as error:
            refused[name] = str(error)
    return found, refused


def asking(artifact: ArtifactAnswering, pixels: np.ndarray) -> Callable[[int], object]:
    return lambda n: artifact.decide([artifact.prepare(pixels, pixels.shape[1::-1]) for _ in range(n)])


def in_turns(ways: dict[str, Callable[[int], object]], n: int, rounds: int) -> dict[str, list[float]]:
    """Seconds that each takes for ``n`` images, after a first time that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, ask in ways.items():
            start = time.perf_counter()
            ask(n)
            if turn:
                taken[name].append(time.perf_counter() - start)
    return taken


def facts(artifact: ArtifactAnswering | None, folder: Path) -> tuple[str, str]:
    """The metric, and the size of the model's files; of the network neither is asked."""
    if artifact is None:
        return "", ""
    manifest = artifact.manifest
    size = sum(path.stat().st_size for path in folder.glob(f"{Path(manifest.file).stem}.*"))
    checked = manifest.checked
    return f"{checked['artifact']:.4f} (network {checked['network']:.4f})", f"{size / 1e6:.1f}"


if __name__ == "__main__":
    main()
