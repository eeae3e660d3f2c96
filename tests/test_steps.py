"""One step of the loop: made of several batches, of one image or of all, clipped or not, at planned rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shapes import save_folders
from snellen.core.errors import ConfigError, DivergenceError
from snellen.nn.network import Network
from snellen.nn.small_resnet import SmallResNet
from snellen.nn.stages import parameter_stages
from snellen.train.loop import Trainer
from snellen.train.schedule import momentum_at, planned_rates
from snellen.train.session import Session
from tiny_runs import SETTINGS, SIDE, different, fresh, never, start, state_of, trainer_of, unsaved

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Data that tests share; they take a fresh trainer each."""
    folder = tmp_path_factory.mktemp("session")
    return start(save_folders(folder / "data", per_class=14, side=SIDE), folder, **SETTINGS)


class Pooled(nn.Module):
    """One convolution and nothing that looks across images, but for ``norm``."""

    num_features = 6

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.norm = norm or nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        pooled: Tensor = self.norm(self.conv(images).relu().mean((2, 3)))
        return pooled


def over(images: Session, backbone: nn.Module, **changes: Any) -> Trainer:
    """A trainer of a network with ``backbone``, without an average."""
    torch.manual_seed(3)
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
    network = Network(images.plan.preprocessing, backbone, 3)
    plan = replace(images.plan, patience=99, ema=0.0, epochs=2)
    return trainer_of(replace(images, model=network, plan=plan), **changes)


def told_by(trainer: Trainer) -> list[dict[str, Any]]:
    """The events of a whole run."""
    events: list[dict[str, Any]] = []

    class Recorder:
        def __call__(self, event: Mapping[str, Any]) -> None:
            events.append(dict(event))

        def close(self) -> None:
            pass

    trainer.observers = [Recorder()]
    assert trainer.run(should_stop=never, checkpoint=unsaved) == "finished"
    return events


def steps_told(trainer: Trainer) -> list[dict[str, Any]]:
    return [event for event in told_by(trainer) if event["event"] == "step"]


# --- several batches in one step


@pytest.mark.parametrize(("small", "times"), [(8, 4), (4, 8), (1, 99), (7, 3)])
@pytest.mark.parametrize("changes", [{}, {"l1": 0.01, "l2": 0.01, "optimizer": "momentum"}])
def test_accumulated_batches_make_the_step_of_one_large_batch(
    small: int, times: int, changes: dict[str, Any], images: Session
) -> None:
    """Also where the last batch, or the last step, is a smaller one."""
    one = over(images, Pooled(), batch_size=small * times, **changes)
    many = over(images, Pooled(), batch_size=small, accumulate=times, **changes)
    assert one.steps_per_epoch == many.steps_per_epoch == -(-len(images.sides["train"]) // (small * times))
    whole, parts = steps_told(one), steps_told(many)
    for name, tensor in one.model.state_dict().items():
        assert torch.allclose(tensor, many.model.state_dict()[name], rtol=1e-4, atol=1e-6), name
    assert [event["step"] for event in parts] == list(range(1, 2 * one.steps_per_epoch + 1))
    for name in ("train/step_loss", "train/gradient_norm", "lr"):
        assert [event[name] for event in parts] == pytest.approx([event[name] for event in whole], rel=1e-3), name


def test_the_batch_whose_loss_is_not_finite_is_named_among_those_of_a_step(images: Session) -> None:
    trainer = over(images, Pooled(), batch_size=8, accumulate=3)
    batches = next(trainer.steps(0))
    assert len(batches) == 3
    broken = replace(batches[1], images=batches[1].images.float() * float("nan"))
    with pytest.raises(DivergenceError) as caught:
        trainer.train_on([batches[0], broken, batches[2]])
    assert broken.ids[0] in str(caught.value) and batches[0].ids[0] not in str(caught.value)


def test_every_image_is_visited_once_however_steps_are_made(images: Session) -> None:
    trainer = over(images, Pooled(), batch_size=4, accumulate=3)
    steps = list(trainer.steps(0))
    assert len(steps) == trainer.steps_per_epoch
    ids = [image_id for batches in steps for batch in batches for image_id in batch.ids]
    assert sorted(ids) == sorted(record.id for record in images.sides["train"].records)
    trainer.progress.step = 2
    assert [[batch.ids for batch in batches] for batches in trainer.steps(0)] == [
        [batch.ids for batch in batches] for batches in steps[2:]
    ]


# --- one image, and all of them


def test_per_sample_and_batch_descent_take_as_many_steps_as_their_names_say(images: Session) -> None:
    num = len(images.sides["train"])
    for size, steps in ((1, num), (num, 1)):
        trainer = over(images, SmallResNet(SIDE, width=4), batch_size=size, epochs=1)
        told = steps_told(trainer)
        assert len(told) == steps and all(np.isfinite(event["train/step_loss"]) for event in told)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(6), nn.Sequential(nn.Unflatten(1, (6, 1)), nn.InstanceNorm1d(6))])
def test_a_single_image_that_cannot_be_normalised_is_refused_with_what_to_do(norm: nn.Module, images: Session) -> None:
    with pytest.raises(
        ConfigError, match=r"a batch of one image .* use --norm group, or a --batch-size of 2"
    ) as caught:
        over(images, Pooled(norm), batch_size=1).run(should_stop=never, checkpoint=unsaved)
    assert "\n" not in str(caught.value)


def test_any_other_error_of_a_model_stays_its_own(images: Session) -> None:
    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("of its own")

    with pytest.raises(ValueError, match=r"^of its own$"):
        over(images, Pooled(Wrong())).run(should_stop=never, checkpoint=unsaved)


