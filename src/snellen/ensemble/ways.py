"""How several models may answer as one, and which way fits which task.

mean      the mean of what they say: of probabilities, of numbers, of boxes that are of one object (``decode_together``)
weighted  the same, each model counting what was fitted on validation images
vote      what most of them decide
rank      the mean of ranks: where the models' probabilities are not on one scale
soup      the mean of their weights, which is one network and costs no more than one
auto      weighted for objects, where there are images to fit by; else mean. Where boxes are fused, an object is as
          sure as the share of the models that found it (Solovyev et al. 2021, arXiv:1910.13302), so that one weak model
          lowers every score; a mean of probabilities bears it
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from snellen.core.errors import ConfigError, did_you_mean
from snellen.tasks.base import is_dense

WAYS = ("mean", "weighted", "vote", "rank", "soup")
AUTO = "auto"
FEWEST = 8  # independent images to fit anything by: four to fit, and four to judge
_EVERY_TASK = ("mean", "weighted", "soup")

_TOLD = {
    "mean": "mean",
    "weighted": "weighted mean",
    "vote": "majority vote",
    "rank": "mean rank",
    "soup": "soup",
}

Said = Sequence[Sequence[Any]]  # of each model the predictions of the same images
Rule = Callable[[Said, np.ndarray | None], list[Any]]

# Task, way -> (predictions of the models, their scores of validation images or None) -> predictions
_RULES = {
    ("classification", "vote"): "snellen.tasks.classification.voting:most_named",
    ("classification", "rank"): "snellen.tasks.classification.voting:mean_rank_of_classes",
    ("multilabel", "vote"): "snellen.tasks.classification.voting:labels_of_most",
    ("multilabel", "rank"): "snellen.tasks.classification.voting:mean_rank_among_images",
}


def ways_for(task: str) -> tuple[str, ...]:
    return tuple(way for way in WAYS if way in _EVERY_TASK or (task, way) in _RULES)


def check_way(way: str) -> None:
    """Raises ConfigError for a way that is none."""
    if way not in (AUTO, *WAYS):
        raise ConfigError(f"way = '{way}' is not known{did_you_mean(way, (AUTO, *WAYS))}")


def chosen_way(way: str, task: str, num_units: int) -> tuple[str, str]:
    """What ``way`` comes to, and the reason in words; empty where it was asked for.

    num_units  independent validation images to fit by
    """
    if way != AUTO:
        return way, ""
    if not is_dense(task) or task == "segmentation":
        return "mean", "the mean of what they say needs nothing fitted"
    if num_units < FEWEST:
        return "mean", f"{num_units} validation images are too few to fit weights by: a weak member lowers every score"
    return "weighted", "where boxes are fused a weak member lowers every score, unless it counts less"


def check_fit(way: str, task: str) -> None:
    """Raises ConfigError for a way that the task of that name has no use for."""
    if way not in (AUTO, *ways_for(task)):
        raise ConfigError(f"way = '{way}' does not fit the task '{task}': use {' or '.join(ways_for(task))}")


def is_fitted(way: str, task: str) -> bool:
    """Whether something is fitted on validation images for it."""
    return way in ("weighted", "soup") or (task, way) == ("multilabel", "rank")


def told_way(way: str, num_counting: int, num_models: int) -> str:
    """Within a sentence: ``the mean of 3 models``, ``the soup of 2 of 3 models``."""
    some = "" if num_counting == num_models else f"{num_counting} of "
    return f"the {_TOLD[way]} of {some}{num_models} models"


def rule_of(task: str, way: str) -> Rule | None:
    """What makes one prediction of several; None where the raw outputs are joined before anything is decided."""
    if (task, way) not in _RULES:
        return None
    module, _, name = _RULES[task, way].partition(":")
    rule: Rule = getattr(import_module(module), name)
    return rule
