"""Whether the answer hangs on a mark: a network that reads a mark is found out, one that reads the figure is left in
peace, and painting the mark over makes the network look at the figure."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from doctor_cases import learn, tiny_training
from snellen.doctor.case import Case, Training
from snellen.doctor.changes import PAINTED_OVER, change_of
from snellen.doctor.experiments.marks import answer_hangs_on_a_mark
from snellen.doctor.learning import learn as learn_anew
from snellen.doctor.loaders import Mapped
from snellen.doctor.regions import REGIONS
from snellen.doctor.scores import score_images
from snellen.doctor.trial import Rule, try_change


class _Marked:
    """Batches whose images have a square in the lower right corner that is as bright as their class is high."""

    def __init__(self, source: object, share: float) -> None:
        self._source, self._share = source, share

    def __iter__(self):  # type: ignore[no-untyped-def]
        for count, (inputs, targets) in enumerate(self._source):  # type: ignore[call-overload]
            drawn = torch.rand(len(targets), generator=torch.Generator().manual_seed(count)) < self._share
            marked = inputs.clone()
            marked[drawn, :, -3:, -3:] = (3.0 * targets[drawn] - 4).view(-1, 1, 1, 1)
            yield marked, targets


def _marked(training: Training, share: float = 1.0) -> Training:
    return replace(training, train=_Marked(training.train, share), val=_Marked(training.val, share))


@pytest.mark.parametrize("share", [1.0, 0.9])
def test_a_network_that_reads_a_mark_is_found_out(share: float) -> None:
    training = learn(_marked(tiny_training(noise=1.5), share))
    (found,) = answer_hangs_on_a_mark(Case(training=training))
    assert found.code == "shortcut-border" and found.is_diagnosis
    assert found.evidence["region"] == "lower right corner"
    assert found.evidence["follows"] > 0.5 > 0.4 > found.evidence["follows_rest"]
    assert "lower right corner" in found.message
    assert found.treatment == {"change": PAINTED_OVER, "region": "lower right corner"}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["cnn", "mlp"])
def test_a_network_that_reads_the_figure_is_left_in_peace(kind: str, seed: int) -> None:
    training = learn(tiny_training(kind, seed=seed))  # type: ignore[arg-type]
    assert not list(answer_hangs_on_a_mark(Case(training=training, seed=seed)))


def test_nothing_is_said_of_a_network_that_knows_nothing() -> None:
    assert not list(answer_hangs_on_a_mark(Case(training=_marked(tiny_training()))))


def test_painted_over_the_figure_is_learnt_again() -> None:
    sick = _marked(tiny_training(noise=0.8))
    treated = _without_the_corner(_marked(tiny_training(noise=0.8)))
    clean = list(tiny_training(noise=0.8).val)
    for training in (sick, treated):
        learn_anew(training, seed=0)
    before = score_images(sick, clean).mean
    after = score_images(treated, Mapped(clean, lambda inputs: _painted(treated, inputs))).mean
    assert after > before + 0.1


def test_the_trial_is_judged_without_the_mark_for_with_it_the_sick_look_best() -> None:
    def begin(seed: int) -> Training:
        return replace(_marked(tiny_training(noise=0.8, num=160, epochs=5, seed=seed)), build=begin)

    change = change_of({"change": PAINTED_OVER, "region": "lower right corner"})
    assert change is not None
    trial = try_change(Case(training=begin(0)), change, Rule(seeds=2))
    assert trial is not None and trial.word == "helped" and trial.after > trial.before + 0.1


def _without_the_corner(training: Training) -> Training:
    change = change_of({"change": PAINTED_OVER, "region": "lower right corner"})
    assert change is not None and change.fits(training)
    return change.apply(training)


def _painted(training: Training, inputs: Tensor) -> Tensor:
    """As the treated training paints validation images."""
    assert isinstance(training.val, Mapped)
    painted: Tensor = training.val.move(inputs)
    return painted


def test_the_examination_leaves_every_bit() -> None:
    training = learn(_marked(tiny_training(noise=1.5)))
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    modes, state = [module.training for module in training.model.modules()], torch.get_rng_state()
    assert list(answer_hangs_on_a_mark(Case(training=training)))
    assert all(torch.equal(value, before[name]) for name, value in training.model.state_dict().items())
    assert modes == [module.training for module in training.model.modules()]
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("size", [(8, 8), (12, 30), (224, 224)])
def test_regions_lie_in_the_image_and_leave_most_of_it(size: tuple[int, int]) -> None:
    image = torch.zeros(1, 3, *size)
    masks = [region.mask(image) for region in REGIONS.values()]
    assert all(0 < mask.float().mean() <= 0.17 for mask in masks)
    assert not bool(torch.stack(masks).any(0)[..., size[0] // 2, size[1] // 2].any())
