"""A run is judged by its own loss, whatever its task: image by image, and with nothing of it changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scenes import save_scenes
from snellen.doctor.case import Case
from snellen.doctor.experiments.judged import judgements
from snellen.doctor.of_run import Trainings
from snellen.doctor.run_judge import RunJudge
from snellen.evaluate import assess
from tiny_runs import start


@pytest.fixture(scope="module", params=["segmentation", "detection", "instances"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp(request.param)
    data = save_scenes(request.param, root / "data", num=60, side=32)
    session = start(
        data, root, task=request.param, model="small-resnet", pretrained=False, input_size=32, split=(0.5, 0.5, 0.0)
    )
    return Case(training=Trainings(session, session.console).training(session.plan))


def judge_of(case: Case) -> RunJudge:
    assert case.training is not None and isinstance(case.training.judge, RunJudge)
    return case.training.judge


def test_losses_and_metric_are_those_of_validation(case: Case) -> None:
    judge = judge_of(case)
    rows = range(judge.count("val"))
    found = judge.judged("val", rows)
    assert len(found.losses) == len(rows) and np.isfinite(found.losses).all()
    assert np.array_equal(found.losses, judge.judged("val", rows).losses)
    if judge.task.name == "segmentation":  # of the others a batch divides by the objects of all its images
        whole = assess(judge.model, judge.task, judge.sides["val"], judge.plan)
        assert found.mean == pytest.approx(whole.loss, rel=1e-3)
    assert found.metric == judge.task.headline and 0 <= found.score <= 1


def test_marks_of_others_and_moved_inputs_change_what_is_judged(case: Case) -> None:
    judge, rows = judge_of(case), range(24)
    own = judge.judged("train", rows)
    others = judge.judged("train", rows, marks=[*rows[1:], 0])
    black = judge.judged("train", rows, moved=torch.zeros_like)
    assert not np.array_equal(own.losses, others.losses) and not np.array_equal(own.losses, black.losses)
    assert np.array_equal(black.losses, judge.judged("train", rows, moved=lambda x: x * 0 - 9).losses)  # clipped


def test_the_images_are_a_batch_that_a_step_takes_and_no_bit_is_left_changed(case: Case) -> None:
    training, seen = case.training, judgements(case)
    assert training is not None and seen is not None and training.build is not None
    before = {name: each.clone() for name, each in training.model.state_dict().items()}
    fresh = training.build(0)
    losses = [fresh.take_step(seen.images("train", 8)) for _ in range(2)]
    assert np.isfinite(losses).all()
    seen.side("val"), seen.by_others("train")
    assert all(torch.equal(each, before[name]) for name, each in training.model.state_dict().items())
