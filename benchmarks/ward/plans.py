"""A plan: everything that somebody decided about a training, and how it becomes one. Faults are other decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch
from networks import NETWORKS
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim import lr_scheduler as schedules
from worlds import WORLDS, Data, Side, World

from snellen.doctor.case import Batch, Training

Prepare = Callable[[Tensor], Tensor]  # bytes -> what the network sees
Augment = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """The fields are what is written at the top of a training script; the last eight, what stands in its middle.

    prepare, prepare_val  pixels 0..255 -> the network's inputs; None: standardised by the training images
    schedule_steps        how long the schedule believes the training to be, as a share of the steps there are
    edit_model            what is done to the fresh model
    edit_optimizer        (model, optimizer) -> optimizer
    loss, make_step       None: the usual
    judge_mode            of the model while the user validates: "eval" or "train"
    score                 (outputs, targets) -> number, as the user computes it; None: the question's own
    """

    world: World
    data: Data
    network: str = "cnn"
    norm: str = "batch"
    width: int = 12
    dropout: float = 0.0
    optimizer: str = "sgd"
    rate: float = 0.1
    body_rate: float | None = None
    decay: float = 5e-4
    schedule: str = "cosine"
    schedule_steps: float = 1.0
    epochs: int = 8
    batch: int = 32
    accumulate: int = 1
    smoothing: float = 0.0
    clip: float = 0.0
    ema: bool = False
    bf16: bool = False
    augment: Augment | None = None
    augment_val: bool = False
    shuffle: bool = True
    pretrained: bool = False
    frozen: bool = False
    prepare: Prepare | None = None
    prepare_val: Prepare | None = None
    edit_model: Callable[[nn.Module], nn.Module | None] | None = None
    edit_optimizer: Callable[[nn.Module, Optimizer], Optimizer] | None = None
    loss: Callable[[Tensor, Tensor], Tensor] | None = None
    make_step: Callable[[Parts], Callable[[Batch], Tensor]] | None = None
    judge_mode: str = "eval"
    batch_means: bool = False
    score: Callable[[Tensor, Tensor], float] | None = None
    drop_keys: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True, eq=False)
class Parts:
    """What a step needs."""

    plan: Plan
    model: nn.Module
    loss: Callable[[Any, Any], Tensor]
    optimizer: Optimizer
    average: Any = None


class Images(torch.utils.data.Dataset[Batch]):
    """A side in memory. Batches are made at once, which for images this small is most of the time saved."""

    def __init__(self, side: Side, prepare: Prepare, augment: Augment | None, seed: int) -> None:
        self.images = prepare(torch.from_numpy(side.images))
        self.targets, self.augment = torch.from_numpy(side.targets), augment
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Batch:
        images, targets = self.__getitems__([row])
        return images[0], targets[0]

    def __getitems__(self, rows: list[int]) -> Batch:
        images, targets = self.images[rows], self.targets[rows]
        return (images, targets) if self.augment is None else self.augment(images, targets, self.generator)


def loader(images: Images, batch: int, *, shuffle: bool = False, seed: int = 0) -> torch.utils.data.DataLoader[Batch]:
    generator = torch.Generator().manual_seed(seed)
    whole: Callable[[Batch], Batch] = _as_it_is
    return torch.utils.data.DataLoader(images, batch, shuffle, generator=generator, collate_fn=whole)


def _as_it_is(batch: Batch) -> Batch:
    return batch


def standardised(side: Side) -> Prepare:
    """Less the mean, by the standard deviation, of each channel of the training images."""
    pixels = torch.from_numpy(side.images).float() / 255
    mean, spread = pixels.mean((0, 2, 3))[:, None, None], pixels.std((0, 2, 3))[:, None, None] + 1e-3
    return lambda images: (images.float() / 255 - mean) / spread


def shifts(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Move a batch by up to two pixels (one, if they are tiny), each image by itself."""
    size, reach = images.shape[-1], 2 if images.shape[-1] > 10 else 1
    padded = nn.functional.pad(images, (reach,) * 4, mode="replicate")
    move = torch.randint(0, 2 * reach + 1, (len(images), 2), generator=generator)
    rows, columns = (move[:, axis, None] + torch.arange(size) for axis in (0, 1))
    batch = torch.arange(len(images))[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None]].permute(
        0, 3, 1, 2
    ).contiguous(), targets


