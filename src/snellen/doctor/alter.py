"""How a training is altered: each function takes one at its beginning (``Training.build``) and gives one.

What lies inside the user's own ``step`` cannot be altered: alterations of the loss, of clearing gradients or of
clipping put the plain step of ``Training.take_step`` in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snellen.doctor import initialisation
from snellen.doctor.case import Batch, Training
from snellen.doctor.forwards import Cuts, DropoutsOff, Dropping, GraphKept, run_within
from snellen.doctor.loaders import (
    Affine,
    Enriched,
    Finite,
    Mapped,
    Merged,
    Parted,
    Shuffled,
    statistics,
)
from snellen.doctor.modes import in_evaluation
from snellen.doctor.norms import freeze_frozen, norms_of, re_estimate
from snellen.doctor.safety import untouched
from snellen.doctor.schedules import all_schedules, full_schedule

# --- rates and regularisation: the user's own step stays

_RATE_KEYS = ("lr", "initial_lr", "max_lr", "min_lr", "peak_lr")

_DECAY_KEYS = ("weight_decay", "decoupled_decay")


def scale_rates(training: Training, factor: float) -> Training:
    """Every learning rate times ``factor``, those of the schedule as well."""
    if training.optimizer is not None:
        for group in training.optimizer.param_groups:
            for key in _RATE_KEYS:
                if key in group:
                    group[key] = group[key] * factor
    for schedule in all_schedules(training.scheduler):
        for key in ("base_lrs", "max_lrs", "_last_lr", "min_lrs"):
            if isinstance(getattr(schedule, key, None), list):
                setattr(schedule, key, [rate * factor for rate in getattr(schedule, key)])
        if hasattr(schedule, "eta_min"):
            schedule.eta_min *= factor
    return training


def scale_decay(training: Training, factor: float) -> Training:
    if training.optimizer is not None:
        for group in training.optimizer.param_groups:
            for key in _DECAY_KEYS:
                if key in group:
                    group[key] = group[key] * factor
    return training


def has_decay(training: Training) -> bool:
    return training.optimizer is not None and any(
        group.get(key) for group in training.optimizer.param_groups for key in _DECAY_KEYS
    )


_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


def no_dropout(training: Training) -> Training:
    """None by modules, and none by functions either."""
    for module in training.model.modules():
        if isinstance(module, _DROPOUTS):
            module.p = 0.0
    if has_dropout(training):
        run_within(training.model, DropoutsOff, learning=True)
        run_within(training.model, DropoutsOff, learning=False)
    return training


def has_dropout(training: Training) -> bool:
    """Whether anything is dropped from the first batch while the model trains."""
    if any(isinstance(module, _DROPOUTS) and module.p > 0 for module in training.model.modules()):
        return True
    return _forward_within(Dropping(), training)


def _forward_within(watch: Cuts | Dropping, training: Training) -> bool:
    """What ``watch`` saw in the forward pass of the first training batch."""
    with untouched(training):
        batch = next(iter(training.train))
        training.model.train()
        with watch:
            training.loss_of(batch)
    return watch.seen


def slow_body(training: Training) -> Training:
    """A tenth of the rate for what was pretrained, where that is in groups of its own."""
    if training.optimizer is None or training.pretrained is None:
        return training
    loaded = {id(each) for name, each in training.model.named_parameters() if name in training.pretrained}
    for group in training.optimizer.param_groups:
        if all(id(each) in loaded for each in group["params"]):
            for key in _RATE_KEYS:
                if key in group:
                    group[key] = group[key] * 0.1
    return training


def is_pretrained(training: Training) -> bool:
    return training.pretrained is not None


# --- images

_SHUFFLE_SEED = 20_000


def plain_images(training: Training) -> Training:
    """Training images as validation sees them, in a new order each epoch."""
    assert training.plain is not None
    return replace(training, train=Shuffled(training.plain, seed=_SHUFFLE_SEED))


def shuffle(training: Training) -> Training:
    return replace(training, train=Shuffled(training.train, seed=_SHUFFLE_SEED))


def has_plain(training: Training) -> bool:
    return training.plain is not None


def standardise(training: Training) -> Training:
    """Inputs of mean 0 and deviation 1 in each channel, by the statistics of the training images."""
    source = training.train if training.plain is None else training.plain
    mean, std = statistics(source)
    affine = Affine(scale=1 / std, offset=-mean / std)
    return _mapped(training, affine, affine, affine)


def validate_as_trained(training: Training) -> Training:
    """Validation inputs with the channel statistics of the training inputs."""
    mean, std = statistics(training.train)
    val_mean, val_std = statistics(training.val)
    scale = std / val_std
    plain = training.plain
    if plain is not None:
        plain_mean, plain_std = statistics(plain)
        plain = Mapped(plain, Affine(scale=std / plain_std, offset=mean - plain_mean * std / plain_std))
    val = Mapped(training.val, Affine(scale=scale, offset=mean - val_mean * scale))
    return replace(training, val=val, plain=plain, evaluate=None)


def reverse_channels(training: Training) -> Training:
    return replace(training, val=Mapped(training.val, _reversed), evaluate=None)


def _reversed(inputs: Tensor) -> Tensor:
    return inputs.flip(1)


def _mapped(training: Training, train: Any, val: Any, plain: Any) -> Training:
    return replace(
        training,
        train=Mapped(training.train, train),
        val=Mapped(training.val, val),
        plain=None if training.plain is None else Mapped(training.plain, plain),
        evaluate=None,
    )


def merge(training: Training, count: int) -> Training:
    """Larger batches; a schedule by the step is made to fit the fewer steps."""
    merged = replace(training, train=Merged(training.train, count))
    return full_schedule(merged) if training.scheduler is not None and training.scheduled == "step" else merged


def part(training: Training, count: int) -> Training:
    """Smaller batches, of two images at least; a schedule by the step is made to fit the more steps."""
    parted = replace(training, train=Parted(training.train, count))
    return full_schedule(parted) if training.scheduler is not None and training.scheduled == "step" else parted


def finite_inputs(training: Training) -> Training:
    """Training without the images that hold NaN or infinity; in those of validation, 0 stands for it."""
    plain = training.plain
    return replace(
        training,
        train=Finite(training.train),
        val=Mapped(training.val, _filled),
        plain=None if plain is None else Finite(plain),
        evaluate=None,
    )


def _filled(inputs: Tensor) -> Tensor:
    return torch.nan_to_num(inputs, 0.0, 0.0, 0.0)


def has_inputs_not_finite(training: Training) -> bool:
    with untouched(training):
        return any(not bool(torch.isfinite(inputs).all()) for inputs, _ in training.train)


def more_of(training: Training, rows: Sequence[int], times: float) -> Training:
    """The training images at ``rows`` of ``plain`` are seen ``times`` times as often; the further times unaugmented."""
    assert training.plain is not None
    return replace(training, train=Enriched(training.train, training.plain, rows, times, seed=_SHUFFLE_SEED))


# --- weights, loss, step, evaluation


def house_step(training: Training) -> Training:
    return replace(training, step=None)


def all_parameters(training: Training) -> Training:
    """The trainable parameters that the optimizer lacks join its first group: a schedule knows the groups by number."""
    if training.optimizer is not None:
        held = {id(each) for group in training.optimizer.param_groups for each in group["params"]}
        missing = [each for each in training.model.parameters() if each.requires_grad and id(each) not in held]
        training.optimizer.param_groups[0]["params"].extend(missing)
    return training


def logits(training: Training) -> Training:
    """The loss gets what the softmax was taken of: its logarithm, which differs from it by a constant a row."""
    loss = training.loss

    def of_logits(outputs: Tensor, targets: Any) -> Tensor:
        return loss(outputs.clamp(min=1e-12).log(), targets)

    return replace(training, loss=of_logits, step=None)


def house_loss(training: Training) -> Training:
    losses: dict[str, Callable[[Any, Any], Tensor]] = {
        "classification": nn.functional.cross_entropy,
        "multilabel": lambda outputs, targets: nn.functional.binary_cross_entropy_with_logits(outputs, targets.float()),
        "segmentation": partial(nn.functional.cross_entropy, ignore_index=255),
        "regression": lambda outputs, targets: nn.functional.mse_loss(
            outputs.flatten(1), targets.float().reshape(len(outputs), -1)
        ),
    }
    return replace(training, loss=losses[training.question], step=None)


def house_evaluation(training: Training) -> Training:
    return replace(training, evaluate=None)


def house_metric(training: Training) -> Training:
    return replace(training, metric=None, evaluate=None)


def known_question(training: Training) -> bool:
    return training.question != "other"


def new_weights(training: Training) -> Training:
    initialisation.draw_again(training.model)
    return training


def load_weights(training: Training) -> Training:
    if training.pretrained is not None:
        own = training.model.state_dict()
        fitting = {name: each for name, each in training.pretrained.items() if name in own}
        training.model.load_state_dict({**own, **fitting})
    return training


def frozen_norms(training: Training) -> Training:
    """What is frozen stays in evaluation mode in every step, its statistics with it."""
    take = training.take_step

    def step(batch: Batch) -> None:
        with freeze_frozen(training.model):
            take(batch)

    return replace(training, step=step)


def usual_momentum(training: Training) -> Training:
    """Batch norms follow their statistics at torch's rate, 0.1."""
    for norm in norms_of(training.model):
        norm.momentum = 0.1
        norm.track_running_stats = True
    return training


