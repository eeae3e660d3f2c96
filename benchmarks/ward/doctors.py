"""Who is asked: Snellen's doctor, and those it is compared with. All see the same patient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from faults import Fault
from plans import Plan

from snellen.doctor.case import Case


@dataclass(kw_only=True, eq=False)
class Patient:
    """A case, the images behind it, and whether there are files to audit. signs: what was seen and is no diagnosis."""

    case: Case
    plan: Plan
    seed: int
    audits: bool
    signs: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """Something said to be wrong. treatment: as ``Finding.treatment`` has it."""

    code: str
    treatment: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """examine: alarms, the first diagnosis first. names: whether an alarm is the right name of a fault."""

    name: str
    examine: Callable[[Patient], list[Alarm]]
    names: Callable[[Alarm, Fault], bool]


def _snellen(patient: Patient) -> list[Alarm]:
    """Diagnoses count: findings that are more than info and certain or confirmed by an experiment."""
    from folders import audit_of

    from snellen.doctor.examine import examine, ranked

    audited = audit_of(patient.plan) if patient.audits else []
    findings = ranked([*audited, *examine(patient.case, seconds=SECONDS).findings])
    patient.signs += [finding.code for finding in findings if not finding.is_diagnosis]
    return [Alarm(code=each.code, treatment=each.treatment) for each in findings if each.is_diagnosis]


SECONDS = 7200.0  # far more than the doctor takes: what it finds must not depend on who else computes


def _by_code(alarm: Alarm, fault: Fault) -> bool:
    return alarm.code in fault.codes


def _all_doctors() -> dict[str, Doctor]:
    from rivals import RIVALS

    known = [
        Doctor(name="snellen", examine=_snellen, names=_by_code),
        Doctor(name="silent", examine=lambda patient: [], names=_by_code),
        Doctor(name="always", examine=lambda patient: [Alarm(code="overfitting")], names=_by_code),
    ]
    for rival in RIVALS:
        known.append(Doctor(name=rival.name, examine=_examiner(rival), names=_namer(rival)))
    return {doctor.name: doctor for doctor in known}


def _examiner(rival: Any) -> Callable[[Patient], list[Alarm]]:
    return lambda patient: [Alarm(code=code) for code in rival.alarms(patient)]


def _namer(rival: Any) -> Callable[[Alarm, Fault], bool]:
    return lambda alarm, fault: bool(set(fault.id.split("+")) & set(rival.means.get(alarm.code, "").split()))


DOCTORS = _all_doctors()
