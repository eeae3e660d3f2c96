"""The end of a cross-validation: what the folds say together, and the ensemble of their models on the test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from snellen.core.checkpoint import Checkpoint
from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.errors import RunError
from snellen.core.estimate import Estimate, is_at_most_one, is_fraction, is_share, spoken, told
from snellen.core.files import write_bytes
from snellen.core.run import OUT_OF_FOLD, RunFolder
from snellen.data.folds import told_folds
from snellen.data.manifest import Manifest
from snellen.ensemble import Ensemble, ensemble
from snellen.evaluate import answer, groups_of, own_sides
from snellen.metrics.interval import percentile_interval, wilson
from snellen.metrics.paired import corrected_t_interval, paired_bootstrap
from snellen.tasks.base import Task, create_task
from snellen.tasks.loading import LoadedModel, load_model
from snellen.train.results import RESULTS_VERSION

Numbers = Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class Answers:
    """Predictions and truth of the same images, with their ids and what must be resampled together."""

    ids: Sequence[str]
    predicted: Sequence[Any]
    truth: Sequence[Any]
    groups: Sequence[str] | None


def write_fold_results(run: RunFolder, config: Config, cache: Path, console: Console) -> None:
    """Write data.json, findings.json, predictions/ and results.json of a cross-validation whose folds are done.

    Repeats are told as one: the mean over all folds of all repeats, and pooled the mean of the repeats' numbers, each a
    number of models that answer alone. predictions/out-of-fold holds the answers of the first repeat,
    predictions/out-of-fold-2 those of the second, and so on.

    The sealed test images are opened once, by the ensemble and its members together, and not at all when the settings
    say so. Raises RunError when the folds were trained on different data.
    """
    places = run.folds()
    folds = [RunFolder.open(run.fold(number, repeat)) for repeat, number in places]
    told = told_folds(config.folds or 0, config.repeats)
    manifest = _write_data(run, folds, config.repeats)
    plan = folds[0].plan
    task = create_task(plan.task, plan.classes)
    rows = [_fold_row(run, *place, fold) for place, fold in zip(places, folds, strict=True)]
    mean = _mean_over_folds(rows, manifest, told)
    splits = {OUT_OF_FOLD: _pooled(run, config, folds, manifest, task)}
    tested: dict[str, Any] = {}
    if config.test and manifest.ids("test"):
        splits["test"], tested = _test(run, config, cache, console)
    content = {
        "version": RESULTS_VERSION,
        "headline": task.headline,
        "verdict": _verdict(task, manifest, mean, splits, tested, _guessing(folds, task.headline), told),
        "shipped": f"ensemble of {told}",
        "ended": "finished",
        "seconds": round(sum(row["seconds"] for row in rows), 1),
        "splits": {split: _json(numbers) for split, numbers in splits.items()},
        "mean": _json(mean),
        "folds": rows,
        **tested,
    }
    run.write_json("results.json", content)
    console.say(content["verdict"])


def _write_data(run: RunFolder, folds: Sequence[RunFolder], repeats: int) -> Manifest:
    """data.json of them all: every image that is not for testing has trained the ensemble."""
    contents = [fold.read_json("data.json") for fold in folds]
    manifests = [Manifest.from_json(content["manifest"]) for content in contents]
    first = manifests[0]
    each = "each is once for validation"
    if repeats > 1:
        each += f" in each of {repeats} repeats, which have a seed each"
    joined = replace(
        first,
        rows=tuple(row if row.split == "test" else replace(row, split="train") for row in first.rows),
        reasons=tuple(reason.replace("fold 1 is for validation", each) for reason in first.reasons),
    )
    for fold, manifest in zip(folds, manifests, strict=True):
        hashes = {row.id: row.sha256 for row in manifest.rows}
        if manifest.seal != first.seal or hashes != {row.id: row.sha256 for row in first.rows}:
            raise RunError(f"the data has changed between {folds[0].path} and {fold.path}: train anew")
    uses = run.read_json("data.json", missing={}).get("test_uses", 0)
    notes = [note for note in contents[0].get("notes", []) if note not in first.reasons] + list(joined.reasons)
    run.write_json("data.json", {**contents[0], "manifest": joined.to_json(), "notes": notes, "test_uses": uses})
    run.write_json("findings.json", folds[0].read_json("findings.json", missing=[]))
    return joined


def _pooled(
    run: RunFolder, config: Config, folds: Sequence[RunFolder], manifest: Manifest, task: Task[Any]
) -> dict[str, Estimate]:
    """The numbers over the answers of all folds together, mean over the repeats; writes the answers of each repeat."""
    num_folds = config.folds or 0
    repeats = []
    for repeat in range(1, config.repeats + 1):
        repeats.append(_out_of_fold(folds[(repeat - 1) * num_folds : repeat * num_folds], manifest, task))
        _save(run, OUT_OF_FOLD if repeat == 1 else f"{OUT_OF_FOLD}-{repeat}", task, repeats[-1])
    scored = [_score(task, each, config.seed) for each in repeats]
    if len(scored) == 1:
        return scored[0]
    samples = [_resampled(task, each, config.seed) for each in repeats]
    return {
        name: _mean_estimate(
            [each[name] for each in scored], [each[name] for each in samples if name in each], "mean of the repeats"
        )
        for name in scored[0]
        if all(name in each for each in scored)
    }


def _mean_estimate(estimates: Sequence[Estimate], samples: Sequence[np.ndarray], whose: str) -> Estimate:
    """The mean of several models' numbers on the same images, with an interval over these.

    samples  of each the bootstrap values, of the same resamples of the images
    """
    first, value = estimates[0], float(np.mean([each.value for each in estimates]))
    if len(samples) < len(estimates) or any(each.low is None for each in estimates):
        return Estimate(value=value, n=first.n, method="none (not every one has an interval)")
    low, high = percentile_interval(np.mean(samples, axis=0))
    if low == high == first.value == value:  # no width would claim certainty
        return first
    return Estimate(value=value, n=first.n, low=min(low, value), high=max(high, value), method=f"bootstrap, {whose}")


def _out_of_fold(folds: Sequence[RunFolder], manifest: Manifest, task: Task[Any]) -> Answers:
    """Each image that is not for testing, as judged by the one model of a repeat that did not learn from it, by id."""
    ids: list[str] = []
    predicted: list[Any] = []
    truth: list[Any] = []
    for fold in folds:
        of_fold, true = task.read_arrays(load_file(fold.predictions / "val.safetensors"))
        ids += fold.read_json("predictions/val.json")
        predicted += of_fold
        truth += true
    if sorted(ids) != manifest.ids("train"):
        raise RunError(f"the folds of {folds[0].path.parent} do not hold each image once: train anew")
    order = sorted(range(len(ids)), key=ids.__getitem__)  # one for all repeats: they are resampled together
    ids, predicted, truth = ([each[i] for i in order] for each in (ids, predicted, truth))
    return Answers(ids, predicted, truth, _groups(manifest, ids))


def _groups(manifest: Manifest, ids: Sequence[str]) -> list[str] | None:
    group_of = {row.id: row.group for row in manifest.rows}
    return None if all(group_of[i] is None for i in ids) else [group_of[i] or i for i in ids]


def _fold_row(run: RunFolder, repeat: int, number: int, fold: RunFolder) -> dict[str, Any]:
    """What is told of one fold: its overall numbers on the images that it did not learn from."""
    results = fold.read_json("results.json")
    rows = fold.read_json("data.json")["manifest"]["rows"]
    overall = {name: estimate for name, estimate in results["splits"]["val"].items() if "/" not in name}
    return {
        "repeat": repeat,
        "fold": number,
        "run": fold.path.relative_to(run.path).as_posix(),
        "num_train": sum(row["split"] == "train" for row in rows),
        "num_val": sum(row["split"] == "val" for row in rows),
        "shipped": results["shipped"],
        "best_epoch": results["best_epoch"],
        "seconds": results["seconds"],
        "val": overall,
    }


def _mean_over_folds(rows: Sequence[Mapping[str, Any]], manifest: Manifest, told: str) -> dict[str, Estimate]:
    """Of the metrics that are defined in every fold, each fold of each repeat counting the same."""
    shared = [name for name in rows[0]["val"] if all(name in row["val"] for row in rows)]
    judged_share = float(np.mean([row["num_val"] / row["num_train"] for row in rows]))
    learnt = [row for row in manifest.rows if row.split == "train"]
    units = len({row.group or row.id for row in learnt})
    means = {}
    for name in shared:
        values = [row["val"][name]["value"] for row in rows]
        span, method = _over_folds(name, values, judged_share, units, told)
        means[name] = Estimate(value=float(np.mean(values)), n=len(learnt), low=span[0], high=span[1], method=method)
    return means


def _over_folds(
    name: str, values: Sequence[float], judged_share: float, units: int, told: str
) -> tuple[tuple[float | None, float | None], str]:
    """The interval of a mean over folds and how it was made; ``units`` are independent images, or groups of them.

    Repeats are more random divisions, each with its weights: they lessen what chance adds to the mean, and the
    correction for training images that are shared keeps the interval from shrinking with them for ever.
    """
    if len(set(values)) == 1:  # their spread would claim certainty
        if is_share(name):
            return wilson(values[0] * units, units), "wilson (the same in every fold)"
        return (None, None), "none (the same in every fold)"
    low, high = corrected_t_interval(values, judged_share)
    method = f"corrected resampled t over {told}"
    if is_at_most_one(name):  # r2 has no lower end
        low, high = max(0.0, low) if is_fraction(name) else low, min(1.0, high)
    return (low, high), method


def _guessing(folds: Sequence[RunFolder], headline: str) -> float | None:
    """The headline of always giving the most frequent answer, mean over the folds."""
    found = [fold.read_json("results.json")["baselines"]["majority"]["val"].get(headline) for fold in folds]
    return None if None in found else float(np.mean([estimate["value"] for estimate in found]))


def _test(run: RunFolder, config: Config, cache: Path, console: Console) -> tuple[dict[str, Estimate], dict[str, Any]]:
    """The ensemble's numbers on the sealed test images, and the headline of its members beside it."""
    records = own_sides(run, cache, console)["test"]
    members = [load_model(Checkpoint.load(path), device=config.device) for path in run.models()]
    together = ensemble(members)
    groups = groups_of(records)
    ids = [record.id for record in records]
    answered = []
    names = [run.fold(number, repeat).relative_to(run.path).as_posix() for repeat, number in run.folds()]
    models: list[LoadedModel | Ensemble] = [*members, together]
    for name, model in zip([*names, "ensemble"], models, strict=True):
        assessment = answer(model, f"test ({name})", records, console)
        answered.append(Answers(ids, assessment.predicted, assessment.truth, groups))
    task, whole = together.task, answered[-1]
    _save(run, "test", task, whole)
    return _score(task, whole, config.seed), _beside_members(task, answered[:-1], whole, config.seed)


