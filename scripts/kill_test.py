"""Kill a training run at random moments, resume it, and see whether it comes to the same bits as one left in peace.

    python scripts/kill_test.py [--kills 100] [--seed 0] [--pretrained] [--folder FOLDER]

The run is a small one, on synthetic shapes: a network from scratch, or with --pretrained one whose frozen features are
probed and cached, and whose head learns before its body does. A row is printed for each kill: how long the process
lived, and what it had written by then. Whenever a run is done it is compared: weights, events, results, predictions;
then the next one begins. FOLDER keeps everything for a look; by default a temporary folder is used and removed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from killing import Kill, Trial, differences, ended, kill_at_random, traces
from shapes import save_folders

ALWAYS = ("--precision", "fp32", "--device", "cpu", "--threads", "1", "--workers", "2", "--groups", "none")
SCRATCH = ("--epochs", "12", "--patience", "99", "--batch-size", "8", "--lr", "0.01", "--body-lr", "0.01")
PRETRAINED = ("--model", "tf_efficientnet_lite0", "--input-size", "32", "--head-epochs", "2", "--epochs", "4")
MOST = 8  # kills of one run: one that saves nothing would hardly ever come to its end
EVERY = ("0.05", "0.3", "1h")  # how often a run saves what it goes on from; each run takes the next


def measure(folder: Path, settings: Sequence[str], kills: int, seed: int) -> int:
    """The number of finished runs that came to something else."""
    data = save_folders(folder / "data", per_class=14, side=8)
    peace = Trial(data, folder, settings)
    ended(peace.resume(folder / "nothing"))  # the first process waits for the imports
    began = time.monotonic()
    assert ended(peace.train(folder / "peace")) == 0, peace.log.read_text()
    seconds, expected = time.monotonic() - began, traces(folder / "peace")
    print(f"left in peace: {seconds:.1f} s, {sum(e['event'] == 'step' for e in expected['events'])} steps")
    print(f"{'run':>4} {'kill':>5} {'after':>7} {'status':>9} {'saved step':>11} {'steps told':>11}")
    rng, made, number, wrong = np.random.default_rng(seed), list[Kill](), 0, 0
    while len(made) < kills:
        number += 1
        trial = Trial(data, folder, (*settings, "--checkpoint-every", EVERY[number % len(EVERY)]))
        out = folder / f"run{number}"
        made += _killed_until_done(trial, out, rng, seconds, number, kills - len(made), len(made))
        odd = differences(expected, traces(out))
        wrong += bool(odd)
        print(f"{number:4} done: {'the same' if not odd else 'DIFFERENT: ' + ', '.join(odd)}", flush=True)
    left = Counter(kill.status for kill in made)
    print(f"{len(made)} kills ({', '.join(f'{count} left {name}' for name, count in left.items())}), {number} runs")
    print(f"{number - wrong} of {number} finished runs are the same, bit by bit")
    return wrong


def _killed_until_done(
    trial: Trial, out: Path, rng: np.random.Generator, seconds: float, number: int, most: int, before: int
) -> list[Kill]:
    made: list[Kill] = []
    while len(made) < min(most, MOST):
        kill = kill_at_random(trial, out, rng, seconds)
        if kill is None:
            return made
        made.append(kill)
        count = before + len(made)
        print(f"{number:4} {count:5} {kill.after:6.2f}s {kill.status:>9} {kill.step:11} {kill.events:11}", flush=True)
    assert ended(trial.resume(out) if out.exists() else trial.train(out)) == 0, trial.log.read_text()
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pretrained", action="store_true")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    settings = (*ALWAYS, *(PRETRAINED if given.pretrained else SCRATCH))
    if given.folder is not None:
        return 1 if measure(given.folder, settings, given.kills, given.seed) else 0
    with tempfile.TemporaryDirectory() as folder:
        return 1 if measure(Path(folder), settings, given.kills, given.seed) else 0


if __name__ == "__main__":
    sys.exit(main())
