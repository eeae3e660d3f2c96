"""The end of a run: the shipped model's numbers on validation and test, beside the baselines, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from safetensors.numpy import save

from snellen.core.checkpoint import Checkpoint
from snellen.core.estimate import Estimate, spoken, told
from snellen.core.files import write_bytes
from snellen.evaluate import Assessment, assess, score
from snellen.train.learning_curve import learning_curve
from snellen.train.pictures import save_mistakes
from snellen.train.probe import Probe
from snellen.train.session import Session

RESULTS_VERSION = 1
_MISTAKES = 24

Numbers = Mapping[str, Estimate]


def write_results(session: Session, probe: Probe | None, *, ended: str) -> None:
    """Evaluate the best checkpoint, once on each side, and write results.json, predictions/ and pictures/."""
    best = Checkpoint.load(session.run.best_checkpoint)
    session.model.load_state_dict(dict(best.weights))
    splits, baselines, assessments = {}, _empty_baselines(probe), {}
    for split in ("val", "test"):
        if split not in session.sides:
            continue
        assessments[split] = _assess(session, split)
        splits[split] = _score(session, split, assessments[split].predicted)
        baselines["majority"][split] = _score(session, split, _majority(session, split))
        if probe is not None:
            baselines["linear probe"][split] = _score(session, split, probe.predictions[split])
        _save_predictions(session, split, assessments[split])
    headline_split = "test" if "test" in splits else "val"
    mistakes = save_mistakes(
        session.run, session.task, session.sides[headline_split], assessments[headline_split].predicted, _MISTAKES
    )
    sentence = verdict(session, best.origin, headline_split, splits, baselines)
    content = {
        "version": RESULTS_VERSION,
        "headline": session.task.headline,
        "verdict": sentence,
        "shipped": best.origin,
        "best_epoch": best.epoch,
        "ended": ended,
        "seconds": round(session.console.seconds, 1),
        "splits": {split: _json(numbers) for split, numbers in splits.items()},
        "baselines": {
            name: {split: _json(numbers) for split, numbers in sides.items()} for name, sides in baselines.items()
        },
        "mistakes": mistakes,
    }
    session.run.write_json("results.json", content)
    session.console.say(sentence)


def write_learning_curve(session: Session, probe: Probe) -> None:
    """learning_curve.json: would more images help, as far as a linear model on the probe's features can tell."""
    curve = learning_curve(session.task, session.sides, probe, session.plan)
    if curve is not None:
        session.run.write_json("learning_curve.json", curve.to_json())
        session.console.say(curve.sentence())


def _empty_baselines(probe: Probe | None) -> dict[str, dict[str, Numbers]]:
    return {"majority": {}} if probe is None else {"majority": {}, "linear probe": {}}


def _assess(session: Session, split: str) -> Assessment:
    images = session.sides[split]
    with session.console.progress(f"Evaluating {split}", len(images)) as advance:
        return assess(session.model, session.task, images, session.plan, advance=advance)


def _score(session: Session, split: str, predicted: Sequence[Any]) -> dict[str, Estimate]:
    truth = session.sides[split].targets
    return score(session.task, predicted, truth, groups=session.groups(split), seed=session.plan.seed)


def _majority(session: Session, split: str) -> Sequence[Any]:
    return session.task.majority(session.sides["train"].targets, len(session.sides[split]))


def _json(numbers: Numbers) -> dict[str, Any]:
    """JSON has no NaN: a metric that is undefined here (a class without images) is left out."""
    return {name: estimate.to_json() for name, estimate in numbers.items() if np.isfinite(estimate.value)}


def _save_predictions(session: Session, split: str, assessment: Assessment) -> None:
    arrays = session.task.arrays(assessment.predicted, assessment.truth)
    write_bytes(session.run.predictions / f"{split}.safetensors", save(arrays))
    session.run.write_json(f"predictions/{split}.json", [record.id for record in session.sides[split].records])


def verdict(
    session: Session,
    origin: str,
    split: str,
    splits: Mapping[str, Numbers],
    baselines: Mapping[str, Mapping[str, Numbers]],
) -> str:
    """What the numbers say, in two or three sentences that claim no more than the intervals allow."""
    headline, always = session.task.headline, session.task.trivial_answer
    name = spoken(headline)
    side = "sealed test images" if split == "test" else "validation images, which also chose the model,"
    got = splits[split].get(headline)
    if got is None:
        return f"On the {side} the model's {name} is undefined: none of them is a case that it could judge."
    trivial = baselines["majority"][split][headline].value
    words = [f"On the {side} the model's {name} is {got.told(headline)}."]
    if got.low is not None and got.low <= trivial:
        words.append(f"That is not shown to be better than always giving {always} ({told(headline, trivial)}).")
    else:
        words.append(f"Always giving {always} would reach {told(headline, trivial)}.")
    if "linear probe" in baselines:
        probe = baselines["linear probe"][split][headline].value
        if origin in ("linear probe", "linear SVM"):
            words.append(_why_linear(session, origin))
        else:
            words.append(f"A linear probe on {_seen(session)} reaches {told(headline, probe)}.")
    return " ".join(words)


def _why_linear(session: Session, origin: str) -> str:
    plan = session.plan
    if plan.head_epochs + plan.epochs == 0:
        reason = plan.reasons.get("transfer")
        return f"It is a {origin} on frozen features, {'as asked' if reason is None else f'since {reason}'}."
    if not any(event["event"] == "epoch" for event in session.run.events()):
        return f"It is a {origin} on frozen features: training ended before it could be judged."
    return (
        "Fine-tuning did not beat the linear probe on frozen features on the validation images, so the probe is the "
        "model you get."
    )


def _seen(session: Session) -> str:
    return "frozen features" if session.plan.probe == "features" else "the bare pixels"
