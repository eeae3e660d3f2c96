"""Snellen: from a folder of images to a vision model you can trust, and a report that says how good it is.

>>> import snellen
>>> run = snellen.train("photos/")
>>> run.predict("new.jpg")
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snellen.api.auditing import audit
    from snellen.api.comparing import compare
    from snellen.api.doctoring import doctor
    from snellen.api.ensembling import ensemble
    from snellen.api.explaining import explain
    from snellen.api.exporting import Artifact, export, verify
    from snellen.api.predicting import predict
    from snellen.api.results import Audit, Diagnosis, Evaluation
    from snellen.api.serving import serve
    from snellen.api.starting import train
    from snellen.api.tuning import Tuning, tune
    from snellen.api.using import Run, evaluate
    from snellen.api.viewing import Gain, measure_views
    from snellen.compare.pairing import Comparison, Pairing
    from snellen.core.config import Config
    from snellen.core.errors import SnellenError
    from snellen.core.estimate import Estimate
    from snellen.core.finding import Finding
    from snellen.doctor.case import Training
    from snellen.explain.explanation import Explanation
    from snellen.predict.prediction import Prediction
    from snellen.predict.writing import PredictedFiles

_WHERE = {
    "Artifact": "snellen.api.exporting",
    "Audit": "snellen.api.results",
    "Comparison": "snellen.compare.pairing",
    "Config": "snellen.core.config",
    "Diagnosis": "snellen.api.results",
    "Estimate": "snellen.core.estimate",
    "Evaluation": "snellen.api.results",
    "Explanation": "snellen.explain.explanation",
    "Finding": "snellen.core.finding",
    "Gain": "snellen.api.viewing",
    "Pairing": "snellen.compare.pairing",
    "PredictedFiles": "snellen.predict.writing",
    "Prediction": "snellen.predict.prediction",
    "Run": "snellen.api.using",
    "SnellenError": "snellen.core.errors",
    "Training": "snellen.doctor.case",
    "Tuning": "snellen.api.tuning",
    "audit": "snellen.api.auditing",
    "compare": "snellen.api.comparing",
    "doctor": "snellen.api.doctoring",
    "ensemble": "snellen.api.ensembling",
    "evaluate": "snellen.api.using",
    "explain": "snellen.api.explaining",
    "export": "snellen.api.exporting",
    "measure_views": "snellen.api.viewing",
    "predict": "snellen.api.predicting",
    "serve": "snellen.api.serving",
    "train": "snellen.api.starting",
    "tune": "snellen.api.tuning",
    "verify": "snellen.api.exporting",
}

__all__ = [
    "Artifact",
    "Audit",
    "Comparison",
    "Config",
    "Diagnosis",
    "Estimate",
    "Evaluation",
    "Explanation",
    "Finding",
    "Gain",
    "Pairing",
    "PredictedFiles",
    "Prediction",
    "Run",
    "SnellenError",
    "Training",
    "Tuning",
    "audit",
    "compare",
    "doctor",
    "ensemble",
    "evaluate",
    "explain",
    "export",
    "measure_views",
    "predict",
    "serve",
    "train",
    "tune",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Names are loaded when they are first used, so that ``import snellen`` costs nothing."""
    if name not in _WHERE:
        raise AttributeError(f"module 'snellen' has no attribute '{name}'")
    return getattr(import_module(_WHERE[name]), name)


class _Package(ModuleType):
    """``snellen.train`` stays the verb when ``snellen/train/`` is loaded; its modules are reached by from-imports."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _WHERE and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted(__all__)
