"""How good a trained model is on the hidden test, and what the user believes of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from plans import Plan, build, score_of
from scipy.stats import binomtest
from torch import Tensor, nn
from training import answers
from worlds import Data

from snellen.doctor.case import Training

_MOST = 1e6

Change = Callable[[Training], Training]


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """score: on the hidden test; log_loss: there, NaN for values; reported: the number that the user's own validation
    says; qualities [n]: of each hidden image, higher is better (right or not, share of pixels, less the error)."""

    score: float
    log_loss: float
    reported: float
    qualities: npt.NDArray[np.float64]

    def to_json(self) -> dict[str, float]:
        """JSON knows neither infinity nor what is no number: a log loss is at most ``_MOST``, and 0 for values."""
        log_loss = 0.0 if math.isnan(self.log_loss) else min(self.log_loss, _MOST)
        named = {"score": self.score, "log_loss": log_loss, "reported": self.reported}
        return {name: round(value, 5) for name, value in named.items()}


def judge(plan: Plan, training: Training, change: Change | None, seed: int) -> Judged:
    """The trained model on the hidden images, prepared as the training prepares those of validation.

    So the training is built once more with the hidden images in the place of those of validation, changed in the same
    way, and given the weights. Evaluation is always in evaluation mode, and the score is always the world's own.
    """
    hidden = Data(train=plan.data.train, val=plan.data.hidden, hidden=plan.data.hidden)
    twin = build(replace(plan, data=hidden), seed)
    if change is not None:
        twin = change(twin)
    outputs, targets = answers(training.model, twin.val)
    reported = training.evaluate() if training.evaluate is not None else _own_score(plan, training)
    finite = bool(torch.isfinite(outputs).all())
    outputs = torch.nan_to_num(outputs, 0.0, 0.0, 0.0)
    log_loss = math.nan if plan.world.question == "regression" else float(nn.functional.cross_entropy(outputs, targets))
    score = max(0.0, score_of(plan.world)(outputs, targets))
    return Judged(
        score=score,
        log_loss=log_loss if finite else math.inf,
        reported=reported if math.isfinite(reported) else 0.0,
        qualities=_qualities(plan.world.question, outputs, targets),
    )


def _own_score(plan: Plan, training: Training) -> float:
    outputs, targets = answers(training.model, training.val)
    return (training.metric or score_of(plan.world))(outputs, targets)


def _qualities(question: str, outputs: Tensor, targets: Any) -> npt.NDArray[np.float64]:
    if question == "regression":
        return -(outputs - targets).abs().flatten(1).mean(1).double().numpy()
    right = (outputs.argmax(1) == targets).double()
    return np.asarray(right.numpy() if right.dim() == 1 else right.flatten(1).mean(1).numpy())


def sign_test(worse: int, better: int) -> float:
    """Exact and two-sided, of the images that differ: McNemar's test, where each is right or wrong."""
    return 1.0 if worse + better == 0 else float(binomtest(better, worse + better, 0.5).pvalue)


def closed(harms: str, healthy: Judged, before: Judged, after: Judged) -> float | None:
    """The share of the damage that the treatment took away; None where there was next to none in this very unit."""
    ill, well, now = (_damage(harms, healthy, each) for each in (before, healthy, after))
    least = 0.05 if harms == "confidence" else 0.01
    return None if ill - well < least else float(np.clip((ill - now) / (ill - well), -9.0, 9.0))


def _damage(harms: str, healthy: Judged, judged: Judged) -> float:
    if harms == "report":
        return abs(judged.reported - judged.score)
    if harms == "confidence":
        return min(judged.log_loss, 20.0)
    return healthy.score - judged.score
