"""Tiny healthy trainings for the doctor's tests: four kinds of net on 12x12 drawn images, learnt in about a second.

training = tiny_training("cnn", seed=3, dropout=0.5, optimizer="sgd")      fresh, not trained
learn(training)                                                            trains it for its epochs
sick = planted(training, plant)                                            plant(training), also after ``build``
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from snellen.doctor.case import Training

Kind = Literal["cnn", "mlp", "segmenter", "regression"]
KINDS: tuple[Kind, ...] = ("cnn", "mlp", "segmenter", "regression")
SIDE = 12
CLASSES = ("across", "upright", "square", "cross")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a tiny training is made.

    shift  how far, in pixels, training images are moved about at random each time they are seen; 0: not at all
    noise  standard deviation of the pixels' noise, where the drawn figure stands out by about 1.5: 2 makes it hard
    wrong  share of the training labels that are drawn at random
    """

    kind: Kind = "cnn"
    num: int = 256
    epochs: int = 8
    norm: Literal["batch", "group", "none"] = "batch"
    dropout: float = 0.1
    optimizer: Literal["sgd", "adamw"] = "adamw"
    rate: float = 0.0  # 0: what suits the optimizer
    decay: float = 1e-4
    batch: int = 32
    smoothing: float = 0.0
    noise: float = 0.5
    wrong: float = 0.0
    shift: int = 0
    drop_last: bool = False
    scheduler: Literal["none", "cycle", "cosine"] = "cycle"
    num_val: int = 0  # 0: half of num


def tiny_training(kind: Kind = "cnn", *, seed: int = 0, num: int = 256, epochs: int = 8, **changes: Any) -> Training:
    """A fresh training that is in good health. ``changes`` are further fields of ``Recipe``; ``build(seed)`` makes
    another on the same images."""
    recipe = Recipe(kind=kind, num=num, epochs=epochs, **changes)
    return _training(recipe, _images(recipe, seed), seed)


def learn(training: Training, epochs: int = 0) -> Training:
    """Train for ``epochs`` (0: its own) as a user's loop would; returns the same training, left in training mode."""
    for _ in range(epochs or training.epochs):
        for batch in training.train:
            training.take_step(batch)
            if training.scheduler is not None and training.scheduled == "step":
                training.scheduler.step()
        if training.scheduler is not None and training.scheduled == "epoch":
            training.scheduler.step()
    return training


def planted(training: Training, plant: Callable[[Training], None]) -> Training:
    """``plant`` changes a training in place; so it does with every one that ``build`` makes."""
    build = training.build
    assert build is not None

    def build_planted(seed: int) -> Training:
        return planted(build(seed), plant)

    plant(training)
    training.build = build_planted
    return training


def accuracy(training: Training) -> float:
    """Share of right answers on validation, in evaluation mode."""
    training.model.eval()
    with torch.no_grad():
        right = [(training.model(x).argmax(1) == y).float().flatten(1 if y.ndim > 1 else 0) for x, y in training.val]
    return float(torch.cat(right).mean())


class Moved(torch.utils.data.Dataset[tuple[Tensor, ...]]):
    """Images that are moved about by up to ``shift`` pixels each time one is asked for."""

    def __init__(self, images: Tensor, targets: Tensor, shift: int) -> None:
        self.images, self.targets, self.shift = images, targets, shift

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        down, right = (int(each) for each in torch.randint(-self.shift, self.shift + 1, (2,)))
        target = self.targets[index]
        moved = target.roll((down, right), (-2, -1)) if target.ndim == 2 else target
        return self.images[index].roll((down, right), (-2, -1)), moved


@dataclass(frozen=True)
class Images:
    """Inputs float [n, 3, 12, 12] and targets of both sides."""

    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]