def no_momentum_set(training: Training) -> bool:
    return any(norm.momentum != 0.1 for norm in norms_of(training.model))


def longer(training: Training) -> Training:
    """Twice the epochs, by a schedule that ends with them."""
    longer = replace(training, epochs=2 * training.epochs)
    return full_schedule(longer) if training.scheduler is not None else longer


def re_estimated(training: Training) -> Training:
    """Before each validation the batch norms see the training images once more; the weights stay."""

    def before(model: nn.Module) -> None:
        re_estimate(model, training.train if training.plain is None else training.plain)

    return replace(training, prepare=before, evaluate=None)


def has_norms(training: Training) -> bool:
    return bool(norms_of(training.model))


# --- the forward pass


def dropouts_off(training: Training) -> Training:
    """In evaluation the forward pass drops nothing and adds no noise, whatever its functions are told of the mode."""
    run_within(training.model, DropoutsOff, learning=False)
    return training


def evaluates_at_random(training: Training) -> bool:
    with untouched(training), in_evaluation(training.model), torch.no_grad():
        inputs, _ = next(iter(training.val))
        once, again = training.model(inputs), training.model(inputs)
    return isinstance(once, Tensor) and not torch.equal(once, again)


def whole_graph(training: Training) -> Training:
    """While the model trains, its forward pass detaches nothing, and gradients flow through all of it."""
    run_within(training.model, GraphKept, learning=True)
    return training


def cuts_graph(training: Training) -> bool:
    return _forward_within(Cuts(), training)