def _beside_members(task: Task[Any], members: Sequence[Answers], whole: Answers, seed: int) -> dict[str, Any]:
    """The headline on the test images: of ``members`` each, of a ``single`` one on average, and the ensemble's gain."""
    headline = task.headline
    scored = [_score(task, each, seed).get(headline) for each in members]
    ours = _score(task, whole, seed).get(headline)
    if ours is None or any(each is None for each in scored):
        return {}
    samples = [_resampled(task, each, seed)[headline] for each in members]
    single = _mean_estimate([each for each in scored if each is not None], samples, "mean of the models")
    n = len(set(whole.groups)) if whole.groups is not None else len(whole.ids)
    gain = ours.value - single.value
    low, high = paired_bootstrap(gain, np.mean(samples, axis=0), _resampled(task, whole, seed)[headline], n)
    return {
        "members": [each.to_json() for each in scored if each is not None],
        "single": single.to_json(),
        "gain": {"value": gain, "low": low, "high": high},
    }


def _metrics(task: Task[Any], answers: Answers) -> Any:
    metrics = task.metrics()
    metrics.update(answers.predicted, answers.truth)
    return metrics


def _score(task: Task[Any], answers: Answers, seed: int) -> dict[str, Estimate]:
    numbers: dict[str, Estimate] = _metrics(task, answers).compute(groups=answers.groups, seed=seed)
    return numbers


