"""Run every check of the audit."""

from __future__ import annotations

from collections.abc import Sequence

from snellen.audit.checks import CHECKS
from snellen.audit.subject import AuditSubject
from snellen.core.finding import Check, Finding, run_checks


def run_audit(subject: AuditSubject, extra_checks: Sequence[Check[AuditSubject]] = ()) -> list[Finding]:
    """Every finding about the data, the most severe first. ``extra_checks`` are a task's own, and run last."""
    return run_checks((*CHECKS, *extra_checks), subject)
