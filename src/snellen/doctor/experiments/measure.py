"""What a model answers on each side, measured once for all experiments.

Every pass begins with the random states and loader generators that the training had, so that two passes over the same
loader meet the same images in the same order and can be compared image by image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from snellen.core.seeds import keyed_permutation
from snellen.core.thresholds import FLOORS, alpha
from snellen.doctor.case import Batch, Case, Floats, Training
from snellen.doctor.loaders import Mapped
from snellen.doctor.norms import norms_of
from snellen.doctor.safety import untouched
from snellen.doctor.scores import VOID, Gain, Scores, gain, last_linear, score_images

Side = Literal["train", "plain", "val"]
Result = TypeVar("Result")

_MOST_IMAGES = 20_000  # of a pass: what is asked here is settled by fewer
_SMALL = 24  # pixels a side of what is kept of each image, and
_BYTES_HELD = 2**28  # most bytes of whole images held at once
# The score of numbers is minus their squared error: running averages that lag behind by a few steps move it by a third
# in good health.
_FLOOR_OF_ERRORS = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What one pass in evaluation mode showed of each of n images.

    scores    of each image, higher is better
    truth     classification: class [n]; multilabel: [n, k]; segmentation: share of each class [n, k]; regression:
              [n, d]
    outputs   classification: [n, k], as the model gives them; else empty
    features  what the last linear layer reads, [n, d]; None where there is no such layer
    small     inputs, averaged down to 24 pixels a side at most: [n, c, h, w] or [n, d]
    means, squares  mean and mean square of each channel of each input [n, c]
    """

    question: str
    scores: Scores
    truth: Floats
    outputs: Floats
    features: Tensor | None
    small: Tensor
    means: Floats
    squares: Floats

    def __len__(self) -> int:
        return len(self.scores.values)

    @property
    def labels(self) -> np.ndarray:
        """Class of each image, int64 [n]."""
        return self.truth.astype(np.int64)

    @property
    def predicted(self) -> np.ndarray:
        return np.asarray(self.outputs.argmax(1), np.int64)

    @property
    def constant(self) -> Floats:
        """The score of each image for the best answer that is the same for all of them, [n]."""
        if self.question == "classification":
            return np.asarray(self.labels == np.bincount(self.labels).argmax(), np.float64)
        if self.question == "segmentation":
            return self.truth[:, self.truth.sum(0).argmax()]
        if self.question == "multilabel":
            return np.asarray((self.truth == (self.truth.mean(0) > 0.5)).mean(1), np.float64)
        return np.asarray(-np.square(self.truth - self.truth.mean(0)).mean(1), np.float64)

    @property
    def share_learnt(self) -> float:
        """1: every answer is right; 0: no better than one answer for all; below: worse."""
        best = 0.0 if self.question == "regression" else 1.0
        room = best - float(self.constant.mean())
        return 1 - (best - self.scores.mean) / room if room > 0 else float("nan")


