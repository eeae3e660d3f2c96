"""What Grad-CAM follows back: one number out of a network's raw outputs for one image, before any squashing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from snellen.explain.asked import Asked
from snellen.tasks.base import Task

_EPS = 1e-6  # of a score, whose log-odds are then finite


def score_of(task: Task[Any], outputs: Any, asked: Asked) -> Tensor:
    """A scalar with its graph: the logit of a class; the number; the sum of a class's logits over the pixels that it
    was given (Vinogradova et al. 2020, arXiv:2002.11434); the sum of the log-odds of the objects that are shown."""
    if task.name == "segmentation":
        logits = outputs[0].float()
        favour = logits.new_tensor(task.decision).log()[:, None, None] if task.decision else 0.0
        own: Tensor = logits[asked.index]
        return own[(logits + favour).argmax(0) == asked.index].sum()
    if task.dense:
        return _of_objects(task, outputs, asked.index)
    score: Tensor = outputs[0, asked.index].float()
    return score


def _of_objects(task: Task[Any], outputs: Any, index: int) -> Tensor:
    """Of each object that is shown, the candidate that it came from."""
    candidates = (outputs[0] if isinstance(outputs, tuple) else outputs)[0].float()
    detached = tuple(each.detach() for each in outputs) if isinstance(outputs, tuple) else outputs.detach()
    [found] = task.decode(detached)
    shown = found.above(task.thresholds)  # type: ignore[attr-defined]
    boxes = torch.from_numpy(shown.boxes[shown.labels == index]).to(candidates.device)
    scores: Tensor = candidates[:, 4 + index]
    far = (boxes[:, None] - candidates.detach()[None, :, :4]).abs().sum(2)
    own = (far + 1 - scores.detach()).argmin(1)  # of several with one box, the one that says this class
    return scores[own].logit(_EPS).sum()
