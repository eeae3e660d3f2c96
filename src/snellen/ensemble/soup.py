"""A soup: one network whose weights are the mean of several networks' weights (Wortsman et al. 2022, arXiv:2203.05482).

It works where the networks were fine-tuned from the same pretrained weights and lie in one valley of the loss; networks
from other starts have no mean worth having, and the greedy rule then keeps the best one alone.

Statistics of batch norms are not averaged where they differ: those of the averaged weights are narrower than the mean
of the members' (Jordan et al. 2022, arXiv:2211.08403). They are measured anew on training images, as for any average
of weights (Izmailov et al. 2018, arXiv:1803.05407). Where all members have the same, because they were kept from
pretraining, they are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from snellen.core.checkpoint import Checkpoint
from snellen.core.errors import ConfigError
from snellen.core.plan import Plan
from snellen.core.record import Record
from snellen.data.image_sets import ImageSet
from snellen.data.loader import EVALUATION_BATCH, evaluation_batches
from snellen.data.store import ImageStore
from snellen.nn.placement import to_device
from snellen.tasks.loading import LoadedModel, load_model

MEASURED_ON = 1024  # training images, at most
_STATISTICS = ("running_mean", "running_var")
_BUILD = (
    "classes",
    "model",
    "architecture",
    "preprocessing",
    "norm",
    "activation",
    "feature_stage",
    "target_mean",
    "target_std",
)


def check_alike(checkpoints: Sequence[Checkpoint], names: Sequence[str]) -> None:
    """Raises ConfigError for networks that have no mean: other parts, other shapes, another scale of their outputs."""
    first, shapes = checkpoints[0], _shapes(checkpoints[0])
    for name, other in zip(names[1:], checkpoints[1:], strict=True):
        odd = [each for each in _BUILD if getattr(other.plan, each) != getattr(first.plan, each)]
        if odd or _shapes(other) != shapes:
            what = ", ".join(each.replace("_", " ") for each in odd) or "the shapes of their weights"
            raise ConfigError(
                f"a soup needs members of one architecture, and {names[0]} and {name} differ in {what}: use way = mean "
                "or weighted"
            )


def _shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in checkpoint.weights.items()}


def mean_weights(weights: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of every tensor; whole numbers, which only count, are those of the first."""
    return {
        name: torch.stack([each[name].double() for each in weights]).mean(0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in weights[0].items()
    }


def statistics_differ(weights: Sequence[Mapping[str, Tensor]]) -> bool:
    """Whether the members' batch norms have seen different images."""
    first = weights[0]
    named = [name for name in first if name.rpartition(".")[2] in _STATISTICS]
    return any(not torch.equal(first[name], other[name]) for other in weights[1:] for name in named)


class Soups:
    """Networks of averaged weights, made of ``checkpoints`` of one architecture.

    train  images that all of them learnt from: what batch norms are measured on
    """

    def __init__(self, checkpoints: Sequence[Checkpoint], train: Sequence[Record], device: str) -> None:
        self._checkpoints, self._train, self._device = checkpoints, train[:MEASURED_ON], device

    def mixed(self, members: Collection[int]) -> tuple[LoadedModel, Checkpoint]:
        """The mean of some of the members, ready to be asked, and what can be saved of it."""
        chosen = [self._checkpoints[k] for k in sorted(members)]
        weights = [each.weights for each in chosen]
        rules = [each.decision for each in chosen]
        decision = tuple(sum(numbers) / len(rules) for numbers in zip(*rules, strict=True)) if all(rules) else ()
        told = f"soup of {len(chosen)} models" if len(chosen) > 1 else chosen[0].origin
        mixed = replace(
            chosen[0], weights=mean_weights(weights), origin=told, epoch=0, step=0, metrics={}, decision=decision
        )
        model = load_model(mixed, device=self._device)
        if statistics_differ(weights):
            measure_batch_norms(model.network, self._train, model.plan)
            mixed = replace(mixed, weights=model.network.state_dict())
        return model, mixed


def measure_batch_norms(network: nn.Module, train: Sequence[Record], plan: Plan) -> None:
    """Mean and variance of what enters each batch norm, over ``train`` as they are, without augmentation."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # each batch counts alike
        norm.train()
    store = ImageStore(preprocessing=plan.preprocessing, budget=0, keep_sources=False)
    images = ImageSet(records=train, targets=[None] * len(train), store=store)
    with torch.inference_mode():
        for batch in evaluation_batches(images, EVALUATION_BATCH, plan.workers):
            if len(batch) > 1:  # a single image has no variance in the last layers
                network(to_device(batch, plan).images)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    network.eval()


def greedy_soup(order: Sequence[int], score: Callable[[tuple[int, ...]], float]) -> tuple[int, ...]:
    """Members are tried in ``order``, the best first; each is added where the soup's score does not fall."""
    chosen: tuple[int, ...] = (order[0],)
    best = score(chosen)
    for member in order[1:]:
        found = score((*chosen, member))
        if found >= best:
            chosen, best = (*chosen, member), found
    return tuple(sorted(chosen))