class Measurements:
    """The passes over one training's sides, each made when it is first asked for."""

    def __init__(self, training: Training, seed: int) -> None:
        self.training, self.seed = training, seed
        self._seen: dict[Side, Seen | None] = {}
        self._kept: dict[str, Any] = {}

    def side(self, name: Side) -> Seen | None:
        """None where the side is not there, or its batches and outputs are not what the question says."""
        if name not in self._seen:
            batches = getattr(self.training, name)
            seen = None if batches is None else look(self.training, batches)
            self._seen[name] = None if seen is None else replace(seen, scores=self._with_units(seen.scores, name))
        return self._seen[name]

    def _with_units(self, scores: Scores, name: Side) -> Scores:
        """``train`` itself may come in another order each time."""
        units = self.training.units.get({"val": "val", "plain": "train"}.get(name, ""), ())
        return replace(scores, units=units[: len(scores.values)])

    def kept(self, name: str, make: Callable[[Measurements], Result]) -> Result:
        """What ``make`` gives for these measurements, made once."""
        if name not in self._kept:
            self._kept[name] = make(self)
        result: Result = self._kept[name]
        return result

    def again(self, name: Side, change: Callable[[Tensor], Tensor] | None = None) -> Scores:
        """The scores of a side, inputs sent through ``change``, with whatever is now changed about the model."""
        batches = getattr(self.training, name)
        with untouched(self.training):
            found = score_images(self.training, batches if change is None else Mapped(batches, change), _MOST_IMAGES)
        return self._with_units(found, name)

    def some_images(self, most: int, side: Side | None = None) -> Batch | None:
        """At most ``most`` images drawn at random, in no order. side None: of training, if possible not augmented."""
        name: Side = side or ("train" if self.training.plain is None else "plain")
        seen = self.side(name)
        if seen is None:
            return None
        size = max(1, self._bytes_of_an_image(name))
        chosen = keyed_permutation(len(seen), "some images", self.seed)[: max(2, min(most, _BYTES_HELD // size))]
        with untouched(self.training):
            return _gathered(getattr(self.training, name), chosen)

    def _bytes_of_an_image(self, name: Side) -> int:
        with untouched(self.training):
            inputs, _ = next(iter(getattr(self.training, name)))
        return int(inputs[0].numel() * inputs.element_size())


_KEPT: WeakKeyDictionary[Case, tuple[tuple[float, ...], Measurements]] = WeakKeyDictionary()


def measurements(case: Case, *questions: str) -> Measurements | None:
    """The measurements of a case, kept for as long as the case lives and its weights stay the same.

    None without a training, and where its question is not one of ``questions``.
    """
    training = case.training
    if training is None or training.question not in questions:
        return None
    mark = _mark(training.model)
    if case not in _KEPT or _KEPT[case][0] != mark:
        _KEPT[case] = mark, Measurements(training, case.seed)
    return _KEPT[case][1]


def _mark(model: nn.Module) -> tuple[float, ...]:
    """Differs where weights or buffers differ."""
    with torch.no_grad():
        tensors = [each.cpu().double() for each in (*model.parameters(), *model.buffers())]
        return tuple(float(value.nan_to_num()) for each in tensors for value in (each.sum(), each.square().sum()))


def has_trained(case: Case) -> bool:
    """Whether there is a sign that the training has begun: untrained models are no patients."""
    history, training = case.history, case.training
    if history is not None and (len(history.steps) or len(history.epochs)):
        return True
    if training is None:
        return False
    scheduled = getattr(training.scheduler, "last_epoch", 0) > 0
    return scheduled or (training.optimizer is not None and len(training.optimizer.state) > 0)


def look(training: Training, batches: Iterable[Batch]) -> Seen | None:
    """One pass of the model in evaluation mode over ``batches``, 20,000 images at most."""
    notes = _Notes(training.question)
    reader = last_linear(training.model)
    with untouched(training):
        handles = [training.model.register_forward_hook(notes.take_outputs)]
        if reader is not None:
            handles.append(reader.register_forward_pre_hook(notes.take_features))
        try:
            scores = score_images(training, notes.taken(batches), _MOST_IMAGES)
        except _Unfit:
            return None
        finally:
            for handle in handles:
                handle.remove()
    return notes.seen(scores)


class _Unfit(Exception):
    """Batches or outputs are not what the question says."""


@dataclass
class _Notes:
    """What passes by, batch by batch."""

    question: str
    truth: list[Floats] = field(default_factory=list)
    outputs: list[Floats] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)
    small: list[Tensor] = field(default_factory=list)
    moments: list[Floats] = field(default_factory=list)
    _targets: Any = None

    def taken(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for inputs, targets in batches:
            if not isinstance(inputs, Tensor) or not isinstance(targets, Tensor) or inputs.dim() < 2:
                raise _Unfit
            if not inputs.is_floating_point() or not len(inputs):
                raise _Unfit
            self._targets = targets.detach().cpu()
            values = inputs.detach().float().nan_to_num(0.0, 0.0, 0.0)
            self.small.append(_small(values).cpu())
            exact = values.cpu().double()  # MPS has no double precision
            flat = exact.flatten(2) if exact.dim() > 2 else exact[:, :, None]
            self.moments.append(torch.stack([flat.mean(2), flat.square().mean(2)], 1).numpy())
            yield inputs, targets

    def take_features(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].dim() == 2:
            self.features.append(inputs[0].detach().float().cpu())

    def take_outputs(self, model: nn.Module, inputs: Any, outputs: Any) -> None:
        if not isinstance(outputs, Tensor) or len(outputs) != len(self._targets):
            raise _Unfit
        truth = _truth(self.question, outputs, self._targets)
        if truth is None:
            raise _Unfit
        self.truth.append(truth)
        if self.question == "classification":
            self.outputs.append(np.nan_to_num(outputs.detach().cpu().double().numpy()))

    def seen(self, scores: Scores) -> Seen | None:
        if not self.truth or sum(map(len, self.truth)) != len(scores.values):
            return None
        features = torch.cat(self.features) if self.features else None
        moments = np.concatenate(self.moments)
        return Seen(
            question=self.question,
            scores=scores,
            truth=np.concatenate(self.truth),
            outputs=np.concatenate(self.outputs) if self.outputs else np.zeros((len(scores.values), 0)),
            features=features if features is not None and len(features) == len(scores.values) else None,
            small=torch.cat(self.small),
            means=moments[:, 0],
            squares=moments[:, 1],
        )


def _truth(question: str, outputs: Tensor, targets: Tensor) -> Floats | None:
    """As ``Seen.truth`` says; None where outputs and targets do not fit the question."""
    k = outputs.shape[1] if outputs.dim() > 1 else 1
    whole = not targets.is_floating_point()
    if question == "classification":
        fits = outputs.dim() == 2 and targets.shape == outputs.shape[:1] and whole
        return targets.numpy().astype(np.float64) if fits and 0 <= targets.min() and targets.max() < k else None
    if question == "segmentation":
        if outputs.dim() != 4 or targets.shape != (len(outputs), *outputs.shape[2:]) or not whole:
            return None
        known = (targets != VOID).flatten(1).sum(1).clamp(min=1)
        shares = torch.stack([(targets == label).flatten(1).sum(1) / known for label in range(k)], 1)
        return shares.double().numpy()
    flat = targets.reshape(len(targets), -1).double().numpy()
    return flat if flat.shape[1] == outputs[0].numel() else None


def _small(inputs: Tensor) -> Tensor:
    if inputs.dim() != 4:
        return inputs.flatten(1) if inputs.dim() > 2 else inputs
    height, width = (min(_SMALL, size) for size in inputs.shape[2:])
    return nn.functional.adaptive_avg_pool2d(inputs, (height, width))


def _gathered(batches: Iterable[Batch], chosen: np.ndarray) -> Batch:
    """The images at the places ``chosen`` of an epoch, in that order."""
    wanted = {int(place): position for position, place in enumerate(chosen)}
    found: dict[int, tuple[Tensor, Tensor]] = {}
    place = 0
    for inputs, targets in batches:
        for row in range(len(inputs)):
            if place + row in wanted:
                found[wanted[place + row]] = inputs[row], targets[row]
        place += len(inputs)
        if len(found) == len(wanted):
            break
    rows = [found[position] for position in sorted(found)]
    return torch.stack([each for each, _ in rows]), torch.stack([each for _, each in rows])


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Within the block the batch norms normalise by the batch at hand, as in training; all else stays as it is."""
    handles = [norm.register_forward_pre_hook(_to_training) for norm in norms_of(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _to_training(norm: nn.Module, inputs: Any) -> None:
    norm.train()


def in_batches(images: Batch, size: int) -> Sequence[Batch]:
    """Batches of ``size``; a last one of a single image is left out, for no batch norm can learn from it."""
    inputs, targets = images
    parts = zip(torch.split(inputs, size), torch.split(targets, size), strict=True)
    return [(x, y) for x, y in parts if len(x) > 1]


def is_shown(found: Gain, question: str, code: str, looks: int = 1) -> bool:
    """Whether a gain is both large enough to matter and beyond chance."""
    floor = _FLOOR_OF_ERRORS if question == "regression" else FLOORS["accuracy"]
    size = found.relative if question == "regression" else found.mean
    return size >= floor and found.p < alpha(code, looks)


def gain_of(before: Scores, after: Scores) -> Gain | None:
    """None where the two passes did not meet the same number of images."""
    return gain(before, after) if len(before.values) == len(after.values) else None


def told(score: float, question: str) -> str:
    """A mean score in words."""
    return f"a mean squared error of {-score:.3g}" if question == "regression" else f"{score:.1%}"
