"""How a training begins: the first loss, weights that are all alike, and weights that should have been loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from snellen.core.finding import Finding
from snellen.doctor.case import Case, Training
from snellen.doctor.contracts.oracle import OnCpu, indicator, undecided
from snellen.doctor.contracts.probing import NAMED, first, restore_rates, same, some
from snellen.doctor.safety import untouched

_BATCHES = 3
_EXPLODING = 2.0  # times the loss of knowing nothing; usual initialisations stay below 1.5
_STEPS = 3
_LOADED = 0.9  # of the weight tensors: a head is often left out
_CLOSE = 1e-3  # of a tensor's largest value: weights may be loaded in half precision

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def initial_loss(case: Case) -> Iterator[Finding]:
    """A fresh model knows nothing: its loss should be that of knowing nothing, not far above."""
    training = case.training
    if training is None or training.build is None or training.run_loss is not None:
        return
    with untouched(training):
        fresh = training.build(case.seed)
        batches = first(training.train, _BATCHES)
        fresh.model.train()
        with torch.no_grad():
            outputs = [fresh.model(inputs) for inputs, _ in batches]
    values, neutral = [], []
    for output, (inputs, targets) in zip(outputs, batches, strict=True):
        if not isinstance(output, Tensor) or not isinstance(inputs, Tensor) or not bool(torch.isfinite(inputs).all()):
            return
        if not bool(torch.isfinite(output).all()):
            yield _not_finite()
            return
        truth = indicator(training.question, output, targets)
        loss = OnCpu(training.loss, targets)
        value = loss(output.cpu())
        level = (
            None if truth is None else next((v for u in undecided(truth, training.question) if (v := loss(u))), None)
        )
        if value is None or level is None:
            return
        values.append(value)
        neutral.append(level)
    if not values or sum(neutral) <= 0 or sum(values) <= _EXPLODING * sum(neutral):
        return
    mean, level = sum(values) / len(values), sum(neutral) / len(neutral)
    yield Finding(
        code="initial-loss",
        severity="warning",
        message=f"The fresh model's loss is {mean:.2f}: {mean / level:.1f} times that of knowing nothing, {level:.2f}.",
        advice="Use a smaller initialisation (He et al. 2015, or the layers' own), above all in the last layer, or "
        "standardise the inputs.",
        evidence={"initial": mean, "knowing_nothing": level},
        certainty="observed",
    )


def _not_finite() -> Finding:
    return Finding(
        code="initial-loss",
        severity="serious",
        message="The fresh model answers finite images with NaN or infinity.",
        advice="Look at the initialisation, and at divisions, logarithms and roots in the model.",
        evidence={"finite": False},
    )


def symmetric_weights(case: Case) -> Iterator[Finding]:
    """All units of a layer are the same and stay the same while it trains: the layer is one unit wide.

    A head, a gate or the end of a residual branch may start at 0: its units part with the first steps.
    """
    training = case.training
    if training is None or training.build is None:
        return
    with untouched(training):
        fresh = training.build(case.seed)
        alike = {
            name: layer for name, layer in fresh.model.named_modules() if isinstance(layer, _WEIGHTED) and _alike(layer)
        }
        if not alike or (fresh.optimizer is None and fresh.step is None):
            return
        restore_rates(fresh)
        for batch in first(fresh.train, _STEPS):
            fresh.take_step(batch)
        used = [name for name, layer in alike.items() if layer.weight.grad is not None and _alike(layer)]
    if used:
        yield Finding(
            code="symmetric-weights",
            severity="serious",
            message=f"In {len(used)} layers all units are equal, and still after {_STEPS} steps: {some(used)}.",
            advice="Draw the weights at random (He et al. 2015, or the layers' own initialisation).",
            evidence={"layers": used[:NAMED], "count": len(used)},
            treatment={"change": "new weights"},
        )


def _alike(layer: nn.Module) -> bool:
    """Whether a layer that learns has more than one unit and these are equal but for rounding."""
    weight, bias = layer.weight, layer.bias
    if not isinstance(weight, Tensor) or not weight.requires_grad or len(weight) < 2:
        return False
    tensors = [weight.detach(), *([bias.detach()] if isinstance(bias, Tensor) else [])]
    return all(bool(((each - each[:1]).abs() <= 1e-6 * each.abs().max()).all()) for each in tensors)


def weights_not_loaded(case: Case) -> Iterator[Finding]:
    """The model, at its beginning, has the weights that were to be loaded."""
    training = case.training
    if training is None or not training.pretrained:
        return
    with untouched(training):
        fresh = _beginning(training, case.seed)
        if fresh is None:
            return
        state = {name: value.detach().clone() for name, value in fresh.model.state_dict().items()}
    wanted = _weights(training.pretrained)
    fitting = [name for name in wanted if name not in state or state[name].shape == wanted[name].shape]
    missing = [name for name in fitting if name not in state or not _equal(state[name], wanted[name])]
    loaded = len(fitting) - len(missing)
    if not fitting or not missing or missing == [list(wanted)[-1]] or loaded > _LOADED * len(fitting):
        return
    unknown = [name for name in missing if name not in state]
    yield Finding(
        code="weights-not-loaded",
        severity="serious" if loaded < 0.5 * len(fitting) else "warning",
        message=f"{len(missing)} of {len(fitting)} pretrained weight tensors are not in the model at its beginning: "
        f"{some(missing)}.",
        advice="Load them with strict=True and mend the names that it reports (a prefix such as 'module.' is usual)."
        if unknown
        else "Load the weights after the last call that initialises the model.",
        evidence={"missing": missing[:NAMED], "count": len(missing), "of": len(fitting), "unknown_names": len(unknown)},
        treatment={"change": "load weights"},
    )


def _beginning(training: Training, seed: int) -> Training | None:
    """The training before its first step; None where it is not known."""
    if training.build is not None:
        return training.build(seed)
    if training.optimizer is not None and not training.optimizer.state:
        return training
    return None


def _weights(pretrained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is learnt and not the same in every fresh model: no scales, no offsets, no counters."""
    return {name: value for name, value in pretrained.items() if value.ndim >= 2 and value.is_floating_point()}


def _equal(one: Tensor, other: Tensor) -> bool:
    other = other.to(one)
    return same(one, other) or bool((one - other).abs().max() <= _CLOSE * other.abs().max())
