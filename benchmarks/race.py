"""Snellen against fastai, a plain PyTorch loop and Ultralytics' classifier: wall clock from the shell to an accuracy.

    python benchmarks/race.py photos/ --accuracy 0.90 0.94 --seeds 0 1 2 --peers /path/to/other/venv/bin/python
    python benchmarks/race.py cifar10/ --valid test --tiny --accuracy 0.6 0.7 --epochs 8 --time-limit 3m --peers ...

Every entrant is a process of its own, one after the other and in turns over the seeds. The clock starts with the
process and an accuracy counts when its line is printed: imports, reading, training and validation are all inside. All
see the same images, are judged on the same folder and start from the same ImageNet weights, those that come with
Snellen; Ultralytics has no offline weights and starts from scratch, which is said in the table. For pretrained networks
tiny images are enlarged to 128 pixels. ``--peers`` is a Python with fastai, ultralytics, timm, torch and torchvision;
``--entrants snellen`` needs none. Each entrant may use all cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ENTRANTS = Path(__file__).parent / "entrants"
NAMES = ("snellen", "fastai", "torch fixed", "torch tune", "ultralytics (scratch)")
TINY_NAMES = ("snellen", "fastai", "fastai (scratch)", "torch fixed", "torch (scratch)", "ultralytics (scratch)")


@dataclass(frozen=True, slots=True)
class Result:
    """``known``: (seconds from the shell, validation accuracy) in order; ``whole``: seconds until the process ended."""

    known: list[tuple[float, float]]
    whole: float

    def reached(self, accuracy: float) -> float | None:
        return next((seconds for seconds, value in self.known if value >= accuracy), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--accuracy", type=float, nargs="+", default=[0.90, 0.94])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--valid", default="val")
    parser.add_argument("--tiny", action="store_true", help="images of 32 pixels: enlarged, or from scratch")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--peers", default=sys.executable)
    parser.add_argument("--entrants", nargs="*")
    parser.add_argument("--time-limit", help="of snellen train: what comes after the accuracies is not of interest")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds after which an entrant is stopped")
    asked = parser.parse_args()
    names = [name for name in (TINY_NAMES if asked.tiny else NAMES) if not asked.entrants or name in asked.entrants]
    results: dict[str, list[Result]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        weights = save_weights(Path(folder) / "lite0.pt")
        asked.data = same_sides(Path(asked.data), asked.valid, Path(folder) / "data")
        for seed in asked.seeds:
            for name in names:
                result = run(name, asked, seed, weights, Path(folder))
                results[name].append(result)
                known = ", ".join(f"{accuracy:.3f} at {seconds:.1f} s" for seconds, accuracy in result.known)
                print(f"  {name}, seed {seed}: {known}; ended after {result.whole:.1f} s", flush=True)
    print_table(results, asked.accuracy)


def same_sides(data: Path, valid: str, folder: Path) -> str:
    """``train`` and ``val`` under these names, so that every entrant trains and is judged on the same images."""
    folder.mkdir()
    for side, name in (("train", "train"), ("val", valid)):
        (folder / side).symlink_to((data / name).resolve(), target_is_directory=True)
    return str(folder)


def save_weights(path: Path) -> Path:
    """The embedded ImageNet weights under timm's names, without the classifier, for every entrant."""
    import torch

    from snellen.nn.efficientnet_lite import EfficientNetLite0
    from snellen.nn.pretrained import load_embedded

    backbone = EfficientNetLite0()
    load_embedded(backbone)
    torch.save(backbone.state_dict(), path)
    return path


def run(name: str, asked: argparse.Namespace, seed: int, weights: Path, folder: Path) -> Result:
    if name == "snellen":
        return run_snellen(asked, seed, Path(tempfile.mkdtemp(dir=folder)))
    script = {"fastai": "fastai_fine_tune", "torch": "torch_loop", "ultralytics": "ultralytics_classify"}
    options = ["--seed", str(seed), "--epochs", str(asked.epochs), "--weights", str(weights)]
    command = [asked.peers, str(ENTRANTS / f"{script[name.split()[0]]}.py"), asked.data, *options]
    kind = "fixed" if name == "torch fixed" else "tune"
    start = time.monotonic()
    with subprocess.Popen(
        [*command, *_how(name, asked.tiny)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env={**os.environ, "TORCH_LOOP": kind, "YOLO_OFFLINE": "1"},
    ) as process:
        known = list(_told(process, start, asked.limit))
    if not known:
        print(f"  {name} printed no accuracy (exit {process.returncode}): {' '.join(command)}", file=sys.stderr)
    return Result(known, time.monotonic() - start)


def _how(name: str, tiny: bool) -> list[str]:
    if not tiny:
        return []
    return ["--scratch"] if "scratch" in name else ["--size", "128"]


def _told(process: subprocess.Popen[str], start: float, limit: float) -> Iterator[tuple[float, float]]:
    assert process.stdout is not None
    for line in process.stdout:
        seconds = time.monotonic() - start
        if line.startswith('{"accuracy"'):
            yield seconds, json.loads(line)["accuracy"]
        if seconds > limit:
            process.terminate()
            return


def run_snellen(asked: argparse.Namespace, seed: int, folder: Path) -> Result:
    """The whole command with no option but the seed, and a time limit if asked for. Its own record has the times."""
    out = folder / "run"
    command = [sys.executable, "-m", "snellen", "train", asked.data, "--out", str(out), "--seed", str(seed)]
    command += ["--time-limit", asked.time_limit] if asked.time_limit else []
    start = time.monotonic()
    subprocess.run([*command, "--cache", str(folder / "cache")], check=True, stdout=subprocess.DEVNULL)
    whole = time.monotonic() - start
    events = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return Result([(event["seconds"], event["val/accuracy"]) for event in events if "val/accuracy" in event], whole)


def print_table(results: dict[str, list[Result]], accuracies: list[float]) -> None:
    heads = [*(f"to {accuracy:.0%} (s)" for accuracy in accuracies), "best accuracy", "whole run (s)"]
    print("| entrant | " + " | ".join(heads) + " |")
    print("|---|" + "---|" * len(heads))
    for name, runs in results.items():
        cells = [_times([run.reached(accuracy) for run in runs]) for accuracy in accuracies]
        best = [max((value for _, value in run.known), default=float("nan")) for run in runs]
        cells.append(f"{statistics.mean(best):.3f} ({min(best):.3f} to {max(best):.3f})")
        cells.append(f"{statistics.median(run.whole for run in runs):.1f}")
        print(f"| {name} | " + " | ".join(cells) + " |")


def _times(seconds: list[float | None]) -> str:
    known = [value for value in seconds if value is not None]
    if not known:
        return "never"
    shown = f"{statistics.median(known):.1f} ({min(known):.1f} to {max(known):.1f})"
    return shown if len(known) == len(seconds) else f"{shown}; {len(known)} of {len(seconds)}"


if __name__ == "__main__":
    main()
