"""The training loop: what it visits, how it goes on after a stop, when it ends, and what it says when it fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shapes import save_folders
from snellen.core.errors import DivergenceError
from snellen.core.estimate import Estimate
from snellen.data.augment import Augmentation
from snellen.data.image_sets import Variation
from snellen.data.loader import evaluation_batches, steps_per_epoch, training_batches
from snellen.train import loop
from snellen.train.loop import Trainer
from snellen.train.schedule import phases
from snellen.train.session import Session
from tiny_runs import SETTINGS, SIDE, different, fresh, never, start, state_of, unsaved

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Data that tests share; they take a fresh trainer each, with ``fresh``."""
    folder = tmp_path_factory.mktemp("session")
    return start(save_folders(folder / "data", per_class=14, side=SIDE), folder, **SETTINGS)


# --- the order of the images


def variation(images: Session, seed: int = 0, **augmentation: Any) -> Variation:
    return Variation(augmentation=Augmentation(**augmentation), by_batch=True, seed=seed)


def visited(images: Session, epoch: int, seed: int = 0, **more: Any) -> list[str]:
    batches = training_batches(
        images.sides["train"], variation(images, seed), epoch=epoch, batch_size=8, **{"workers": 1, **more}
    )
    return [image_id for batch in batches for image_id in batch.ids]


def test_an_epoch_visits_every_image_once_in_an_order_of_its_own(images: Session) -> None:
    everything = sorted(record.id for record in images.sides["train"].records)
    first = visited(images, 0)
    assert sorted(first) == everything and first != everything
    assert visited(images, 0) == first
    assert visited(images, 0, workers=3) == first
    assert sorted(visited(images, 1)) == everything and visited(images, 1) != first
    assert visited(images, 0, seed=1) != first
    assert visited(images, 0, first=2) == first[16:]


@pytest.mark.parametrize(
    ("num", "size", "steps"), [(32, 8, 4), (33, 8, 4), (34, 8, 5), (1, 8, 1), (3, 8, 1), (9, 1, 9)]
)
def test_a_last_batch_of_one_image_is_left_out(num: int, size: int, steps: int) -> None:
    assert steps_per_epoch(num, size) == steps


@pytest.mark.parametrize("by_batch", [True, False])
def test_any_number_of_workers_makes_the_same_pixels(by_batch: bool, images: Session) -> None:
    varied = Variation(augmentation=Augmentation.for_photos(), by_batch=by_batch, seed=3)

    def batches(workers: int, epoch: int) -> list[Tensor]:
        made = training_batches(images.sides["train"], varied, epoch=epoch, batch_size=8, workers=workers)
        return [batch.images.clone() for batch in made]

    one, many, later = batches(1, 0), batches(4, 0), batches(1, 1)
    assert len(one) == len(many) > 2
    assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, later, strict=True))


def test_any_number_of_workers_gives_the_same_weights(images: Session) -> None:
    trainers = [fresh(images, workers=workers, augmentation={"translate": 0.2}) for workers in (1, 4)]
    for trainer in trainers:
        assert trainer.run(should_stop=never, checkpoint=unsaved) == "finished"
    assert different(*map(state_of, trainers)) == []


def test_batch_size_changes_neither_order_nor_pixels_of_evaluation(images: Session) -> None:
    side = images.sides["val"]

    def pixels(size: int, workers: int) -> Tensor:
        return torch.cat([batch.images for batch in evaluation_batches(side, size, workers)])

    assert len(pixels(32, 1)) == len(side) > 4
    assert torch.equal(pixels(32, 1), pixels(3, 2))


# --- what a run goes on from


class Stop(Exception):
    pass


def stopped_at(step: int, path: Path, make: Callable[[], Trainer]) -> Trainer:
    """A fresh trainer that was loaded from what another saved at ``step``, where that one was killed."""

    def save_and_die(trainer: Trainer) -> None:
        if trainer.progress.step == step:
            trainer.save(path)
            raise Stop

    with pytest.raises(Stop):
        make().run(should_stop=never, checkpoint=save_and_die)
    again = make()
    again.load(path)
    assert again.progress.step == step
    return again


# 4 steps an epoch: head for one epoch, then the body
@pytest.mark.parametrize(("step", "frozen"), [*((step, False) for step in (1, 3, 4, 5, 8, 11, 12)), (5, True)])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(
    step: int, frozen: bool, images: Session, tmp_path: Path
) -> None:
    def make() -> Trainer:
        varied = {"translate": 0.2, "hflip": 0.5}
        return fresh(images, head_epochs=1, epochs=2, freeze_norm=frozen, augmentation=varied)

    whole = make()
    assert whole.steps_per_epoch == 4
    seen: list[dict[str, Any]] = []
    whole.observers = [Recorder(seen)]
    assert whole.run(should_stop=never, checkpoint=unsaved) == "finished"
    again = stopped_at(step, tmp_path / "last.safetensors", make)
    seen_again: list[dict[str, Any]] = []
    again.observers = [Recorder(seen_again)]
    assert again.run(should_stop=never, checkpoint=unsaved) == "finished"
    assert different(state_of(whole), state_of(again)) == []
    assert again.progress == whole.progress
    assert seen_again == [event for event in seen if event["step"] > step]