def _resampled(task: Task[Any], answers: Answers, seed: int) -> Mapping[str, np.ndarray]:
    samples: Mapping[str, np.ndarray] = _metrics(task, answers).resampled(groups=answers.groups, seed=seed)
    return samples


def _json(numbers: Numbers) -> dict[str, Any]:
    return {name: estimate.to_json() for name, estimate in numbers.items() if np.isfinite(estimate.value)}


def _save(run: RunFolder, split: str, task: Task[Any], answers: Answers) -> None:
    write_bytes(run.predictions / f"{split}.safetensors", save(task.arrays(answers.predicted, answers.truth)))
    run.write_json(f"predictions/{split}.json", list(answers.ids))


def _verdict(
    task: Task[Any],
    manifest: Manifest,
    mean: Numbers,
    splits: Mapping[str, Numbers],
    tested: Mapping[str, Any],
    guessing: float | None,
    folds: str,
) -> str:
    headline = task.headline
    name = spoken(headline)
    if headline in mean:
        words = [f"Over {folds} the model's {name} is {mean[headline].told(headline)}."]
    else:
        words = [f"The model's {name} is undefined in some of {folds}: they lack cases to judge."]
    if guessing is not None:
        words.append(f"Always giving {task.trivial_answer} would reach {told(headline, guessing)}.")
    words += _tested_words(headline, splits, tested, bool(manifest.ids("test")))
    return " ".join(words)


def _tested_words(headline: str, splits: Mapping[str, Numbers], tested: Mapping[str, Any], has_test: bool) -> list[str]:
    if "test" not in splits:
        return ["No test image was opened." if has_test else "There are no test images."]
    if not tested:
        return [f"On the sealed test images its {spoken(headline)} is undefined: they lack cases to judge."]
    reached, single = splits["test"][headline].told(headline), told(headline, tested["single"]["value"])
    words = [
        f"On the sealed test images the ensemble of the fold models reaches {reached}, one alone {single} on average."
    ]
    if tested["gain"]["low"] <= 0:
        words.append("That the ensemble is better than a single model is not shown.")
    return words