# --- clipping, penalties


def test_a_gradient_is_shortened_to_the_norm_that_is_asked_for_and_never_for_0(images: Session) -> None:
    def moved(clip_norm: float) -> float:
        """How far the first step of plain descent at rate 1 goes."""
        settings = {"optimizer": "sgd", "lr": 1.0, "body_lr": 1.0, "weight_decay": 0.0, "warmup_steps": 0}
        trainer = over(images, Pooled(), clip_norm=clip_norm, **settings)
        before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
        trainer.train_on(next(trainer.steps(0)))
        way = [(before[name] - parameter.detach()).flatten() for name, parameter in trainer.model.named_parameters()]
        return float(torch.cat(way).norm())

    free, short, loose = moved(0.0), moved(0.01), moved(1e6)
    assert short == pytest.approx(0.01, rel=1e-3)
    assert free == loose > 0.05


def test_each_penalty_is_told_as_a_term_of_its_own_beside_the_loss(images: Session) -> None:
    trainer = over(images, Pooled(), l1=0.25, l2=0.5, epochs=1)
    weights = [parameter.detach().clone() for parameter in trainer.model.parameters() if parameter.dim() > 1]
    first = steps_told(trainer)[0]
    assert first["train/l1_penalty"] == pytest.approx(0.25 * sum(float(each.abs().sum()) for each in weights))
    assert first["train/l2_penalty"] == pytest.approx(0.5 * sum(float(each.square().sum()) for each in weights))
    plain = steps_told(over(images, Pooled(), epochs=1))[0]
    assert plain["train/step_loss"] == first["train/step_loss"]
    assert not any("penalty" in name for name in plain)
    assert plain["train/gradient_norm"] != first["train/gradient_norm"]


# --- rates, momentum, stages


@pytest.mark.parametrize("schedule", ["constant", "step", "inverse", "cosine", "one-cycle"])
def test_the_rates_that_are_run_are_those_that_are_planned(schedule: str, images: Session) -> None:
    trainer = over(images, Pooled(), schedule=schedule, head_epochs=1, warmup_steps=3, optimizer="nesterov")
    ran = [event["lr"] for event in steps_told(trainer)]
    assert ran == pytest.approx(planned_rates(trainer.plan, trainer.steps_per_epoch).tolist(), rel=1e-12)


@pytest.mark.parametrize(("optimizer", "usual"), [("momentum", 0.8), ("adamw", 0.9)])
def test_momentum_cycles_with_the_one_cycle(optimizer: str, usual: float, images: Session) -> None:
    trainer = over(images, Pooled(), schedule="one-cycle", optimizer=optimizer, momentum=0.8, warmup_steps=0)
    seen: list[float] = []
    take_step = trainer.optimizer.step

    def step(*arguments: Any) -> Any:
        group = trainer.optimizer.param_groups[0]
        seen.append(group["betas"][0] if "betas" in group else group["momentum"])
        return take_step(*arguments)

    trainer.optimizer.step = step  # type: ignore[method-assign]
    steps_told(trainer)
    assert seen == [momentum_at(usual, "one-cycle", i, len(seen), 0) for i in range(len(seen))]
    assert min(seen) < usual < max(seen)


def test_frozen_stages_keep_weights_and_statistics_and_the_others_learn(images: Session) -> None:
    trainer = fresh(images, frozen_stages=1, epochs=1)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.run(should_stop=never, checkpoint=unsaved)
    moved = set(different(before, trainer.model.state_dict()))
    stages = parameter_stages(trainer.model.get_submodule("backbone"))
    frozen = {f"backbone.{name}" for name, stage in stages.items() if stage == 0}
    assert frozen and not moved & frozen
    assert {f"backbone.{name}" for name, stage in stages.items() if stage > 0} <= moved
    assert "backbone.stem.1.running_mean" not in moved and "backbone.blocks.1.bn1.running_mean" in moved


# --- what is validated, and what is saved


def test_lookahead_validates_the_slow_weights(images: Session) -> None:
    kept: dict[str, Tensor] = {}

    def keep(weights: Mapping[str, Tensor], *rest: object) -> None:
        kept.update({name: tensor.clone() for name, tensor in weights.items()})

    trainer = fresh(images, epochs=1, ema=0.0, lookahead=True, keep_best=keep)
    assert trainer.steps_per_epoch == 4  # fewer than the five between two pulls
    trainer.run(should_stop=never, checkpoint=unsaved)
    assert trainer.lookahead is not None
    assert all(torch.equal(kept[name], tensor) for name, tensor in trainer.lookahead.slow.items())
    fast = fresh(images, epochs=1, ema=0.0)
    fast.run(should_stop=never, checkpoint=unsaved)
    assert "head.weight" in different(kept, fast.model.state_dict())


def test_a_state_of_before_there_were_plateaus_can_be_gone_on_from(images: Session, tmp_path: Path) -> None:
    from snellen.core.checkpoint import load_tensors, save_tensors

    trainer = fresh(images, epochs=1)
    trainer.run(should_stop=never, checkpoint=unsaved)
    trainer.save(tmp_path / "last.safetensors")
    tensors, header = load_tensors(tmp_path / "last.safetensors")
    del header["progress"]["plateau"]
    save_tensors(tmp_path / "old.safetensors", tensors, header)
    again = fresh(images, epochs=1)
    again.load(tmp_path / "old.safetensors")
    assert again.progress == replace(trainer.progress) and different(state_of(again), state_of(trainer)) == []