@pytest.mark.parametrize("step", [2, 3, 6])
@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "nesterov", "schedule": "one-cycle", "accumulate": 2, "batch_size": 4, "lookahead": True},
        {"optimizer": "adagrad", "schedule": "step", "l1": 0.001, "frozen_stages": 1, "layer_decay": 0.5},
        {"optimizer": "radam", "schedule": "inverse", "lookahead": True, "ema": 0.0},
        {"optimizer": "nadam", "schedule": "plateau", "patience": 1},
    ],
    ids=lambda changes: changes["optimizer"],
)
def test_every_kind_of_step_goes_on_to_the_same_bits(
    changes: dict[str, Any], step: int, images: Session, tmp_path: Path
) -> None:
    def make() -> Trainer:
        return fresh(images, **{"head_epochs": 1, "epochs": 1, **changes})

    whole = make()
    end = whole.run(should_stop=never, checkpoint=unsaved)
    again = stopped_at(step, tmp_path / "last.safetensors", make)
    assert again.run(should_stop=never, checkpoint=unsaved) == end
    assert different(state_of(whole), state_of(again)) == [] and again.progress == whole.progress


class Recorder:
    def __init__(self, seen: list[dict[str, Any]]) -> None:
        self.seen = seen

    def __call__(self, event: Mapping[str, Any]) -> None:
        self.seen.append(dict(event))

    def close(self) -> None:
        pass


def test_the_head_learns_alone_before_the_body_does(images: Session) -> None:
    trainer = fresh(images, head_epochs=1, epochs=1)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    moved_in: dict[str, set[str]] = {}

    def look(trainer: Trainer) -> None:
        phase = "head" if trainer.progress.step <= trainer.steps_per_epoch else "body"
        moved = {name for name, tensor in trainer.model.state_dict().items() if not torch.equal(tensor, before[name])}
        moved_in[phase] = moved

    trainer.run(should_stop=never, checkpoint=look)
    assert [phase.name for phase in phases(trainer.plan)] == ["head", "body"]
    assert moved_in["head"] == {"head.weight", "head.bias"}
    assert {"backbone.stem.0.weight", "backbone.stem.1.running_mean"} <= moved_in["body"]


def test_frozen_batch_norms_stay_as_they_are_while_all_else_learns(images: Session) -> None:
    trainer = fresh(images, head_epochs=0, epochs=1, freeze_norm=True)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    norms = {name for name, part in trainer.model.named_modules() if isinstance(part, nn.BatchNorm2d)}
    trainer.run(should_stop=never, checkpoint=unsaved)
    moved = {name for name, tensor in trainer.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert norms and not any(name.rpartition(".")[0] in norms for name in moved)
    assert {"backbone.stem.0.weight", "head.weight"} <= moved


# --- when it ends


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[tuple[float | None, float]]) -> None:
    """Validation as told: (headline, or None where it is undefined; loss) after each epoch."""
    script = iter(scores)
    current: list[tuple[float | None, float]] = []

    class Assessed:
        predicted = truth = ()

        def __init__(self, loss: float) -> None:
            self.loss = loss

    def assess(*arguments: object) -> Assessed:
        current[:] = [next(script)]
        return Assessed(current[0][1])

    def score(*arguments: object, **more: object) -> dict[str, Estimate]:
        value = current[0][0]
        return {} if value is None else {"accuracy": Estimate(value=value, n=9)}

    monkeypatch.setattr(loop, "assess", assess)
    monkeypatch.setattr(loop, "score", score)


def kept_epochs(images: Session, **changes: Any) -> tuple[Trainer, list[int]]:
    kept: list[int] = []
    trainer = fresh(images, keep_best=lambda weights, epoch, step, metrics: kept.append(epoch), **changes)
    return trainer, kept


def test_training_stops_when_validation_has_not_been_better_for_long(
    images: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [(0.5, 1.0), (0.7, 1.0), (0.6, 1.0), (0.7, 1.0), (0.9, 1.0)])
    trainer, kept = kept_epochs(images, epochs=5, patience=2)
    assert trainer.run(should_stop=never, checkpoint=unsaved) == "early stopping"
    assert kept == [1, 2] and trainer.progress.step == 4 * trainer.steps_per_epoch


