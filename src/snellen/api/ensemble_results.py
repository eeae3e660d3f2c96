"""What an ensemble reaches, beside its members on the same images: results.json and predictions/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from snellen.compare.pairing import Pairing
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.estimate import Estimate, spoken, told
from snellen.core.files import write_bytes
from snellen.core.geometry import Size
from snellen.core.run import RunFolder
from snellen.data.image import read_image
from snellen.data.image_sets import ImageSet
from snellen.data.store import ImageStore
from snellen.ensemble.fitting import Fitted
from snellen.ensemble.judging import Judged, diversity, gain, judge, seconds_each
from snellen.ensemble.members import Member, Sides
from snellen.ensemble.panel import Panel
from snellen.ensemble.together import Ensemble
from snellen.ensemble.ways import FEWEST, told_way
from snellen.metrics.paired import Difference
from snellen.report.results import MAX_MISTAKES
from snellen.tasks.base import Task
from snellen.train.pictures import save_mistakes
from snellen.train.results import RESULTS_VERSION

_KNOWN_TEST = (
    "the members' own runs have told their numbers on these test images: where members were chosen by them, what is "
    "told here flatters them"
)
_LOST = "The ensemble is below its best member on these images: use {best} alone"
_INSTEAD = ", or try weights that are fitted on validation, by which a weak member counts less (--way weighted)."
_MATERIAL = 1.3  # times as long, from which the cost is worth a word


@dataclass(frozen=True, kw_only=True)
class Work:
    """What was asked for, and what it is made of."""

    way: str
    members: Sequence[Member]
    sides: Sides
    config: Config
    cache: Path
    device: str
    seed: int
    test: bool
    console: Console

    @property
    def names(self) -> list[str]:
        return [member.name for member in self.members]


@dataclass(frozen=True)
class Standing:
    """A side: what the ensemble says of it, and the numbers of all."""

    panel: Panel
    predicted: Sequence[Any]
    ours: Judged
    members: Sequence[Judged]

    def best(self, metric: str) -> int:
        values = [each.numbers[metric].value if each.samples is not None else -np.inf for each in self.members]
        return int(np.argmax(values))


def write_results(
    run: RunFolder, work: Work, shipped: Ensemble, panels: Mapping[str, Panel | None], fitted: Fitted | None
) -> None:
    """``panels`` by split, those of images that there are; ``fitted`` on validation, if anything was.

    Numbers on validation are of what was fitted on the other half of it. The best member is the best on validation,
    on test images only where there is nothing else.
    """
    standings = {}
    for split, panel in panels.items():
        if panel is not None:
            honest = fitted.honest if split == "val" and fitted is not None else _said(shipped, panel)
            standings[split] = _standing(panel, honest, work.seed)
            _save(run, split, standings[split])
    task = shipped.task
    best = next(iter(standings.values())).best(task.headline)
    split = "test" if "test" in standings else "val"
    members = _members(run, work, task.headline, standings)
    counting = [row["name"] for row in members if row["weight"] > 0]
    itself = counting == [work.names[best]]  # the best member alone: there is nothing that it could gain
    gains = {side: None if itself else _gain(task, each, best) for side, each in standings.items()}
    seconds = _seconds(shipped, next(iter(standings.values())).panel, best)
    told_apart = max(standings.values(), key=lambda each: len(each.predicted))
    joined = None if work.way in ("vote", "rank") else told_apart.predicted
    found: dict[str, Any] = {
        "way": work.way,
        "members": members,
        "best": best,
        "gain": {side: None if each is None else each.to_json() for side, each in gains.items()},
        "seconds": seconds,
        "diversity": {
            "side": next(side for side, each in standings.items() if each is told_apart),
            **diversity(task, told_apart.panel.side, told_apart.panel.alone, joined),
        },
        "notes": [*work.sides.notes, *([_KNOWN_TEST] if "test" in standings else [])],
    }
    if fitted is not None:
        found |= _fitting(standings["val"].panel, fitted)
    found["words"] = [*_fitting_words(task.headline, found), *_diversity_words(found["diversity"], len(work.members))]
    named = told_way(work.way, len(counting), len(work.members))
    told_as = _Told(named, work.names[best], split, seconds["ratio"], counting, _can_fit(standings, fitted))
    words = _verdict(told_as, standings[split], best, gains[split])
    content = {
        "version": RESULTS_VERSION,
        "headline": task.headline,
        "verdict": words,
        "shipped": named,
        "best_epoch": 0,
        "ended": "finished",
        "seconds": round(work.console.seconds, 1),
        "splits": {side: _json(each.ours.numbers) for side, each in standings.items()},
        "baselines": _baselines(work, standings),
        "mistakes": _mistakes(run, task, standings[split]),
        "ensemble": found,
    }
    run.write_json("results.json", content)
    for line in _lines(content):
        work.console.say(line)


def _gain(task: Task[Any], standing: Standing, best: int) -> Difference | None:
    return gain(task, standing.panel.side, standing.members[best], standing.ours)


def _said(shipped: Ensemble, panel: Panel) -> list[Any]:
    return panel.said_by(shipped) if len(shipped.members) > 1 else shipped.answers(panel.side.records)


def _standing(panel: Panel, predicted: Sequence[Any], seed: int) -> Standing:
    task, side = panel.members.task, panel.side
    alone = [judge(task, side, said, seed) for said in panel.alone]
    return Standing(panel, predicted, judge(task, side, predicted, seed), alone)


def _save(run: RunFolder, split: str, standing: Standing) -> None:
    from safetensors.numpy import save

    arrays = standing.panel.members.task.arrays(standing.predicted, standing.panel.side.truth)
    write_bytes(run.predictions / f"{split}.safetensors", save(arrays))
    run.write_json(f"predictions/{split}.json", [record.id for record in standing.panel.side.records])


def _mistakes(run: RunFolder, task: Task[Any], standing: Standing) -> list[dict[str, Any]]:
    side = standing.panel.side
    store = ImageStore(preprocessing=standing.panel.members.preprocessing, budget=0, keep_sources=False)
    images = ImageSet(records=side.records, targets=side.truth, store=store)
    return save_mistakes(run, task, images, standing.predicted, MAX_MISTAKES)


def _members(run: RunFolder, work: Work, headline: str, standings: Mapping[str, Standing]) -> list[dict[str, Any]]:
    weights = [each["weight"] for each in run.read_json(RunFolder.RECIPE)["members"]]
    rows = []
    for k, (member, weight) in enumerate(zip(work.members, weights, strict=True)):
        known = {side: each.members[k].numbers.get(headline) for side, each in standings.items()}
        plan = member.plan
        row = {
            "name": member.name,
            "model": f"{plan.architecture} on {plan.model}" if plan.architecture else plan.model,
            "input_size": list(plan.preprocessing.input_size),
            "weight": weight,
        }
        rows.append(row | {side: None if each is None else each.to_json() for side, each in known.items()})
    return rows


def _fitting(panel: Panel, fitted: Fitted) -> dict[str, Any]:
    """The headline on validation as fitted on all of it, and without any fit, beside which it is to be read."""
    equal = panel.said_by(panel.members.joined("mean"))
    found = {"flattered": panel.headline(fitted.flattered), "equal": panel.headline(equal)}
    return {name: value if np.isfinite(value) else None for name, value in found.items()}


def _seconds(shipped: Ensemble, panel: Panel, best: int) -> dict[str, float]:
    """Of one image that is in memory: made ready, answered and decided, by the best member and by the ensemble."""
    alone = Ensemble([panel.members.members[best]])
    weights = shipped.weights or [1.0] * len(shipped.members)
    counting = [k for k, weight in enumerate(weights) if weight > 0]
    ours = shipped
    if len(counting) < len(weights):
        ours = Ensemble([shipped.members[k] for k in counting], shipped.way, [weights[k] for k in counting])
    header, pixels = read_image(panel.side.records[0].path, min_side=panel.members.min_side)
    calls = {
        name: partial(_answer_one, each, pixels, (header.width, header.height))
        for name, each in (("best", alone), ("ensemble", ours))
    }
    taken = seconds_each(calls)
    return {**taken, "ratio": taken["ensemble"] / taken["best"]}


def _answer_one(model: Ensemble, pixels: np.ndarray, size: Size) -> None:
    model.decide([model.prepare(pixels, size)])


def _baselines(work: Work, standings: Mapping[str, Standing]) -> dict[str, Any]:
    """What always giving one answer reaches: as the first member's run says, where it was judged on the same images."""
    known = work.members[0].folder.read_json("results.json", missing={})
    guessed = known.get("baselines", {}).get("majority", {})
    sides = {}
    for side, each in standings.items():
        judged = work.members[0].folder.read_json(f"predictions/{side}.json", missing=[])
        if side in guessed and sorted(judged) == sorted(record.id for record in each.panel.side.records):
            sides[side] = guessed[side]
    return {"majority": sides} if sides else {}


