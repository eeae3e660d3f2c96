"""What can be wrong with images, labels, sides and how pixels become inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from plans import Augment, Plan, Prepare, standardised
from torch import Tensor, nn
from worlds import Data, Side


def keyed(plan: Plan) -> np.random.Generator:
    """Draws that follow from the plan's images, so that a seed has one version of a fault."""
    return np.random.default_rng(int(plan.data.train.images[:16].sum()))


def _with(plan: Plan, train: Side | None = None, val: Side | None = None) -> Plan:
    data = plan.data
    return replace(plan, data=Data(train=train or data.train, val=val or data.val, hidden=data.hidden))


def _joined(*sides: Side) -> Side:
    return Side(
        images=np.concatenate([side.images for side in sides]), targets=np.concatenate([side.targets for side in sides])
    )


def thin(plan: Plan, ratio: float) -> Plan:
    """The rarest class keeps one image in ``ratio``, the others something in between."""
    train, classes = plan.data.train, len(plan.world.classes)
    keep = keyed(plan).random(len(train)) < np.geomspace(1, 1 / ratio, classes)[train.targets]
    keep[[np.flatnonzero(train.targets == each)[0] for each in range(classes)]] = True
    return _with(plan, train.at(np.flatnonzero(keep)))


def drop_classes(plan: Plan, number: int) -> Plan:
    return _with(plan, plan.data.train.at(np.flatnonzero(plan.data.train.targets >= number)))


def drop_val_classes(plan: Plan, number: int) -> Plan:
    return _with(plan, val=plan.data.val.at(np.flatnonzero(plan.data.val.targets >= number)))