@pytest.mark.parametrize("killed_after", [0, 1, 3, 4, 5])
def test_a_plateau_divides_the_rate_also_in_a_resumed_run(
    killed_after: int, images: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the patience without a lower loss; a headline that gets better does not count."""
    scripted(monkeypatch, [(0.1, 1.0), (0.2, 0.9), (0.3, 0.95), (0.4, 0.9), (0.5, 0.8), (0.6, 0.9)])
    seen: list[dict[str, Any]] = []

    def make() -> Trainer:
        trainer, _ = kept_epochs(images, epochs=6, patience=4, schedule="plateau", warmup_steps=0)
        trainer.observers = [Recorder(seen)]
        return trainer

    trainer = stopped_at(4 * killed_after, tmp_path / "last.safetensors", make) if killed_after else make()
    assert trainer.run(should_stop=never, checkpoint=unsaved) == "finished"
    rates = [event["lr"] for event in seen if event["event"] == "epoch"]
    assert rates == pytest.approx([0.01] * 4 + [0.001] * 2)


@pytest.mark.parametrize("killed_after", [3, 4])
def test_a_resumed_run_stops_early_where_the_other_did(
    killed_after: int, images: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [(0.5, 1.0), (0.7, 1.0), (0.6, 1.0), (0.7, 1.0), (0.9, 1.0)])
    trainer = stopped_at(
        4 * killed_after, tmp_path / "last.safetensors", lambda: kept_epochs(images, epochs=5, patience=2)[0]
    )
    assert trainer.run(should_stop=never, checkpoint=unsaved) == "early stopping"
    assert trainer.progress.step == 4 * trainer.steps_per_epoch


def test_equal_headlines_are_decided_by_the_loss(images: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [(0.5, 1.0), (0.5, 0.9), (0.5, 0.95), (0.5, 0.9), (0.4, 0.1), (0.6, 3.0)])
    trainer, kept = kept_epochs(images, epochs=6)
    trainer.run(should_stop=never, checkpoint=unsaved)
    assert kept == [1, 2, 6]
    assert (trainer.progress.best_value, trainer.progress.best_loss, trainer.progress.best_epoch) == (0.6, 3.0, 6)


def test_a_headline_that_is_undefined_loses_to_any_other(
    images: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [(None, 1.0), (None, 0.5), (None, 0.7), (0.0, 2.0), (None, 0.1)])
    trainer, kept = kept_epochs(images, epochs=5)
    trainer.run(should_stop=never, checkpoint=unsaved)
    assert kept == [1, 2, 4]
    trainer.save(tmp_path / "last.safetensors")
    trainer.load(tmp_path / "last.safetensors")


def test_what_is_kept_is_the_average_and_training_goes_on_with_the_weights(images: Session) -> None:
    kept: dict[str, Tensor] = {}

    def keep(weights: Mapping[str, Tensor], *rest: object) -> None:
        kept.update({name: tensor.clone() for name, tensor in weights.items()})

    trainer = fresh(images, epochs=1, keep_best=keep)
    trainer.run(should_stop=never, checkpoint=unsaved)
    assert trainer.ema is not None
    assert different(kept, trainer.ema.average) == []
    assert "head.weight" in different(kept, trainer.model.state_dict())
    assert "backbone.stem.1.running_mean" in different(kept, trainer.model.state_dict())


# --- when it goes wrong


def test_weights_that_overflow_name_step_weights_and_images(images: Session) -> None:
    trainer = fresh(images)
    with torch.no_grad():
        trainer.model.get_submodule("backbone").blocks[1].conv1.weight[0, 0, 0, 0] = float("inf")  # type: ignore
    with pytest.raises(DivergenceError) as caught:
        trainer.run(should_stop=never, checkpoint=unsaved)
    words = str(caught.value)
    assert "at step 0: the weights 'backbone.blocks.1.conv1.weight' are no longer finite" in words
    first = visited(images, 0)[:8]
    assert ", ".join(first[:4]) in words and "--lr" in words


class Explodes(nn.Module):
    """Lets everything through; from the given call on as NaN."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.calls, self.at = 0, at

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * float("nan") if self.calls > self.at else x


def test_the_first_module_that_gives_a_nan_is_named_with_its_step(images: Session) -> None:
    trainer = fresh(images)
    trainer.model.dropout = Explodes(at=2)
    with pytest.raises(DivergenceError, match=r"at step 2: .*not finite comes out of 'dropout'; the batch held "):
        trainer.run(should_stop=never, checkpoint=unsaved)
    assert trainer.progress.step == 2


def test_a_gradient_that_is_not_finite_is_named_although_the_loss_is(images: Session) -> None:
    trainer = fresh(images)
    trainer.model.get_submodule("head").weight.register_hook(lambda gradient: gradient * float("inf"))  # type: ignore
    with pytest.raises(DivergenceError, match=r"at step 0: the gradient of 'head\.weight' is not finite, although"):
        trainer.run(should_stop=never, checkpoint=unsaved)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in trainer.model.parameters())


def test_a_validation_loss_that_is_not_finite_says_after_which_step(images: Session) -> None:
    kept: list[int] = []
    trainer = fresh(images, keep_best=lambda weights, epoch, *rest: kept.append(epoch))
    trainer.model.dropout = Explodes(at=4)  # the four training steps of the first epoch pass
    with pytest.raises(DivergenceError, match=r"after step 4 the validation loss is not finite .* Lower --lr"):
        trainer.run(should_stop=never, checkpoint=unsaved)
    assert kept == []
