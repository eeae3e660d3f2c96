"""Packages at their defaults, given what they ask for: a log, a model with a batch, or images.

Alarms are what they call a warning or worse.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from snellen.doctor.case import History
from snellen.doctor.safety import untouched


def _log(history: History) -> list[dict[str, float]]:
    """A row for each step; the validation loss stands in the last row of its epoch, as loggers write it."""
    columns = {
        "step": history.steps,
        "train_loss": history.step_losses,
        "grad_norm": history.gradient_norms,
        "lr": history.rates,
    }
    rows = [{name: float(column[row]) for name, column in columns.items()} for row in range(len(history.steps))]
    ends = np.linspace(0, len(rows), len(history.epochs) + 1)[1:].astype(int) - 1
    for end, loss in zip(ends, history.val_losses, strict=True):
        rows[end]["val_loss"] = float(loss)
    return rows


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def gradsnitch(patient: Any) -> list[str]:
    import gradsnitch as package
    import pandas

    return [found.code for found in package.lint(pandas.DataFrame(_log(patient.case.history)))]


def runmedic(patient: Any) -> list[str]:
    from runmedic.checks import run_checks
    from runmedic.model import Run
    from runmedic.roles import detect

    run = Run(name="run", source="csv", path="run.csv")
    for row in _log(patient.case.history):
        for name, value in row.items():
            if name != "step" and not (name == "grad_norm" and math.isnan(value)):
                run.get(name).add(row["step"], value)
    run.finalize()
    return [found.check for found in run_checks(run, detect(run)) if found.severity != "info"]


def torchtest2(patient: Any) -> list[str]:
    """On the model as it was before training, with its own optimizer and loss."""
    import torchtest2 as package

    fresh = patient.case.training.build(patient.seed)
    images, targets = next(iter(fresh.train))
    with _quiet():
        report = package.check_model(fresh.model, images, targets, loss_fn=fresh.loss, optimizer=fresh.optimizer)
    return [each.name for each in (*report.failures, *report.warnings)]


def torch_audit(patient: Any) -> list[str]:
    """A one-shot audit of the trained model after one backward pass."""
    import torch_audit as package

    training = patient.case.training
    with untouched(training), _quiet():
        batch = next(iter(training.train))
        training.model.zero_grad()
        loss = training.loss_of(batch)
        if loss.requires_grad:
            loss.backward()
        found = []
        for phase in ("static", "backward", "optimizer"):
            result = package.audit(training.model, phase=phase, batch=batch, optimizer=training.optimizer)
            found += [each.rule_id for each in result.findings if each.severity.value != "INFO"]
    return list(dict.fromkeys(found))


def cleanlab(patient: Any) -> list[str]:
    """Confident learning at its defaults, on out-of-fold probabilities of a logistic regression of the pixels."""
    from cleanlab.filter import find_label_issues
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    side = patient.plan.data.train
    if patient.plan.world.question != "classification" or np.bincount(side.targets).min() < 5:
        return []
    _, labels = np.unique(side.targets, return_inverse=True)
    pixels = side.images.reshape(len(side), -1) / 255.0
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    model = LogisticRegression(max_iter=200, tol=1e-2)
    probabilities = cross_val_predict(model, pixels, labels, cv=folds, method="predict_proba")
    return ["label issues"] if find_label_issues(labels, probabilities, n_jobs=1).any() else []


@contextlib.contextmanager
def _files(patient: Any) -> Iterator[Path]:
    from folders import write

    with tempfile.TemporaryDirectory() as place:
        write(patient.plan, Path(place))
        yield Path(place)


def cleanvision(patient: Any) -> list[str]:
    from cleanvision import Imagelab

    if patient.plan.world.question != "classification" or not patient.audits:
        return []
    with _files(patient) as folder, _quiet():
        lab = Imagelab(data_path=str(folder))
        lab.find_issues(n_jobs=1, verbose=False)
    summary = lab.issue_summary
    return [str(name) for name in summary[summary["num_images"] > 0]["issue_type"]]


def imagededup(patient: Any) -> list[str]:
    """Perceptual hashes at the default distance, over both sides."""
    from imagededup.methods import PHash

    if patient.plan.world.question != "classification" or not patient.audits:
        return []
    with _files(patient) as folder, _quiet():
        found = PHash(verbose=False).find_duplicates(
            image_dir=str(folder), recursive=True, num_enc_workers=0, num_dist_workers=0
        )
    return ["duplicates"] if any(found.values()) else []