def _json(numbers: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.to_json() for name, estimate in numbers.items() if np.isfinite(estimate.value)}


# --- in words


@dataclass(frozen=True, slots=True)
class _Told:
    """name, best: of the ensemble and of its best member; ratio: of the time of one image; counting: who has a say;
    can_fit: whether weights could be fitted that were not."""

    name: str
    best: str
    split: str
    ratio: float
    counting: Sequence[str]
    can_fit: bool


def _can_fit(standings: Mapping[str, Standing], fitted: Fitted | None) -> bool:
    """Whether weights could be fitted, and were not."""
    return fitted is None and "val" in standings and standings["val"].panel.side.num_units >= FEWEST


def _verdict(told_as: _Told, standing: Standing, best: int, found: Difference | None) -> str:
    """It claims no more than the interval of the gain allows."""
    metric = standing.panel.members.task.headline
    side = "sealed test" if told_as.split == "test" else "validation"
    if standing.ours.samples is None or standing.members[best].samples is None:
        return (
            f"The {spoken(metric)} of {told_as.name} is undefined on the {side} images: they are too few to judge by."
        )
    ours, theirs = standing.ours.numbers[metric], standing.members[best].numbers[metric]
    words = [
        f"On the {side} images the {spoken(metric)} of {told_as.name} is {ours.told(metric)}; the best member alone, "
        f"{told_as.best}, reaches {told(metric, theirs.value)}."
    ]
    if found is None or len(told_as.counting) == 1:
        alone = f"What was fitted on validation images leaves {told_as.counting[0]} alone"
        return " ".join([*words, f"{alone}: there is nothing to gain by joining these models."])
    pairing = Pairing(
        metric=metric,
        baseline=told_as.best,
        challenger=told_as.name,
        side=told_as.split,
        n=len(standing.predicted),
        first=theirs,
        second=ours,
        difference=found,
    )
    words.append(pairing.verdict[:1].upper() + pairing.verdict[1:])
    if told_as.ratio >= _MATERIAL:
        words.append(f"One image takes {told_as.ratio:.1f} times as long.")
    if found.value < 0:
        words.append(_LOST.format(best=told_as.best) + (_INSTEAD if told_as.can_fit else "."))
    elif not found.is_shown:
        words.append(f"As far as these images can tell, {told_as.best} alone does as well.")
    return " ".join(words)