def _images(recipe: Recipe, seed: int) -> Images:
    rng = np.random.default_rng(seed)
    sides = []
    for num in (recipe.num, recipe.num_val or recipe.num // 2):
        drawn = [_draw(int(label), recipe, rng) for label in np.arange(num) % len(CLASSES)]
        order = rng.permutation(num)
        pixels = np.stack([pixels for pixels, _ in drawn]).astype(np.float32)[order]
        targets = np.stack([target for _, target in drawn])[order]
        sides.append((torch.from_numpy(pixels), torch.from_numpy(targets)))
    if recipe.wrong and recipe.kind in ("cnn", "mlp"):
        some = torch.from_numpy(rng.random(recipe.num) < recipe.wrong)
        sides[0][1][some] = torch.from_numpy(rng.integers(0, len(CLASSES), int(some.sum())))
    return Images(*sides)


def _draw(label: int, recipe: Recipe, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
    """One figure over noise; its target is the class, the map of its pixels (class + 1, others 0), or its size."""
    figure = np.zeros((SIDE, SIDE), bool)
    size = int(rng.integers(4, 8))
    top, left = rng.integers(1, SIDE - size, 2)
    if recipe.kind == "mlp":  # a net without convolutions learns few images only where figures lie in one place
        top, left = (SIDE - size) // 2 + rng.integers(-1, 2, 2)
    middle, ends = size // 2, (top, top + size - 1)
    across = (slice(top + middle - 1, top + middle + 1), slice(left, left + size))
    upright = (slice(top, top + size), slice(left + middle - 1, left + middle + 1))
    if recipe.kind == "regression" or label == 2:
        figure[top : top + size, left : left + size] = True
        if recipe.kind != "regression":
            figure[ends[0] + 1 : ends[1], left + 1 : left + size - 1] = False
    if recipe.kind != "regression" and label in (0, 3):
        figure[across] = True
    if recipe.kind != "regression" and label in (1, 3):
        figure[upright] = True
    colour = rng.uniform(1.0, 2.0, 3)
    pixels = colour[:, None, None] * figure + rng.normal(0, recipe.noise, (3, SIDE, SIDE)) - 0.3
    if recipe.kind == "segmenter":
        return pixels, np.where(figure, label + 1, 0).astype(np.int64)
    if recipe.kind == "regression":
        return pixels, np.array([(size - 5.5) / 1.2], np.float32)
    return pixels, np.int64(label)


def _training(recipe: Recipe, images: Images, seed: int) -> Training:
    torch_state = torch.get_rng_state()
    torch.manual_seed(seed)  # of the weights
    model = _model(recipe)
    torch.set_rng_state(torch_state)
    loaded: Any = Moved(*images.train, recipe.shift) if recipe.shift else TensorDataset(*images.train)
    train: DataLoader[Any] = DataLoader(
        loaded,
        recipe.batch,
        shuffle=True,
        drop_last=recipe.drop_last,
        generator=torch.Generator().manual_seed(seed),
    )
    optimizer = _optimizer(recipe, model)
    return Training(
        model=model,
        loss=nn.MSELoss() if recipe.kind == "regression" else nn.CrossEntropyLoss(label_smoothing=recipe.smoothing),
        train=train,
        val=DataLoader(TensorDataset(*images.val), 32),
        plain=DataLoader(TensorDataset(*images.train), 32),
        optimizer=optimizer,
        question={"segmenter": "segmentation", "regression": "regression"}.get(recipe.kind, "classification"),  # type: ignore[arg-type]
        classes=CLASSES if recipe.kind in ("cnn", "mlp") else (),
        scheduler=_scheduler(recipe, optimizer, recipe.epochs * len(train)),
        epochs=recipe.epochs,
        build=lambda other: _training(recipe, images, other),
    )


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), recipe.rate or 0.2, momentum=0.9, weight_decay=recipe.decay)
    return torch.optim.AdamW(model.parameters(), recipe.rate or 5e-3, weight_decay=recipe.decay)


def _scheduler(recipe: Recipe, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    if recipe.scheduler == "cycle":
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, optimizer.param_groups[0]["lr"], total_steps=steps + 1)
    if recipe.scheduler == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return None


def _norm(recipe: Recipe, width: int, *, flat: bool = False) -> nn.Module:
    if recipe.norm == "group":
        return nn.GroupNorm(4, width)
    if recipe.norm == "none":
        return nn.Identity()
    return nn.BatchNorm1d(width) if flat else nn.BatchNorm2d(width)


def _conv(recipe: Recipe, width_in: int, width: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width_in, width, 3, stride, 1), _norm(recipe, width), nn.ReLU())


def _model(recipe: Recipe) -> nn.Module:
    if recipe.kind == "segmenter":
        return TinyUNet(recipe, len(CLASSES) + 1)
    if recipe.kind == "mlp":
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(3 * SIDE * SIDE, 64),
            _norm(recipe, 64, flat=True),
            nn.ReLU(),
            nn.Dropout(recipe.dropout),
            nn.Linear(64, len(CLASSES)),
        )
    return nn.Sequential(
        _conv(recipe, 3, 16),
        _conv(recipe, 16, 32, 2),
        _conv(recipe, 32, 32, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(recipe.dropout),
        nn.Linear(32, 1 if recipe.kind == "regression" else len(CLASSES)),
    )


class TinyUNet(nn.Module):
    """Two scales and one skip; [n, 3, h, w] -> [n, classes, h, w]."""

    def __init__(self, recipe: Recipe, classes: int) -> None:
        super().__init__()
        self.fine = _conv(recipe, 3, 12)
        self.coarse = _conv(recipe, 12, 24, 2)
        self.join = _conv(recipe, 36, 16)
        self.drop = nn.Dropout2d(recipe.dropout)
        self.head = nn.Conv2d(16, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.fine(images)
        coarse = F.interpolate(self.coarse(fine), scale_factor=2.0)
        answer: Tensor = self.head(self.drop(self.join(torch.cat([fine, coarse], 1))))
        return answer
