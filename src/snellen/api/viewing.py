"""What test-time augmentation gains, and what it costs: the same images with and without, side by side."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.api.places import cache_of, check_place
from snellen.api.using import Run
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.errors import ConfigError, DataError
from snellen.core.estimate import amount
from snellen.core.files import write_json
from snellen.core.process import prepare_process

if TYPE_CHECKING:
    from snellen.compare.pairing import Pairing
    from snellen.core.record import Record
    from snellen.predict.answering import Answering

_PLAIN, _VIEWED = "one view", "test-time augmentation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """What several views of each image gain over one, and what they cost.

    run       its folder
    names     of ``predict.views.VIEWS``; every combination was looked at, ``num_views`` in all
    pairings  by split: the headline with one view and with all, and the difference with its interval
    seconds   an image, with one view and with all, from the file to the answer: medians over batches that took turns
    notes     what was left out of the views, and warnings
    """

    run: str
    names: tuple[str, ...]
    num_views: int
    pairings: Mapping[str, Pairing]
    seconds: tuple[float, float]
    notes: tuple[str, ...] = ()

    @property
    def cost(self) -> float:
        """How many times as long an image takes."""
        return self.seconds[1] / self.seconds[0]

    @property
    def verdict(self) -> str:
        """Whether it is better, by how much, and what it costs; no more than the numbers allow."""
        said = " ".join(pairing.verdict for pairing in self.pairings.values())
        gains = [pairing.difference for pairing in self.pairings.values()]
        pays = all(gain.is_shown and gain.value > 0 for gain in gains)
        return said + self._cost() + ("" if pays else " Leave it out: no gain is shown for that.")

    def _cost(self) -> str:
        plain, viewed = (amount(1000 * each) for each in self.seconds)
        return f" An image takes {self.cost:.1f} times as long, {viewed} ms instead of {plain} ms."

    def lines(self) -> Iterator[str]:
        """For a reader: the verdict, then the numbers under each other, then what must be known beside them."""
        yield self.verdict
        for pairing in self.pairings.values():
            rows = pairing.rows()
            wide = max(len(name) for name, _ in rows)
            yield from (f"  {name:{wide}}  {told}" for name, told in rows)
        yield from self.notes

    def to_json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "tta": list(self.names),
            "views": self.num_views,
            "splits": {split: pairing.to_json() for split, pairing in self.pairings.items()},
            "seconds_an_image": {"one_view": self.seconds[0], "all_views": self.seconds[1]},
            "cost": self.cost,
            "verdict": self.verdict,
            "notes": list(self.notes),
        }


def measure_views(
    run: str | Path | Run,
    *,
    tta: str = "auto",
    test: bool = False,
    out: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    console: Console | None = None,
) -> Gain:
    """What test-time augmentation gains on a run's validation images, and what it costs.

    tta   'auto', or names of ``predict.views.VIEWS`` with commas between them
    test  open the sealed test images as well, which is counted; to choose by them is a mistake
    out   a folder for tta.json
    seed  of the bootstrap

    Raises SnellenError.
    """
    from snellen.ensemble import load_run
    from snellen.evaluate import own_sides, readable
    from snellen.predict.answering import NetworkAnswering
    from snellen.predict.views import Views
    from snellen.tasks.loading import LoadedModel

    console = console or Console()
    Config.of(data="any", device=device, seed=seed)
    folder = (run if isinstance(run, Run) else Run(run)).folder
    folder.models()
    if out is not None:
        check_place(out)
    prepare_process()
    model = load_run(folder, device=device)
    if not isinstance(model, LoadedModel):
        raise ConfigError("tta is for one model: measure it on a run of the ensemble")
    plain = NetworkAnswering(model)
    views = Views(plain, tta)
    splits = ("val", "test") if test else ("val",)
    sides = own_sides(folder, cache_of(folder.config), console, splits)
    if not sides:
        raise DataError(
            f"{folder.path} has no validation images to measure tta by: give it some, or other labelled data"
        )
    pairings, seconds = {}, []
    for split, records in sides.items():
        found, _ = readable(records, console)
        pairings[split], took = _measured(split, found, (plain, views), seed, console)
        seconds += took
    gain = Gain(
        run=str(folder.path),
        names=views.names,
        num_views=len(views.views),
        pairings=pairings,
        seconds=_medians(seconds),
        notes=views.warnings,
    )
    if out is not None:
        write_json(Path(out) / "tta.json", gain.to_json())
    return gain


Times = tuple[float, float]  # seconds an image of one batch, with one view and with all


def _measured(
    split: str, records: Sequence[Record], ways: tuple[Answering, Answering], seed: int, console: Console
) -> tuple[Pairing, list[Times]]:
    from snellen.compare.comparison import compare_answers
    from snellen.evaluate import groups_of

    task = ways[0].task
    truth = [task.target(record) for record in records]
    answers: tuple[list[Any], list[Any]] = ([], [])
    times: list[Times] = []
    together = min(way.batch for way in ways)
    for way in ways:  # what is done once alone is in no time
        _answered(way, records[:1])
    with console.progress(f"Answering for {split} with and without tta", len(records)) as advance:
        for start in range(0, len(records), together):
            some = records[start : start + together]
            took = [0.0, 0.0]
            for i in (0, 1) if len(times) % 2 == 0 else (1, 0):  # neither is always the one that finds the files read
                began = time.perf_counter()
                answers[i].extend(_answered(ways[i], some))
                took[i] = (time.perf_counter() - began) / len(some)
            times.append((took[0], took[1]))
            advance(len(answers[0]), len(records))
    named = {_PLAIN: answers[0], _VIEWED: answers[1]}
    return compare_answers(task, named, truth, side=split, groups=groups_of(records), seed=seed), times


def _answered(way: Answering, records: Sequence[Record]) -> Sequence[Any]:
    from snellen.data.image import decode

    seen = []
    for record in records:
        pixels = decode(record.path, min_side=way.min_side)
        seen.append(way.prepare(pixels, record.size or (pixels.shape[1], pixels.shape[0])))
    return way.decide(seen)


def _medians(times: Sequence[Times]) -> Times:
    from statistics import median

    return median(each[0] for each in times), median(each[1] for each in times)