def _lines(content: Mapping[str, Any]) -> list[str]:
    """For the console: the members, why not more, and the verdict."""
    found, metric = content["ensemble"], content["headline"]
    sides = list(content["splits"])
    rows = [(f"{row['name']} ({100 * row['weight']:.0f} %)", row) for row in found["members"]]
    rows.append((content["shipped"], {side: content["splits"][side].get(metric) for side in sides}))
    wide = max(len(name) for name, _ in rows)
    lines = []
    for side in sides:
        lines.append(f"{spoken(metric)}, {side}:")
        for name, row in rows:
            known = row[side]
            lines.append(f"  {name:{wide}}  {'undefined' if known is None else Estimate.from_json(known).told(metric)}")
    return [*lines, *found["words"], content["verdict"]]


def _fitting_words(metric: str, found: Mapping[str, Any]) -> list[str]:
    if found.get("flattered") is None:
        return []
    words = (
        f"On the validation images that it was fitted on it would be {told(metric, found['flattered'])}, which "
        "flatters it: the number that is told is of each half by what was fitted on the other."
    )
    if found.get("equal") is not None and found["way"] != "soup":
        words += f" The plain mean, with nothing fitted, reaches {told(metric, found['equal'])}."
    return [words]


def _diversity_words(found: Mapping[str, Any], count: int) -> list[str]:
    """Why the gain is what it is, in sentences."""
    if found["mean"] is None:
        return []
    if found["of"] == "images":
        return [
            f"How far each of {found['n']} images falls short correlates by {found['mean']:.2f} between two members on "
            "average: near 1 the same images are hard for all, and a mean has little to mend."
        ]
    words = [f"The errors of two members correlate by {found['mean']:.2f} on average."]
    if "square" in found:
        square = found["square"]
        words.append(
            f"The mean squared error of their {found['of']} is {square['one']:.3g} alone. Independent errors would "
            f"leave {square['independent']:.3g} of it to a mean of {count}; as they correlate, "
            f"{square['correlated']:.3g} is left."
        )
        if square["reached"] is not None:
            words[-1] += f" The ensemble has {square['reached']:.3g}."
    if "majority" in found:
        majority = found["majority"]
        words.append(
            f"Most of {count} independent members would be right in {100 * majority['independent']:.1f} % of the "
            f"{majority['of']}, most of these are in {100 * majority['reached']:.1f} %."
        )
    return words
