"""What the doctor examines: a training, what it wrote down while it ran, and what its model says of labelled images.

Any of the three may be missing. A check takes a ``Case`` and looks at what it needs; it stays silent where that is not
there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from snellen.doctor.judge import Judge

Floats = npt.NDArray[np.float64]
Batch = tuple[Any, Any]  # inputs (a tensor [n, ...], mostly) and targets
Question = Literal["classification", "multilabel", "segmentation", "regression", "other"]


@dataclass(kw_only=True, eq=False)
class Training:
    """Somebody's training: the very objects that it uses, in the state in which they are.

    model       inputs as ``train`` gives them -> outputs
    loss        (outputs, targets) -> a scalar
    train       batches (inputs, targets) of an epoch, as training gets them; asked for anew each epoch
    val         batches of the validation images, as validation gets them
    optimizer   None where a step is taken by other means: ``step`` then says how
    question    what ``outputs`` answer. classification: [n, k] before targets [n] of 0..k-1; multilabel: [n, k] before
                [n, k] of 0 and 1; segmentation: [n, k, h, w] before [n, h, w] of 0..k-1, 255 is void; regression:
                [n, d] before [n, d] or [n]; other: the checks that need to know are left out
    classes     names of the k classes; empty: they are numbered
    scheduler   anything with ``step()`` that sets the optimizer's rates
    scheduled   when its ``step()`` is called: after each "step" or each "epoch"
    step        one training step on a batch, as the user's own loop does it, its scheduler left out; None: loss,
                backward, ``optimizer.step``, with gradients set to nothing before
    evaluate    the user's own validation, which runs ``model`` and returns its number (higher is better); None: the
                mean accuracy in evaluation mode, where ``question`` has one
    metric      (outputs, targets) of a whole set -> number, higher is better, as the user computes it; None: accuracy
    plain       batches of the training images as validation would see them: not augmented, always in the same order
    pretrained  the weights, by the model's own names, that were to be loaded
    epochs      of the whole training; 0: not known
    build       the same training at its beginning, with new objects, from the same seed or another
    run_loss    (model, inputs, targets) -> scalar, for models that compute their loss themselves
    prepare     what is done to the model once it has learnt, before it is judged
    build_short the same as ``build`` with fewer steps, its schedule drawn together, where the whole would take too
                long; ``shortened`` is its share of the steps
    judge       judges chosen images by the training's own loss, where targets are boxes or masks
    changed     the name of a change (``changes.CHANGES``) -> the same training at its beginning with the settings that
                make this change, None where no settings do; for runs of Snellen's own
    units       of "val", and of "train" in the order of ``plain``: images that share one, of one patient or scene, are
                not independent; none: they all are
    """

    model: nn.Module
    loss: Callable[[Any, Any], Tensor]
    train: Iterable[Batch]
    val: Iterable[Batch]
    optimizer: Optimizer | None = None
    question: Question = "classification"
    classes: Sequence[str] = ()
    scheduler: Any = None
    scheduled: Literal["step", "epoch"] = "step"
    step: Callable[[Batch], Any] | None = None
    evaluate: Callable[[], float] | None = None
    metric: Callable[[Any, Any], float] | None = None
    plain: Iterable[Batch] | None = None
    pretrained: Mapping[str, Tensor] | None = None
    epochs: int = 0
    build: Callable[[int], Training] | None = None
    run_loss: Callable[[nn.Module, Any, Any], Tensor] | None = None
    prepare: Callable[[nn.Module], None] | None = None
    build_short: Callable[[int], Training] | None = None
    shortened: float = 1.0
    judge: Judge | None = None
    changed: Callable[[str], Training | None] | None = None
    units: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def loss_of(self, batch: Batch) -> Tensor:
        """The loss of one batch in the mode that the model is in."""
        inputs, targets = batch
        if self.run_loss is not None:
            return self.run_loss(self.model, inputs, targets)
        return self.loss(self.model(inputs), targets)

    def take_step(self, batch: Batch) -> float:
        """One step as this training takes it, the scheduler left out; returns its loss, NaN where ``step`` does not.

        The model is put into training mode first, unless the user's own ``step`` sees to that.
        """
        if self.step is not None:
            return _number(self.step(batch))
        if self.optimizer is None:
            raise ValueError("a training without an optimizer needs its own 'step'")
        self.model.train()
        self.optimizer.zero_grad()
        loss = self.loss_of(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        tensor = next(iter(self.model.parameters()), None)
        return torch.device("cpu") if tensor is None else tensor.device


def _number(value: Any) -> float:
    if isinstance(value, Tensor) and value.numel() == 1:
        return float(value.detach())
    return float(value) if isinstance(value, int | float) else math.nan


@dataclass(frozen=True, kw_only=True)
class History:
    """What was written down while it ran; arrays of one length each, NaN where nothing was. Missing series are empty.

    steps       number of each recorded step; step_losses, gradient_norms, rates are of these
    epochs      number of each epoch, from 1; the others are of these: mean training loss, validation loss, and
                training and validation score (higher is better)
    best_epoch  whose weights were kept; 0: not known
    step_images ids of the images of the recorded steps; empty: not known
    cut         whether it was ended for want of time, before the end that it was to have
    """

    steps: Floats = field(default_factory=lambda: np.zeros(0))
    step_losses: Floats = field(default_factory=lambda: np.zeros(0))
    gradient_norms: Floats = field(default_factory=lambda: np.zeros(0))
    rates: Floats = field(default_factory=lambda: np.zeros(0))
    epochs: Floats = field(default_factory=lambda: np.zeros(0))
    train_losses: Floats = field(default_factory=lambda: np.zeros(0))
    val_losses: Floats = field(default_factory=lambda: np.zeros(0))
    train_scores: Floats = field(default_factory=lambda: np.zeros(0))
    val_scores: Floats = field(default_factory=lambda: np.zeros(0))
    best_epoch: int = 0
    step_images: Sequence[Sequence[str]] = ()
    cut: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a model says of labelled images whose answer is one class each.

    probabilities  [n, k], rows sum to 1
    truth          [n], 0..k-1
    ids            [n]; empty: not known
    features       [n, d] or None: what a network sees in the images
    facts          columns [n] that slices may be made of, by name: numbers, or text (camera, size, source ...)
    groups         [n]: images of one group are not independent; empty: they are
    """

    probabilities: Floats
    truth: npt.NDArray[np.int64]
    ids: Sequence[str] = ()
    features: Floats | None = None
    facts: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    groups: Sequence[str] = ()

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        return np.asarray(self.probabilities.argmax(1), np.int64)

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.predicted == self.truth, np.bool_)

    def __len__(self) -> int:
        return len(self.truth)


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """Everything that is known about one training.

    answers   by side: train (in evaluation mode, not augmented), val, test
    classes   names in the order of the columns of ``Answers.probabilities``
    seed      every experiment draws from it
    """

    training: Training | None = None
    history: History | None = None
    answers: Mapping[str, Answers] = field(default_factory=dict)
    classes: Sequence[str] = ()
    seed: int = 0

    def named(self, index: int) -> str:
        """The name of a class."""
        return self.classes[index] if index < len(self.classes) else f"class {index}"
