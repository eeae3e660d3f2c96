"""The usual training, and the usual network: what a training is compared with when it is not known what ails it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from snellen.core.seeds import keyed_seed
from snellen.doctor import alter
from snellen.doctor.case import Training

_RATE, _DECAY, _WARM_UP = 2e-3, 1e-2, 0.1
_FEWEST_STEPS = 100


class _SmallNetwork(nn.Module):
    """Three convolutions with batch norms and a linear layer on their mean: learns small images in seconds."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        widths = (32, 64, 128)
        layers: list[nn.Module] = []
        for before, width in zip((channels, *widths), widths, strict=False):
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.early = nn.Sequential(*layers[:6])
        self.late = nn.Sequential(*layers[6:])
        self.head = nn.Linear(4 * widths[-1], outputs)

    def forward(self, images: Tensor) -> Tensor:
        seen = self.early(images)
        if min(seen.shape[2:]) >= 16:
            seen = nn.functional.max_pool2d(seen, 2)
        seen = self.late(nn.functional.max_pool2d(seen, 2) if min(seen.shape[2:]) >= 4 else seen)
        outputs: Tensor = self.head(nn.functional.adaptive_avg_pool2d(seen, 2).flatten(1))
        return outputs


class _SmallPerceptron(nn.Sequential):
    """For inputs that are no images."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(inputs, 128), nn.ReLU(), nn.Linear(128, outputs))


def usual(training: Training) -> Training:
    """The same network and images in AdamW, one cycle, standardised inputs, the usual loss, no augmentation."""
    training = alter.house_loss(alter.standardise(training))
    training = alter.plain_images(training) if alter.has_plain(training) else alter.shuffle(training)
    for parameter in training.model.parameters():
        parameter.requires_grad_(True)
    return _with_one_cycle(training)


def takes_longer(training: Training) -> bool:
    """Whether the usual training takes more epochs than this one, which is very short: it is then no fair rival."""
    return _usual_epochs(training) > training.epochs


def _usual_epochs(training: Training) -> int:
    return max(training.epochs, -(-_FEWEST_STEPS // _num_batches(training)))


def _num_batches(training: Training) -> int:
    return max(1, sum(1 for _ in training.train))


def _with_one_cycle(training: Training) -> Training:
    optimizer = torch.optim.AdamW(training.model.parameters(), lr=_RATE, weight_decay=_DECAY)
    batches, epochs = _num_batches(training), _usual_epochs(training)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=_RATE, total_steps=max(2, epochs * batches), pct_start=_WARM_UP
    )
    return replace(
        training, optimizer=optimizer, scheduler=scheduler, scheduled="step", step=None, epochs=epochs, prepare=None
    )


def reference(training: Training) -> Training:
    """A small network of ours instead of theirs, in the usual training."""
    inputs, _ = next(iter(training.val))
    with torch.no_grad():
        training.model.eval()
        outputs = training.model(inputs[:2])
    torch.manual_seed(keyed_seed("reference", 0))
    network: nn.Module
    if inputs.dim() == 4:
        network = _SmallNetwork(inputs.shape[1], outputs.shape[1])
    else:
        network = _SmallPerceptron(inputs[0].numel(), outputs.shape[1])
    return usual(replace(training, model=network.to(inputs.device)))


def can_be_usual(training: Training) -> bool:
    known = training.question in ("classification", "multilabel", "segmentation", "regression")
    return known and _has_tensors(training)


def has_reference(training: Training) -> bool:
    return training.question in ("classification", "multilabel") and _has_tensors(training)


def _has_tensors(training: Training) -> bool:
    """A network of our own, or a loss of our own, needs plain tensors."""
    if training.run_loss is not None:
        return False
    inputs, targets = next(iter(training.val))
    return isinstance(inputs, Tensor) and isinstance(targets, Tensor) and inputs.is_floating_point()