def mirrors(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror half of the images left to right, and class maps with them."""
    rows = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(rows[:, None, None, None], images.flip(-1), images)
    return images, torch.where(rows[:, None, None], targets.flip(-1), targets) if targets.dim() == 3 else targets


def build(plan: Plan, seed: int) -> Training:
    """The training at its beginning. Everything in it follows from the plan and the seed."""
    torch.manual_seed(seed)
    usual = standardised(plan.data.train)
    prepare, prepare_val = plan.prepare or usual, plan.prepare_val or plan.prepare or usual
    train = loader(Images(plan.data.train, prepare, plan.augment, seed), plan.batch, shuffle=plan.shuffle, seed=seed)
    augment_val = plan.augment if plan.augment_val else None
    val = loader(Images(plan.data.val, prepare_val, augment_val, seed + 1), 64)
    plain = loader(Images(plan.data.train, prepare_val, None, seed), 64)
    model = _model(plan)
    loss = plan.loss or _usual_loss(plan)
    optimizer = _optimizer(plan, model)
    scheduler, scheduled = _scheduler(plan, optimizer, len(train))
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=_ema, use_buffers=True) if plan.ema else None
    parts = Parts(plan=plan, model=model, loss=loss, optimizer=optimizer, average=average)
    return Training(
        model=model,
        loss=loss,
        train=train,
        val=val,
        optimizer=optimizer,
        question=plan.world.question,
        classes=plan.world.classes,
        scheduler=scheduler,
        scheduled=scheduled,
        step=(plan.make_step or usual_step)(parts),
        evaluate=_evaluate(parts, val),
        metric=plan.score or score_of(plan.world),
        plain=plain,
        pretrained=pretrained_weights(plan) if plan.pretrained else None,
        epochs=plan.epochs,
        build=partial(build, plan),
    )


_ema = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)


def _model(plan: Plan) -> nn.Module:
    images = plan.data.train.images
    outputs = len(plan.world.classes) or 1
    network = NETWORKS[plan.network]
    model = network(images.shape[1], outputs, images.shape[-1], norm=plan.norm, width=plan.width, dropout=plan.dropout)
    if plan.pretrained:
        weights = {f"{plan.drop_keys}{name}": tensor for name, tensor in pretrained_weights(plan).items()}
        model.load_state_dict(weights, strict=False)
    if plan.frozen:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("head"))
    if plan.edit_model is not None:
        model = plan.edit_model(model) or model
    return model


def _optimizer(plan: Plan, model: nn.Module) -> Optimizer:
    trainable = {name: each for name, each in model.named_parameters() if each.requires_grad}
    groups: list[dict[str, Any]] = [{"params": list(trainable.values())}]
    if plan.body_rate is not None:
        head = [each for name, each in trainable.items() if "head" in name]
        body = [each for name, each in trainable.items() if "head" not in name]
        groups = [{"params": body, "lr": plan.body_rate}, {"params": head}]
    optimizer: Optimizer
    if plan.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, plan.rate, momentum=0.9, weight_decay=plan.decay, nesterov=True)
    elif plan.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups, plan.rate, weight_decay=plan.decay)
    else:
        optimizer = torch.optim.Adam(groups, plan.rate)
    return plan.edit_optimizer(model, optimizer) if plan.edit_optimizer else optimizer


def _scheduler(plan: Plan, optimizer: Optimizer, epoch: int) -> tuple[Any, Any]:
    """epoch: steps of one. A step of the optimizer may be several batches; the scheduler is stepped for each batch."""
    steps = max(1, round(plan.epochs * epoch * plan.schedule_steps))
    if plan.schedule == "cosine":
        return schedules.CosineAnnealingLR(optimizer, steps), "step"
    if plan.schedule == "onecycle":
        rates = [group["lr"] for group in optimizer.param_groups]
        return schedules.OneCycleLR(optimizer, rates, total_steps=steps + 1), "step"
    if plan.schedule == "restarts":
        return schedules.CosineAnnealingWarmRestarts(optimizer, T_0=max(1, plan.epochs // 4)), "epoch"
    return None, "step"


def _usual_loss(plan: Plan) -> Callable[[Any, Any], Tensor]:
    if plan.world.question == "regression":
        return nn.MSELoss()
    return nn.CrossEntropyLoss(label_smoothing=plan.smoothing)


def usual_step(parts: Parts) -> Callable[[Batch], Tensor]:
    """The step of a plain loop, with what the plan asks for: accumulation, clipping, bf16, averaged weights."""
    plan, model, optimizer, taken = parts.plan, parts.model, parts.optimizer, [0]

    def step(batch: Batch) -> Tensor:
        model.train()
        if taken[0] % plan.accumulate == 0:
            optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.bf16):
            outputs = model(batch[0])
        loss = parts.loss(outputs.float(), batch[1])
        (loss / plan.accumulate).backward()
        taken[0] += 1
        if taken[0] % plan.accumulate:
            return loss.detach()
        if plan.clip:
            nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
        optimizer.step()
        if parts.average is not None:
            parts.average.update_parameters(model)
        return loss.detach()

    return step


def _evaluate(parts: Parts, val: Any) -> Callable[[], float]:
    """The user's validation: the score of all outputs at once, or the mean over the batches."""
    plan, score = parts.plan, parts.plan.score or score_of(parts.plan.world)

    def evaluate() -> float:
        with _averaged(parts), torch.no_grad():
            parts.model.train(plan.judge_mode == "train")
            seen = [(parts.model(images), targets) for images, targets in val]
        if plan.batch_means:
            return sum(score(outputs, targets) for outputs, targets in seen) / len(seen)
        outputs, targets = (torch.cat(each) for each in zip(*seen, strict=True))
        return score(outputs, targets)

    return evaluate


class _averaged:
    """Within the block the model has the averaged weights, if the plan averages and has begun to."""

    def __init__(self, parts: Parts) -> None:
        self.parts, self.active = parts, parts.average is not None and bool(parts.average.n_averaged)

    def __enter__(self) -> None:
        if self.active:
            self.kept = {name: tensor.clone() for name, tensor in self.parts.model.state_dict().items()}
            self.parts.model.load_state_dict(self.parts.average.module.state_dict())

    def __exit__(self, *_: object) -> None:
        if self.active:
            self.parts.model.load_state_dict(self.kept)


def score_of(world: World) -> Callable[[Any, Any], float]:
    """Accuracy; of pixels, the mean over the classes; of numbers, the explained share of the variance."""
    return {"segmentation": _mean_recall, "regression": _explained}.get(world.question, _accuracy)


def _accuracy(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs.argmax(1) == targets).double().mean())


