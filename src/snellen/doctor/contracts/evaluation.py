"""How validation looks at the model: in evaluation mode, the same each time, each image for itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from snellen.core.finding import Finding
from snellen.doctor.case import Case, Training
from snellen.doctor.contracts.probing import NAMED, NormBase, first, hooked, is_norm_buffer, outputs_of, same, some
from snellen.doctor.forwards import DropoutsOff, running_within
from snellen.doctor.safety import untouched
from snellen.doctor.scores import score_images

_SAME = 1e-4  # of the largest output: single precision is far closer
_SAME_HALF = 1e-2  # where the outputs have half precision
_MOST_ROWS = 32
_MOST_LEARNT = 1000  # training images that are asked about
_LEARNT = 0.95  # of them, right: the network knows them


def evaluation_in_training_mode(case: Case) -> Iterator[Finding]:
    """The user's own ``evaluate``, called as after an epoch of training, leaves dropout or batch norms in training
    mode, or moves running statistics."""
    training = case.training
    if training is None or training.evaluate is None:
        return
    with untouched(training):
        drops, norms, moved, deliberate = _watched(training)
    if not drops and not norms and not moved:
        return
    parts = [f"{len(names)} {kind}" for names, kind in ((drops, "dropouts"), (norms, "batch norms")) if names]
    seen = f"{' and '.join(parts)} in training mode" if parts else "batch norms with statistics that move"
    yield Finding(
        code="evaluation-in-training-mode",
        severity="info" if deliberate and not norms and not moved else "serious",
        message=f"Validation runs the model with {seen}: {some([*drops, *norms] or moved)}.",
        advice="Call model.eval() before validation and model.train() after it.",
        evidence={"dropouts": drops[:NAMED], "norms": norms[:NAMED], "statistics_moved": moved[:NAMED]},
        treatment={"change": "house evaluation"},
    )


def _watched(training: Training) -> tuple[list[str], list[str], list[str], bool]:
    """Dropouts and norms that ran in training mode, statistics that moved, and whether the model as a whole was in
    evaluation mode, as it is where dropout is left on for a purpose (Gal and Ghahramani 2016)."""
    names = {module: name or "the model" for name, module in training.model.named_modules()}
    drops: set[nn.Module] = set()
    norms: set[nn.Module] = set()
    whole: list[bool] = []

    def look(module: nn.Module, _: Any) -> None:
        whole.append(training.model.training)
        if module.training:
            (norms if isinstance(module, NormBase) else drops).add(module)

    watched = [module for module in names if _behaves_in_two_ways(module)]
    before = {name: buffer.clone() for name, buffer in training.model.named_buffers() if is_norm_buffer(name)}
    training.model.train()
    with hooked([module.register_forward_pre_hook(look) for module in watched]), torch.no_grad():
        assert training.evaluate is not None
        training.evaluate()
    after = dict(training.model.named_buffers())
    moved = [name for name, old in before.items() if name in after and not same(after[name], old)]
    named = [[name for module, name in names.items() if module in found] for found in (drops, norms)]
    return named[0], named[1], moved, bool(whole) and not any(whole)


def _behaves_in_two_ways(module: nn.Module) -> bool:
    """Dropouts that drop something, those of other libraries too, and norms with running statistics."""
    if isinstance(module, NormBase):
        return module.running_mean is not None
    if isinstance(module, _DropoutNd):
        return module.p > 0
    share = getattr(module, "drop_prob", None)
    return "drop" in type(module).__name__.lower() and isinstance(share, float) and share > 0


def evaluation_not_deterministic(case: Case) -> Iterator[Finding]:
    """Two forward passes of one batch in evaluation mode differ: a dropout that does not know of modes."""
    training = case.training
    if training is None or training.run_loss is not None:
        return
    with untouched(training):
        for batch in first(training.val, 1):
            once, again = (outputs_of(training, batch[0]) for _ in range(2))
            off = _difference(once, again)
            if off is None or off <= _tolerance(once):
                return
            with running_within(training.model, DropoutsOff, learning=False):
                rest = _difference(*(outputs_of(training, batch[0]) for _ in range(2)))
                learnt = _learnt(training)
            yield Finding(
                code="evaluation-not-deterministic",
                severity="serious",
                message="In evaluation mode the model answers the same images differently each time: outputs differ by "
                f"{off:.1%} of the largest.",
                advice="Tell functional dropout of the mode, F.dropout(x, p, self.training), or use nn.Dropout.",
                evidence={"relative_difference": off, "with_dropouts_off": rest, "learnt_with_dropouts_off": learnt},
                treatment=_dropouts_off(learnt) if rest is not None and rest <= _tolerance(once) else {},
            )


def _learnt(training: Training) -> float | None:
    """The share of training images that are answered rightly; None where they are not known, or not right or wrong."""
    if training.plain is None or training.question not in ("classification", "segmentation"):
        return None
    return score_images(training, training.plain, most=_MOST_LEARNT).mean


def _dropouts_off(learnt: float | None) -> dict[str, str]:
    """Off in evaluation, as they were meant to be. In training as well where they hold back a network that does not
    even know its training images: there is nothing yet that it should be kept from learning by heart."""
    return {"change": "no dropout" if learnt is not None and learnt < _LEARNT else "dropouts off"}


def samples_mix(case: Case) -> Iterator[Finding]:
    """In evaluation mode, another image in one place of the batch changes the answers in other places."""
    training = case.training
    if training is None or training.run_loss is not None:
        return
    with untouched(training):
        for inputs, _ in first(training.val, 1):
            if not isinstance(inputs, Tensor) or inputs.ndim < 2 or len(inputs) < 2:
                return
            inputs = inputs[:_MOST_ROWS]
            before, again = (outputs_of(training, inputs) for _ in range(2))
            if not isinstance(before, Tensor) or before.ndim < 1 or len(before) != len(inputs):
                return
            noise = _difference(before, again)
            if noise is None or noise > _tolerance(before):
                return  # said by evaluation-not-deterministic
            offs = [_moves_others(training, inputs, before, place) for place in (0, len(inputs) - 1)]
            off = max(offs)
            if off > _tolerance(before):
                yield Finding(
                    code="samples-mix",
                    severity="serious",
                    message="In evaluation mode the answer for an image depends on the others in its batch: replacing "
                    f"one moves the others by up to {off:.1%} of the largest output.",
                    advice="Look for a view or reshape where a permute was meant, and for norms without running "
                    "statistics.",
                    evidence={"relative_difference": off, "images": len(inputs)},
                )


def _moves_others(training: Training, inputs: Tensor, before: Tensor, place: int) -> float:
    """How far the answers of other images move when the image at ``place`` becomes its negative, as a share."""
    changed = inputs.clone()
    changed[place] = inputs.max() + inputs.min() - inputs[place]
    others = torch.arange(len(inputs), device=before.device) != place
    after = outputs_of(training, changed)
    off = _difference(before[others], after[others], scale=float(before.abs().max()))
    return 0.0 if off is None else off


def _tolerance(outputs: Any) -> float:
    tensor = outputs if isinstance(outputs, Tensor) else torch.zeros(0)
    return _SAME_HALF if tensor.dtype in (torch.float16, torch.bfloat16) or torch.is_autocast_enabled() else _SAME


def _difference(some_outputs: Any, others: Any, scale: float = 0.0) -> float | None:
    """Largest difference of two answers as a share of the largest value; None where they are no finite tensors."""
    if not isinstance(some_outputs, Tensor) or not isinstance(others, Tensor) or some_outputs.shape != others.shape:
        return None
    if not some_outputs.numel():
        return None
    one, two = some_outputs.cpu().double(), others.cpu().double()  # MPS has no double precision
    off = float((one - two).abs().max()) / max(scale or float(one.abs().max()), 1e-12)
    return off if off < float("inf") else None
