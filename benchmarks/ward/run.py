"""Run units of the ward and write a JSON row for each. A row that is there already is not run again.

    python benchmarks/ward/run.py --part dev --seeds 0 1 2 --processes 2 --out ward.jsonl
    python benchmarks/ward/table.py ward.jsonl

ci: a few minutes' worth, one of every way in which the doctor finds out. small: severe faults on their first host, seed
by seed. dev: all faults, degrees and hosts. held-out: the same on worlds that no threshold was chosen by;
held-out-small: of these the severe faults on their first host.
``--doctors`` says who examines (``rules`` are published thresholds, ``packages`` real
packages where they are installed). Begin with ``--doctors silent --no-cure`` to measure what the faults damage.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import random
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")  # a fault may leave out the optimizer's steps
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # one thread a process, before anything reads it
sys.path.insert(0, str(Path(__file__).parent))

HELD_OUT = {"shapes": "patches", "digits": "textures"}
# The quickest of each way to find out: contracts, answers, experiments, forks, and audits of boxes and masks.
CI_RECIPES = ("count-bn-adam", "mlp-adamw-constant", "unet-gn-sgd", "files")
CI_FAULTS = (
    "body-cut-off",
    "boxes-shifted",
    "camera-unseen",
    "decay-strong",
    "gradients-pile-up",
    "masks-mirrored",
    "network-too-small",
    "nll-of-logits",
    "norms-do-not-follow",
    "targets-broadcast",
    "validated-in-training-mode",
    "weights-alike",
)


def units(part: str, seeds: Sequence[int], faults: Sequence[str] = ()) -> Iterator[Any]:
    """Those of a part; of ``faults`` alone, if there are any ("healthy" for the healthy ones)."""
    found = list(_all_units("small" if part == "ci" else part, seeds))
    if part == "ci":
        found = [unit for unit in found if (unit.fault in CI_FAULTS if unit.fault else unit.recipe in CI_RECIPES)]
    yield from (unit for unit in found if not faults or (unit.fault or "healthy") in faults)


def _all_units(part: str, seeds: Sequence[int]) -> Iterator[Any]:
    """Healthy ones and sick ones, all of a world, a recipe and a seed together: they share their healthy twin."""
    from faults import FAULTS, SEVERITIES
    from recipes import RECIPES
    from unit import Unit
    from worlds import WORLDS

    small, held_out = part in ("small", "held-out-small"), part.startswith("held-out")
    degrees = SEVERITIES[2:] if small else SEVERITIES
    found: list[Unit] = []
    for recipe in RECIPES.values():
        worlds = [name for name in recipe.worlds if WORLDS[name].held_out == held_out]
        for world in worlds[:1] if part == "small" else worlds:
            found += [Unit(world=world, recipe=recipe.name, seed=seed) for seed in seeds]
    for fault in FAULTS.values():
        hosts = [(HELD_OUT.get(world, ""), recipe) for world, recipe in fault.hosts] if held_out else fault.hosts
        hosts = [host for host in dict.fromkeys(hosts) if host[0]]
        for world, recipe in hosts[:1] if small else hosts:
            found += [
                Unit(world=world, recipe=recipe, fault=fault.name, severity=severity, seed=seed)
                for severity in degrees
                for seed in seeds
            ]
    if not held_out:
        found += file_units(seeds, degrees)
    yield from sorted(found, key=lambda unit: (unit.seed, unit.world, unit.recipe, unit.fault))


def file_units(seeds: Sequence[int], degrees: Sequence[str]) -> Iterator[Any]:
    """Folders, healthy and spoilt; an audit alone looks at them."""
    from file_units import FILE_FAULTS, FOLDERS
    from unit import Unit

    for seed in seeds:
        for folder in FOLDERS:
            yield Unit(world=folder, recipe="files", seed=seed)
        for fault in FILE_FAULTS.values():
            for severity in degrees:
                yield Unit(world=fault.folder, recipe="files", fault=fault.name, severity=severity, seed=seed)


def run_one(task: tuple[Any, dict[str, Any]]) -> dict[str, Any]:
    """A row; an error is a row as well, so that nothing is lost silently."""
    from file_units import run_file_unit
    from unit import run_unit

    unit, options = task
    try:
        if unit.recipe == "files":
            return run_file_unit(unit.world, unit.fault, unit.severity, unit.seed)
        return run_unit(unit, **options)
    except Exception as error:
        told = traceback.format_exc().splitlines()[-6:]
        return {
            "key": unit.key,
            "fault": unit.fault,
            "seed": unit.seed,
            "error": f"{type(error).__name__}: {error}",
            "told": told,
        }


def run_some(tasks: Sequence[tuple[Any, dict[str, Any]]]) -> list[dict[str, Any]]:
    return [run_one(task) for task in tasks]


def versions() -> dict[str, str]:
    import numpy
    import torch

    from snellen.core import thresholds

    frozen = hashlib.sha256(Path(thresholds.__file__).read_bytes()).hexdigest()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "thresholds": frozen,
    }


def known_doctors(asked: Sequence[str]) -> list[str]:
    """Names, with ``rules`` and ``packages`` spelt out; what is not installed is said and left out."""
    from doctors import DOCTORS
    from rivals import RIVALS

    groups = {group: [each.name for each in RIVALS if each.group == group] for group in ("rules", "packages")}
    names = [name for each in asked for name in groups.get(each, [each])]
    missing = {each.name for each in RIVALS if not each.installed()}
    for name in sorted(missing & set(names)):
        print(f"{name}: not installed")
    unknown = set(names) - set(DOCTORS)
    if unknown:
        raise SystemExit(f"no such doctor: {', '.join(sorted(unknown))}; known are {', '.join(DOCTORS)}")
    return [name for name in names if name not in missing]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("ci", "small", "dev", "held-out-small", "held-out", "all"), default="small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("ward.jsonl"))
    parser.add_argument("--doctors", nargs="+", default=["snellen", "silent", "always", "rules", "packages"])
    parser.add_argument("--faults", nargs="+", default=[], help="only these; 'healthy' for the healthy units")
    parser.add_argument("--no-cure", action="store_true", help="treat nobody")
    parser.add_argument(
        "--random", action="store_true", help="also try changes at random, for as long as the doctor took"
    )
    parser.add_argument("--by-lot", action="store_true", help="in an order by lot: a part of it is a fair sample")
    asked = parser.parse_args()
    parts = ("dev", "held-out") if asked.part == "all" else (asked.part,)
    options = {"doctors": known_doctors(asked.doctors), "cure": not asked.no_cure, "random_arm": asked.random}
    done = {json.loads(line)["key"] for line in asked.out.read_text().splitlines()} if asked.out.exists() else set()
    tasks = [
        (unit, options) for part in parts for unit in units(part, asked.seeds, asked.faults) if unit.key not in done
    ]
    if asked.by_lot:
        tasks = random.Random("ward").sample(tasks, len(tasks))
    print(f"{len(tasks)} units to run, {len(done)} done", flush=True)
    stamp, begun = versions(), time.time()
    pairs = [tasks[i : i + 2] for i in range(0, len(tasks), 2)]  # neighbours share their healthy twin
    context = multiprocessing.get_context("spawn")
    # Not multiprocessing.Pool: its workers may have no processes of their own, which some packages start.
    with ProcessPoolExecutor(asked.processes, mp_context=context) as pool, asked.out.open("a") as file:
        waiting = [pool.submit(run_some, pair) for pair in pairs]
        rows = (row for each in as_completed(waiting) for row in each.result())
        for count, row in enumerate(rows, 1):
            file.write(json.dumps({**row, "versions": stamp}) + "\n")
            file.flush()
            print(f"{count}/{len(tasks)} {time.time() - begun:.0f} s  {row['key']}  {told(row)}", flush=True)


def told(row: dict[str, Any]) -> str:
    if "error" in row:
        return str(row["error"])
    said = "; ".join(f"{name}: {' '.join(each['alarms'][:3]) or '-'}" for name, each in row["verdicts"].items())
    if "files" in row:
        return said
    before, after = row["healthy"], row["judged"]
    return f"{before['score']:.3f} -> {after['score']:.3f} (reported {after['reported']:.3f})  {said}"


if __name__ == "__main__":
    main()
