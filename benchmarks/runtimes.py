"""What a run's model costs and keeps in each format and precision: metric, milliseconds, images a second, bytes.

    python benchmarks/runtimes.py runs/NAME --keep artifacts/NAME

Artifacts are exported once into the folder that is kept, which takes minutes each (``--rounds 0``: only that); their
metric, and the share of decisions in which they differ from the network in single precision, are those that they were
verified by. All are timed in one process and in turns, so that a machine that is busy for a while is busy for all of
them. 'network' is the run itself in this process, in the precision of its plan and with Pillow's resize.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
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
from snellen.export.members import answering_of
from snellen.predict.answering import Answering

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
    parser.add_argument("--rounds", type=int, default=15, help="how often each is timed, for one image and for several")
    parser.add_argument("--ways", default=",".join("-".join(way) for way in WAYS), help="which, with commas between")
    asked = parser.parse_args()
    known = {"-".join(way): way for way in WAYS}
    if unknown := set(asked.ways.split(",")) - set(known):
        parser.error(f"unknown ways {sorted(unknown)}; known: {', '.join(known)}")

    artifacts, refused = exported(asked.run, asked.keep, [known[name] for name in asked.ways.split(",")])
    if not asked.rounds:
        for name, why in refused.items():
            print(f"{name} was refused: {why}")
        return
    folder = RunFolder.open(asked.run)
    console = Console()
    pixels = decode(own_sides(folder, cache_of(folder.config), console, ("val",))["val"][0].path)
    network = answering_of(load_run(folder, device="cpu"))
    ways = {"network": lambda n: network.decide([network.prepare(pixels, pixels.shape[1::-1]) for _ in range(n)])}
    ways |= {name: asking(artifact, pixels) for name, artifact in artifacts.items()}
    one, many = (
        {name: median(times) for name, times in in_turns(ways, n, asked.rounds).items()} for n in (1, TOGETHER)
    )

    print(f"{asked.run}: an image of {pixels.shape[1]} x {pixels.shape[0]}, {os.cpu_count()} cores, ", end="")
    print(f"load {os.getloadavg()[0]:.1f}\n")
    print(f"| | {network.task.headline} | differ | ms, one image | images/s, {TOGETHER} at once | MB |")
    print("|---|---|---|---|---|---|")
    for name in ways:
        told = facts(artifacts[name], asked.keep / name) if name in artifacts else (own_metric(folder, network), "", "")
        print(f"| {name} | {told[0]} | {told[1]} | {1e3 * one[name]:.1f} | {TOGETHER / many[name]:.1f} | {told[2]} |")
    for name, why in refused.items():
        print(f"| {name} | refused: {why} | | | | |")


def exported(
    run: Path, keep: Path, ways: Sequence[tuple[str, str]]
) -> tuple[dict[str, ArtifactAnswering], dict[str, str]]:
    """By format and precision; and why there is none."""
    found: dict[str, ArtifactAnswering] = {}
    refused: dict[str, str] = {}
    for to, precision in ways:
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


def own_metric(folder: RunFolder, network: Answering) -> str:
    """What the run's results say of the validation images."""
    told = folder.read_json("results.json", missing={}).get("splits", {}).get("val", {}).get(network.task.headline)
    return f"{told['value']:.4f}" if told else ""


def facts(artifact: ArtifactAnswering, folder: Path) -> tuple[str, str, str]:
    """The metric, how many decisions differ, and the size of the model's files."""
    manifest = artifact.manifest
    size = sum(path.stat().st_size for path in folder.glob(f"{Path(manifest.file).stem}.*"))
    checked = manifest.checked
    share, shifted = (100 * checked.get(name, 0) / checked["decisions"] for name in ("different", "shifted"))
    differ = f"{share:.3g} %" + (f", {shifted:.3g} % shifted only" if shifted else "")
    return f"{checked['artifact']:.4f} (network {checked['network']:.4f})", differ, f"{size / 1e6:.1f}"


if __name__ == "__main__":
    main()