def _mean_recall(outputs: Tensor, targets: Tensor) -> float:
    predicted = outputs.argmax(1)
    present = targets.unique()
    return sum(float((predicted[targets == each] == each).double().mean()) for each in present) / len(present)


def _explained(outputs: Tensor, targets: Tensor) -> float:
    numbers, truth = outputs.flatten().double(), targets.flatten().double()
    return 1 - float(((numbers - truth) ** 2).mean() / ((truth - truth.mean()) ** 2).mean())


def pretrained_weights(plan: Plan) -> Mapping[str, Tensor]:
    """The body of the plan's network, trained on images of the same world that no side of the plan has."""
    return _pretrained(plan.world.name, plan.network, plan.norm, plan.width)


@cache
def _pretrained(world: str, network: str, norm: str, width: int) -> Mapping[str, Tensor]:
    from training import fit

    other = WORLDS[world].make(1_000_003)
    plan = Plan(world=WORLDS[world], data=other, network=network, norm=norm, width=width, augment=shifts, epochs=8)
    training = build(plan, 0)
    fit(training)
    return {name: tensor.clone() for name, tensor in training.model.state_dict().items() if "head" not in name}


def batches(side: Side, prepare: Prepare) -> Iterator[Batch]:
    """The images of a side, prepared, a few hundred at a time."""
    yield from loader(Images(side, prepare, None, 0), 250)
