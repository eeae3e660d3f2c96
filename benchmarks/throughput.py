"""Training from image files on disk as a share of the same step on tensors that are ready, for any task.

    python benchmarks/throughput.py photos/
    python benchmarks/throughput.py scenes/ --task segmentation --void 11

Three ways in turns, in one process, on the same network with the same arithmetic:

    ready tensors    the step alone: forward, backward, AdamW, on one batch that stays in memory
    in memory        snellen's loader from pixels that were decoded once and kept: warp, colours, stacking
    from disk        the same with nothing kept: every image is decoded again in every epoch
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--task", default="auto")
    parser.add_argument("--void", default=None)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each way in each round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    arguments = parser.parse_args()
    rates: dict[str, list[float]] = {"ready tensors": [], "in memory": [], "from disk": []}
    asked = {"task": arguments.task, "void": arguments.void}
    trainer, sources = prepare(arguments.data, arguments.precision, asked)
    for _ in range(arguments.rounds):
        for name, batches in sources.items():
            rates[name].append(images_per_second(trainer, batches(), arguments.seconds))
    ready = statistics.median(rates["ready tensors"])
    print(f"{'':14} {'images/s: median':>16} {'min':>7} {'max':>7}  share of ready tensors")
    for name, found in rates.items():
        median = statistics.median(found)
        print(f"{name:14} {median:>16.1f} {min(found):>7.1f} {max(found):>7.1f}  {median / ready:.3f}")


def prepare(data: str, precision: str, asked: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    from snellen.core.process import prepare_process

    prepare_process()
    from snellen.core.config import Config
    from snellen.core.console import Console
    from snellen.data.loader import ImageSet, Variation, training_batches
    from snellen.data.store import ImageStore
    from snellen.tasks.base import create_task
    from snellen.train.build import make_plan, sides_of
    from snellen.train.loop import Trainer
    from snellen.train.reading import read_data
    from snellen.train.schedule import phases

    config = Config.of(data=data, precision=precision, device="cpu", **asked)
    with tempfile.TemporaryDirectory() as cache:
        known = read_data(config, Path(cache), Console(quiet=True))
    plan, model = make_plan(config, known.choice, known.survey, known.store)
    plan = replace(plan, train_precision=precision)
    task = create_task(plan.task, plan.classes).configured(plan)
    sides = sides_of(known.survey, task, known.store)
    kept = sides["train"]
    nothing_kept = replace(kept, store=ImageStore(preprocessing=plan.preprocessing, budget=0))
    trainer = Trainer(model, task, plan, kept, sides["val"], keep_best=lambda *best: None)
    trainer.begin(phases(plan)[-1])
    variation = Variation.of(plan)

    def loaded(images: ImageSet) -> Iterator[Any]:
        for epoch in count():
            yield from training_batches(
                images, variation, epoch=epoch, batch_size=plan.batch_size, workers=plan.workers
            )

    one = next(loaded(kept))

    def ready() -> Iterator[Any]:
        while True:
            yield one

    return trainer, {
        "ready tensors": ready,
        "in memory": lambda: loaded(kept),
        "from disk": lambda: loaded(nothing_kept),
    }


def images_per_second(trainer: Any, batches: Iterator[Any], seconds: float) -> float:
    trainer.train_on([next(batches)])  # warm-up
    images, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        batch = next(batches)
        trainer.train_on([batch])
        images += len(batch)
    return images / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
