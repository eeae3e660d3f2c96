"""What the contract suite must be told of each task: what its truth looks like, and when it counts as learnt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from shapes import SHAPES
from snellen.core.estimate import Estimate
from snellen.tasks.classification.target import Label, LabelSet
from snellen.tasks.regression.target import Values

SURE = 12.0  # a logit that leaves no doubt
# In the name of a metric of which 0 is perfect.
FAULTS = ("loss", "brier", "calibration", "mae", "rmse", "error", "bias")


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the suite must be told of a task.

    truths         of three records that differ in what they show: fields of a Record
    refused        a truth that is not of this kind, and the words of the error
    perfect        truth -> the raw outputs of a network that makes no mistake
    flipped        a target and its image's width -> the target of the mirrored image
    read_back      what ``arrays`` wrote -> (raw outputs with those scores, truth)
    says           whether a caption names what the fields of a Record state, and nothing else
    described      fails where a description leaves out or makes up something; it is given the caption as well
    badness        of one of ``mistakes``: what they are ordered by
    scored         whether a prediction says how sure it is
    learnt         the headline from which the shapes count as learnt
    chance         what guessing gives, at most
    """

    truths: tuple[Mapping[str, Any], ...]
    refused: tuple[Mapping[str, Any], str]
    perfect: Callable[[Sequence[Any], int], Tensor]
    flipped: Callable[[Any, int], Any]
    read_back: Callable[[Mapping[str, np.ndarray]], tuple[Tensor, Sequence[Any]]]
    says: Callable[[str, Mapping[str, Any]], bool]
    described: Callable[[Mapping[str, Any], Sequence[str], str], None]
    badness: Callable[[Mapping[str, Any]], float]
    scored: bool
    learnt: float
    chance: float


def _logits(scores: np.ndarray) -> Tensor:
    return torch.from_numpy(scores).double().log()


def _log_odds(scores: np.ndarray) -> Tensor:
    return torch.from_numpy(scores).double().logit()


def _names_the_labels(caption: str, truth: Mapping[str, Any]) -> bool:
    return all((kind in caption) == (kind in truth["labels"]) for kind in SHAPES)


def _as_classes(described: Mapping[str, Any], classes: Sequence[str], caption: str) -> None:
    assert list(described["probabilities"]) == list(classes)
    assert all(0 <= probability <= 1 for probability in described["probabilities"].values())
    decided = [described["label"]] if "label" in described else described["labels"]
    assert all(name in caption for name in decided)


def _as_numbers(described: Mapping[str, Any], classes: Sequence[str], caption: str) -> None:
    assert list(described["values"]) == list(classes)
    for name, value in described["values"].items():
        told = float(caption.split(f"{name} ")[1].split(",")[0])
        assert told == pytest.approx(value, rel=1e-3)


def _confidence(mistake: Mapping[str, Any]) -> float:
    assert 0 <= mistake["confidence"] <= 1
    return float(mistake["confidence"])


_UNKNOWN_LABEL = ({"labels": ("circel",)}, r"photo\.jpg: label 'circel' is not one of the classes.*'circle'")

CASES = {
    "classification": Case(
        truths=({"labels": ("circle",)}, {"labels": ("triangle",)}, {"labels": ("square",)}),
        refused=_UNKNOWN_LABEL,
        perfect=lambda truth, k: SURE * torch.eye(k)[[label.index for label in truth]],
        flipped=lambda target, width: target,
        read_back=lambda arrays: (_logits(arrays["scores"]), [Label(int(index)) for index in arrays["truth"]]),
        says=_names_the_labels,
        described=_as_classes,
        badness=_confidence,
        scored=True,
        learnt=0.8,
        chance=0.5,
    ),
    "multilabel": Case(
        truths=({"labels": ("circle", "square")}, {"labels": ()}, {"labels": ("triangle",)}),
        refused=_UNKNOWN_LABEL,
        perfect=lambda truth, k: SURE * (2 * torch.tensor(np.array([labels.present for labels in truth])).float() - 1),
        flipped=lambda target, width: target,
        read_back=lambda arrays: (_log_odds(arrays["scores"]), [LabelSet(row.astype(bool)) for row in arrays["truth"]]),
        says=_names_the_labels,
        described=_as_classes,
        badness=_confidence,
        scored=True,
        learnt=0.85,
        chance=0.65,
    ),
    "regression": Case(
        truths=({"values": (2.5,)}, {"values": (-3.0,)}, {"values": (1250.0,)}),
        refused=({"labels": ("circle",)}, r"photo\.jpg: a number for size is needed, got the label 'circle'"),
        perfect=lambda truth, k: torch.tensor(np.array([each.values for each in truth])),
        flipped=lambda target, width: target,
        read_back=lambda arrays: (torch.from_numpy(arrays["predicted"]), [Values(row) for row in arrays["truth"]]),
        says=lambda caption, truth: caption == f"size {truth['values'][0]:g}",
        described=_as_numbers,
        badness=lambda mistake: abs(float(mistake["off"])),
        scored=False,
        learnt=0.8,
        chance=0.0,
    ),
}


def same(one: Any, other: Any) -> bool:
    """Whether two targets decide the same, whatever their scores."""
    names = [field.name for field in fields(one) if field.name != "scores"]
    return type(one) is type(other) and all(np.array_equal(getattr(one, n), getattr(other, n)) for n in names)


def close(one: Mapping[str, Estimate], other: Mapping[str, Estimate], tolerance: float = 1e-5) -> bool:
    return one.keys() == other.keys() and all(
        one[name].n == other[name].n and one[name].value == pytest.approx(other[name].value, abs=tolerance)
        for name in one
    )


def perfect(metric: str) -> float:
    return float(not any(fault in metric for fault in FAULTS))
