"""The rivals: published rules, re-implemented, and packages at their defaults; and what their alarms name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import packages
import rules

_GRADIENTS, _RATE, _LABELS = "M10 O01 M04 O07", "O01 O04", "L01 L02 L03 L05"


@dataclass(frozen=True, kw_only=True)
class Rival:
    """means: which faults of the catalogue an alarm names, generously read. needs: a package that must be installed."""

    name: str
    group: str
    alarms: Callable[[Any], list[str]]
    means: Mapping[str, str]
    needs: str = ""

    def installed(self) -> bool:
        return not self.needs or find_spec(self.needs) is not None


_AUTOTRAINER = {
    "vanishing": "M10 M04 M09",
    "exploding": _GRADIENTS,
    "dying ReLU": "M09 M04",
    "oscillation": "O01 O04 P05",
    "slow convergence": "O02 R02",
    "not converging": "O01 O02 M04 M11",
}

RIVALS = (
    Rival(
        name="UMLAUT*",
        group="rules",
        alarms=rules.umlaut,
        means={
            "input outside -1..1": "P01",
            "loss not finite": "O07 D01",
            "rate out of range": "O01 O02 O04",
            "overfitting": "R03 D13",
            "validation too good": "S01 S06",
            "dropout above half": "M08",
        },
    ),
    Rival(name="AutoTrainer*", group="rules", alarms=rules.autotrainer, means=_AUTOTRAINER),
    Rival(name="AutoTrainer* without gate", group="rules", alarms=rules.autotrainer_ungated, means=_AUTOTRAINER),
    Rival(
        name="DeepDiagnosis*",
        group="rules",
        alarms=rules.deep_diagnosis,
        means={
            "not finite": "O07 D01",
            "loss not decreasing": "O01 O02 R02 O13",
            "accuracy not increasing": "O01 O02 R02 O13",
            "dead units": "M09 M04",
            "vanishing gradient": "M10 M04",
            "input out of range": "P01",
            "weight variance": "M04",
            "rate too low": "O02",
            "rate too high": _RATE,
        },
    ),
    Rival(
        name="TheDeepChecker*",
        group="rules",
        alarms=rules.the_deep_checker,
        means={
            "inputs not scaled": "P01",
            "labels unbalanced": "D08",
            "initial loss": "M04",
            "weights at the start": "M04",
            "dead activations": "M09",
            "activations out of range": "M04 M10",
            "slow updates": "O02",
            "fast updates": _RATE,
            "loss decreases too little": "O02 O13 R02",
            "loss diverges": _RATE + " O07",
            "train and evaluation differ": "M06 M08",
        },
    ),
    Rival(
        name="gradsnitch",
        group="packages",
        needs="gradsnitch",
        alarms=packages.gradsnitch,
        means={
            "GS001": "O07 D01",
            "GS002": "O07",
            "GS003": "O01 R07",
            "GS004": "R03 D13",
            "GS005": "O02 O04",
            "GS006": _RATE,
            "GS007": "M10",
            "GS008": "O01 O02 O04",
            "GS009": _RATE + " P05",
            "GS010": "O03",
        },
    ),
    Rival(
        name="runmedic",
        group="packages",
        needs="runmedic",
        alarms=packages.runmedic,
        means={
            "non_finite": "O07 D01",
            "divergence": _RATE,
            "spikes": "R07 O01",
            "no_learning": "O02 M01 O06 O13",
            "overfitting": "R03 D13",
            "val_below_train": "S01 S06 M08",
            "grad_explosion": _GRADIENTS,
            "grad_spikes": "O01 R07",
            "lr_plateau": "O02 O04",
        },
    ),
    Rival(
        name="torchtest2",
        group="packages",
        needs="torchtest2",
        alarms=packages.torchtest2,
        means={
            "initial_loss": "M04",
            "optimizer_coverage": "M02",
            "gradient_flow": "M01 M04 M09",
            "params_change": "M01 M02 O06",
            "frozen_params": "M07",
            "batch_independence": "M12",
            "eval_determinism": "M08 M05",
            "output_finite": "O07",
            "loss": "O07",
            "loss_decreases": "O01 O13",
            "overfit_batch": "M11 M10 O13 M03",
            "input_dependency": "M01 M04",
        },
    ),
    Rival(
        name="torch-audit",
        group="packages",
        needs="torch_audit",
        alarms=packages.torch_audit,
        means={
            "TA100": "O07 D01",
            "TA102": _GRADIENTS,
            "TA103": "M09 M04",
            "TA104": "M01",
            "TA105": "M09 M04",
            "TA301": "P01",
            "TA302": "D12",
            "TA303": "M12",
            "TA304": "M06",
            "TA402": "O08",
            "TA405": "M04",
        },
    ),
    Rival(
        name="cleanlab", group="packages", needs="cleanlab", alarms=packages.cleanlab, means={"label issues": _LABELS}
    ),
    Rival(
        name="cleanvision",
        group="packages",
        needs="cleanvision",
        alarms=packages.cleanvision,
        means={
            "exact_duplicates": "S01 S06 D06 L02",
            "near_duplicates": "S01 S02 S06 D07",
            "dark": "D12 S05",
            "low_information": "D12",
        },
    ),
    Rival(
        name="imagededup",
        group="packages",
        needs="imagededup",
        alarms=packages.imagededup,
        means={"duplicates": "S01 S02 S06 L02"},
    ),
)
