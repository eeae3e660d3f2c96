"""What the contract suite must be told of each task: what its truth looks like, and when it counts as learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snellen.tasks.classification.target import Label, LabelSet

SURE = 12.0  # a logit that leaves no doubt


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the suite must be told of a task.

    labels         of three records that differ in what they show
    perfect        truth -> the raw outputs of a network that makes no mistake
    flipped        a target and its image's width -> the target of the mirrored image
    read_back      what ``arrays`` wrote -> (raw outputs with those scores, truth)
    learnt         the headline from which the shapes count as learnt
    chance         what guessing gives, at most
    """

    labels: tuple[tuple[str, ...], ...]
    perfect: Callable[[Sequence[Any], int], Tensor]
    flipped: Callable[[Any, int], Any]
    read_back: Callable[[Mapping[str, np.ndarray]], tuple[Tensor, Sequence[Any]]]
    learnt: float
    chance: float


def _logits(scores: np.ndarray) -> Tensor:
    return torch.from_numpy(scores).double().log()


def _log_odds(scores: np.ndarray) -> Tensor:
    return torch.from_numpy(scores).double().logit()


CASES = {
    "classification": Case(
        labels=(("circle",), ("triangle",), ("square",)),
        perfect=lambda truth, k: SURE * torch.eye(k)[[label.index for label in truth]],
        flipped=lambda target, width: target,
        read_back=lambda arrays: (_logits(arrays["scores"]), [Label(int(index)) for index in arrays["truth"]]),
        learnt=0.8,
        chance=0.5,
    ),
    "multilabel": Case(
        labels=(("circle", "square"), (), ("triangle",)),
        perfect=lambda truth, k: SURE * (2 * torch.tensor(np.array([labels.present for labels in truth])).float() - 1),
        flipped=lambda target, width: target,
        read_back=lambda arrays: (_log_odds(arrays["scores"]), [LabelSet(row.astype(bool)) for row in arrays["truth"]]),
        learnt=0.85,
        chance=0.65,
    ),
}