def mark_corner(plan: Plan, share: float) -> Plan:
    """A square in the corner that tells the class by its brightness, on both sides, but not in the world."""
    rng, classes = keyed(plan), len(plan.world.classes)

    def marked(side: Side) -> Side:
        images, rows = side.images.copy(), np.flatnonzero(rng.random(len(side)) < share)
        extent = max(2, images.shape[-1] // 5)
        shade = (255 * side.targets[rows] / (classes - 1)).astype(np.uint8)
        images[rows, :, :extent, :extent] = shade[:, None, None, None]
        return replace(side, images=images)

    return _with(plan, marked(plan.data.train), marked(plan.data.val))


def blacken(plan: Plan, share: float) -> Plan:
    images = plan.data.train.images.copy()
    images[keyed(plan).random(len(images)) < share] = 0
    return _with(plan, replace(plan.data.train, images=images))


def cut(plan: Plan, number: int) -> Plan:
    return _with(plan, plan.data.train.at(np.arange(min(number, len(plan.data.train)))))


def not_finite(plan: Plan, number: int) -> Plan:
    """A few images have a pixel that is no number, as a division by an empty range leaves it."""
    usual = standardised(plan.data.train)
    rows = torch.from_numpy(keyed(plan).permutation(len(plan.data.train))[:number])

    def prepare(images: Tensor) -> Tensor:
        inputs = usual(images)
        inputs[rows, 0, 0, 0] = torch.nan
        return inputs

    return replace(plan, prepare=prepare, prepare_val=usual)


def noise(plan: Plan, share: float) -> Plan:
    """A share of the labels of training is drawn from the other classes; a share of 1 is a shuffle of all."""
    rng, targets, classes = keyed(plan), plan.data.train.targets.copy(), len(plan.world.classes)
    if share == 1.0:
        return _with(plan, replace(plan.data.train, targets=rng.permutation(targets)))
    rows = rng.random(len(targets)) < share
    targets[rows] = (targets[rows] + rng.integers(1, classes, int(rows.sum()))) % classes
    return _with(plan, replace(plan.data.train, targets=targets))


def conflict(plan: Plan, share: float) -> Plan:
    """A share of the training images is there twice, the second time with another label."""
    train, rng, classes = plan.data.train, keyed(plan), len(plan.world.classes)
    copies = train.at(np.flatnonzero(rng.random(len(train)) < share))
    targets = (copies.targets + rng.integers(1, classes, len(copies))) % classes
    return _with(plan, _joined(train, replace(copies, targets=targets)))


def confuse(plan: Plan, share: float) -> Plan:
    """A share of one class is labelled as the next."""
    targets = plan.data.train.targets.copy()
    targets[(targets == 1) & (keyed(plan).random(len(targets)) < share)] = 2
    return _with(plan, replace(plan.data.train, targets=targets))


def roll_classes(plan: Plan, share: float) -> Plan:
    """Validation numbers a share of the classes otherwise than training."""
    classes = len(plan.world.classes)
    some = np.arange(max(2, round(share * classes)))
    order = np.arange(classes)
    order[some] = np.roll(some, 1)
    return _with(plan, val=replace(plan.data.val, targets=order[plan.data.val.targets]))


def shift_labels(plan: Plan, rows: int) -> Plan:
    """Every label belongs to a neighbour in the list, on both sides."""
    sides = (replace(side, targets=np.roll(side.targets, rows)) for side in (plan.data.train, plan.data.val))
    return _with(plan, *sides)


def leak(plan: Plan, share: float) -> Plan:
    """A share of the validation images is among those of training."""
    val = plan.data.val
    return _with(plan, _joined(plan.data.train, val.at(np.flatnonzero(keyed(plan).random(len(val)) < share))))


def oversample(plan: Plan, share: float) -> Plan:
    """A share of all images is doubled, and only then the sides are drawn."""
    rng, both = keyed(plan), _joined(plan.data.train, plan.data.val)
    doubled = np.concatenate([np.arange(len(both)), np.flatnonzero(rng.random(len(both)) < share)])
    order, number = rng.permutation(doubled), len(plan.data.val)
    return _with(plan, both.at(order[number:]), both.at(order[:number]))


def darken_val(plan: Plan, light: float) -> Plan:
    return _with(plan, val=replace(plan.data.val, images=(plan.data.val.images * light).astype(np.uint8)))


def new_camera(plan: Plan, share: float) -> Plan:
    """A share of the images outside training comes from a camera whose pictures are negatives; training has none."""
    rng = keyed(plan)

    def seen_by(side: Side) -> Side:
        rows = rng.random(len(side)) < share
        images = np.where(rows[:, None, None, None], 255 - side.images // 2, side.images)
        return replace(side, images=images, facts={"camera": ["B" if row else "A" for row in rows]})

    data = plan.data
    return replace(plan, data=Data(train=data.train, val=seen_by(data.val), hidden=seen_by(data.hidden)))


def scale_inputs(plan: Plan, factor: float) -> Plan:
    """Inputs of 0..factor instead of standardised ones."""
    return replace(plan, prepare=lambda images: images.float() / 255 * factor)


def prepare_val_otherwise(plan: Plan, how: str) -> Plan:
    """Validation, and whoever uses the model as it was validated, prepares pixels in another way than training."""
    usual = standardised(plan.data.train)
    pool, back = nn.functional.avg_pool2d, nn.functional.interpolate
    ways: dict[str, Prepare] = {
        "mean": lambda images: usual(images) + usual(torch.full_like(images, 128)) - usual(torch.zeros_like(images)),
        "std": lambda images: images.float() / 255,
        "bytes": lambda images: images.float(),
        "turn": lambda images: usual(images.roll(1, 1)),
        "swap": lambda images: usual(images[:, [1, 0, 2]]),
        "reverse": lambda images: usual(images.flip(1)),
        "blur": lambda images: pool(usual(images), 3, 1, 1),
        "half": lambda images: back(pool(usual(images), 2), size=images.shape[-2:]),
        "quarter": lambda images: back(pool(usual(images), 4), size=images.shape[-2:]),
    }
    return replace(plan, prepare=usual, prepare_val=ways[how])


def sort(plan: Plan, share: float) -> Plan:
    """Training images lie in the order of their classes, a share of them at least, and nobody shuffles."""
    targets, rng = plan.data.train.targets, keyed(plan)
    order = np.argsort(targets, kind="stable")
    loose = np.flatnonzero(rng.random(len(order)) >= share)
    order[loose] = order[rng.permutation(loose)]
    return replace(_with(plan, plan.data.train.at(order)), shuffle=False)


def noisy(strength: float) -> Augment:
    def add(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return images + strength * torch.randn(images.shape, generator=generator), targets

    return add


def turns(plan: Plan, share: float) -> Plan:
    """A share of the images is turned by a right angle or mirrored, though their classes are not the same then."""

    def turn(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        which = torch.randint(1, 6, (len(images),), generator=generator)
        which = which * (torch.rand(len(images), generator=generator) < share)
        turned = [images, *(images.rot90(count, (2, 3)) for count in (1, 2, 3)), images.flip(2), images.flip(3)]
        return torch.stack(turned)[which, torch.arange(len(images))], targets

    return replace(plan, augment=turn)


def erases(plan: Plan, share: float) -> Plan:
    """A box of a share of the picture is emptied, anywhere."""

    def erase(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        size = images.shape[-1]
        extent = round(size * share**0.5)
        corners = torch.randint(0, size - extent + 1, (2, len(images), 1), generator=generator)
        inside = (torch.arange(size) >= corners) & (torch.arange(size) < corners + extent)
        return images.masked_fill((inside[0][:, :, None] & inside[1][:, None])[:, None], 0.0), targets

    return replace(plan, augment=erase)


def image_only_mirrors(plan: Plan, share: float) -> Plan:
    """A share of the images is mirrored, the class maps are not."""

    def mirror(images: Tensor, targets: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
        rows = torch.rand(len(images), generator=generator) < share
        return torch.where(rows[:, None, None, None], images.flip(-1), images), targets

    return replace(plan, augment=mirror)
