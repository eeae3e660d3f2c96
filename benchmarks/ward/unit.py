"""One unit: a training is run, doctors look at it, what they prescribe is tried, and the hidden test judges."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from doctors import DOCTORS, Patient
from faults import FAULTS, inject
from judging import Judged, closed, judge, sign_test
from plans import Plan, build
from recipes import plan_of
from training import answers, fit

from snellen.doctor.case import Answers, Case, Training

HELPS, SURE = 0.02, 0.05  # a change of the score that counts, and the p-value that it needs


@dataclass(frozen=True, kw_only=True)
class Unit:
    """fault: a name in FAULTS, or "" for a healthy unit."""

    world: str
    recipe: str
    fault: str = ""
    severity: str = ""
    seed: int = 0

    @property
    def key(self) -> str:
        return "/".join((self.world, self.recipe, self.fault or "healthy", self.severity or "-", str(self.seed)))


def run_unit(unit: Unit, doctors: Sequence[str], *, cure: bool = True, random_arm: bool = False) -> dict[str, Any]:
    """Everything about a unit as one JSON-able row."""
    torch.set_num_threads(1)
    started = time.process_time()
    healthy = _twin(unit.world, unit.recipe, unit.seed)
    plan = plan_of(unit.recipe, unit.world, unit.seed)
    sick = inject(unit.fault, unit.severity, plan) if unit.fault else plan
    training = build(sick, unit.seed)
    history = fit(training)
    judged = judge(sick, training, None, unit.seed)
    row: dict[str, Any] = {"key": unit.key, **asdict(unit), "judged": judged.to_json(), "healthy": healthy.to_json()}
    row["admits"] = list(plan.world.admits)
    row["harms"] = FAULTS[unit.fault].harms if unit.fault else ""
    row["worse"], row["better"] = _tally(healthy, judged)
    row["train_seconds"] = round(time.process_time() - started, 2)
    case = Case(
        training=training, history=history, answers=_answers(sick, training), classes=sick.world.classes, seed=unit.seed
    )
    audits = not unit.fault or FAULTS[unit.fault].in_data
    patient = Patient(case=case, plan=sick, seed=unit.seed, audits=audits)
    row["verdicts"] = {name: _verdict(name, patient, unit, healthy, judged, cure) for name in doctors}
    if random_arm:
        row["random"] = _random_treatment(unit, sick, healthy, judged, row)
    if cure and not unit.fault:
        row["placebo"] = _trial(replace(sick), unit.seed + 100, None, healthy, judged, "score")
    return row


@lru_cache(maxsize=4)
def _twin(world: str, recipe: str, seed: int) -> Judged:
    """The same recipe, images and seed without a fault."""
    plan = plan_of(recipe, world, seed)
    training = build(plan, seed)
    fit(training)
    return judge(plan, training, None, seed)


def _tally(before: Judged, after: Judged) -> tuple[int, int]:
    """Of the hidden images: how many are answered worse after than before, and better."""
    if len(before.qualities) != len(after.qualities):
        return 0, 0
    change = after.qualities - before.qualities
    return int((change < -1e-9).sum()), int((change > 1e-9).sum())


def _answers(plan: Plan, training: Training) -> Mapping[str, Answers]:
    if plan.world.question != "classification":
        return {}
    known = {}
    for name, batches, side in (("train", training.plain, plan.data.train), ("val", training.val, plan.data.val)):
        outputs, targets = answers(training.model, batches)
        if not bool(torch.isfinite(outputs).all()):
            return {}
        probabilities = outputs.double().softmax(1).numpy()
        ids = [f"{name}/{plan.world.classes[target]}/{row}.png" for row, target in enumerate(targets.tolist())]
        known[name] = Answers(probabilities=probabilities, truth=targets.numpy(), ids=ids, facts=side.facts)
    return known


def _verdict(name: str, patient: Patient, unit: Unit, healthy: Judged, judged: Judged, cure: bool) -> dict[str, Any]:
    """What a doctor says, whether that is the fault's name, and what comes of the treatment it prescribes first."""
    started = time.process_time()
    doctor = DOCTORS[name]
    alarms = doctor.examine(patient)
    verdict: dict[str, Any] = {
        "alarms": [alarm.code for alarm in alarms],
        "signs": list(patient.signs) if name == "snellen" else [],
        "seconds": round(time.process_time() - started, 2),
    }
    if unit.fault:
        fault = FAULTS[unit.fault]
        right = [doctor.names(alarm, fault) for alarm in alarms]
        verdict["rank"] = right.index(True) + 1 if True in right else 0
    treatment = next((alarm.treatment for alarm in alarms if alarm.treatment), None)
    if treatment and cure:
        harms = FAULTS[unit.fault].harms if unit.fault else "score"
        verdict["treatment"] = treatment if "change" in treatment else sorted(treatment)
        verdict["trial"] = _trial(patient.plan, unit.seed, treatment, healthy, judged, harms)
    return verdict


def _trial(
    plan: Plan, seed: int, treatment: Mapping[str, Any] | None, healthy: Judged, before: Judged, harms: str
) -> dict[str, Any] | None:
    """The training once more from its beginning, treated; None where the treatment is for something else."""
    from treatments import treated

    pair = treated(plan, seed, treatment)
    if pair is None:
        return None
    plan, change = pair
    started = time.process_time()
    training = build(plan, seed) if change is None else change(build(plan, seed))
    try:
        fit(training)
        after = judge(plan, training, change, seed)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"[:200]}
    worse, better = _tally(before, after)
    p = sign_test(worse, better)
    step = after.score - before.score
    return {
        "judged": after.to_json(),
        "closed": closed(harms, healthy, before, after),
        "certified": step >= HELPS and p < SURE,
        "harmed": step <= -HELPS and p < SURE,
        "seconds": round(time.process_time() - started, 2),
    }


def _random_treatment(
    unit: Unit, plan: Plan, healthy: Judged, judged: Judged, row: Mapping[str, Any]
) -> dict[str, Any] | None:
    """As many changes drawn at random as fit into the doctor's time, at most four; the best reported one wins."""
    from snellen.doctor.changes import CHANGES

    verdict = row["verdicts"].get("snellen", {"seconds": 0.0})
    tries = int(np.clip(round(verdict["seconds"] / max(0.5, row["train_seconds"])), 1, 4))
    fresh = build(plan, unit.seed)
    fitting = sorted(name for name, change in CHANGES.items() if change.fits(fresh))
    names = random.Random(unit.key).sample(fitting, min(tries, len(fitting)))
    harms = FAULTS[unit.fault].harms if unit.fault else "score"
    trials = [(name, _trial(plan, unit.seed, {"change": name}, healthy, judged, harms)) for name in names]
    done = [(name, trial) for name, trial in trials if trial is not None and "judged" in trial]
    if not done:
        return None
    name, best = max(done, key=lambda each: each[1]["judged"]["reported"])
    return {"change": name, "tries": tries, **best}
